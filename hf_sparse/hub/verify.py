"""Whether a folder holds a student that others can load: what is checked before anything is pushed.

Nothing in the folder is run: its code must be that of this hf-sparse, which is what loads it here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import yaml
from huggingface_hub import get_token

import hf_sparse
from hf_sparse.files import file_sha256, read_json
from hf_sparse.runtime import NgramClassifier
from hf_sparse.runtime.weights import INDEX_FILE, WEIGHTS_FILE, map_file, read_shards
from hf_sparse.student import SparseNgramForSequenceClassification, SparseNgramTokenizer

CODE: Final = "*_sparse_ngram.py"
_OWN_CODE: Final = Path(__file__).parents[1] / "student"
_NEEDED: Final = ("config.json", "tokenizer_config.json", "vocabulary.safetensors")
_MORE: Final = (
    "README.md",
    "LICENSE*",
    "recipe.yaml",
    "report*.json",
    "compression.json",
    "benchmark.json",
    "benchmark.md",
    "cascade.json",
    "*.png",
    ".eval_results/*.yaml",
)
_TEXT_SUFFIXES: Final = (".json", ".md", ".yaml", ".py", ".txt", "")
_TOKEN: Final = re.compile(r"\b(?:hf_|hf_oauth_|api_org_)[A-Za-z0-9]{30,}\b")
_PROBES: Final = ("", "a", "Not a good film, not at all!", "Ünï𝒸öde 中文 \ud800 <br />", "word " * 50)
_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, kw_only=True)
class VerifiedStudent:
    """A student's folder in which everything belongs together.

    Attributes:
        files: What belongs to the student, as paths below the folder.
        digests: SHA-256 of each file, in hexadecimal, as it was before anything was checked.
        left_out: What else lies in the folder, folders with a slash behind their names.
    """

    folder: Path
    files: list[str]
    digests: dict[str, str]
    left_out: list[str]


def verify_student(folder: Path) -> VerifiedStudent:
    """Check that a student is whole: it loads, predicts, and its files belong together.

    Checked are the code (byte for byte that of this hf-sparse), the digest of the vocabulary and the fingerprint of
    the weights that the config names, that torch and the compiled runtime give the same finite probabilities, that
    JSON and YAML files can be read, and that no file holds an access token of the Hub.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: Something does not fit; the message names it and the way out.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; name the folder of a student")
    for name in _NEEDED:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"there is no {name} in {str(folder)!r}: it is not the folder of a whole student")
    weights = [*read_shards(folder / INDEX_FILE), INDEX_FILE] if (folder / INDEX_FILE).is_file() else [WEIGHTS_FILE]
    more = [path for pattern in (CODE, *_MORE) for path in folder.glob(pattern) if path.is_file()]
    files = sorted({*_NEEDED, *weights, *(str(path.relative_to(folder)) for path in more)})
    # Before files are read whole: whether they can be what they say.
    for name in [*weights, "vocabulary.safetensors"]:
        if name.endswith(".safetensors") and (folder / name).is_file():
            map_file(folder / name)
    digests = {name: file_sha256(folder / name) for name in files if (folder / name).is_file()}
    _check_config(folder)
    _check_code(folder)
    _check_texts(folder, files)
    _check_answers(folder)
    others = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - set(files)
    # A folder of many is named once.
    named = {first + "/" * bool(rest) for first, _, rest in (name.partition("/") for name in others)}
    return VerifiedStudent(folder=folder, files=files, digests=digests, left_out=sorted(named))


def _check_config(folder: Path) -> None:
    config = read_json(folder / "config.json")
    tokenizer = read_json(folder / "tokenizer_config.json")
    if config.get("vocabulary_sha256") is None:
        raise ValueError(f"config.json in {str(folder)!r} names no vocabulary_sha256; save model and tokenizer anew")
    if tokenizer.get("vocabulary_sha256") != config["vocabulary_sha256"]:
        raise ValueError(
            f"config.json and tokenizer_config.json in {str(folder)!r} name different vocabularies; save both together"
        )
    for key, entry in _auto_map_entries(config, tokenizer):
        module = entry.partition(".")[0]
        if "--" in entry or not (folder / f"{module}.py").is_file():
            raise ValueError(
                f"{key} in {str(folder)!r} names {entry!r}, but the code of a student lies beside it; save it anew"
            )


