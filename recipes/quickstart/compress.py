"""Compress the quickstart's student: the first layer folded into the table, rows in int8; report both students.

Sizes and scores on the held-out articles come from the compression itself and go into `report.json`, beside those of
the student it was made of.
"""

import json
from pathlib import Path

from hf_sparse.compression import compress, format_report
from hf_sparse.files import write_json

RUN = Path("runs/quickstart")
STUDENT, SMALL = RUN / "student", RUN / "student-int8"


def main() -> None:
    """Write `student-int8/` and add `compressed` to the report."""
    if not STUDENT.is_dir():
        raise SystemExit(f"{STUDENT} is not there yet; run `make quickstart`")
    result = compress(str(STUDENT), str(SMALL), data=str(RUN / "data/test.jsonl"), overwrite=True)
    report = json.loads((RUN / "report.json").read_text(encoding="utf-8"))
    report["compressed"] = {"folder": str(SMALL), **result}
    write_json(RUN / "report.json", report)
    print(f"\n{SMALL}:\n{format_report(result)}")


if __name__ == "__main__":
    main()
