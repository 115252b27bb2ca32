r"""What a word is: the rules that split a text, the same in training, in serving and in the compiled kernel.

Rule `"words"` (the default) is defined for every `str`, by the table of `unicode_sparse_ngram.py` and nothing else:

1.  Cleaning, where `clean` is `"html"`: `<br>`, `<br/>` and `<br />`, in any case, become a space.
2.  Every code point of class SEPARATOR becomes a space: white space, controls, lone surrogates, private use and what
    Unicode 14.0 does not assign. Code points of class DROPPED vanish without breaking a word: format characters
    (the soft hyphen and the zero-width joiner among them) and variation selectors. Then NFKC. As only code points
    that Unicode 14.0 assigns are left, NFKC gives the same under every later version of Unicode.
3.  Each code point becomes its lower case, one for one and without regard to its neighbours.
4.  A run of code points of class LETTER (letters, marks, numbers, connectors such as `_`) is a word. Every code point
    of class ALONE is a word: punctuation and symbols (`don't` is `don`, `'`, `t`), and the characters of Han,
    Hiragana, Katakana and Bopomofo. A space separates.

Rule `"sklearn"` is the default of scikit-learn's `CountVectorizer`: the pattern `(?u)\b\w\w+\b` over
`text.lower()`, with the Unicode data of the Python it runs on. Rule `"hf:<repo or folder>"` takes the tokens of any
fast tokenizer of the Hub as words, without special tokens. Cleaning comes first under every rule; it is `"html"`
unless told, but `"none"` for `"sklearn"`, which so gives exactly the n-grams of `CountVectorizer`.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .unicode_sparse_ngram import ALONE, DROPPED, LETTER, SEPARATOR, code_point_table

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Clean: TypeAlias = Literal["html", "none"]
CLEANINGS: Final = ("html", "none")
HF_PREFIX: Final = "hf:"

_BREAK: Final = re.compile(r"<br ?/?>", re.IGNORECASE | re.ASCII)
_SKLEARN_WORD: Final = re.compile(r"(?u)\b\w\w+\b")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Where the words of a batch of texts lie, by rule `"words"`.

    `codes` (uint8 or uint32) holds the lower-case code points of the batch; word `w` is `codes[starts[w]:ends[w]]`.
    `starts` and `ends` are (T,) int64 for the T words of all texts, `num_words` (B,) int64 their number in each text.
    """

    codes: npt.NDArray[np.uint8] | npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    num_words: npt.NDArray[np.int64]


def check_word_rule(word_rule: str) -> None:
    """Refuse a word rule that does not exist.

    Raises:
        ValueError: The rule is not `words`, `sklearn` or `hf:<repo or folder>`.
    """
    is_hf = word_rule.startswith(HF_PREFIX) and len(word_rule) > len(HF_PREFIX)
    if word_rule not in ("words", "sklearn") and not is_hf:
        raise ValueError(f"word_rule must be 'words', 'sklearn' or 'hf:<repo or folder>', got {word_rule!r}")


def resolve_clean(word_rule: str, clean: str | None) -> Clean:
    """Return the cleaning to use: the given one, or the default of the word rule when it is None.

    Raises:
        ValueError: The cleaning is neither None nor one of `CLEANINGS`.
    """
    if clean is None:
        return "none" if word_rule == "sklearn" else "html"
    if clean not in CLEANINGS:
        raise ValueError(f"clean must be one of {', '.join(CLEANINGS)}, got {clean!r}")
    return "html" if clean == "html" else "none"


def clean_texts(texts: Sequence[str], clean: Clean) -> Sequence[str]:
    """Replace the line breaks of HTML by spaces, or return the texts as they are when `clean` is `"none"`."""
    if clean == "none":
        return texts
    return [_BREAK.sub(" ", text) if "<" in text else text for text in texts]


def normalise_texts(texts: Sequence[str]) -> list[str]:
    """Apply step 2 of rule `"words"`: spaces for separators, nothing for what is dropped, then NFKC.

    ASCII texts come back as they are: their separators need no replacement, and NFKC leaves them alone.
    """
    normalised = list(texts)
    chosen = [index for index, text in enumerate(normalised) if not text.isascii()]
    if not chosen:
        return normalised
    joined = "\n".join([normalised[index] for index in chosen])
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).copy()
    classes = code_point_table()[codes] >> np.uint32(24)
    codes[classes == SEPARATOR] = ord(" ")
    # Every line feed is a space now, so those put back at the joints are the only ones. None composes with a mark.
    codes[np.cumsum([len(normalised[index]) + 1 for index in chosen])[:-1] - 1] = ord("\n")
    kept = codes[classes != DROPPED].tobytes().decode("utf-32-le")
    for index, text in zip(chosen, unicodedata.normalize("NFKC", kept).split("\n"), strict=True):
        normalised[index] = text
    return normalised


def segment_texts(texts: Sequence[str], clean: Clean) -> Segments:
    """Split texts by rule `"words"`, all at once.

    The memory taken is some 30 bytes a character: split a large corpus into batches.
    """
    normalised = normalise_texts(clean_texts(texts, clean))
    joined = "\n".join(normalised)
    codes: npt.NDArray[np.uint8] | npt.NDArray[np.uint32]
    if joined.isascii():
        table = code_point_table()[:128]
        raw = np.frombuffer(joined.encode("ascii"), dtype=np.uint8)
        codes, classes = table.astype(np.uint8)[raw], (table >> np.uint32(24)).astype(np.uint8)[raw]
    else:
        entries = code_point_table()[np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)]
        codes, classes = entries & np.uint32(0xFFFFFF), (entries >> np.uint32(24)).astype(np.uint8)
    inside, alone = classes == LETTER, classes == ALONE
    starts, ends = inside | alone, inside | alone
    starts[1:] &= ~(inside[1:] & inside[:-1])
    ends[:-1] &= ~(inside[:-1] & inside[1:])
    word_starts = np.flatnonzero(starts)
    text_ends = np.cumsum(np.fromiter(map(len, normalised), np.int64, len(normalised)) + 1)
    num_words = np.diff(np.searchsorted(word_starts, text_ends), prepend=0)
    return Segments(codes=codes, starts=word_starts, ends=np.flatnonzero(ends) + 1, num_words=num_words)


def word_strings(segments: Segments) -> list[str]:
    """Return the words of all texts as strings, one after the other."""
    text = "".join(map(chr, segments.codes.tolist()))
    return [text[start:end] for start, end in zip(segments.starts.tolist(), segments.ends.tolist(), strict=True)]


def split_sklearn(texts: Sequence[str]) -> list[list[str]]:
    """Split texts by rule `"sklearn"`."""
    return [_SKLEARN_WORD.findall(text.lower()) for text in texts]


def load_tokenizer(tokenizer_json: bytes) -> "Tokenizer":
    """Build the tokenizer of a rule `"hf:"` from the bytes of its `tokenizer.json`, without padding or truncation.

    Raises:
        ValueError: The bytes are not a tokenizer that the installed `tokenizers` understands.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
    except Exception as error:
        raise ValueError(f"this tokenizer.json cannot be read by the installed `tokenizers`: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode_tokens(tokenizer: "Tokenizer", texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the token ids of all texts, one after the other, and the number of tokens of each text.

    Lone surrogates, which no tokenizer takes, become U+FFFD.
    """
    valid = [text if text.isascii() else _SURROGATE.sub("\ufffd", text) for text in texts]
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(valid, add_special_tokens=False)]
    num_tokens = np.fromiter(map(len, ids), np.int64, len(ids))
    return np.fromiter(chain.from_iterable(ids), np.int64, int(num_tokens.sum())), num_tokens
