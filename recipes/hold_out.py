"""Cut validation texts off a labelled file, at random, for what is made of the others before a run.

    python recipes/hold_out.py data/trec/train.parquet --output runs/trec --size 1090

writes train.parquet and validation.parquet with all columns. A recipe without `data.validation` holds its own texts
out, the same ones for the same size and a `seed` of 0, but only once it runs.
"""

import argparse
import sys
from pathlib import Path

import pyarrow.parquet as pq

from hf_sparse.distillation.texts import cut_rows
from hf_sparse.files import whole_file


def main() -> None:
    """Write both parts, each in the order of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a Parquet file")
    parser.add_argument("--output", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--size", type=int, required=True, help="validation texts")
    arguments = parser.parse_args()
    table = pq.read_table(arguments.file)
    if not 1 <= arguments.size < table.num_rows:
        parser.error(f"--size {arguments.size} must be at least 1 and less than the {table.num_rows} rows of the file")
    held_out, kept = cut_rows(table, 0, arguments.size, seed=0)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, rows in (("validation", held_out), ("train", kept)):
        with whole_file(arguments.output / f"{name}.parquet") as temporary:
            pq.write_table(rows, temporary)
        print(f"{len(rows)} texts in {arguments.output / name}.parquet")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
