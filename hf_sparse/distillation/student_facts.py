"""What a model card says beyond the scores: licence, data sets, examples with answers, n-grams that matter, size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError

from hf_sparse.distillation.recipe import Recipe
from hf_sparse.distillation.sources import local_files
from hf_sparse.explanation.explain import Explainer
from hf_sparse.student import SparseNgramTextClassificationPipeline

_NGRAMS: Final = 12
_LABELS: Final = 20  # each takes a backward pass a step over all texts, and a line of the card
_TEXTS: Final = 500
_WEIGHTS: Final = ("model*.safetensors", "vocabulary.safetensors")


def describe_student(
    folder: Path, recipe: Recipe, texts: Sequence[str], text_pairs: Sequence[str] | None
) -> dict[str, Any]:
    """Return what `report.json` holds under `hub`.

    Args:
        folder: The student.
        recipe: The recipe it was made by.
        texts: Texts on which to look which n-grams speak for each label; the first 500 are used.
        text_pairs: Their partners.

    Returns:
        `model_id`, `license`, `language`, `datasets`, `examples` (each with the student's answer), `ngrams` (by
        label, of the first 20), `num_texts` (on which those were found) and `file_bytes`.
    """
    explainer = Explainer(folder)
    pairs = None if text_pairs is None else text_pairs[:_TEXTS]
    found = explainer.per_label(texts[:_TEXTS], pairs, labels=explainer.labels[:_LABELS], top=_NGRAMS)
    return {
        "model_id": recipe.hub.model_id,
        "license": recipe.hub.license or teacher_license(recipe),
        "language": recipe.hub.language,
        "datasets": _datasets(recipe),
        "examples": _answer(explainer, recipe.hub.examples),
        "ngrams": {label: [vars(item) for item in sides["for"]] for label, sides in found.items()},
        "num_texts": len(texts[:_TEXTS]),
        "file_bytes": sum(path.stat().st_size for pattern in _WEIGHTS for path in folder.glob(pattern)),
    }


def teacher_license(recipe: Recipe) -> str | None:
    """Return the licence that the teacher's card names; `None` where there is no card, or it does not say."""
    teacher = recipe.teacher
    for name in (teacher.model, teacher.base_model):
        if name is None:
            continue
        card = Path(name) / "README.md"
        if Path(name).exists() and not card.is_file():
            continue
        try:
            # A name on the Hub is looked up there, or in the cache when offline.
            license_name = ModelCard.load(card if card.is_file() else name).data.get("license")
        except (HfHubHTTPError, OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(license_name, str):
            return license_name
    return None


def _datasets(recipe: Recipe) -> list[str]:
    named = [source.path for source in recipe.data.text_sets().values() if not local_files(source.path)]
    return list(dict.fromkeys([*recipe.hub.datasets, *named]))


def _answer(explainer: Explainer, examples: Sequence[str | list[str]]) -> list[dict[str, Any]]:
    """Return each example as a widget of the Hub: `text`, perhaps `text_pair`, and `output`."""
    pipe = SparseNgramTextClassificationPipeline(model=explainer.model, tokenizer=explainer.tokenizer, device="cpu")
    answered = []
    for example in examples:
        names = {"text": example} if isinstance(example, str) else {"text": example[0], "text_pair": example[1]}
        output = pipe([names], top_k=None)[0]
        answered.append(names | {"output": [one | {"score": round(one["score"], 4)} for one in output]})
    return answered
