"""The teacher: batches of similar length give what single texts give, a head on features what the whole gives."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from hf_sparse.distillation import teacher, teacher_training
from hf_sparse.distillation.recipe import TeacherRecipe
from hf_sparse.distillation.teacher import (
    TeacherEncoder,
    labelling_dtype,
    load_classifier,
    load_tokenizer,
    read_teacher_card,
)
from hf_sparse.distillation.teacher_training import fine_tune
from tests.tiny_task import NAMES, make_rows, make_teacher

CPU = torch.device("cpu")
# Of a model of another kind than BERT.
SMALL: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
    "num_labels": 3,
}


def make_loaded(folder: Path, *, tokens_per_batch: int = 64, max_length: int = 32, **options: Any) -> TeacherEncoder:
    """Load a teacher."""
    recipe = TeacherRecipe(model=str(folder))
    torch.manual_seed(0)
    return TeacherEncoder(
        load_classifier(recipe, **options),
        load_tokenizer(recipe),
        max_length=max_length,
        tokens_per_batch=tokens_per_batch,
        device=CPU,
    )


@pytest.mark.parametrize("budget", [1, 17, 100, 10_000])
def test_batches_hold_every_text_once_within_the_budget(teacher_folder: Path, budget: int) -> None:
    encoder = make_loaded(teacher_folder, tokens_per_batch=budget)
    lengths = np.random.default_rng(0).integers(1, 33, 200).tolist()
    batches = list(encoder.batches(lengths))
    assert sorted(index for batch in batches for index in batch) == list(range(200))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget
    longest = [max(lengths[index] for index in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert list(encoder.batches([])) == []


def test_texts_are_cut_to_what_the_model_reads(teacher_folder: Path, tmp_path: Path) -> None:
    """Where the tokenizer does not say how much that is, the table of positions does."""
    encoder = make_loaded(teacher_folder)
    config = encoder.model.config
    encoder.tokenizer.model_max_length = int(1e30)
    for model_type, expected in (("bert", config.max_position_embeddings), ("xlm-roberta", 64 - 2)):
        config.model_type, config.pad_token_id = model_type, 1
        settings: dict[str, Any] = {"tokens_per_batch": 64, "device": CPU}
        assert config.max_position_embeddings == 64
        assert TeacherEncoder(encoder.model, encoder.tokenizer, max_length=256, **settings).max_length == expected
        assert TeacherEncoder(encoder.model, encoder.tokenizer, max_length=16, **settings).max_length == 16


@pytest.mark.parametrize("pairs", [False, True])
def test_logits_are_those_of_single_texts(teacher_folder: Path, pairs: bool) -> None:
    rows = [*make_rows(40, seed=5), {"text": "", "text_pair": ""}, {"text": "goal " * 90, "text_pair": "song " * 90}]
    texts = [row["text"] for row in rows]
    partners = [row["text_pair"] for row in rows] if pairs else None
    encoder = make_loaded(teacher_folder)
    found = encoder.logits(texts, partners)
    for index, text in enumerate(texts):
        partner = None if partners is None else [partners[index]]
        single = encoder.tokenizer([text], partner, truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            expected = encoder.model(**single).logits[0].numpy()
        np.testing.assert_allclose(found[index], expected, atol=1e-5)
    assert encoder.logits([]).shape == (0, 3)


@pytest.mark.parametrize("pairs", [False, True])
def test_many_texts_are_tokenised_in_parts(teacher_folder: Path, pairs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tokens and logits as at once, in arrays, and what training pads of them is the same."""
    rows = make_rows(50, seed=9)
    texts = [row["text"] for row in rows]
    partners = [row["text_pair"] for row in rows] if pairs else None
    encoder = make_loaded(teacher_folder)
    expected = encoder.tokenizer(texts, partners, truncation=True, max_length=32)
    logits = encoder.logits(texts, partners)
    padded = encoder.tokenizer.pad(expected, return_tensors="pt")
    tokenise = encoder.tokenizer
    monkeypatch.setattr(teacher, "_TOKENISED_TEXTS", 16)
    sizes: list[int] = []

    class Counted:
        pad = staticmethod(tokenise.pad)

        def __call__(self, texts: list[str], *args: Any, **options: Any) -> Any:
            sizes.append(len(texts))
            return tokenise(texts, *args, **options)

    encoder.tokenizer = Counted()
    found = encoder.encode(texts, partners)
    assert sizes == [16, 16, 16, 2]
    for name, values in expected.items():
        assert all(item[name].dtype == np.int32 for item in found)
        assert [item[name].tolist() for item in found] == values
        assert torch.equal(tokenise.pad(found, return_tensors="pt")[name], padded[name])
    np.testing.assert_allclose(encoder.logits(texts, partners), logits, atol=1e-5)
    assert sizes == [16, 16, 16, 2] * 2


