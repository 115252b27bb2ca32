"""Counting against scikit-learn's CountVectorizer: the same texts, from file to vocabulary, each in its own process.

    python recipes/benchmark/count.py corpus.parquet
    python recipes/benchmark/count.py corpus.parquet --without_sklearn --memory 2GB

With the word rule `sklearn` both must find the same n-grams with the same counts above the count of the cut; the rule
`words` is the one that students use. The result is one line of JSON on stdout, a table on stderr.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def count_ours(arguments: argparse.Namespace, rule: str, output: Path) -> None:
    """Write the vocabulary, and its n-grams above the count of the cut."""
    from hf_sparse.vocabulary.build import build_vocabulary

    build_vocabulary(
        arguments.texts,
        str(output / rule),
        num_ngrams=arguments.num_ngrams,
        min_documents=1,
        word_rule=rule,
        text_column=arguments.text_column,
        memory=arguments.memory,
        threads=arguments.threads,
    )


def count_theirs(arguments: argparse.Namespace, output: Path) -> None:
    """Write the n-grams and counts that CountVectorizer keeps."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    from hf_sparse.distillation.recipe_data import TextSet
    from hf_sparse.distillation.sources import read_rows

    source = TextSet(path=arguments.texts, text_column=arguments.text_column)
    texts = (text for table in read_rows(source) for text in table["text"].to_pylist())
    vectorizer = CountVectorizer(ngram_range=(1, 4), max_features=arguments.num_ngrams, dtype=np.int32)
    counts = np.asarray(vectorizer.fit_transform(texts).sum(axis=0)).ravel().tolist()
    found = {ngram: counts[column] for ngram, column in vectorizer.vocabulary_.items()}
    (output / "theirs.json").write_text(json.dumps(found), encoding="utf-8")


def run_child(arguments: argparse.Namespace, child: str, output: Path) -> dict[str, float]:
    """Run one contestant in a process of its own; return its seconds, start of Python included, and peak memory."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", child, "--output", str(output)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    peak = json.loads((output / f"{child}.peak").read_text())
    return {"seconds": round(time.perf_counter() - start, 2), "peak_bytes": peak}


def compare(output: Path) -> dict[str, int]:
    """Return how many n-grams are above the cut, and how many of them differ."""
    from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary

    vocabulary = NgramVocabulary.load(output / "sklearn")
    assert vocabulary.counts is not None
    rows = range(1, vocabulary.num_rows)
    ours = {vocabulary.ngram_text(row): int(vocabulary.counts[row - 1]) for row in rows}
    theirs = json.loads((output / "theirs.json").read_text(encoding="utf-8"))
    cut = max(min(ours.values()), min(theirs.values()))
    ours, theirs = ({ngram: n for ngram, n in each.items() if n > cut} for each in (ours, theirs))
    return {"above_cut": len(theirs), "different": len(ours.items() ^ theirs.items())}


def main() -> None:
    """Run the contestants one after the other and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", help="file, folder or pattern of texts")
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--num_ngrams", type=int, default=1_000_000)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--without_sklearn", action="store_true", help="leave CountVectorizer out: it takes long")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        if arguments.child == "theirs":
            count_theirs(arguments, arguments.output)
        else:
            count_ours(arguments, arguments.child, arguments.output)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        (arguments.output / f"{arguments.child}.peak").write_text(json.dumps(peak))
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        output = Path(folder)
        children = ["words"] if arguments.without_sklearn else ["words", "sklearn", "theirs"]
        result: dict[str, Any] = {child: run_child(arguments, child, output) for child in children}
        if not arguments.without_sklearn:
            result |= compare(output)
            for child in ("words", "sklearn"):
                result[child]["times_faster"] = round(result["theirs"]["seconds"] / result[child]["seconds"], 1)
    for name in children:
        line = result[name]
        print(f"{name:<8} {line['seconds']:>9,.1f} s {line['peak_bytes'] / 1e9:>7.2f} GB", file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
