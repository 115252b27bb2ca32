"""A task small enough for tests: texts about three subjects, and BERT teachers with a WordPiece tokenizer for them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

SUBJECTS: Mapping[str, Sequence[str]] = {
    "sport": ("team", "goal", "match", "coach"),
    "trade": ("bank", "share", "price", "market"),
    "music": ("song", "band", "stage", "guitar"),
}
NAMES = tuple(SUBJECTS)
_FILLERS = ("the", "a", "was", "very", "and", "of", "!")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = (*_FILLERS, *(word for words in SUBJECTS.values() for word in words))


def make_rows(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Return texts of 3 to 14 words with the label that most of their words belong to, a second text and a number."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        label = NAMES[random.integers(len(NAMES))]
        pool = [*_FILLERS, *SUBJECTS[label] * 2]
        first, second = (" ".join(random.choice(pool, random.integers(3, 15))) for _ in range(2))
        number = float(sum(word in SUBJECTS[label] for word in first.split()))
        rows.append({"text": first, "text_pair": second, "label": label, "number": number, "labels": [label]})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_teacher(folder: Path, *, labels: Sequence[str] = NAMES, **settings: Any) -> Path:
    """Save a BERT classifier with random weights; `settings` go to its config."""
    _save(BertForSequenceClassification(_config(labels, **settings)), folder)
    return folder


def write_task(folder: Path) -> Path:
    """Write texts to train on, a corpus, texts to test on, and a `teacher` of them; return the folder."""
    for name, count, seed in (("train", 120, 1), ("corpus", 70, 2), ("test", 40, 3)):
        write_rows(folder / f"{name}.jsonl", make_rows(count, seed=seed))
    make_teacher(folder / "teacher")
    return folder


def make_encoder(folder: Path) -> Path:
    """Save a BERT encoder that has no head."""
    _save(BertModel(_config(NAMES)), folder)
    return folder


def _config(labels: Sequence[str], **settings: Any) -> BertConfig:
    torch.manual_seed(1)
    return BertConfig(
        vocab_size=len(_SPECIAL) + len(_WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        # Large enough for the teacher to answer differently to different texts.
        initializer_range=0.3,
        hidden_dropout_prob=0.1,
        id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
        **settings,
    )


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    ids = {token: index for index, token in enumerate((*_SPECIAL, *_WORDS))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, model_input_names=inputs, **names
    ).save_pretrained(folder)
