"""The comparison with CountVectorizer: both count the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]


def test_both_count_the_same(tmp_path: Path) -> None:
    sources = sorted((ROOT / "hf_sparse").rglob("*.py"))
    texts = [part for path in sources for part in path.read_text(encoding="utf-8").split("\n\n")]
    pq.write_table(pa.table({"body": texts}), tmp_path / "texts.parquet")
    script = str(ROOT / "recipes/benchmark/count.py")
    ended = subprocess.run(
        [sys.executable, script, "texts.parquet", "--text_column", "body", "--num_ngrams", "3000", "--memory", "1GB"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    assert found["different"] == 0
    assert found["above_cut"] > 1000
    assert all(found[name]["peak_bytes"] > 50e6 for name in ("words", "sklearn", "theirs"))
    assert found["words"]["times_faster"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["texts.parquet"]