def test_card_says_what_a_teacher_is(teacher_folder: Path, encoder_folder: Path, tmp_path: Path) -> None:
    card = read_teacher_card(TeacherRecipe(model=str(teacher_folder)))
    assert card.names == NAMES
    assert card.problem_type is None
    encoder = read_teacher_card(TeacherRecipe(model=str(encoder_folder)))
    assert encoder.names is None
    assert encoder.identity != card.identity
    score = read_teacher_card(TeacherRecipe(model=str(make_teacher(tmp_path / "score", labels=["score"]))))
    assert score.problem_type == "regression"
    several = make_teacher(tmp_path / "several", problem_type="multi_label_classification")
    assert read_teacher_card(TeacherRecipe(model=str(several))).problem_type == "multi_label_classification"


def test_missing_parts_are_named(teacher_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher\.model 'nobody/nothing' cannot be loaded"):
        read_teacher_card(TeacherRecipe(model="nobody/nothing"))
    bare = shutil.copytree(teacher_folder, tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match="has no tokenizer"):
        load_tokenizer(TeacherRecipe(model=str(bare)))
    (bare / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_classifier(TeacherRecipe(model=str(bare)))


def test_precision_of_labelling() -> None:
    assert labelling_dtype("float32", CPU) == torch.float32
    assert labelling_dtype("bfloat16", CPU) == torch.bfloat16
    assert labelling_dtype("auto", CPU) in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("trained", ["head", "all"])
def test_fine_tuned_teacher_is_the_whole_model(
    trained: Any, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_training, "_FEATURE_CHUNK", 7)
    rows = make_rows(30, seed=6)
    texts = [row["text"] for row in rows]
    labels = torch.tensor([NAMES.index(row["label"]) for row in rows])
    encoder = make_loaded(encoder_folder, num_labels=3)
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    recipe = TeacherRecipe(model=str(encoder_folder), fine_tune=trained, epochs=10, batch_size=8, lr=0.01)
    fine_tune(
        encoder,
        (texts, None),
        labels,
        recipe=recipe,
        problem_type="single_label_classification",
        accelerator=Accelerator(cpu=True),
        folder=tmp_path,
        seed=0,
        feature_dtype=torch.float32,
    )
    after = encoder.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    if trained == "head":
        assert changed == {
            "bert.pooler.dense.weight",
            "bert.pooler.dense.bias",
            "classifier.weight",
            "classifier.bias",
        }
        assert len(list(tmp_path.glob("features-*.safetensors"))) == 5
    else:
        assert len(changed) > 20
    assert not encoder.model.training
    encoder.model.save_pretrained(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    with torch.inference_mode():
        whole = again(**encoder.tokenizer(texts, padding=True, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(encoder.logits(texts), whole, atol=1e-5)
    assert (whole.argmax(-1) == labels.numpy()).mean() > 0.5


def test_a_new_head_is_trained_without_dropout_of_attention(encoder_folder: Path, teacher_folder: Path) -> None:
    """A finished teacher stays as it is."""
    trained = load_classifier(TeacherRecipe(model=str(encoder_folder)), num_labels=3)
    assert trained.config.attention_probs_dropout_prob == 0
    assert all(layer.attention.self.dropout.p == 0 for layer in trained.bert.encoder.layer)
    assert trained.config.hidden_dropout_prob == trained.bert.embeddings.dropout.p > 0
    assert load_classifier(TeacherRecipe(model=str(teacher_folder))).config.attention_probs_dropout_prob > 0


def test_head_on_features_gives_the_logits_of_the_whole_model(encoder_folder: Path, tmp_path: Path) -> None:
    texts = [row["text"] for row in make_rows(20, seed=7)]
    encoder = make_loaded(encoder_folder, num_labels=3)
    expected = encoder.logits(texts)
    encoded = encoder.encode(texts, None)
    features = teacher_training._first_token_features(encoder, encoded, folder=tmp_path, dtype=torch.float32)
    with torch.inference_mode(), teacher_training._head_alone(encoder, features) as forward:
        np.testing.assert_allclose(forward(list(range(20))).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (ModernBertForSequenceClassification, ModernBertConfig(classifier_pooling="cls", **SMALL)),
        (ModernBertForSequenceClassification, ModernBertConfig(classifier_pooling="mean", **SMALL)),
        (GPT2ForSequenceClassification, GPT2Config(**SMALL)),
    ],
)
def test_head_that_reads_other_tokens_is_refused(kind: Any, config: Any, encoder_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(TeacherRecipe(model=str(encoder_folder)))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    encoder = TeacherEncoder(kind(config), tokenizer, max_length=32, tokens_per_batch=64, device=CPU)
    rows = make_rows(12, seed=8)
    reads_first = getattr(config, "classifier_pooling", None) == "cls"
    refused = pytest.raises(ValueError, match=r"more than the first token .* set teacher\.fine_tune to 'all'")
    with nullcontext() if reads_first else refused:
        fine_tune(
            encoder,
            ([row["text"] for row in rows], None),
            torch.zeros(12, dtype=torch.int64),
            recipe=TeacherRecipe(model=str(encoder_folder), fine_tune="head", epochs=1),
            problem_type="single_label_classification",
            accelerator=Accelerator(cpu=True),
            folder=tmp_path,
            seed=0,
            feature_dtype=torch.bfloat16,
        )


def test_loss_that_is_not_a_number_is_refused(encoder_folder: Path, tmp_path: Path) -> None:
    encoder = make_loaded(encoder_folder, num_labels=3)
    recipe = TeacherRecipe(model=str(encoder_folder), epochs=3, batch_size=2, lr=1e30)
    with pytest.raises(ValueError, match=r"teacher's loss became .* lower teacher\.lr"):
        fine_tune(
            encoder,
            (["goal", "song", "bank", "team"], None),
            torch.tensor([0, 1, 2, 0]),
            recipe=recipe,
            problem_type="single_label_classification",
            accelerator=Accelerator(cpu=True),
            folder=tmp_path,
            seed=0,
            feature_dtype=torch.float32,
        )


@pytest.mark.parametrize("num_texts", [1, 31, 32, 33, 300])
def test_training_batches_hold_every_text_once_an_epoch(num_texts: int) -> None:
    """With and without lengths, and what is read from a later batch on is the rest of the same order."""
    recipe = TeacherRecipe(model="any", epochs=2, batch_size=4)
    lengths = np.random.default_rng(0).integers(1, 500, num_texts)
    for known in (lengths, None):
        batches = list(teacher_training._batches(num_texts, known, recipe, seed=1, first=0))
        assert len(batches) == 2 * -(-num_texts // 4)
        for epoch in (batches[: len(batches) // 2], batches[len(batches) // 2 :]):
            assert sorted(row for rows in epoch for row in rows) == list(range(num_texts))
        assert list(teacher_training._batches(num_texts, known, recipe, seed=1, first=1)) == batches[1:]


def test_training_batches_hold_texts_of_similar_length() -> None:
    """Padding takes less than a tenth of the tokens, where random batches are half padding."""
    recipe = TeacherRecipe(model="any", epochs=1, batch_size=8)
    lengths = np.random.default_rng(0).integers(1, 500, 4096)

    def padded(known: np.ndarray | None) -> int:
        batches = teacher_training._batches(4096, known, recipe, seed=0, first=0)
        return sum(len(rows) * int(lengths[rows].max()) for rows in batches)

    assert padded(lengths) < 1.1 * lengths.sum()
    assert padded(None) > 1.5 * lengths.sum()
