r"""Make unlabelled pairs for a task on pairs of texts: each text of D_train beside others that are like it.

    python recipes/sentence_pairs.py data/sick/train.parquet --output runs/sick/pairs.parquet \
        --without data/sick/validation.parquet data/sick/test.parquet

Random pairs teach a student little, because a teacher says of nearly all that they have nothing in common (Ye et al.
saw it on QQP). The neighbours of a text are those nearest by TF-IDF of its words; pairs of D_train also stand turned
round. Labels are not read.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer

from hf_sparse.distillation.recipe_data import TextSet
from hf_sparse.distillation.sources import read_rows
from hf_sparse.files import whole_file

_ROWS = 512  # texts compared with all at a time


def nearest(texts: list[str], *, count: int) -> list[list[int]]:
    """Return for each text the numbers of the `count` texts nearest to it, nearest first, without itself."""
    vectors = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit_transform(texts)
    found: list[list[int]] = []
    for start in range(0, len(texts), _ROWS):
        likeness = (vectors[start : start + _ROWS] @ vectors.T).toarray()
        likeness[np.arange(len(likeness)), start + np.arange(len(likeness))] = -1.0
        found += np.argsort(-likeness, axis=1, kind="stable")[:, : min(count, len(texts) - 1)].tolist()
    return found


def make_pairs(pairs: list[tuple[str, str]], *, neighbours: int) -> list[tuple[str, str]]:
    """Return the pairs turned round, and each text with its neighbours; none twice and none of those given."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    made = {(second, first): None for first, second in pairs}
    for number, others in enumerate(nearest(texts, count=neighbours)):
        made |= {(texts[number], texts[other]): None for other in others}
    given = set(pairs)
    return [pair for pair in made if pair not in given]


def read_pairs(source: TextSet) -> list[tuple[str, str]]:
    """Return the pairs of a text set."""
    return [
        pair
        for table in read_rows(source)
        for pair in zip(table["text"].to_pylist(), table["text_pair"].to_pylist(), strict=True)
    ]


def main() -> None:
    """Write the pairs as Parquet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="Parquet, CSV or JSON Lines file of pairs")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--without", nargs="*", default=[], help="files whose pairs are left out: validation, test")
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--text_pair_column", default="text_pair")
    parser.add_argument("--neighbours", type=int, default=12)
    arguments = parser.parse_args()
    if arguments.neighbours < 0:
        parser.error(f"--neighbours {arguments.neighbours} must be at least 0")
    columns = {"text_column": arguments.text_column, "text_pair_column": arguments.text_pair_column}
    made = make_pairs(read_pairs(TextSet(path=arguments.file, **columns)), neighbours=arguments.neighbours)
    left_out = {pair for path in arguments.without for pair in read_pairs(TextSet(path=path, **columns))}
    made = [pair for pair in made if pair not in left_out and pair[::-1] not in left_out]
    if not made:
        raise ValueError(f"{arguments.file} gives no pairs that are not given or left out; take more --neighbours")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(arguments.output) as temporary:
        first, second = zip(*made, strict=True)
        pq.write_table(pa.table({"text": first, "text_pair": second}), temporary)
    print(f"{len(made)} pairs in {arguments.output}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
