"""The committed model cards are what their reports say."""

import json
from pathlib import Path

import pytest

from hf_sparse.hub.card import render_card

CARDS = Path(__file__).parents[2] / "model_cards"
REPORTS = sorted(CARDS.glob("*/report.json"))


def test_there_are_cards() -> None:
    assert REPORTS


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.parent.name)
def test_card_is_rendered_from_its_report(report: Path) -> None:
    card = (report.parent / "README.md").read_text(encoding="utf-8")
    assert card == render_card(json.loads(report.read_text(encoding="utf-8")))
