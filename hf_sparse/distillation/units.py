"""The unit that a regression is trained in: less the mean of its scores, in standard deviations.

Learning rates and initial weights are made for outputs of about one; scores of 0 to 5, let alone of 70 to 130, would
take most of a training to reach. The model that is saved gives scores as they are in the data: its last layer has the
unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from hf_sparse.distillation.logits import logits_matrix
from hf_sparse.distillation.stream import TextShard


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Mean and standard deviation of scores; of equal scores the deviation is 1."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, scores: npt.NDArray[np.floating]) -> "Unit":
        """Take those of some scores; NaN is none."""
        real = scores[~np.isnan(scores)].astype(np.float64)
        if not real.size:
            return cls(mean=0.0, deviation=1.0)
        return cls(mean=float(real.mean()), deviation=float(real.std()) or 1.0)

    @classmethod
    def of_targets(cls, shards: Sequence[TextShard]) -> "Unit":
        """Take those of the teacher's scores of some texts, or of their labels where there are no teacher's."""
        parts = []
        for shard in shards:
            if shard.logits is not None:
                scores = logits_matrix(pq.read_table(shard.logits)["logits"]).reshape(-1)
            else:
                scores = pq.read_table(shard.texts, columns=["label"])["label"].to_numpy().astype(np.float64)
            parts.append(scores[: shard.num_texts])
        return cls.of(np.concatenate(parts) if parts else np.zeros(0))

    def standardise(self, scores: Tensor) -> Tensor:
        """Return scores in this unit."""
        return (scores - self.mean) / self.deviation

    @torch.no_grad()
    def enter(self, layer: nn.Linear) -> None:
        """Make a last layer that gives scores give them in this unit."""
        layer.bias.sub_(self.mean).div_(self.deviation)
        layer.weight.div_(self.deviation)

    @torch.no_grad()
    def leave(self, layer: nn.Linear) -> None:
        """Make a last layer that gives scores in this unit give them as they are."""
        layer.bias.mul_(self.deviation).add_(self.mean)
        layer.weight.mul_(self.deviation)


def last_layer(model: nn.Module) -> nn.Linear | None:
    """Return the layer of one output that ends a model, None if it has no such layer or that has no bias."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    return layers[-1] if layers and layers[-1].bias is not None else None
