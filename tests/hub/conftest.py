"""A Hub that this process talks to, and a student that may be pushed to it."""

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import transformers
import yaml
from huggingface_hub import HfApi, constants

from hf_sparse.hub.card import write_card
from hf_sparse.student import SparseNgramTokenizer
from tests.conftest import ModelFactory
from tests.hub.loopback import TOKEN, serve
from tests.hub.store import Hub
from tests.hub.test_card import make_report


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub; this process has its address, a token, and a cache of its own."""
    with serve(tmp_path / "hub") as served:
        # The client reads its variables when it is imported.
        values = {
            "ENDPOINT": served.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": served.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", served.address)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", HfApi(endpoint=served.address), raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        huggingface_hub.utils.disable_progress_bars()
        huggingface_hub.close_session()
        yield served
        huggingface_hub.close_session()


@pytest.fixture
def student(tmp_path: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer) -> Path:
    """A student of three classes in several shards, with report, recipe and card."""
    return make_student(tmp_path / "student", make_model, tokenizer)


def make_student(
    folder: Path, make_model: ModelFactory, tokenizer: SparseNgramTokenizer, *, max_shard_size: str = "1KB"
) -> Path:
    """Write a student as a run leaves it, a block of the table in each shard."""
    model = make_model(block_rows=90)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    report = make_report("single_label_classification")
    report["labels"] = list(model.config.id2label.values())
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(report["recipe"]))
    write_card(folder)
    return folder
