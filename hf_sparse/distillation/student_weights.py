"""Students too large for two copies: made, loaded and saved block by block, or some columns of them.

The initial value of a weight depends on the seed and its place alone, not on who makes it: a process that has some
columns of the table makes the same ones as a process that has all.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hf_sparse.distillation.exchange import Exchange
from hf_sparse.distillation.tensor_folder import read_columns, write_folder
from hf_sparse.files import remove_folder, write_json
from hf_sparse.student import SparseNgramConfig, SparseNgramForSequenceClassification

# `save_file` makes a copy of what it writes: twice this is in memory.
BLOCK_BYTES: Final = 1 << 29
_LARGEST_BLOCK_ROWS: Final = 1 << 20
# Rows whose values come from one generator.
_SEEDED_ROWS: Final = 4096
_BLOCK: Final = "model.table.blocks.{}"
_SPLIT_FOLDER: Final = "split"
_SINGLE: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"
_SHARD: Final = "model-{:05d}-of-{:05d}.safetensors"


def default_block_rows(embedding_size: int) -> int:
    """Return the largest power of two of float32 rows that takes at most 512 MiB, and at most 1,048,576 rows."""
    rows = max(1, BLOCK_BYTES // (4 * embedding_size))
    return min(_LARGEST_BLOCK_ROWS, 1 << rows.bit_length() - 1)


def new_student(
    config: SparseNgramConfig, *, seed: int, columns: tuple[int, int] | None = None
) -> SparseNgramForSequenceClassification:
    """Make a student with random weights.

    Args:
        config: Its shape.
        seed: Of the weights.
        columns: First column of the table that is wanted, and that behind the last; None: all.
    """
    wanted = columns or (0, config.embedding_size)
    blocks = [initial_block(config, index, seed=seed, columns=wanted) for index in range(len(config.block_sizes))]
    return _with_blocks(config, blocks, seed=seed)


def create_student(config: SparseNgramConfig, folder: Path, *, seed: int) -> None:
    """Write a student with random weights into a folder, one block at a time; nothing of it stays in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (0, config.embedding_size)
    blocks = (initial_block(config, index, seed=seed, columns=wanted) for index in range(len(config.block_sizes)))
    with torch.device("meta"):
        nothing = [torch.empty(rows, config.embedding_size) for rows in config.block_sizes]
    _write_shards(_with_blocks(config, nothing, seed=seed), blocks, folder)


def initial_block(config: SparseNgramConfig, index: int, *, seed: int, columns: tuple[int, int]) -> Tensor:
    """Return some columns (rows, D_r) of a block of the table as training begins."""
    rows, (first, stop) = config.block_sizes[index], columns
    block = torch.empty(rows, stop - first)
    for chunk, start in enumerate(range(0, rows, _SEEDED_ROWS)):
        place = np.random.SeedSequence([seed, index, chunk]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(place[0]))
        values = torch.empty(min(_SEEDED_ROWS, rows - start), config.embedding_size)
        values.normal_(0.0, config.initializer_range, generator=generator)
        block[start : start + len(values)] = values[:, first:stop]
    if index == 0:
        block[0] = 0.0
    return block


def load_student(folder: Path, *, columns: tuple[int, int] | None = None) -> SparseNgramForSequenceClassification:
    """Load a student in float32, whole (its files are mapped) or some columns of its table."""
    if columns is None:
        whole: SparseNgramForSequenceClassification
        whole = SparseNgramForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        return whole
    config = SparseNgramConfig.from_pretrained(folder)
    files = _files(folder)
    blocks = []
    for index in range(len(config.block_sizes)):
        name = _BLOCK.format(index)
        with safe_open(files[name], framework="pt") as file:
            blocks.append(file.get_slice(name)[:, slice(*columns)].float().contiguous())
    model = _with_blocks(config, blocks, seed=0)
    head = {}
    for name in model.state_dict():
        if name in files and not name.startswith(_BLOCK.format("")):
            with safe_open(files[name], framework="pt") as file:
                head[name] = file.get_tensor(name)
    model.load_state_dict(head, strict=False)
    return model


def save_student(
    model: SparseNgramForSequenceClassification, folder: Path, *, weights: Mapping[str, Tensor], exchange: Exchange
) -> None:
    """Save a student that several processes may hold together; every process calls it.

    Args:
        model: The student, with this process's columns.
        folder: Where to.
        weights: `StudentStep.weights`.
        exchange: The processes.
    """
    if not exchange.is_split:
        if exchange.rank == 0:
            model.requires_grad_(True)
            model.save_pretrained(folder, max_shard_size="5GB")
        return
    split = folder / _SPLIT_FOLDER
    write_folder(split, weights, exchange=exchange)
    if exchange.rank == 0:
        names = [name for name in weights if _BLOCK.format("") in name]
        blocks = (read_columns(split, name, (0, model.config.embedding_size)) for name in names)
        _write_shards(model, blocks, folder)
        remove_folder(split)


def _with_blocks(
    config: SparseNgramConfig, blocks: list[Tensor], *, seed: int
) -> SparseNgramForSequenceClassification:
    """Return a student with the given blocks, and the rest of its weights random."""
    with torch.device("meta"):
        model = SparseNgramForSequenceClassification(config)
    model.model.table.blocks = nn.ParameterList([nn.Parameter(block) for block in blocks])
    torch.manual_seed(seed)
    for module in model.modules():
        if not isinstance(module, nn.ParameterList):
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if any(value.is_meta for value in own):
                module.to_empty(device="cpu", recurse=False)
            model._init_weights(module)
    return model


def _write_shards(model: SparseNgramForSequenceClassification, blocks: Iterator[Tensor], folder: Path) -> None:
    """Write a student as `save_pretrained` does, a shard a block, each in memory only while it is written."""
    head = {name: value for name, value in model.state_dict().items() if not name.startswith(_BLOCK.format(""))}
    # Config and code; the weights that it is given become the last shard.
    model.save_pretrained(folder, state_dict=dict(head))  # which empties it
    total = len(model.config.block_sizes) + 1
    weight_map = dict.fromkeys(head, _SHARD.format(total, total))
    (folder / _SINGLE).rename(folder / _SHARD.format(total, total))
    num_bytes = sum(value.nbytes for value in head.values())
    num_weights = sum(value.numel() for value in head.values())
    for index in range(total - 1):
        block = next(blocks)  # `enumerate` would hold on to the one before
        name, shard = _BLOCK.format(index), _SHARD.format(index + 1, total)
        save_file({name: block.contiguous()}, folder / shard, metadata={"format": "pt"})
        weight_map[name] = shard
        num_bytes += block.nbytes
        num_weights += block.numel()
        del block  # before the next one is made
    metadata = {"total_parameters": num_weights, "total_size": num_bytes}
    write_json(folder / _INDEX, {"metadata": metadata, "weight_map": weight_map})


def _files(folder: Path) -> dict[str, Path]:
    """Return in which file of a student each tensor is."""
    if (folder / _INDEX).is_file():
        weight_map = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in weight_map.items()}
    with safe_open(folder / _SINGLE, framework="pt") as file:
        return dict.fromkeys(file.keys(), folder / _SINGLE)
