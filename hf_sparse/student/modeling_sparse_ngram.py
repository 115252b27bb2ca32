"""The student: a deep averaging network over n-gram embeddings (Ye et al. 2022, "Sparse Distillation").

    ids -> rows -> pooled (B, D) -> [pair features (B, 5D)] -> hidden layers (B, H) -> logits (B, C)

A batch comes padded, `input_ids (B, L)` with `attention_mask`, as any tokenizer gives it, or flat, `input_ids (N,)`
with `lengths (B,)`, which is what the layers work on. For pairs of texts, `token_type_ids` tell the sides apart in the
padded form; in the flat form `lengths (2B,)` has the sides interleaved: first text, its partner, second text, ...
"""

import os
from itertools import pairwise
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from .alignment_sparse_ngram import Bags, WordAlignment, with_words
from .configuration_sparse_ngram import SparseNgramConfig
from .fingerprint_sparse_ngram import EDGE_ROWS  # noqa: F401 (transformers 5.0 copies only what this file imports)
from .flat_sparse_ngram import check, flatten
from .pairs_sparse_ngram import NUM_BAGS, NUM_FEATURES, bag_shares, overlap_order, pair_features
from .rows_sparse_ngram import is_packed
from .saving_sparse_ngram import check_weights, model_fingerprint, set_classes
from .table_sparse_ngram import NgramAttention, NgramTable, keep_ids, without_padding


