"""Slow and readable: the word rule and the extraction of n-grams, written from their description.

Nothing is shared with the package but the pinned table of code points.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from hf_sparse.student.unicode_sparse_ngram import ALONE, DROPPED, LETTER, SEPARATOR, code_point_table

_TABLE = code_point_table()


def _class(character: str) -> int:
    return int(_TABLE[ord(character)]) >> 24


def _lower(character: str) -> str:
    return chr(int(_TABLE[ord(character)]) & 0xFFFFFF)


def words(text: str, clean: str = "html") -> list[str]:
    """Return the words of a text by rule `"words"`."""
    if clean == "html":
        text = re.sub("<[bB][rR] ?/?>", " ", text)
    text = "".join(" " if _class(c) == SEPARATOR else c for c in text)
    text = "".join(c for c in text if _class(c) != DROPPED)
    text = unicodedata.normalize("NFKC", text)
    found: list[str] = []
    current = ""
    for character in text:
        if _class(character) == LETTER:
            current += _lower(character)
            continue
        if current:
            found.append(current)
            current = ""
        if _class(character) == ALONE:
            found.append(_lower(character))
    return [*found, current] if current else found


def ngram_rows(text_words: list[str], rows: Mapping[tuple[str, ...], int], max_n: int) -> list[int]:
    """Return the rows of the n-grams of a text, by the place of their first word, then by n."""
    return [
        rows[tuple(text_words[start : start + n])]
        for start in range(len(text_words))
        for n in range(1, max_n + 1)
        if start + n <= len(text_words) and tuple(text_words[start : start + n]) in rows
    ]


def count(
    documents: Iterable[list[str]], *, num_ngrams: int, max_n: int, min_documents: int = 1, min_count: int = 1
) -> list[tuple[tuple[str, ...], int]]:
    """Return the most frequent n-grams of documents given as words, with their counts, in the vocabulary's order."""
    counts: Counter[tuple[str, ...]] = Counter()
    num_documents: Counter[tuple[str, ...]] = Counter()
    for document in documents:
        ngrams = [tuple(document[i : i + n]) for n in range(1, max_n + 1) for i in range(len(document) - n + 1)]
        counts.update(ngrams)
        num_documents.update(set(ngrams))
    kept = [(g, c) for g, c in counts.items() if c >= min_count and num_documents[g] >= min_documents]
    return sorted(kept, key=lambda item: (-item[1], len(item[0]), item[0]))[:num_ngrams]
