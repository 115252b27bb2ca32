"""What the way from a text to its label has to touch, counted the slow and plain way on real texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary


@dataclass(frozen=True, kw_only=True)
class TextProbes:
    """The look-ups of one text: `words` by word id (-1 for an unknown one), `ngrams` by prefix node and word, `rows`.

    A word is looked up once for each time it occurs; an n-gram where its prefix was found and its last word is known,
    also when it is not there itself. `rows` are those that are fetched.
    """

    words: tuple[int, ...]
    ngrams: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ProbeSequence:
    """The look-ups of many texts end to end: keys, rows, and where those of each text end.

    `words` (T,) int64, `ngrams` (P, 2) int64, `rows` (N,) int64; `word_ends`, `ngram_ends`, `row_ends`,
    `byte_ends` (B,) int64.
    """

    words: npt.NDArray[np.int64]
    word_ends: npt.NDArray[np.int64]
    ngrams: npt.NDArray[np.int64]
    ngram_ends: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    row_ends: npt.NDArray[np.int64]
    byte_ends: npt.NDArray[np.int64]

    @property
    def num_texts(self) -> int:
        """Number of texts."""
        return int(self.byte_ends.size)


class PlainVocabulary:
    """A vocabulary as dictionaries."""

    def __init__(self, vocabulary: NgramVocabulary) -> None:
        """Put words and nodes into dictionaries."""
        self.max_n = vocabulary.max_n
        self._words = {word: index for index, word in enumerate(vocabulary.word_list)}
        keys = zip(vocabulary.node_prefix.tolist(), vocabulary.node_word.tolist(), strict=True)
        self._nodes = {key: node for node, key in enumerate(keys)}
        self._rows = vocabulary.node_row.tolist()

    def probe(self, words: Sequence[str]) -> TextProbes:
        """Return the look-ups of a text that is given as its words.

        An n-gram is looked for only where its first words are one: the vocabulary has the prefixes of all its n-grams.
        """
        ids = [self._words.get(word, -1) for word in words]
        # The node of a single word lies beside its id: no look-up of its own.
        nodes = [self._nodes.get((-1, word)) for word in ids]
        found = [node for node in nodes if node is not None]
        ngrams: list[tuple[int, int]] = []
        for n in range(1, self.max_n):
            longer: list[int | None] = []
            for place, node in enumerate(nodes):
                following = ids[place + n] if place + n < len(ids) else -1
                if node is None or following < 0:
                    longer.append(None)
                    continue
                ngrams.append((node, following))
                longer.append(self._nodes.get((node, following)))
            nodes = longer
            found += [node for node in nodes if node is not None]
        rows = tuple(self._rows[node] for node in found if self._rows[node] > 0)
        return TextProbes(words=tuple(ids), ngrams=tuple(ngrams), rows=rows)


def join_probes(texts: Sequence[str], probes: Sequence[TextProbes]) -> ProbeSequence:
    """Put the look-ups of texts end to end."""

    def ends(sizes: list[int]) -> npt.NDArray[np.int64]:
        return np.cumsum(np.array(sizes, dtype=np.int64))

    ngrams = np.array([key for one in probes for key in one.ngrams], dtype=np.int64).reshape(-1, 2)
    return ProbeSequence(
        words=np.array([word for one in probes for word in one.words], dtype=np.int64),
        word_ends=ends([len(one.words) for one in probes]),
        ngrams=ngrams,
        ngram_ends=ends([len(one.ngrams) for one in probes]),
        rows=np.array([row for one in probes for row in one.rows], dtype=np.int64),
        row_ends=ends([len(one.rows) for one in probes]),
        byte_ends=ends([len(text.encode("utf-8", "surrogatepass")) for text in texts]),
    )
