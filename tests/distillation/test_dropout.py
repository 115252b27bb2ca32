"""N-gram dropout is a function of (seed, epoch, text) alone."""

import numpy as np
import pytest

from hf_sparse.distillation.dropout import drop_ngrams


def make_texts(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    lengths = np.array([5, 0, 300, 1, 47], np.int64)
    return random.integers(1, 1000, lengths.sum(), dtype=np.int32), lengths, np.array([11, 5, 3, 900, 4], np.int64)


def split(ids: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


def test_mask_does_not_depend_on_the_batch() -> None:
    ids, lengths, texts = make_texts()
    together = split(*drop_ngrams(ids, lengths, texts, rate=0.4, seed=1, epoch=2))
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    for row in range(len(texts)):
        alone, _ = drop_ngrams(parts[row], lengths[[row]], texts[[row]], rate=0.4, seed=1, epoch=2)
        assert alone.tolist() == together[row]
    order = np.array([4, 2, 0, 3, 1])
    shuffled = np.concatenate([parts[row] for row in order])
    again = split(*drop_ngrams(shuffled, lengths[order], texts[order], rate=0.4, seed=1, epoch=2))
    assert again == [together[row] for row in order]


def test_lengths_add_up_and_what_stays_is_a_subsequence() -> None:
    ids, lengths, texts = make_texts()
    kept, kept_lengths = drop_ngrams(ids, lengths, texts, rate=0.5, seed=0, epoch=0)
    assert kept_lengths.sum() == len(kept)
    for before, after in zip(split(ids, lengths), split(kept, kept_lengths), strict=True):
        rest = iter(before)
        assert all(value in rest for value in after)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate(rate: float) -> None:
    ids = np.ones(200_000, np.int32)
    _, lengths = drop_ngrams(ids, np.array([len(ids)]), np.array([7]), rate=rate, seed=3, epoch=0)
    assert lengths[0] / len(ids) == pytest.approx(1 - rate, abs=0.01)


def test_each_of_seed_epoch_and_text_changes_the_mask() -> None:
    ids = np.arange(1, 65, dtype=np.int32)
    masks = {
        tuple(drop_ngrams(ids, np.array([64]), np.array([text]), rate=0.5, seed=seed, epoch=epoch)[0].tolist())
        for seed in range(3)
        for epoch in range(3)
        for text in range(3)
    }
    assert len(masks) == 27


def test_no_rate_leaves_everything() -> None:
    ids, lengths, texts = make_texts()
    kept, kept_lengths = drop_ngrams(ids, lengths, texts, rate=0.0, seed=0, epoch=0)
    assert np.array_equal(kept, ids)
    assert np.array_equal(kept_lengths, lengths)
