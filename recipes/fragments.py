"""Cut runs of words out of texts: unlabelled texts for a student whose own are few.

    python recipes/fragments.py data/tweets/train.parquet --output runs/tweets/fragments.parquet --limit 100000

A fragment is `--min_words` to `--max_words` words of a text, separated by blanks, at a random place; each is there
once. The teacher says what a few words mean, which a whole text says only of all of them together. Cut no validation
or test texts; and as a text and its fragment are two, `vocabulary.min_documents` must be higher to keep wording back.
"""

import argparse
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.distillation.sources import read_rows
from hf_sparse.files import whole_file

# Tries for each fragment: of few short texts there are not as many as are asked for.
_TRIES = 20


def collect(arguments: argparse.Namespace) -> list[str]:
    """Return distinct fragments, in random order."""
    texts = [
        words
        for path in arguments.files
        for table in read_rows(TextSet(path=path, text_column=arguments.text_column))
        for text in table["text"].to_pylist()
        if len(words := text.split()) > arguments.min_words
    ]
    if not texts:
        raise SystemExit(f"no text of {', '.join(arguments.files)} has more than {arguments.min_words} words")
    draw = random.Random(0)
    found: dict[str, None] = {}
    for _ in range(_TRIES * arguments.limit):
        if len(found) == arguments.limit:
            break
        words = texts[draw.randrange(len(texts))]
        length = draw.randint(arguments.min_words, min(arguments.max_words, len(words) - 1))
        start = draw.randrange(len(words) - length + 1)
        found[" ".join(words[start : start + length])] = None
    return list(found)


def main() -> None:
    """Write the fragments as Parquet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="Parquet, CSV, JSON Lines or text files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--min_words", type=int, default=2)
    parser.add_argument("--max_words", type=int, default=8)
    parser.add_argument("--limit", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.limit < 1:
        parser.error(f"--limit {arguments.limit} must be at least 1")
    if not 1 <= arguments.min_words <= arguments.max_words:
        parser.error(f"--min_words {arguments.min_words} must be at least 1 and at most --max_words")
    found = collect(arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(arguments.output) as temporary:
        pq.write_table(pa.table({"text": found}), temporary)
    print(f"{len(found)} fragments in {arguments.output}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
