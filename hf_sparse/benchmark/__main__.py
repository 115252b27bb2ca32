"""`python -m hf_sparse.benchmark --config FILE`: the table, and as the last line the targets as JSON."""

import json
import logging

from jsonargparse import auto_cli

from hf_sparse.benchmark.bench import bench
from hf_sparse.benchmark.tables import format_summary


def main() -> None:
    """Run the benchmark from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    report = auto_cli(bench, as_positional=False)
    print(format_summary(report))
    print(json.dumps({outcome["name"]: outcome["measured"] for outcome in report["targets"]}))


if __name__ == "__main__":
    main()
