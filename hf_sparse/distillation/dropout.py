"""N-gram dropout whose mask depends only on (seed, epoch, text), not on batches, processes or a restart."""

import numpy as np
import numpy.typing as npt

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit integers (the finaliser of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def drop_ngrams(
    ids: npt.NDArray[np.int32],  # (N,)
    lengths: npt.NDArray[np.int64],  # (B,)
    texts: npt.NDArray[np.int64],  # (B,) number of each text in the corpus
    *,
    rate: float,
    seed: int,
    epoch: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Leave out each n-gram with probability `rate`; return the ids and lengths that remain."""
    if rate == 0 or len(ids) == 0:
        return ids, lengths
    with np.errstate(over="ignore"):
        base = _mix(np.array([seed], np.uint64) + _INCREMENT)
        base = _mix(base ^ (np.uint64(epoch) * _INCREMENT))
        key = _mix(texts.astype(np.uint64) * _INCREMENT ^ base)
        ends = np.cumsum(lengths)
        position = np.arange(len(ids), dtype=np.uint64) - np.repeat((ends - lengths).astype(np.uint64), lengths)
        draw = _mix(np.repeat(key, lengths) + position * _INCREMENT)
    kept = (draw >> np.uint64(11)) >= np.uint64(int(rate * (1 << 53)))
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    return ids[kept], total[ends] - total[ends - lengths]
