"""The committed model cards are what their reports say."""

import shutil
from pathlib import Path

import pytest

from hf_sparse.hub.card import write_card

CARDS = Path(__file__).parents[2] / "model_cards"
REPORTS = sorted(CARDS.glob("*/report.json"))


def test_there_are_cards() -> None:
    assert REPORTS


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.parent.name)
def test_card_is_rendered_from_its_report(report: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(report.parent, tmp_path / report.parent.name)
    for path in write_card(folder):
        name = Path(path).relative_to(folder)
        assert (report.parent / name).read_text(encoding="utf-8") == Path(path).read_text(encoding="utf-8"), name
