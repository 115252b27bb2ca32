"""The word rule: NumPy, kernel and reference split every text into the same words."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_sparse.student.unicode_sparse_ngram import ALONE, DROPPED, LETTER, SEPARATOR, code_point_table
from hf_sparse.student.words_sparse_ngram import (
    check_word_rule,
    clean_texts,
    encode_tokens,
    load_tokenizer,
    normalise_texts,
    resolve_clean,
    segment_texts,
    split_sklearn,
    word_strings,
)
from hf_sparse.vocabulary import unicode_table
from tests import reference
from tests.texts import ANY_TEXT, PIECES, make_tokenizer_json


def numpy_words(texts: list[str], clean: str = "html") -> list[list[str]]:
    segments = segment_texts(texts, resolve_clean("words", clean))
    words, ends = word_strings(segments), np.cumsum(segments.num_words).tolist()
    return [words[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@settings(max_examples=400, deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=5), st.sampled_from(["html", "none"]))
@example(["", "\ud800", ""], "html")
def test_numpy_splits_like_the_reference(texts: list[str], clean: str) -> None:
    """Every batch of any texts has the reference's words, text by text."""
    assert numpy_words(texts, clean) == [reference.words(text, clean) for text in texts]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't!", ["don", "'", "t", "!"]),
        ("so good<br /><br/>SO<BR>bad <br", ["so", "good", "so", "bad", "<", "br"]),
        ("snake_case x² 3.5", ["snake_case", "x2", "3", ".", "5"]),
        ("soft\u00adhyphen zero\u200dwidth heart❤\ufe0fs", ["softhyphen", "zerowidth", "heart", "❤", "s"]),
        ("漢字とカナ、한국어", ["漢", "字", "と", "カ", "ナ", "、", "한국어"]),
        ("İstanbul ΑΣ", ["istanbul", "ασ"]),
        ("e\u0301te\u0301 हिन्दी", ["été", "हिन्दी"]),
        ("a\x00b\ud800c\ue000d\u0378e", ["a", "b", "c", "d", "e"]),
        ("👨\u200d👩", ["👨", "👩"]),
        ("ﬁne Ｆull", ["fine", "full"]),
    ],
)
def test_documented_examples(text: str, words: list[str]) -> None:
    """What the description of the rule promises, spelled out."""
    assert numpy_words([text]) == [words]
    assert reference.words(text) == words


def test_neighbours_do_not_matter() -> None:
    """A text has the same words alone and anywhere in a batch."""
    texts = ["".join(PIECES[start::7]) for start in range(7)]
    assert numpy_words(texts) == [numpy_words([text])[0] for text in texts]


def test_clean_none_keeps_breaks() -> None:
    assert numpy_words(["a<br>b"], "none") == [["a", "<", "br", ">", "b"]]
    assert list(clean_texts(["a<br>b", "c"], "none")) == ["a<br>b", "c"]


@pytest.mark.parametrize("plane", [0, 1, 2, 14, 16])
def test_every_code_point_is_split_like_the_reference(plane: int) -> None:
    """Each code point of a plane between two letters; the planes left out are like 2 or hold nothing assigned."""
    text = "".join(f"x{chr(point)}y " for point in range(plane << 16, (plane + 1) << 16))
    assert numpy_words([text])[0] == reference.words(text)


def test_after_normalising_only_spaces_separate() -> None:
    """NFKC brings back nothing that step 2 has taken out, so its order with step 2 is settled."""
    kinds = code_point_table() >> np.uint32(24)
    kept = np.flatnonzero((kinds == LETTER) | (kinds == ALONE))
    text = unicodedata.normalize("NFKC", "".join(map(chr, kept.tolist())))
    classes = {int(kinds[ord(character)]) for character in set(text) - {" "}}
    assert classes == {LETTER, ALONE}


def test_ascii_texts_are_not_normalised() -> None:
    texts = ["a\nb\x00", "é\u00a0e\u0301\n"]
    assert normalise_texts(texts) == ["a\nb\x00", "é é "]


@pytest.mark.skipif(unicodedata.unidata_version != unicode_table.UNICODE_VERSION, reason="made with Python 3.11")
def test_table_is_what_its_script_writes() -> None:
    """The committed table is the script's output, byte by byte, and means what the script says."""
    committed = unicode_table.TARGET.read_text(encoding="utf-8")
    assert committed == unicode_table.module_text()
    expected = [unicode_table.lower(p) | unicode_table.classify(p) << 24 for p in range(0x110000)]
    np.testing.assert_array_equal(code_point_table(), np.array(expected, dtype=np.uint32))


def test_table_classes() -> None:
    """Known members of each class, so that the script cannot drift together with its table."""
    kinds = (code_point_table() >> np.uint32(24)).tolist()
    for characters, kind in [
        ("aZé0_²\u0301हि한", LETTER),
        ("!?'-$€👍字ひカㄅ々〇", ALONE),
        (" \n\t\x00\u00a0\u3000\u2028\ud800\ue000\u0378", SEPARATOR),
        ("\u00ad\u200b\u200d\ufeff\ufe0f\U000e0100\u180b", DROPPED),
    ]:
        assert {kinds[ord(character)] for character in characters} == {kind}, characters
    assert chr(int(code_point_table()[0x130]) & 0xFFFFFF) == "i"
    assert not code_point_table().flags.writeable


def test_sklearn_words() -> None:
    assert split_sklearn(["Don't go, a B2!", "\ud800"]) == [["don", "go", "b2"], []]


@pytest.mark.parametrize("word_rule", ["", "word", "hf:", "WORDS"])
def test_unknown_word_rule(word_rule: str) -> None:
    with pytest.raises(ValueError, match="word_rule must be"):
        check_word_rule(word_rule)


def test_clean_defaults() -> None:
    assert [resolve_clean(rule, None) for rule in ("words", "sklearn", "hf:x")] == ["html", "none", "html"]
    with pytest.raises(ValueError, match="clean must be one of html, none, got 'HTML'"):
        resolve_clean("words", "HTML")


def test_tokenizer_takes_any_text() -> None:
    """Lone surrogates, which `tokenizers` refuses, are replaced; padding and truncation in the file are not used."""
    tokenizer = load_tokenizer(make_tokenizer_json())
    ids, lengths = encode_tokens(tokenizer, ["a b", "\ud800", "", "a b a b a b a b"])
    assert lengths.tolist() == [2, 1, 0, 8]
    assert [tokenizer.id_to_token(token) for token in ids.tolist()[:3]] == ["a", "b", "[UNK]"]


def test_broken_tokenizer() -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(b"{}")
