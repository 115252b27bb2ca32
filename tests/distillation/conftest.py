"""Tiny BERT teachers with a WordPiece tokenizer, as a classifier and as an encoder without a head."""

from pathlib import Path

import pytest

from tests.tiny_task import make_encoder, make_teacher


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three subjects."""
    return make_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a head."""
    return make_encoder(tmp_path_factory.mktemp("encoder"))
