"""The model against a slow oracle, and at its edges."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification, Trainer, TrainingArguments

from hf_sparse.student import (
    SparseNgramConfig,
    SparseNgramForSequenceClassification,
    SparseNgramModel,
    SparseNgramTokenizer,
)
from tests.conftest import PAIR_SHAPES

ModelFactory = Callable[..., SparseNgramForSequenceClassification]
POOLINGS = ("mean", "sum", "max", "attentive")
BAGS = [[5, 6, 5], [], [7], [200, 20, 3, 328, 1]]


def flat(bags: list[list[int]]) -> dict[str, Tensor]:
    """The flat form of a batch."""
    ids = torch.tensor([row for bag in bags for row in bag], dtype=torch.int32)
    return {"input_ids": ids, "lengths": torch.tensor([len(bag) for bag in bags])}


def padded(bags: list[list[int]], side: str = "right") -> dict[str, Tensor]:
    """The padded form of a batch."""
    width = max(map(len, bags))
    rows = [bag + [0] * (width - len(bag)) if side == "right" else [0] * (width - len(bag)) + bag for bag in bags]
    ids = torch.tensor(rows)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def three_bags(first: list[int], second: list[int]) -> list[list[int]]:
    """What only the first of two texts has, what only the second has, and what both have."""
    shared = set(first) & set(second)
    only = [[row for row in side if row not in shared] for side in (first, second)]
    return [*only, [row for row in first + second if row in shared]]


def align(model: SparseNgramForSequenceClassification, bags: list[list[int]], vectors: list[Tensor]) -> None:
    """Put the comparisons of words in the place of the last columns of the bags of what one text has."""
    alignment, size = model.model.alignment, model.config.alignment_size
    if alignment is None:
        return
    table = torch.cat(list(model.model.table.blocks))[:, -size:]
    for index in range(len(bags)):
        if index % 3 == 2:
            continue
        own, other = (
            table[[row for row in bag if alignment.is_word[row]]]
            for bag in (bags[index], bags[index // 3 * 3 + 1 - index % 3])
        )
        compared = [table.new_zeros(size)]
        for row in own:
            found = table.new_zeros(size)
            if len(other):
                found = (3.0 * other @ row).softmax(0) @ other
            features = torch.cat([row, found, row * found, (row - found).abs()])
            compared.append(torch.relu(alignment.compare.weight @ features + alignment.compare.bias))
        vectors[index] = torch.cat([vectors[index][:-size], torch.stack(compared).amax(0)])


def oracle(model: SparseNgramForSequenceClassification, bags: list[list[int]]) -> Tensor:
    """Logits (B, C), text by text, without a trick."""
    config, base = model.config, model.model
    table = torch.cat(list(base.table.blocks))
    overlap = config.sentence_pairs and config.pair_bags == "overlap"
    if overlap:
        bags = [bag for first, second in zip(bags[0::2], bags[1::2], strict=True) for bag in three_bags(first, second)]
    vectors = []
    for bag in bags:
        rows = table[bag]
        if not bag:
            vectors.append(torch.zeros(config.embedding_size, dtype=table.dtype, device=table.device))
        elif config.pooling == "mean":
            vectors.append(rows.mean(0))
        elif config.pooling == "sum":
            vectors.append(rows.sum(0))
        elif config.pooling == "max":
            vectors.append(rows.max(0).values)
        else:
            attention = base.attention
            assert attention is not None
            mean = attention.mean.weight @ rows.mean(0)
            scores = torch.stack(
                [attention.score.weight[0] @ torch.tanh(attention.row.weight @ row + mean) for row in rows]
            )
            vectors.append((scores.softmax(0).unsqueeze(1) * rows).sum(0))
    if overlap and config.pooling in ("mean", "attentive"):
        totals = [max(1, sum(map(len, bags[first : first + 3]))) for first in range(0, len(bags), 3)]
        vectors = [vector * (len(bags[index]) / totals[index // 3]) for index, vector in enumerate(vectors)]
    align(model, bags, vectors)
    if config.sentence_pairs:
        num_bags = 3 if overlap else 2
        pairs = zip(*(vectors[index::num_bags] for index in range(num_bags)), strict=True)
        vectors = [torch.cat([a, b, a * b, (a - b).abs(), *shared]) for a, b, *shared in pairs]
    hidden = torch.stack(vectors)
    for layer in base.hidden_layers:
        hidden = (torch.relu if config.activation == "relu" else torch.tanh)(hidden @ layer.weight.T + layer.bias)
    return hidden @ model.classifier.weight.T + model.classifier.bias


def close(a: Tensor, b: Tensor, tolerance: float = 1e-6) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance))


@pytest.mark.parametrize("block_rows", [1000, 110])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_flat_and_padded_batches_give_what_the_oracle_gives(
    make_model: ModelFactory, pooling: str, block_rows: int, device: torch.device
) -> None:
    model = make_model(pooling=pooling, block_rows=block_rows).to(device)
    assert len(model.model.table.blocks) == (1 if block_rows == 1000 else 3)
    expected = oracle(model, BAGS)
    batches = [flat(BAGS), padded(BAGS), padded(BAGS, "left"), {"input_ids": padded(BAGS)["input_ids"]}]
    for batch in batches:
        logits = model(**{name: values.to(device) for name, values in batch.items()}).logits
        assert close(logits, expected)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_row_0_counts_for_nothing_also_where_the_kernel_skips_it(
    make_model: ModelFactory, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(pooling=pooling)
    bags = [[0, 5, 0], [0], [], [3, 0]]
    expected = oracle(model, [[row for row in bag if row] for bag in bags])
    assert close(model(**flat(bags)).logits, expected)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # the path of other devices
    assert close(model(**flat(bags)).logits, expected)


@pytest.mark.parametrize("block_rows", [1000, 110])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_are_the_oracles_and_padding_gets_none(
    make_model: ModelFactory, pooling: str, block_rows: int, device: torch.device
) -> None:
    model = make_model(pooling=pooling, block_rows=block_rows).to(device)
    batch = {name: values.to(device) for name, values in flat([*BAGS[:3], [0, 9, 0]]).items()}
    model(**batch).logits.square().sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    oracle(model, [*BAGS[:3], [9]]).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert close(gradients[name], parameter.grad, 2e-5), name
    assert gradients["model.table.blocks.0"][0].abs().sum() == 0


@pytest.mark.parametrize("kind", PAIR_SHAPES)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("hidden_sizes", "activation"), [([], "relu"), ([5, 7], "tanh")])
def test_pairs_are_compared(
    make_model: ModelFactory, pooling: str, hidden_sizes: list[int], activation: str, kind: str
) -> None:
    shape = {"pooling": pooling, "hidden_sizes": hidden_sizes, "activation": activation}
    model = make_model(**shape, **PAIR_SHAPES[kind])
    bags = [[5, 6], [7], [8, 9, 10], [], [], [4], [7, 5, 6, 5], [5, 9, 7]]
    expected = oracle(model, bags)
    assert close(model(**flat(bags)).logits, expected)
    rows = padded([first + second for first, second in zip(bags[0::2], bags[1::2], strict=True)])
    sides = torch.tensor([[0, 0, 1, 0, 0, 0, 0], [0] * 7, [1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]])
    assert close(model(**rows, token_type_ids=sides).logits, expected)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_of_aligned_pairs_are_the_oracles(make_model: ModelFactory, pooling: str) -> None:
    model = make_model(pooling=pooling, **PAIR_SHAPES["aligned"])
    bags = [[5, 6], [7], [8, 9, 10], [], [], [4], [7, 5, 6, 5], [5, 9, 7]]
    model(**flat(bags)).logits.square().sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    oracle(model, bags).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert close(gradients[name], parameter.grad, 2e-5), name
    assert gradients["model.alignment.compare.weight"].abs().sum() > 0


@pytest.mark.parametrize("word", [5, 200])
def test_only_single_words_are_aligned(make_model: ModelFactory, word: int) -> None:
    model = make_model(**PAIR_SHAPES["aligned"])
    assert model.model.alignment is not None
    marks = model.model.alignment.is_word
    assert marks.sum() == 8
    with torch.no_grad():
        model.model.table.blocks[0][word, :-3] = 0
    pooled = model.pool(**flat([[word], [6]]))
    assert bool(pooled[0].any()) == (word == 5)


def test_a_padded_batch_without_token_types_has_empty_partners(make_model: ModelFactory) -> None:
    model = make_model(sentence_pairs=True)
    assert close(model(**padded([[5, 6], [7]])).logits, oracle(model, [[5, 6], [], [7], []]))


def test_pool_and_classify_are_the_two_halves_of_the_model(make_model: ModelFactory) -> None:
    for pairs in (False, True):
        model = make_model(sentence_pairs=pairs)
        batch = flat(BAGS)
        pooled = model.pool(**batch)
        assert pooled.shape == (4, 8)
        assert torch.equal(model.classify(pooled), model(**batch).logits)


def test_pool_has_no_dropout(make_model: ModelFactory) -> None:
    model = make_model(ngram_dropout=0.9, hidden_dropout=0.9)
    pooled = model.pool(**flat(BAGS))
    assert torch.equal(model.train().pool(**flat(BAGS)), pooled)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_ngram_dropout_pools_what_is_kept(make_model: ModelFactory, pooling: str) -> None:
    model = make_model(pooling=pooling, ngram_dropout=0.4, hidden_dropout=0.0)
    batch = flat(BAGS)
    torch.manual_seed(3)
    keep = iter((torch.rand(batch["input_ids"].shape) >= 0.4).tolist())
    kept = [[row for row in bag if next(keep)] for bag in BAGS]
    assert kept != BAGS
    torch.manual_seed(3)
    logits = model.train()(**batch).logits
    if pooling == "sum":
        with torch.no_grad():
            for block in model.model.table.blocks:
                block /= 0.6  # what is left of a sum is scaled up, as in any dropout
    assert close(logits, oracle(model, kept), 1e-5)


def test_hidden_dropout_acts_in_training_only(make_model: ModelFactory) -> None:
    model = make_model(ngram_dropout=0.0, hidden_dropout=0.5)
    first = model(**flat(BAGS)).logits
    assert torch.equal(first, model(**flat(BAGS)).logits)
    assert not torch.equal(first, model.train()(**flat(BAGS)).logits)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_empty_inputs_give_an_answer(make_model: ModelFactory, pooling: str) -> None:
    for settings in ({}, {"block_rows": 110}):
        model = make_model(pooling=pooling, **settings)
        expected = oracle(model, [[]])
        assert close(model(torch.zeros((1, 0), dtype=torch.long)).logits, expected)
        assert close(model(torch.zeros((1, 4), dtype=torch.long)).logits, expected)
        assert close(model(torch.zeros(0, dtype=torch.int32)).logits, expected)
        assert model(**flat([])).logits.shape == (0, 3)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_very_long_text_gives_an_answer(make_model: ModelFactory, pooling: str) -> None:
    model = make_model(pooling=pooling)
    ids = torch.arange(1_000_000, dtype=torch.int32) % 300 + 1
    with torch.no_grad():
        logits = model(ids).logits
        # Every row comes about equally often, so all poolings but the sum give what one copy of each gives.
        once = model(torch.arange(1, 301)).logits
    assert torch.isfinite(logits).all()
    if pooling != "sum":
        assert close(logits, once, 1e-2)


@pytest.mark.parametrize(
    "shape", [{}, {"block_rows": 5}, {"block_rows": 5, "table_dtype": "int8"}, {"table_dtype": "float16"}]
)
@pytest.mark.parametrize("chunk", [1, 3, 4096])
def test_maxima_without_a_gradient(
    make_model: ModelFactory, monkeypatch: pytest.MonkeyPatch, shape: dict[str, Any], chunk: int
) -> None:
    """They are taken in another way then, some rows at a time; padding and texts without n-grams stay zero."""
    monkeypatch.setattr("hf_sparse.student.table_sparse_ngram.MAXIMUM_CHUNK", chunk)
    model = make_model(pooling="max", **shape)
    batch = flat([*BAGS, [], [0, 0], [0, 7, 0, 7]])
    with torch.no_grad():
        found = model.pool(**batch)
    assert torch.equal(found, model.pool(**batch))
    assert not found[-3:-1].any()


def test_attention_in_chunks_changes_nothing(make_model: ModelFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(pooling="attentive", block_rows=110)
    whole = model(**flat(BAGS)).logits
    monkeypatch.setattr("hf_sparse.student.table_sparse_ngram.ATTENTION_CHUNK", 2)
    with torch.no_grad():
        assert close(model(**flat(BAGS)).logits, whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_half_precision_tables_work(make_model: ModelFactory, pooling: str, dtype: torch.dtype) -> None:
    for block_rows in (1000, 110):
        model = make_model(pooling=pooling, block_rows=block_rows)
        expected = model(**flat(BAGS)).logits
        model.model.table.to(dtype)
        assert close(model(**flat(BAGS)).logits, expected, 0.05)  # the head stays float32
        assert close(model.to(dtype)(**flat(BAGS)).logits.float(), expected, 0.2)


@pytest.mark.parametrize(
    ("labels", "settings", "problem_type"),
    [
        (torch.tensor([0, 2, 1, 1]), {}, "single_label_classification"),
        (torch.rand(4, 3).round(), {}, "multi_label_classification"),
        (torch.randn(4), {"num_labels": 1}, "regression"),
        (torch.randn(4, 3), {"problem_type": "regression"}, "regression"),
    ],
)
def test_labels_give_the_usual_loss(
    make_model: ModelFactory, labels: Tensor, settings: dict[str, Any], problem_type: str
) -> None:
    model = make_model(**settings)
    output = model(**flat(BAGS), labels=labels)
    losses = {
        "single_label_classification": F.cross_entropy,
        "multi_label_classification": F.binary_cross_entropy_with_logits,
        "regression": F.mse_loss,
    }
    logits = output.logits.squeeze(1) if "num_labels" in settings else output.logits
    assert model.config.problem_type == problem_type
    assert close(output.loss, losses[problem_type](logits, labels))
    loss, logits = model(**flat(BAGS), labels=labels, return_dict=False)
    assert torch.equal(loss, output.loss)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"input_ids": torch.tensor([1, 329]), "lengths": torch.tensor([2])}, "rows 0 to 328"),
        ({"input_ids": torch.tensor([[1, -1]])}, "reach from -1"),
        ({"input_ids": torch.tensor([1, 2]), "lengths": torch.tensor([3])}, "lengths add up to 3"),
        ({"input_ids": torch.tensor([1, 2]), "lengths": torch.tensor([3, -1])}, "lengths add up to 2"),
        ({"input_ids": torch.tensor([[1, 2]]), "lengths": torch.tensor([2])}, "padded ids"),
        ({"input_ids": None}, "input_ids is None"),
    ],
)
def test_a_wrong_batch_is_named(make_model: ModelFactory, batch: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model()(**batch)


def test_a_model_of_pairs_wants_an_even_number_of_lengths(make_model: ModelFactory) -> None:
    with pytest.raises(ValueError, match="needs two for each pair"):
        make_model(sentence_pairs=True)(**flat([[1], [2], [3]]))


def test_the_table_cannot_be_taken_for_an_embedding(make_model: ModelFactory) -> None:
    model = make_model()
    with pytest.raises(NotImplementedError, match="row blocks"):
        model.get_input_embeddings()
    with pytest.raises(NotImplementedError, match="row blocks"):
        model.set_input_embeddings(torch.nn.Embedding(2, 2))
    with pytest.raises(NotImplementedError, match="one vocabulary"):
        model.resize_token_embeddings(5)


def test_initial_values() -> None:
    torch.manual_seed(0)
    config = SparseNgramConfig(vocab_size=3000, block_rows=1000, embedding_size=64, pooling="attentive")
    model = SparseNgramForSequenceClassification(config)
    for index, block in enumerate(model.model.table.blocks):
        assert bool((block[0] == 0).all()) is (index == 0)
        assert 0.019 < block[1:].std() < 0.021
    for layer in (model.model.hidden_layers[0], model.model.attention.row):
        assert 0.11 < layer.weight.abs().max() <= 64**-0.5


def test_the_bare_model_gives_pooled_and_hidden_vectors(make_model: ModelFactory) -> None:
    for pairs in (False, True):
        model = make_model(sentence_pairs=pairs)
        output = model.model(**flat(BAGS))
        assert output.last_hidden_state.shape == ((2, 2, 8) if pairs else (4, 1, 8))
        assert torch.equal(output.last_hidden_state.reshape(4, 8), model.pool(**flat(BAGS)))
        assert close(model.classifier(output.pooler_output), model(**flat(BAGS)).logits)
        assert len(model.model(**flat(BAGS), return_dict=False)) == 2


@pytest.mark.parametrize("pooling", ["mean", "attentive"])
def test_a_saved_model_comes_back_equal_block_by_block(make_model: ModelFactory, tmp_path: Path, pooling: str) -> None:
    model = make_model(pooling=pooling, block_rows=110)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    shards = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len({shards[f"model.table.blocks.{index}"] for index in range(3)}) == 3
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert isinstance(loaded, SparseNgramForSequenceClassification)
    for name, values in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], values), name
    bare = AutoModel.from_pretrained(tmp_path)
    assert isinstance(bare, SparseNgramModel)
    assert torch.equal(bare(**flat(BAGS)).pooler_output, model.model(**flat(BAGS)).pooler_output)


def test_a_checkpoint_of_half_precision_loads(make_model: ModelFactory, tmp_path: Path) -> None:
    model = make_model()
    model.half().save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.model.table.dtype == torch.float16
    assert close(loaded(**flat(BAGS)).logits.float(), model(**flat(BAGS)).logits.float(), 1e-2)


def test_loading_leaves_the_file_as_it_is_and_creates_what_is_missing(
    make_model: ModelFactory, tmp_path: Path
) -> None:
    make_model().model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    torch.manual_seed(0)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.model.table.blocks[0], make_model().model.table.blocks[0])
    assert 0 < loaded.classifier.weight.abs().max() <= 6**-0.5
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_new_head_can_be_put_on_a_trained_table(make_model: ModelFactory, tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert loaded(**flat(BAGS)).logits.shape == (4, 5)
    assert torch.equal(loaded.model.table.blocks[0], model.model.table.blocks[0])


def test_a_model_can_be_made_without_memory(make_model: ModelFactory) -> None:
    with torch.device("meta"):
        model = make_model(pooling="attentive", block_rows=110)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert not list(model.buffers())


def test_the_trainer_trains_it(make_model: ModelFactory, tokenizer: SparseNgramTokenizer, tmp_path: Path) -> None:
    model = make_model(initializer_range=0.02)
    texts = ["the film was", "a good", "bad and bad !"]
    data = [{**tokenizer(texts[index % 3] + " the" * (index % 7)), "labels": index % 3} for index in range(64)]
    options: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_train_epochs=8, learning_rate=0.05, **options
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before / 2
    assert model.model.table.blocks[0][0].abs().sum() == 0
