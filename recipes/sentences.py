"""Cut long texts into sentences: unlabelled texts of the length of those that a student is to classify.

    python recipes/sentences.py data/imdb/train.parquet --output runs/sst2/sentences.parquet --tokenized

Sentences of `--min_words` to `--max_words` words, each once, at random; `--tokenized` writes them as the Penn Treebank
does, lower-cased, with spaces around punctuation and before "n't" and "'s", which is how GLUE's SST-2 looks.
"""

import argparse
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.distillation.sources import read_rows
from hf_sparse.files import whole_file

# An end may stand before up to two closing quotes or brackets.
_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')])|(?<=[.!?][\"')][\"')]))\s+")
_MARKUP = re.compile(r"<[a-zA-Z/][^<>]*>")
_SPACED = ((re.compile(r"([.,;:!?()\"]+)"), r" \1 "), (re.compile(r"(n't|'(?:s|re|ve|ll|d|m))\b"), r" \1"))


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text; markup is a blank."""
    for sentence in _END.split(_MARKUP.sub(" ", text)):
        plain = " ".join(sentence.split())
        if plain:
            yield plain


def tokenized(sentence: str) -> str:
    """Return a sentence in lower case with blanks between its tokens."""
    found = sentence.lower()
    for pattern, replacement in _SPACED:
        found = pattern.sub(replacement, found)
    return " ".join(found.split())


def collect(arguments: argparse.Namespace) -> list[str]:
    """Return the sentences that are kept, in random order."""
    found: dict[str, None] = {}
    for path in arguments.files:
        for table in read_rows(TextSet(path=path, text_column=arguments.text_column)):
            for text in table["text"].to_pylist():
                for sentence in sentences(text):
                    if arguments.min_words <= len(sentence.split()) <= arguments.max_words:
                        found[tokenized(sentence) if arguments.tokenized else sentence] = None
    kept = list(found)
    random.Random(0).shuffle(kept)
    return kept[: arguments.limit]


def main() -> None:
    """Write the sentences as Parquet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="Parquet, CSV, JSON Lines or text files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--min_words", type=int, default=3)
    parser.add_argument("--max_words", type=int, default=40)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--tokenized", action="store_true")
    arguments = parser.parse_args()
    if arguments.limit is not None and arguments.limit < 1:
        parser.error(f"--limit {arguments.limit} must be at least 1")
    kept = collect(arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(arguments.output) as temporary:
        pq.write_table(pa.table({"text": kept}), temporary)
    print(f"{len(kept)} sentences in {arguments.output}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
