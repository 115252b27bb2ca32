"""Hold phrases out of SST-2's training set for validation: those of sentences of which none stays in training.

GLUE's training set is 67,349 phrases cut out of some 8,000 sentences, so phrases held out at random stand, nearly
unchanged, in training too. Here sentences are held out: a phrase goes to validation if it occurs in held-out
sentences alone.

    python recipes/sst2/prepare.py data/sst2/train.parquet runs/sst2/data
"""

import argparse
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_sparse.files import whole_file


class Sentences:
    """Phrases that no other phrase contains, and a search for those that contain a phrase.

    Args:
        phrases: All phrases.
    """

    def __init__(self, phrases: list[str]) -> None:
        self._counts = Counter(word for phrase in phrases for word in set(phrase.split()))
        self._by_word: dict[str, list[str]] = defaultdict(list)
        for phrase in sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase)):
            if not self.containing(phrase):
                for word in set(phrase.split()):
                    self._by_word[word].append(phrase)
        self.all = sorted({sentence for found in self._by_word.values() for sentence in found})

    def containing(self, phrase: str) -> list[str]:
        """Return the sentences in which a phrase occurs as whole words."""
        words = phrase.split()
        if not words:
            return []
        rarest = min(words, key=lambda word: (self._counts[word], word))
        return [sentence for sentence in self._by_word[rarest] if f" {phrase.strip()} " in f" {sentence.strip()} "]


def main() -> None:
    """Write train.parquet and validation.parquet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="Parquet file with a column of phrases")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--share", type=float, default=0.1, help="of the sentences that are held out")
    arguments = parser.parse_args()
    table = pq.read_table(arguments.train)
    if arguments.text_column not in table.column_names:
        raise ValueError(
            f"{arguments.train} has no column {arguments.text_column!r}, but {', '.join(table.column_names)}"
        )
    phrases = [phrase or "" for phrase in table[arguments.text_column].to_pylist()]
    sentences = Sentences(phrases)
    count = round(len(sentences.all) * arguments.share)
    if not 0 < count < len(sentences.all):
        raise ValueError(
            f"--share {arguments.share} of {len(sentences.all)} sentences is {count}: some must be held out, some kept"
        )
    held_out = set(random.Random(0).sample(sentences.all, count))
    mask = [bool(found := sentences.containing(phrase)) and held_out.issuperset(found) for phrase in phrases]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, wanted in (("train", False), ("validation", True)):
        with whole_file(arguments.folder / f"{name}.parquet") as temporary:
            part = table.filter(pa.array([held is wanted for held in mask], pa.bool_()))
            pq.write_table(part, temporary)
            print(f"{part.num_rows} phrases in {arguments.folder / name}.parquet")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