def _auto_map_entries(config: dict[str, Any], tokenizer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    maps = {**config.get("auto_map", {}), **tokenizer.get("auto_map", {})}
    for needed in ("AutoConfig", "AutoModelForSequenceClassification", "AutoTokenizer"):
        if needed not in maps:
            raise ValueError(f"auto_map names no {needed}; save model and tokenizer together")
    for key, value in maps.items():
        for entry in [value] if isinstance(value, str) else value:
            if entry is not None:
                yield key, entry
    for task, pipeline in config.get("custom_pipelines", {}).items():
        yield f"custom_pipelines.{task}", pipeline["impl"]


def _check_code(folder: Path) -> None:
    own = {path.name: path.read_bytes() for path in sorted(_OWN_CODE.glob(CODE))}
    for name, content in own.items():
        if not (folder / name).is_file():
            raise ValueError(f"there is no {name} in {str(folder)!r}; save model and tokenizer together")
        if (folder / name).read_bytes() != content:
            raise ValueError(
                f"{name} in {str(folder)!r} is not that of hf-sparse {hf_sparse.__version__}; load the student and "
                "save it anew, or use the version that saved it"
            )
    unknown = sorted(path.name for path in folder.glob("*.py") if path.name not in own)
    if unknown:
        raise ValueError(f"{', '.join(unknown)} in {str(folder)!r} is no code of a student; move it elsewhere")


def _check_texts(folder: Path, files: list[str]) -> None:
    own_token = get_token()  # of whatever form
    for name in files:
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"there is no {name} in {str(folder)!r}; save the student again")
        if path.suffix not in _TEXT_SUFFIXES:
            continue
        text = path.read_text(encoding="utf-8")
        if _TOKEN.search(text) or (own_token and own_token in text):
            raise ValueError(f"{name} in {str(folder)!r} holds what looks like an access token of the Hub; remove it")
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".yaml":
            _read_yaml(path, text)
    card = folder / "README.md"
    if card.is_file():
        read_metadata(card)


def read_metadata(card: Path) -> dict[str, Any]:
    """Return the metadata of a model card.

    Raises:
        ValueError: There is none, or it is no YAML.
    """
    parts = re.split(r"^---[ \t]*$", card.read_text(encoding="utf-8"), maxsplit=2, flags=re.MULTILINE)
    metadata = _read_yaml(card, parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    if not isinstance(metadata, dict):
        raise ValueError(f"{str(card)!r} begins with no metadata; write it anew with: hf-sparse card {card.parent}")
    return metadata


def _read_yaml(path: Path, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{str(path)!r} is no YAML: {error}") from error


def _check_answers(folder: Path) -> None:
    try:
        model = SparseNgramForSequenceClassification.from_pretrained(folder).train(False)
        tokenizer = SparseNgramTokenizer.from_pretrained(folder)
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"the student in {str(folder)!r} does not load: {error}") from error
    if tokenizer.vocabulary_sha256 != model.config.vocabulary_sha256:
        raise ValueError(
            f"{str(folder)!r} has the vocabulary of another student; save weights and vocabulary together"
        )
    pairs = model.config.sentence_pairs
    texts = list(_PROBES)
    partners = texts[::-1] if pairs else None
    batch = tokenizer.extract(texts, partners)
    with torch.inference_mode():
        ids, lengths = torch.from_numpy(batch.ids), torch.from_numpy(batch.lengths)
        logits = model(input_ids=ids, lengths=lengths).logits.float().numpy()
    if not np.isfinite(logits).all():
        raise ValueError(f"the student in {str(folder)!r} answers with numbers that are not finite; train it again")
    if model.config.pooling != "attentive":  # which the runtime does not do
        other = NgramClassifier.from_pretrained(folder).predict_logits(texts, partners)
        _compare(logits, other, folder)


def _compare(logits: npt.NDArray[np.float32], other: npt.NDArray[np.float32], folder: Path) -> None:
    difference = float(np.abs(logits - other).max() / max(1.0, float(np.abs(logits).max())))
    if difference > _TOLERANCE:
        raise ValueError(f"torch and the runtime differ on {str(folder)!r}: their logits are {difference} apart")