class SparseNgramPreTrainedModel(PreTrainedModel):
    """What the bare model and the classifier share: initial values, saving, what they cannot do."""

    config_class = SparseNgramConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    # The loss is a plain mean over the batch: the Trainer must divide it by the accumulation steps itself.
    accepts_loss_kwargs = False
    # Tables may be half precision; the layers after pooling are small, and float32 costs nothing there.
    _keep_in_fp32_modules_strict = ["attention", "alignment", "pooled_bias", "hidden_layers", "classifier"]  # noqa: RUF012 (the base class's type)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.ParameterList):  # the table's blocks; modules without own parameters are skipped
            for block in module:
                if is_packed(block):
                    init.zeros_(block)  # a scale of zero: nothing but zeros, which is all that can be said untrained
                    continue
                init.normal_(block, mean=0.0, std=self.config.initializer_range)
            # A slice carries no mark of having been loaded, so ask the block: a mapped file must not be written to.
            if not is_packed(module[0]) and not getattr(module[0], "_is_hf_initialized", False):
                init.zeros_(module[0][0])
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, WordAlignment):
            init.zeros_(module.is_word)
        elif isinstance(module, SparseNgramModel) and module.pooled_bias is not None:
            init.zeros_(module.pooled_bias)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the table's values, by which a saved model is loaded again; the other layers stay float32."""
        table: Any = self.base_model.table
        dtype: torch.dtype = table.dtype
        return dtype

    def get_input_embeddings(self) -> nn.Module:
        """Refuse: no single `nn.Embedding` holds the rows."""
        raise NotImplementedError(
            "the n-gram table is a list of row blocks, not one nn.Embedding; use `base_model.table.blocks`"
        )

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Refuse: no single `nn.Embedding` holds the rows."""
        raise NotImplementedError(
            "the n-gram table is a list of row blocks, not one nn.Embedding; write to `base_model.table.blocks`"
        )

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Refuse: the rows belong to the n-grams of one vocabulary."""
        raise NotImplementedError(
            "the rows of the table belong to the n-grams of one vocabulary and cannot be added or removed; "
            "count a vocabulary of the wanted size and train a student on it"
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save weights, config and the code of all of them, for both auto classes and with the custom pipeline.

        The relative import makes transformers copy the pipeline's file with this one.
        """
        from .pipeline_sparse_ngram import SparseNgramTextClassificationPipeline as Pipeline

        if self.config.table_dtype not in ("int8", "int4"):  # it may have been cast since
            self.config.table_dtype = str(self.dtype).removeprefix("torch.")
        is_whole = kwargs.get("state_dict") is None
        self.config.weights_fingerprint = model_fingerprint(self.base_model) if is_whole else None
        models = {"encoder": SparseNgramModel, "classifier": SparseNgramForSequenceClassification}
        set_classes(self.config, **models, pipeline=Pipeline)
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a model as any other.

        Raises:
            ValueError: If the weights are not those that were saved with the config, or cannot be read.
        """
        try:
            loaded = super().from_pretrained(*args, **kwargs)
        except SafetensorError as error:
            raise ValueError(
                f"the weights of {args[0]} cannot be read: {error}; download or save them again"
            ) from error
        check_weights(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded


class SparseNgramModel(SparseNgramPreTrainedModel):
    """Turn n-grams into one vector a text (or a pair), up to the last hidden layer."""

    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]  # noqa: RUF012 (a classifier's file has its head, too)

    def __init__(self, config: SparseNgramConfig) -> None:
        super().__init__(config)
        self.table = NgramTable(config)
        self.attention = NgramAttention(config) if config.pooling == "attentive" else None
        self.alignment = WordAlignment(config) if config.alignment_size else None
        features = NUM_FEATURES[config.pair_bags] if config.sentence_pairs else 1
        widths = [config.embedding_size * features, *config.hidden_sizes]
        self.pooled_bias = nn.Parameter(torch.empty(config.embedding_size)) if config.folded else None
        self.hidden_layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.activation = nn.ReLU() if config.activation == "relu" else nn.Tanh()
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.output_size = widths[-1]
        self.post_init()  # type: ignore[no-untyped-call]

    def mark_words(self, is_word: Tensor) -> None:
        """Say which rows are those of single words; a model that aligns nothing need not know.

        Args:
            is_word: 1 for single words (V,), uint8: `NgramVocabulary.is_word`.
        """
        if self.alignment is not None:
            self.alignment.is_word.copy_(is_word)

    def pool(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Pool the rows of each text, without dropout.

        Args:
            input_ids: Row numbers (N,), grouped by text.
            lengths: N-grams of each text (B,), or (2B,) for pairs, the sides interleaved.

        Returns:
            Vectors (B, D), for pairs those of their bags (2B, D) or (3B, D), in the table's type; zeros for a text or
            bag without n-grams.

        Raises:
            ValueError: If a row number or a length is out of range (checked on the CPU only).
        """
        return self.pool_bags(*self.split_bags(input_ids, lengths))

    def split_bags(self, input_ids: Tensor, lengths: Tensor, *, dropout: float = 0.0) -> Bags:
        """Sort the n-grams of pairs into bags, if the model compares what they share.

        Args:
            input_ids: Row numbers (N,), grouped by text.
            lengths: N-grams of each text (B,), or (2B,) for pairs, the sides interleaved.
            dropout: Probability that an n-gram is left out.

        Raises:
            ValueError: If a row number or a length is out of range (checked on the CPU only).
        """
        check(input_ids, lengths, num_rows=self.config.vocab_size, pairs=self.config.sentence_pairs)
        if self.compares_overlap:
            input_ids, lengths = without_padding(input_ids, lengths)
            order, lengths = overlap_order(input_ids, lengths)
            input_ids = input_ids[order]
        if dropout:
            # What is left out of one side is shared all the same: whole texts are sorted into bags.
            keep = torch.rand(input_ids.shape, device=input_ids.device) >= dropout
            input_ids, lengths = keep_ids(input_ids, lengths, keep)
        if self.alignment is None:
            return Bags(input_ids, lengths)
        return with_words(input_ids, lengths, self.alignment.is_word)

    @property
    def compares_overlap(self) -> bool:
        """Whether the model is one of pairs whose bags are what the sides share and what they do not."""
        return bool(self.config.sentence_pairs) and self.config.pair_bags == "overlap"

    def pool_bags(self, input_ids: Tensor, lengths: Tensor, words: Tensor | None = None) -> Tensor:
        """Pool the rows of each text or bag, as `split_bags` returns them; see `pool`."""
        return self.finish_bags(self.pool_rows(input_ids, lengths), lengths, words)

    def pool_rows(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Pool the rows of each text, bag and aligned word: the part of pooling that reads the table."""
        pooled: Tensor
        if self.attention is not None:
            pooled = self.attention(self.table, input_ids, lengths)
        else:
            pooled = self.table(input_ids, lengths, self.config.pooling)
        return pooled

    def finish_bags(
        self, pooled: Tensor, lengths: Tensor, words: Tensor | None = None, *, scale: float = 1.0
    ) -> Tensor:
        """Weigh the bags of pairs by their share of the n-grams, and align their words.

        Args:
            pooled: What `pool_rows` returns: of texts (B, D), of bags (2B, D) or (3B, D), with words (3B + M, D).
            lengths: N-grams of each.
            words: How many words (2B,) of each side are aligned.
            scale: By which the vectors of texts and bags are multiplied.

        Returns:
            Vectors of texts or bags, for `encode`.
        """
        num_bags = lengths.shape[0] if words is None else words.shape[0] // 2 * 3
        bags = pooled[:num_bags]
        # A maximum does not depend on how many n-grams there are, and a sum does already.
        if self.compares_overlap and self.config.pooling in ("mean", "attentive"):
            bags = bags * bag_shares(lengths[:num_bags]).to(bags.dtype)
        if scale != 1.0:
            bags = bags * scale
        if self.alignment is None or words is None:
            return bags
        width = self.config.alignment_size
        aligned = self.alignment(pooled[num_bags:, -width:], words).to(bags.dtype)
        shared = bags[2::3, -width:].unsqueeze(1)
        last = torch.cat([aligned.view(-1, 2, width), shared], dim=1).flatten(0, 1)
        return torch.cat([bags[:, :-width], last], dim=1)

    def encode(self, pooled: Tensor) -> Tensor:
        """Run what lies between pooling and classifier: pair features and hidden layers, with dropout in training.

        Args:
            pooled: Vectors (B, D), for pairs those of their bags (2B, D) or (3B, D).

        Returns:
            Vectors (B, H); with the classifier folded into the table, the logits (B, C).
        """
        hidden = pooled
        if self.pooled_bias is not None:
            hidden = hidden + self.pooled_bias
        if self.config.folded == "hidden":
            hidden = self.dropout(self.activation(hidden))
        if self.hidden_layers:
            hidden = hidden.to(next(self.hidden_layers.parameters()).dtype)
        if self.config.sentence_pairs:
            hidden = pair_features(hidden, self.config.pair_bags)
        for layer in self.hidden_layers:
            hidden = self.dropout(self.activation(layer(hidden)))
        return hidden

    def pool_batch(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Pool a padded or flat batch, with n-gram dropout in training.

        Args:
            input_ids: Row numbers (B, L) or (N,).
            attention_mask: 1 for n-grams, 0 for padding (B, L), for padded ids; without it, row 0 is padding.
            token_type_ids: 0 for the first text of a pair, 1 for the second (B, L), for padded ids.
            lengths: N-grams of each text (B,) or (2B,), for flat ids; without it, all ids are one text.

        Returns:
            Vectors (B, D), for pairs those of their bags (2B, D) or (3B, D).

        Raises:
            ValueError: If the arguments do not fit together.
        """
        if input_ids is None:
            raise ValueError("input_ids is None; this model reads n-gram ids only (there are no inputs_embeds)")
        if input_ids.dim() == 2 and lengths is None:
            pairs = self.config.sentence_pairs
            input_ids, lengths = flatten(input_ids, attention_mask, token_type_ids, pairs=pairs)
        elif input_ids.dim() == 1:
            lengths = input_ids.new_tensor([input_ids.shape[0]]) if lengths is None else lengths
        else:
            raise ValueError(
                f"input_ids of shape {tuple(input_ids.shape)} with{'out' if lengths is None else ''} lengths; "
                "pass padded ids (B, L) with an attention_mask, or flat ids (N,) with lengths"
            )
        lengths = lengths.to(input_ids.device, torch.int64)
        rate = self.config.ngram_dropout
        if not self.training or rate == 0:
            return self.pool(input_ids, lengths)
        bags = self.split_bags(input_ids, lengths, dropout=rate)
        pooled = self.pool_rows(bags.ids, bags.lengths)
        return self.finish_bags(pooled, bags.lengths, bags.words, scale=self.kept_scale(rate))

    def kept_scale(self, dropout: float) -> float:
        """Return what makes up for n-grams that are left out: a sum shrinks by it, a mean or maximum does not."""
        return 1.0 / (1.0 - dropout) if self.config.pooling == "sum" else 1.0

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        lengths: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode a batch; the arguments are those of `pool_batch`.

        Returns:
            `last_hidden_state` (B, 1, D), the pooled rows (of pairs, those of their bags: (B, 2, D) or (B, 3, D)), and
            `pooler_output` (B, H), what the hidden layers make of them.
        """
        pooled = self.pool_batch(input_ids, attention_mask, token_type_ids, lengths)
        bags = NUM_BAGS[self.config.pair_bags] if self.config.sentence_pairs else 1
        last_hidden_state = pooled.reshape(-1, bags, pooled.shape[1])
        output = BaseModelOutputWithPooling(last_hidden_state=last_hidden_state, pooler_output=self.encode(pooled))
        return output if _wants_dict(return_dict, self.config) else output.to_tuple()


class SparseNgramForSequenceClassification(SparseNgramPreTrainedModel):
    """Classify texts or pairs of texts, or give them scores."""

    def __init__(self, config: SparseNgramConfig) -> None:
        super().__init__(config)
        self.num_labels = len(config.id2label or {})
        self.model = SparseNgramModel(config)
        # Folded into the table, the classifier is gone: what the model encodes are the logits.
        self.classifier = None if config.folded == "classifier" else nn.Linear(self.model.output_size, self.num_labels)
        self.post_init()  # type: ignore[no-untyped-call]

    def pool(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Pool flat ids (N,) with lengths (B,), for pairs (2B,), to vectors of texts or bags; no n-gram dropout."""
        pooled: Tensor = self.model.pool(input_ids, lengths)
        return pooled

    def classify(self, pooled: Tensor) -> Tensor:
        """Turn pooled vectors, of texts or of the bags of pairs, into logits (B, C); hidden dropout in training."""
        encoded: Tensor = self.model.encode(pooled)
        if self.classifier is None:
            return encoded
        logits: Tensor = self.classifier(encoded.to(self.classifier.weight.dtype))
        return logits

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        lengths: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Classify a batch.

        Args:
            input_ids: Row numbers (B, L) or (N,).
            attention_mask: 1 for n-grams, 0 for padding (B, L), for padded ids; without it, row 0 is padding.
            token_type_ids: 0 for the first text of a pair, 1 for the second (B, L), for padded ids.
            lengths: N-grams of each text (B,), or (2B,) for pairs, for flat ids; without it, all ids are one text.
            labels: Classes (B,), or floats (B, C) for several labels a text, or (B,) or (B, C) for regression.
            return_dict: Whether to return an object (the default) or a tuple.
            **kwargs: Ignored, as in every model of transformers.

        Returns:
            `logits` (B, C), and `loss` when there are labels, by `config.problem_type` or, without one, by the labels.

        Raises:
            ValueError: If the arguments do not fit together.
        """
        logits = self.classify(self.model.pool_batch(input_ids, attention_mask, token_type_ids, lengths))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output if _wants_dict(return_dict, self.config) else output.to_tuple()


def _wants_dict(return_dict: bool | None, config: PreTrainedConfig) -> bool:
    return bool(config.return_dict if return_dict is None else return_dict)
