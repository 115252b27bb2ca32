"""The student's own files that need no torch, for a runtime and a counting that must not import it.

Importing the package `hf_sparse.student` registers its classes with transformers and so imports torch. Its files are
flat siblings that only import each other, as they do on the Hub; here they are imported as another package with the
same files, and without the registering.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

_PACKAGE: Final = "hf_sparse.runtime._student"


def _load(name: str) -> Any:
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(Path(__file__).parents[1] / "student")]
        sys.modules[_PACKAGE] = package
    return import_module(f"{_PACKAGE}.{name}")


if TYPE_CHECKING:
    from hf_sparse.student.extraction_sparse_ngram import NgramExtractor
    from hf_sparse.student.fingerprint_sparse_ngram import EDGE_ROWS, check_fingerprint, weights_fingerprint
    from hf_sparse.student.unicode_sparse_ngram import LETTER, code_point_table
    from hf_sparse.student.vocabulary_sparse_ngram import NgramVocabulary
    from hf_sparse.student.words_sparse_ngram import (
        HF_PREFIX,
        check_word_rule,
        clean_texts,
        encode_tokens,
        load_tokenizer,
        normalise_texts,
        resolve_clean,
    )
else:
    EDGE_ROWS = _load("fingerprint_sparse_ngram").EDGE_ROWS
    check_fingerprint = _load("fingerprint_sparse_ngram").check_fingerprint
    weights_fingerprint = _load("fingerprint_sparse_ngram").weights_fingerprint
    NgramExtractor = _load("extraction_sparse_ngram").NgramExtractor
    NgramVocabulary = _load("vocabulary_sparse_ngram").NgramVocabulary
    LETTER = _load("unicode_sparse_ngram").LETTER
    code_point_table = _load("unicode_sparse_ngram").code_point_table
    HF_PREFIX = _load("words_sparse_ngram").HF_PREFIX
    check_word_rule = _load("words_sparse_ngram").check_word_rule
    clean_texts = _load("words_sparse_ngram").clean_texts
    encode_tokens = _load("words_sparse_ngram").encode_tokens
    load_tokenizer = _load("words_sparse_ngram").load_tokenizer
    normalise_texts = _load("words_sparse_ngram").normalise_texts
    resolve_clean = _load("words_sparse_ngram").resolve_clean

__all__ = [
    "EDGE_ROWS",
    "HF_PREFIX",
    "LETTER",
    "NgramExtractor",
    "NgramVocabulary",
    "check_fingerprint",
    "check_word_rule",
    "clean_texts",
    "code_point_table",
    "encode_tokens",
    "load_tokenizer",
    "normalise_texts",
    "resolve_clean",
    "weights_fingerprint",
]
