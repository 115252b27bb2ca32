"""The unit of a regression: what is learned does not depend on how scores are measured."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from hf_sparse.distillation.recipe import TrainingRecipe
from hf_sparse.distillation.stream import TextShard, TextStream
from hf_sparse.distillation.training import StudentTrainer
from hf_sparse.distillation.units import Unit, last_layer
from hf_sparse.student import SparseNgramForSequenceClassification
from tests.distillation.letters import LetterTokenizer, make_model

SCALE, SHIFT = 15.0, 100.0


def make_shard(folder: Path, *, scale: float, shift: float, teacher: bool) -> TextShard:
    """Return texts whose score is the number of letters `a` in them, in some unit."""
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("abcd"), 8)) for _ in range(64)]
    scores = scale * np.array([text.count("a") for text in texts], np.float32) + shift
    folder.mkdir()
    pq.write_table(pa.table({"text": texts, "label": scores}), folder / "texts.parquet")
    logits = pa.array(scores[:, None].tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"logits": logits}), folder / "logits.parquet")
    return TextShard(texts=folder / "texts.parquet", logits=folder / "logits.parquet" if teacher else None)


def train(folder: Path, *, scale: float, shift: float, teacher: bool, start: Path | None = None) -> Path:
    """Train a student, new or another one, on such texts and return its folder."""
    shard = make_shard(folder, scale=scale, shift=shift, teacher=teacher)
    unit = Unit.of_targets([shard])
    model = make_model(num_labels=1, problem_type="regression")
    if start is not None:
        model = SparseNgramForSequenceClassification.from_pretrained(start)
        unit.enter(model.classifier)
    trainer = StudentTrainer(
        model,
        tokenizer=LetterTokenizer(),
        recipe=TrainingRecipe(batch_size=8, epochs=6, gold_weight=0.0 if teacher else 1.0),
        problem_type="regression",
        accelerator=Accelerator(cpu=True),
        folder=folder,
        seed=0,
        unit=unit,
    )
    trainer.fit(TextStream([shard], batch_size=8, seed=0), TextStream([shard], batch_size=8, seed=None))
    trainer.save()
    return folder


def predict(folder: Path) -> torch.Tensor:
    """Return the scores of some texts by a saved student."""
    model = SparseNgramForSequenceClassification.from_pretrained(folder).train(False)
    batch = LetterTokenizer().extract(["aaaaaaaa", "abcd", "bbbb", "dcba"])
    with torch.inference_mode():
        return model(input_ids=torch.from_numpy(batch.ids), lengths=torch.from_numpy(batch.lengths)).logits[:, 0]


def test_students_are_the_same_in_every_unit(tmp_path: Path) -> None:
    """Distilled, then fine-tuned on labels, which begins from a student that gives scores as they are."""
    plain = train(tmp_path / "plain", scale=1.0, shift=0.0, teacher=True)
    other = train(tmp_path / "other", scale=SCALE, shift=SHIFT, teacher=True)
    torch.testing.assert_close(predict(other), SCALE * predict(plain) + SHIFT, rtol=1e-3, atol=1e-2)
    tuned = train(tmp_path / "tuned", scale=1.0, shift=0.0, teacher=False, start=plain)
    other_tuned = train(tmp_path / "other_tuned", scale=SCALE, shift=SHIFT, teacher=False, start=other)
    torch.testing.assert_close(predict(other_tuned), SCALE * predict(tuned) + SHIFT, rtol=1e-3, atol=1e-2)
    assert not torch.allclose(predict(tuned), predict(plain), atol=1e-3)
    # Within the range of the scores from the first step on.
    assert 100.0 < predict(other).mean() < 220.0


def test_unit_of_scores() -> None:
    unit = Unit.of(np.array([1.0, np.nan, 3.0], np.float32))
    assert (unit.mean, unit.deviation) == (2.0, 1.0)
    assert Unit.of(np.array([5.0, 5.0])) == Unit(mean=5.0, deviation=1.0)
    assert Unit.of(np.array([np.nan])) == Unit(mean=0.0, deviation=1.0)
    layer, given = nn.Linear(4, 1), torch.randn(7, 4)
    unit, before = Unit(mean=-2.5, deviation=0.3), layer(given)
    unit.enter(layer)
    torch.testing.assert_close(layer(given), (before + 2.5) / 0.3)
    unit.leave(layer)
    torch.testing.assert_close(layer(given), before)


def test_first_texts_of_a_shard(tmp_path: Path) -> None:
    shard = make_shard(tmp_path / "texts", scale=1.0, shift=0.0, teacher=True)
    few = TextShard(texts=shard.texts, logits=shard.logits, num_texts=3)
    scores = pq.read_table(shard.texts)["label"].to_numpy()
    assert Unit.of_targets([few]).mean == pytest.approx(scores[:3].mean())
    assert Unit.of_targets([shard, few]).mean == pytest.approx(np.concatenate([scores, scores[:3]]).mean())


def test_last_layer_of_a_teacher() -> None:
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForSequenceClassification(BertConfig(vocab_size=10, num_labels=1, **shape))
    assert last_layer(model) is model.classifier
    assert last_layer(nn.Sequential(nn.Linear(3, 2))) is None
    assert last_layer(nn.Sequential(nn.Linear(3, 1, bias=False))) is None
