"""`hf-sparse plan`: rows, parameters, bytes, steps, hours and traffic of a recipe, before anything starts."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hf_sparse.distillation.exchange import FEWEST_COLUMNS
from hf_sparse.distillation.recipe import Recipe
from hf_sparse.distillation.recipe_checks import ABOVE_ZERO, check_bounds, check_problem_type
from hf_sparse.distillation.shares import read_recipe
from hf_sparse.planning.corpus import CorpusSize, measure_corpus
from hf_sparse.planning.estimate import Shape, estimate_bytes, estimate_stages
from hf_sparse.planning.hardware import Hardware, load_hardware


def plan(
    recipe: str,
    *,
    hardware: str = "cpu-2-cores",
    processes: int = 1,
    num_texts: int | None = None,
    words_per_text: float | None = None,
    num_labels: int | None = None,
    teacher_parameters: float | None = None,
) -> dict[str, Any]:
    """Say what a recipe will take: rows, parameters, bytes, steps, hours and bytes on the network.

    Nothing is downloaded and nothing is run; the number and length of the texts are looked up where they are local.

    Args:
        recipe: The YAML file that `recipes/distill.py` would be given.
        hardware: Name of a kind of machine, or a YAML file with its constants.
        processes: How many processes are launched, over all nodes.
        num_texts: Number of texts of `data.corpus`, where it cannot be known before they are read.
        words_per_text: Mean number of words of a text, where no text is on this machine.
        num_labels: Number of labels; null takes it from the recipe or a teacher on this machine, else 2.
        teacher_parameters: Parameters of the teacher besides its embeddings, where it is not on this machine.

    Returns:
        The plan; seconds, bytes, and what does not fit.

    Raises:
        ValueError: Something that is needed is not known, a number is too small, or the recipe makes no sense.
    """
    numbers = SimpleNamespace(
        processes=processes,
        num_texts=num_texts,
        words_per_text=words_per_text,
        num_labels=num_labels,
        teacher_parameters=teacher_parameters,
    )
    check_bounds("", numbers, processes=(1, math.inf), num_texts=(0, math.inf), num_labels=(1, math.inf))
    check_bounds("", numbers, words_per_text=(ABOVE_ZERO, math.inf), teacher_parameters=(ABOVE_ZERO, math.inf))
    read = read_recipe(recipe)
    machine = load_hardware(hardware)
    corpus = measure_corpus(read, num_texts=num_texts, words_per_text=words_per_text)
    labels, parameters, has_head = _teacher(read)
    labels = num_labels or (len(read.data.labels) if read.data.labels else labels) or 2
    shape = Shape.of(read, num_labels=labels, processes=processes)
    stages = estimate_stages(
        read,
        shape,
        corpus,
        machine,
        teacher_parameters=teacher_parameters or parameters,
        fine_tunes_teacher=has_head is False,
    )
    sizes = estimate_bytes(read, shape, corpus, num_labels=labels)
    return {
        "hardware": machine.name,
        "measured": machine.measured,
        "processes": processes,
        "table": "split" if shape.is_split else "replicated" if processes > 1 else "whole",
        "rows": shape.rows,
        "parameters": shape.parameters,
        "texts": corpus.num_texts,
        "texts_made": corpus.augmented,
        "words_per_text": round(corpus.words, 1),
        "bytes": sizes,
        "stages": stages,
        "seconds": sum(stage["seconds"] for stage in stages.values()),
        "network_bytes": sum(stage.get("network_bytes", 0) for stage in stages.values()),
        "warnings": _warnings(sizes, shape, machine, corpus, has_head=has_head),
    }


def format_plan(found: dict[str, Any]) -> str:
    """Return a plan as a table for people."""
    sizes = found["bytes"]
    source = "measured" if found["measured"] else "from data sheets, not measured"
    lines = [
        f"{found['processes']} x {found['hardware']} ({source}); table {found['table']}",
        f"{found['rows']:,} rows, {found['parameters']:,} parameters, {found['texts']:,} texts of "
        f"{found['words_per_text']:,} words"
        + (f", {found['texts_made']:,} of them made of others (data.augmentation)" if found["texts_made"] else ""),
        "",
        f"{'memory of a process':<24}{_size(sizes['memory_per_process']):>12}   table "
        f"{_size(sizes['table_per_process'])}, state {_size(sizes['optimizer_state_per_process'])}",
        f"{'disk':<24}{_size(sizes['disk']):>12}   "
        + ", ".join(
            f"{name.removeprefix('disk_')} {_size(size)}"
            for name, size in sizes.items()
            if name.startswith("disk_") and size
        ),
        f"{'student':<24}{_size(sizes['student_file']):>12}",
        "",
        f"{'stage':<14}{'time':>10}{'steps':>12}{'a step':>12}{'rows':>12}{'network':>12}",
    ]
    for name, stage in found["stages"].items():
        line = f"{name:<14}{_time(stage['seconds']):>10}"
        if "steps" in stage:
            line += (
                f"{stage['steps']:>12,}{stage['seconds_per_step'] * 1e3:>9,.1f} ms{stage['rows_per_step']:>12,}"
                f"{_size(stage['network_bytes']):>12}"
            )
        lines.append(line)
    lines.append(f"{'all':<14}{_time(found['seconds']):>10}{_size(found['network_bytes']):>48}")
    lines += [f"! {warning}" for warning in found["warnings"]]
    return "\n".join(lines)


def _teacher(recipe: Recipe) -> tuple[int | None, float | None, bool | None]:
    """Return labels and parameters besides embeddings of a teacher on this machine, and whether it has a head."""
    if not Path(recipe.teacher.model).is_dir():
        return None, None, None
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from hf_sparse.distillation.teacher import read_teacher_card

    config = AutoConfig.from_pretrained(recipe.teacher.model, trust_remote_code=recipe.teacher.trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(
            config, trust_remote_code=recipe.teacher.trust_remote_code
        )
    embeddings = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Embedding))
    card = read_teacher_card(recipe.teacher)
    check_problem_type(recipe, recipe.data.problem_type or card.problem_type)
    return config.num_labels, float(model.num_parameters() - embeddings), card.names is not None


def _warnings(
    sizes: dict[str, int], shape: Shape, hardware: Hardware, corpus: CorpusSize, *, has_head: bool | None
) -> list[str]:
    found = []
    if sizes["memory_per_process"] > hardware.memory:
        found.append(
            f"a process needs {_size(sizes['memory_per_process'])} of memory but has {_size(hardware.memory)}: launch "
            "more processes with table: split, or lower student.embedding_size or vocabulary.num_ngrams"
        )
    if sizes["disk"] > hardware.disk:
        found.append(f"the run needs {_size(sizes['disk'])} of disk but has {_size(hardware.disk)}")
    if shape.is_split and shape.columns < FEWEST_COLUMNS:
        found.append(f"each process has {shape.columns} columns, fewer than are read at once; launch fewer processes")
    if corpus.corpus + corpus.train == 0:
        found.append("there are no texts to train on")
    if has_head is None and not corpus.has_logits:
        found.append(
            "the teacher is not on this machine: if it has no head for this task, its fine-tuning comes on top"
        )
    return found


def _size(value: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:,.1f} {unit}"
    return f"{value:,.0f} B"


def _time(seconds: float) -> str:
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:,.1f} d"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:,.1f} min" if seconds >= 120 else f"{seconds:,.1f} s"
