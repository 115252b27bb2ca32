"""Texts on which implementations of a word rule differ, and a tokenizer small enough to read."""

from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

# Pieces chosen because implementations differ on them: scripts without spaces, marks, joiners, casing, compatibility
# forms, what Unicode does not assign, and HTML breaks whole and broken.
PIECES = [
    *("a", "b", "Z", "0", "_", " ", "\n", "\t", "\x00", "\x7f", "'", "!", "?", "-", "<", ">", "/"),
    *("<br>", "<BR/>", "<br />", "<br", "<br  />", "<br/ >", "＜br＞", "<b\u00adr>"),
    *("字", "漢", "ひ", "カ", "ㄅ", "々", "か\u3099", "が", "ー", "한", "\u1112\u1161\u11ab", "ｶﾞ"),
    *("é", "e\u0301", "\u0301", "\u0338", "ﬁ", "ſ", "①", "²", "Ａ", "\u212b", "\u2126", "\u00a8", "ﷺ"),
    *("İ", "I", "ı", "i\u0307", "Σ", "ς", "ΑΣ", "ẞ", "ß", "Ⱥ", "ǅ"),
    *("م", "\u064e", "\u0640", "\u200f", "ہ", "ﻻ", "नि", "ก็"),
    *("\u200d", "\u200c", "\u00ad", "\ufeff", "\ufe0f", "\U000e0101", "\u180e", "\u2060"),
    *("👨\u200d👩\u200d👧", "👍🏽", "1\ufe0f\u20e3", "🇩🇪", "€", "𝔘", "\U0001f1e6"),
    *("\ud800", "\udfff", "\ue000", "\u0378", "\U000e0080", "\U0010ffff", "\u00a0", "\u2028", "\u3000"),
    "internationalisation",
]
ASCII_PIECES = [piece for piece in PIECES if piece.isascii()]
ANY_TEXT = (
    st.text(st.characters(codec=None, exclude_categories=()))
    | st.lists(st.sampled_from(PIECES)).map("".join)
    # ASCII takes a path of its own.
    | st.lists(st.sampled_from(ASCII_PIECES)).map("".join)
)


def make_tokenizer_json() -> bytes:
    """Return the file of a tokenizer that splits at spaces, knows three words, and asks to pad and to truncate."""
    words = {"[UNK]": 0, "a": 1, "b": 2, "c": 3}
    tokenizer = Tokenizer(models.WordLevel(vocab=words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_padding(length=5)
    tokenizer.enable_truncation(max_length=4)
    return tokenizer.to_str().encode()
