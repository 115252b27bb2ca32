"""The teacher: a sequence classifier used as it is, or an encoder without a head that is fine-tuned on D_train."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from hf_sparse.distillation.recipe import TeacherRecipe
from hf_sparse.distillation.recipe_data import ProblemType
from hf_sparse.files import file_sha256

logger = logging.getLogger(__name__)

# What the tokenizer returns of a text, by name; as lists the numbers would take several times as much memory.
Encoded = dict[str, npt.NDArray[np.int32]]
_TOKENISED_TEXTS = 4096  # at a time; sorting by length within them is nearly as good as among all

_UNKNOWN_LENGTH = 1_000_000  # what tokenizers say is far above it where they do not know

# Weights, configuration, tokenizer and code; a changed README changes nothing.
_TEACHER_FILES = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.py")

# What transformers' configs call it: BERT and its kin, and later models.
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")


@dataclass(frozen=True, kw_only=True)
class TeacherCard:
    """What the recipe needs to know of a teacher before its weights are loaded.

    Attributes:
        names: Names of its labels in the order of their ids, None if it has no head yet.
        problem_type: From its config, None if that does not say.
        identity: What identifies its weights: a commit of the Hub, or hashes of files.
    """

    names: tuple[str, ...] | None
    problem_type: ProblemType | None
    identity: object


def read_teacher_card(recipe: TeacherRecipe) -> TeacherCard:
    """Look at a teacher's config.

    Raises:
        ValueError: If there is no such model.
    """
    _require_folder(recipe.model)
    config = _load(AutoConfig, recipe)
    has_head = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
    names = tuple(config.id2label[index] for index in range(config.num_labels)) if has_head else None
    # transformers takes a head of one output for a regression.
    problem_type: ProblemType | None = config.problem_type
    if problem_type is None and config.num_labels == 1:
        problem_type = "regression"
    return TeacherCard(
        names=names,
        problem_type=problem_type if has_head else None,
        identity=_identity(recipe, getattr(config, "_commit_hash", None)),
    )


def load_tokenizer(recipe: TeacherRecipe) -> Any:
    """Load the teacher's tokenizer.

    Raises:
        ValueError: If there is none. transformers then makes one that knows nothing but special tokens.
    """
    tokenizer = _load(AutoTokenizer, recipe)
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(
            f"teacher.model {recipe.model!r} has no tokenizer, or an empty one; put its files beside the model"
        )
    return tokenizer


def load_classifier(recipe: TeacherRecipe, **head: Any) -> PreTrainedModel:
    """Load the teacher as a sequence classifier in float32; a missing head is made with random weights.

    Args:
        recipe: Says which.
        head: What the config is to say of a new head, which is to be trained. Then attention has no dropout: with it,
            PyTorch has no fused attention on a CPU, and a training step of long texts takes three times as long.
    """
    config = _load(AutoConfig, recipe, **head)
    for name in _ATTENTION_DROPOUTS if head else ():
        if hasattr(config, name):
            setattr(config, name, 0.0)
    model: PreTrainedModel = _load(AutoModelForSequenceClassification, recipe, dtype=torch.float32, config=config)
    return model


class TeacherEncoder:
    """Runs a teacher over texts in batches of similar length under a budget of tokens.

    Args:
        model: Sequence classifier.
        tokenizer: Its tokenizer.
        max_length: Tokens read of a text (of both texts together for pairs).
        tokens_per_batch: Budget of padded tokens of a batch; a longer single text is still run, alone.
        device: Where the model runs.
        dtype: Its precision.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        max_length: int,
        tokens_per_batch: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model.train(False).to(device=device, dtype=dtype)
        self.tokenizer = tokenizer
        self.max_length = min(max_length, _longest(model, tokenizer))
        self.tokens_per_batch = tokens_per_batch
        self.device = device

    def encode(self, texts: list[str], text_pairs: list[str] | None) -> list[Encoded]:
        """Tokenise texts, each cut to `max_length` tokens."""
        items: list[Encoded] = []
        for part in _parts(len(texts)):
            pairs = None if text_pairs is None else text_pairs[part]
            encoded = self.tokenizer(texts[part], pairs, truncation=True, max_length=self.max_length)
            columns = [[np.asarray(ids, np.int32) for ids in values] for values in encoded.values()]
            items += [dict(zip(encoded.keys(), values, strict=True)) for values in zip(*columns, strict=True)]
        return items

    def batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Yield the numbers of texts that form a batch, longest first (so that memory runs out early or never)."""
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        batch: list[int] = []
        for index in order:
            longest = lengths[batch[0]] if batch else lengths[index]
            if batch and longest * (len(batch) + 1) > self.tokens_per_batch:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def logits(
        self, texts: list[str], text_pairs: list[str] | None = None, *, bar: "tqdm[Any] | None" = None
    ) -> npt.NDArray[np.float32]:
        """Return the logits (B, C) of texts, in their order."""
        result = np.zeros((len(texts), self.model.config.num_labels), np.float32)
        for part in _parts(len(texts)):
            found = result[part]
            encoded = self.encode(texts[part], None if text_pairs is None else text_pairs[part])
            for batch in self.batches([len(item["input_ids"]) for item in encoded]):
                found[batch] = self.run([encoded[index] for index in batch]).logits.float().cpu().numpy()
                if bar is not None:
                    bar.update(len(batch))
        return result

    def run(self, items: list[Encoded]) -> Any:
        """Run the model on tokenised texts."""
        padded = self.tokenizer.pad(items, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            return self.model(**padded)


def _parts(num_texts: int) -> Iterator[slice]:
    return (slice(start, start + _TOKENISED_TEXTS) for start in range(0, num_texts, _TOKENISED_TEXTS))


def _longest(model: PreTrainedModel, tokenizer: Any) -> int:
    """Return how many tokens a model reads: the tokenizer says so, or the model's table of positions."""
    longest = int(tokenizer.model_max_length)
    positions = getattr(model.config, "max_position_embeddings", None)
    if longest < _UNKNOWN_LENGTH or not positions or positions < 0:
        return longest
    # RoBERTa counts positions from behind the padding token's number.
    return int(positions) - ((model.config.pad_token_id or 0) + 1 if "roberta" in model.config.model_type else 0)


def labelling_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision a teacher labels in.

    "auto" is bfloat16 where the processor has instructions for it (several times faster there, and much slower
    elsewhere), else float32. The choice depends on the machine alone, so a restart makes the same one.
    """
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and _cpu_computes_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_computes_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    names = ("avx512_bf16", "amx_bf16", "amx_tile", "bf16")
    return any(bool(capabilities.get(name)) for name in names)


def _load(kind: Any, recipe: TeacherRecipe, **options: Any) -> Any:
    try:
        return kind.from_pretrained(
            recipe.model, revision=recipe.revision, trust_remote_code=recipe.trust_remote_code, **options
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"teacher.model {recipe.model!r} cannot be loaded: {error}") from error


def _require_folder(model: str) -> None:
    """Refuse the path of a folder that is not there, which a Hub id cannot be either."""
    is_path = model.startswith((".", "~", "/")) or model.count("/") > 1
    if is_path and not Path(model).is_dir():
        raise ValueError(f"teacher.model {model!r}: there is no such folder; name a folder or a model on the Hub")


def _identity(recipe: TeacherRecipe, commit: str | None) -> object:
    folder = Path(recipe.model)
    if folder.is_dir():
        files = sorted({path for pattern in _TEACHER_FILES for path in folder.glob(pattern)})
        return {path.name: file_sha256(path) for path in files}
    return [recipe.model, recipe.revision, commit]
