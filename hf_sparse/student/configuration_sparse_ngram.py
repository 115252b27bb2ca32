"""The shape of a sparse n-gram student, as `config.json` keeps it."""

import math
from typing import Any, Literal

from transformers import PreTrainedConfig

Pooling = Literal["mean", "sum", "max", "attentive"]
Activation = Literal["relu", "tanh"]
TableDtype = Literal["float32", "float16", "bfloat16", "int8", "int4"]
PairBags = Literal["sides", "overlap"]
Folded = Literal["hidden", "classifier"]

TABLE_DTYPES: tuple[TableDtype, ...] = ("float32", "float16", "bfloat16", "int8", "int4")

MOST_BLOCKS = 65_536  # each is a tensor: a config that asks for millions would keep whoever loads it busy for hours
# Of the tensors and of their meaning; code that does not know a version must refuse it. 2 may align pairs.
FORMAT_VERSIONS = (1, 2)


class SparseNgramConfig(PreTrainedConfig):
    """Describe a deep averaging network over a table of n-gram embeddings (Ye et al. 2022, section 2.2).

    Args:
        vocab_size: Rows V of the table, row 0 (padding, always zero) included.
        embedding_size: Width D of a row.
        block_rows: Rows a block of the table. safetensors never splits a tensor, so the table is a list of blocks,
            each its own tensor; block i holds rows `[i * block_rows, (i + 1) * block_rows)`.
        pooling: How the rows of a text become one vector.
        hidden_sizes: Widths of the hidden layers; `None` means `[embedding_size]`, `[]` means none.
        activation: Non-linearity after each hidden layer.
        ngram_dropout: Probability that an n-gram of a text is left out in training; pooling is over what is kept.
        hidden_dropout: Dropout probability after each hidden layer.
        sentence_pairs: Whether the model compares two texts.
        pair_bags: What it compares: the two texts (`sides`), or what only one of them has and what both have
            (`overlap`); see `pairs_sparse_ngram.py`.
        alignment_size: How many of the last columns of a row align the words that only one text of a pair has with
            those that only the other has; see `alignment_sparse_ngram.py`. 0: nothing is aligned.
        initializer_range: Standard deviation of the table's initial values. Rows must start small: those of rare
            n-grams are hardly trained, so what they start with stays in the pooled vector as noise. 0.02 is below one
            first Adagrad step at the usual rate of 0.05. Dense layers start as torch's `nn.Linear` does.
        vocabulary_sha256: Digest of the `vocabulary.safetensors` whose ids the table's rows belong to.
        weights_fingerprint: Fingerprint of the weights that were saved with this config; see
            `fingerprint_sparse_ngram.py`.
        table_dtype: How rows are stored: as floats (what type a loaded model has is up to `dtype`, as ever), or as
            integers with a scale and an offset for each row (`int8`, `int4`), which cannot be trained.
        folded: Which dense layer the rows have gone through already, so that only its bias is left to add to what is
            pooled, as `pooled_bias`: the first of the `hidden` layers (`embedding_size` is its width, `hidden_sizes`
            the widths of those after it), the `classifier` of a model without hidden layers (`embedding_size` is
            then the number of labels), or none.
        calibration_temperature: By which logits are divided where calibrated probabilities are asked for (Guo et al.
            2017); `None` if none was fitted.
        label_thresholds: For each label of a multi-label task the probability, without the temperature, above which a
            text has it; `None` means 0.5 for all.
        format_version: Version of the layout of the tensors; at least 2 where words are aligned.
        pad_token_id: Always 0.
        **kwargs: What every configuration takes: `num_labels`, `id2label`, `problem_type`, ...

    Raises:
        ValueError: If a value is out of its range.
    """

    model_type = "sparse_ngram"

    def __init__(
        self,
        vocab_size: int = 1_000_001,
        embedding_size: int = 256,
        block_rows: int = 1_048_576,
        pooling: Pooling = "mean",
        hidden_sizes: list[int] | None = None,
        activation: Activation = "relu",
        ngram_dropout: float = 0.1,
        hidden_dropout: float = 0.1,
        sentence_pairs: bool = False,
        pair_bags: PairBags = "sides",
        alignment_size: int = 0,
        initializer_range: float = 0.02,
        vocabulary_sha256: str | None = None,
        weights_fingerprint: str | None = None,
        table_dtype: TableDtype = "float32",
        folded: Folded | None = None,
        calibration_temperature: float | None = None,
        label_thresholds: list[float] | None = None,
        format_version: int = 1,
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.block_rows = block_rows
        self.pooling = pooling
        self.hidden_sizes = [embedding_size] if hidden_sizes is None else list(hidden_sizes)
        self.activation = activation
        self.ngram_dropout = ngram_dropout
        self.hidden_dropout = hidden_dropout
        self.sentence_pairs = sentence_pairs
        self.pair_bags = pair_bags
        self.alignment_size = alignment_size
        self.initializer_range = initializer_range
        self.vocabulary_sha256 = vocabulary_sha256
        self.weights_fingerprint = weights_fingerprint
        self.table_dtype = table_dtype
        self.folded = folded
        self.calibration_temperature = calibration_temperature
        self.label_thresholds = None if label_thresholds is None else list(label_thresholds)
        self.format_version = 2 if alignment_size and format_version == 1 else format_version
        self._check()
        self._check_alignment()
        self._check_compression()
        if pad_token_id != 0:
            raise ValueError(f"pad_token_id is {pad_token_id}, but row 0 is the padding row; leave pad_token_id at 0")
        super().__init__(**kwargs)
        # After the base class: some releases of transformers have a field of this name and set it.
        self.pad_token_id = pad_token_id
        num_labels = len(self.id2label or {})
        if folded == "classifier" and embedding_size != num_labels:
            raise ValueError(
                f"embedding_size is {embedding_size}, but a table with the classifier folded in has a column for each "
                f"of the {num_labels} labels"
            )
        self._check_calibration(num_labels)

    @property
    def block_sizes(self) -> list[int]:
        """Rows of each block of the table, in order; they add up to `vocab_size`."""
        starts = range(0, self.vocab_size, self.block_rows)
        return [min(self.block_rows, self.vocab_size - start) for start in starts]

    def _check(self) -> None:
        for name in ("vocab_size", "embedding_size", "block_rows"):
            value = getattr(self, name)
            _require(name, value, isinstance(value, int) and value > 0, "a whole number >= 1")
        num_blocks = -(-self.vocab_size // self.block_rows)
        if num_blocks > MOST_BLOCKS:
            raise ValueError(
                f"block_rows is {self.block_rows}, which cuts a table of {self.vocab_size} rows into {num_blocks} "
                f"blocks, but {MOST_BLOCKS} is the most; make it larger"
            )
        widths_fit = all(isinstance(width, int) and width > 0 for width in self.hidden_sizes)
        _require("hidden_sizes", self.hidden_sizes, widths_fit, "a list of whole numbers >= 1")
        for name in ("ngram_dropout", "hidden_dropout"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "in [0, 1)")
        _require("initializer_range", self.initializer_range, self.initializer_range >= 0, ">= 0")
        poolings, activations = ("mean", "sum", "max", "attentive"), ("relu", "tanh")
        _require("pooling", self.pooling, self.pooling in poolings, f"one of {poolings}")
        _require("activation", self.activation, self.activation in activations, f"one of {activations}")
        _require("pair_bags", self.pair_bags, self.pair_bags in ("sides", "overlap"), "'sides' or 'overlap'")
        _require("table_dtype", self.table_dtype, self.table_dtype in TABLE_DTYPES, f"one of {TABLE_DTYPES}")
        _require(
            "folded", self.folded, self.folded in (None, "hidden", "classifier"), "'hidden', 'classifier' or null"
        )
        if self.format_version not in FORMAT_VERSIONS:
            raise ValueError(
                f"format_version is {self.format_version}, but this code reads up to {FORMAT_VERSIONS[-1]}; "
                "load the model with the code of its own repository (trust_remote_code=True) or update hf-sparse"
            )

    def _check_alignment(self) -> None:
        size = self.alignment_size
        fits = isinstance(size, int) and 0 <= size < self.embedding_size
        _require("alignment_size", size, fits, f"a whole number from 0 to below embedding_size, {self.embedding_size}")
        if size and not (self.sentence_pairs and self.pair_bags == "overlap"):
            raise ValueError(
                f"alignment_size is {size}, but words are aligned of sentence pairs that are sorted into bags: set "
                "sentence_pairs to true and pair_bags to 'overlap', or alignment_size to 0"
            )

    def _check_compression(self) -> None:
        if self.table_dtype == "int4" and self.embedding_size % 2:
            raise ValueError(
                f"embedding_size is {self.embedding_size}, but int4 rows hold two columns a byte; use int8, or "
                "an even width"
            )
        if self.folded and (self.pooling not in ("mean", "sum") or self.sentence_pairs):
            what = "pairs of texts" if self.sentence_pairs else f"{self.pooling} pooling"
            raise ValueError(f"folded is {self.folded!r}, but no layer folds into a table under {what}; leave it null")
        if self.folded == "classifier" and self.hidden_sizes:
            raise ValueError(
                f"hidden_sizes is {self.hidden_sizes}, but no layers follow a table that has the classifier "
                "folded in; leave it empty"
            )

    def _check_calibration(self, num_labels: int) -> None:
        temperature, thresholds = self.calibration_temperature, self.label_thresholds
        if temperature is not None:
            fits = _is_number(temperature) and 0 < temperature < math.inf
            _require("calibration_temperature", temperature, fits, "a finite number above 0, or null")
        if thresholds is not None:
            fits = all(_is_number(threshold) and 0 <= threshold <= 1 for threshold in thresholds)
            _require("label_thresholds", thresholds, fits, "a list of numbers from 0 to 1, or null")
            if len(thresholds) != num_labels:
                raise ValueError(
                    f"label_thresholds has {len(thresholds)} numbers, but there are {num_labels} labels; give one to "
                    "each, or null"
                )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(name: str, value: object, holds: bool, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}, but must be {wanted}")
