"""Fine-tuning an encoder without a head on D_train: all weights, or only the head on features computed once.

The head-only form runs the encoder a single time. It keeps the encoder's output at the first token, which is all that
the classification heads of BERT-like models read, and trains pooler and classifier on it through the model's own
forward. Whether a model's head does read only that is checked before it is trained.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hf_sparse.distillation.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    random_state,
    restore_optimizer,
    restore_random_state,
    save_checkpoint,
)
from hf_sparse.distillation.losses import gold_loss
from hf_sparse.distillation.recipe import TeacherRecipe
from hf_sparse.distillation.recipe_data import ProblemType
from hf_sparse.distillation.teacher import Encoded, TeacherEncoder
from hf_sparse.distillation.units import Unit, last_layer
from hf_sparse.files import whole_file

logger = logging.getLogger(__name__)

_CHECKPOINT_SECONDS = 120.0
_WINDOW = 32  # batches among which texts are sorted by length
_FEATURE_CHUNK = 512
_CHECKED_TEXTS = 4
_HEAD_LR = 1e-3
_FULL_LR = 5e-5


def fine_tune(
    encoder: TeacherEncoder,
    texts: tuple[list[str], list[str] | None],
    labels: Tensor,  # (B,) ids, or (B, C) or (B,) float
    *,
    recipe: TeacherRecipe,
    problem_type: ProblemType,
    accelerator: Accelerator,
    folder: Path,
    seed: int,
    feature_dtype: torch.dtype,
) -> None:
    """Train the encoder's model in place; features and checkpoints in `folder` let an interrupted run go on.

    The features that a head is trained on need no gradients and are computed in `feature_dtype`; all weights stay
    float32.

    Raises:
        ValueError: If only the head is to be trained but it reads more than the first token.
    """
    torch.manual_seed(seed)
    layer = last_layer(encoder.model) if problem_type == "regression" else None
    unit = Unit.of(labels.numpy()) if layer is not None else None
    if unit is not None:
        labels = unit.standardise(labels)
    encoded = encoder.encode(*texts)
    if (recipe.fine_tune or "all") == "head":
        _require_first_token_head(encoder, encoded)
        features = _first_token_features(encoder, encoded, folder=folder, dtype=feature_dtype)
        with _head_alone(encoder, features) as forward:
            _train(encoder.model, forward, labels, lengths=None, recipe=recipe, lr=recipe.lr or _HEAD_LR,
                   problem_type=problem_type, folder=folder, seed=seed, accelerator=accelerator)  # fmt: skip
    else:

        def forward(rows: list[int]) -> Tensor:
            padded = encoder.tokenizer.pad([encoded[row] for row in rows], return_tensors="pt").to(encoder.device)
            logits: Tensor = encoder.model(**padded).logits
            return logits

        lengths = np.array([len(item["input_ids"]) for item in encoded], np.int64)
        _train(encoder.model, forward, labels, lengths=lengths, recipe=recipe, lr=recipe.lr or _FULL_LR,
               problem_type=problem_type, folder=folder, seed=seed, accelerator=accelerator)  # fmt: skip
    if unit is not None and layer is not None:
        unit.leave(layer)
    encoder.model.eval()


class _FeatureEncoder(nn.Module):
    """Stands in for the encoder: returns stored outputs of the first token, through the encoder's own pooler."""

    def __init__(self, base_model: nn.Module) -> None:
        super().__init__()
        # Not a submodule: the frozen encoder is neither trained nor saved through this.
        self.__dict__["base_model"] = base_model
        self.pooler: nn.Module | None = getattr(base_model, "pooler", None)
        self.features: Tensor | None = None

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling:
        assert self.features is not None
        hidden = self.features[:, None, :]
        pooled = self.pooler(hidden) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooled)


def _first_token_features(
    encoder: TeacherEncoder, encoded: list[Encoded], *, folder: Path, dtype: torch.dtype
) -> Tensor:
    """Return the encoder's output at the first token of each text (B, D); finished chunks are read back."""
    chunks = []
    base_model = encoder.model.base_model
    with tqdm(total=len(encoded), desc="teacher features", unit=" texts") as bar:
        for start in range(0, len(encoded), _FEATURE_CHUNK):
            path = folder / f"features-{start:09d}.safetensors"
            items = encoded[start : start + _FEATURE_CHUNK]
            if not path.exists():
                found: npt.NDArray[np.float32] | None = None
                for rows in encoder.batches([len(item["input_ids"]) for item in items]):
                    padded = encoder.tokenizer.pad([items[row] for row in rows], return_tensors="pt")
                    with torch.inference_mode(), torch.autocast(encoder.device.type, dtype, dtype != torch.float32):
                        hidden = base_model(**padded.to(encoder.device))[0][:, 0].float().cpu().numpy()
                    found = np.zeros((len(items), hidden.shape[1]), np.float32) if found is None else found
                    found[rows] = hidden
                    bar.update(len(rows))
                assert found is not None
                with whole_file(path) as temporary:
                    save_file({"features": torch.from_numpy(found)}, temporary)
            else:
                bar.update(len(items))
            chunks.append(load_file(path)["features"])
    return torch.cat(chunks).to(encoder.device)


