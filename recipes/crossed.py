"""Cross texts at words that they share: unlabelled texts of the kind of D_train, for a student whose own are few.

    python recipes/crossed.py train.parquet corpus.parquet --weights 8 1 --output crossed.parquet --limit 300000

A new text begins as one text does, up to a run of `--shared_words` words that both have, and goes on as the other does
behind it. The teacher labels what comes out, sense or nonsense. A file of weight 8 counts as if its texts were there
eight times. Cross no validation or test texts: `recipes/hold_out.py` cuts validation texts off beforehand.
"""

import argparse
import random
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.distillation.sources import read_rows
from hf_sparse.files import whole_file

# Tries for each text: of few texts that share little there are not as many as are asked for.
_TRIES = 20
_FEWEST_WORDS = 3
_LONGEST = 0.99  # of the texts are no longer than a new one may be


def read_words(path: str, text_column: str) -> list[list[str]]:
    """Return the words of the texts of a file, as blanks divide them."""
    source = TextSet(path=path, text_column=text_column)
    return [text.split() for table in read_rows(source) for text in table["text"].to_pylist()]


def crossed(texts: list[list[str]], limit: int, *, shared_words: int) -> list[str]:
    """Return distinct new texts, in random order; fewer than `limit` where there are no more."""
    places: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for number, words in enumerate(texts):
        for start in range(1, len(words) - shared_words + 1):
            places[tuple(words[start : start + shared_words])].append((number, start))
    known = {" ".join(words) for words in texts}
    longest = sorted(map(len, texts))[int(_LONGEST * len(texts))]
    draw = random.Random(0)
    found: dict[str, None] = {}
    for _ in range(_TRIES * limit):
        if len(found) == limit:
            break
        first = texts[draw.randrange(len(texts))]
        if len(first) <= shared_words + 1:
            continue
        cut = draw.randrange(1, len(first) - shared_words + 1)
        number, start = draw.choice(places[tuple(first[cut : cut + shared_words])])
        words = first[:cut] + texts[number][start:]
        text = " ".join(words)
        if _FEWEST_WORDS <= len(words) <= longest and text not in known:
            found[text] = None
    kept = list(found)
    random.Random(0).shuffle(kept)
    return kept


def main() -> None:
    """Write the crossed texts as Parquet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="Parquet, CSV, JSON Lines or text files")
    parser.add_argument("--weights", nargs="+", type=int, help="one for each file; without them all are 1")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--shared_words", type=int, default=2)
    parser.add_argument("--limit", type=int, required=True)
    arguments = parser.parse_args()
    weights = arguments.weights or [1] * len(arguments.files)
    if len(weights) != len(arguments.files) or min(weights) < 1:
        parser.error(f"--weights {weights} must be one number from 1 on for each of {len(arguments.files)} files")
    for name in ("limit", "shared_words"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)} must be at least 1")
    texts = [
        words
        for path, weight in zip(arguments.files, weights, strict=True)
        for words in weight * read_words(path, arguments.text_column)
    ]
    found = crossed(texts, arguments.limit, shared_words=arguments.shared_words)
    if not found:
        raise SystemExit(f"no two texts of {', '.join(arguments.files)} share {arguments.shared_words} words")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(arguments.output) as temporary:
        pq.write_table(pa.table({"text": found}), temporary)
    print(f"{len(found)} texts in {arguments.output}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
