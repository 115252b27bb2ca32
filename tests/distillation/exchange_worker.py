"""One of several processes that train together: `python -m tests.distillation.exchange_worker FOLDER CASES`.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are as torchrun sets them. Each case is a training; the first process
leaves its losses, its score and, in the case's folder, the saved student.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from hf_sparse.distillation import training
from hf_sparse.distillation.exchange import Exchange, table_mode
from tests.distillation.letters import make_model, make_streams, make_trainer


def train(folder: Path, case: dict[str, Any], accelerator: Accelerator) -> dict[str, Any]:
    """Train as a case says; return the losses and the score."""
    settings, shape = dict(case["recipe"]), case["student"]
    width = shape.get("embedding_size", 6)
    world = accelerator.num_processes
    mode = table_mode(width, world, by_column=True, wanted=case["mode"])
    exchange = Exchange(width, mode=mode, rank=accelerator.process_index, num_processes=world)
    stop_after = case.get("stop_after")
    model = make_model(columns=exchange.columns if exchange.is_split else None, **shape)
    trainer = make_trainer(folder, model, exchange=exchange, **settings)
    losses: list[float] = []
    take = trainer._step.take

    def remember(*args: Any, **kwargs: Any) -> torch.Tensor:
        if len(losses) == stop_after:
            raise KeyboardInterrupt
        losses.append(float(take(*args, **kwargs)))
        return torch.tensor(losses[-1])

    trainer._step.take = remember  # type: ignore[method-assign]
    pairs = shape.get("sentence_pairs", False)
    # Every process sees the same texts; the first has written them.
    streams = make_streams(folder / f"texts-{accelerator.process_index}", batch_size=case["batch_size"], pairs=pairs)
    try:
        best = trainer.fit(*streams)
    except KeyboardInterrupt:
        return {"losses": losses}
    trainer.save()
    return {"losses": losses, "loss": best.loss, "primary": best.primary}


def main() -> None:
    """Run the cases, one after the other."""
    training._LOG_EVERY = 1
    accelerator = Accelerator(cpu=True)
    cases = json.loads(sys.argv[2])
    for name, case in cases.items():
        folder = Path(sys.argv[1]) / case.get("folder", name)
        found = train(folder, case, accelerator)
        if accelerator.is_main_process:
            (Path(sys.argv[1]) / f"{name}.json").write_text(json.dumps(found))
        accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