@contextmanager
def _head_alone(encoder: TeacherEncoder, features: Tensor) -> Iterator[Callable[[list[int]], Tensor]]:
    """Yield a function from row numbers to logits that runs the head on stored features (B, D)."""
    model = encoder.model
    stub = _FeatureEncoder(model.base_model)

    def forward(rows: list[int]) -> Tensor:
        stub.features = features[rows]
        ids = torch.zeros(len(rows), 1, dtype=torch.int64, device=encoder.device)
        logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return logits

    setattr(model, model.base_model_prefix, stub)
    try:
        yield forward
    finally:
        setattr(model, model.base_model_prefix, stub.base_model)


def _require_first_token_head(encoder: TeacherEncoder, encoded: list[Encoded]) -> None:
    """Check on the longest texts that the head gives the model's logits from the first token alone."""
    model = encoder.model
    rows = next(encoder.batches([len(item["input_ids"]) for item in encoded]))[:_CHECKED_TEXTS]
    padded = encoder.tokenizer.pad([encoded[row] for row in rows], return_tensors="pt").to(encoder.device)
    with torch.inference_mode():
        expected, features = model(**padded).logits, model.base_model(**padded)[0][:, 0]
        try:
            with _head_alone(encoder, features) as forward:
                found = forward(list(range(len(rows))))
            if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
                raise RuntimeError("from that alone its logits are others")
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"the head of {type(model).__name__} reads more than the first token ({error}); "
                "set teacher.fine_tune to 'all'"
            ) from error


def _train(
    model: PreTrainedModel,
    forward: Callable[[list[int]], Tensor],
    labels: Tensor,
    *,
    lengths: npt.NDArray[np.int64] | None,
    recipe: TeacherRecipe,
    lr: float,
    problem_type: ProblemType,
    folder: Path,
    seed: int,
    accelerator: Accelerator,
) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=recipe.weight_decay, fused=True)
    per_epoch = math.ceil(len(labels) / recipe.batch_size)
    total = recipe.epochs * per_epoch
    first = _resume(model, optimizer, folder)
    saved = time.monotonic()
    model.train()
    progress = tqdm(_batches(len(labels), lengths, recipe, seed=seed, first=first), total=total, initial=first,
                    desc="teacher", unit="batch", disable=not accelerator.is_main_process)  # fmt: skip
    for step, rows in enumerate(progress, start=first + 1):
        warmup = max(1, round(total * recipe.warmup_ratio))
        scale = min(step / warmup, (total - step + 1) / max(1, total - warmup + 1))
        optimizer.param_groups[0]["lr"] = lr * scale
        optimizer.zero_grad(set_to_none=True)
        with accelerator.autocast():
            logits = forward(rows).float()
        loss = gold_loss(logits, labels[rows].to(logits.device), problem_type=problem_type).mean()
        if not torch.isfinite(loss):
            raise ValueError(
                f"the teacher's loss became {float(loss.detach())} at batch {step}; lower teacher.lr in the recipe"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if time.monotonic() - saved > _CHECKPOINT_SECONDS and step < total:
            tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
            tensors |= optimizer_tensors("adam", optimizer) | random_state()
            save_checkpoint(folder / "checkpoints", step=step, tensors=tensors, state={})
            saved = time.monotonic()


def _batches(
    num_texts: int,
    lengths: npt.NDArray[np.int64] | None,  # (B,) tokens of each text, or None where texts are not padded
    recipe: TeacherRecipe,
    *,
    seed: int,
    first: int,
) -> Iterator[list[int]]:
    """Yield the rows of each batch from the `first` on: all texts once an epoch, in random order.

    Texts of similar length share a batch, for less padding: each window of so many batches is sorted by length, and
    its batches come in random order (as `group_by_length` of transformers' Trainer does).
    """
    number = 0
    for epoch in range(recipe.epochs):
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(num_texts)
        for window in np.split(order, range(_WINDOW * recipe.batch_size, num_texts, _WINDOW * recipe.batch_size)):
            rows = window if lengths is None else window[np.argsort(-lengths[window], kind="stable")]
            batches = [rows[start : start + recipe.batch_size] for start in range(0, len(rows), recipe.batch_size)]
            for index in range(len(batches)) if lengths is None else random.permutation(len(batches)):
                if number >= first:
                    yield batches[index].tolist()
                number += 1


def _resume(model: PreTrainedModel, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    checkpoint = load_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        return 0
    prefix = "model."
    weights = {n.removeprefix(prefix): checkpoint.tensors[n] for n in checkpoint.tensors if n.startswith(prefix)}
    model.load_state_dict(weights)
    restore_optimizer("adam", optimizer, checkpoint.tensors)
    restore_random_state(checkpoint.tensors)
    logger.info("fine-tuning of the teacher goes on at batch %d", checkpoint.step)
    return checkpoint.step
