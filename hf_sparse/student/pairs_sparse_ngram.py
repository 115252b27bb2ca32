"""What a student of sentence pairs compares: the two texts, or what they share and what only one of them has.

    pair_bags   bags of a pair                                     features of a pair
    sides       first, second                                      [h1, h2, h1 * h2, |h1 - h2|]
    overlap     only in the first, only in the second, in both     [h1, h2, h1 * h2, |h1 - h2|, h3]

`sides` is that of Ye et al. (NAACL 2022). With `overlap`, the mean of each bag is weighed by its share of the pair's
n-grams, so that the vectors tell how much is shared, too.
"""

import torch
from torch import Tensor

NUM_BAGS = {"sides": 2, "overlap": 3}
NUM_FEATURES = {"sides": 4, "overlap": 5}


def overlap_order(ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Say how to sort the n-grams of pairs into three bags: only in the first text, only in the second, in both.

    Args:
        ids: Row numbers (N,), grouped by text.
        lengths: N-grams of each text (2B,), the sides interleaved.

    Returns:
        The places (N,) of the ids in the new order, which keeps that of a text within a bag (in the bag of what both
        have, the first text's come first); and the n-grams of each bag (3B,).
    """
    num_sides = lengths.shape[0]
    sides = torch.arange(num_sides, device=ids.device)
    side = sides.repeat_interleave(lengths.to(torch.int64), output_size=ids.shape[0])
    pair, second = side // 2, side % 2
    # Equal ids of a pair have one key.
    keys = pair * (ids.max().to(torch.int64) + 1 if ids.shape[0] else 1) + ids
    unique, place = torch.unique(keys, return_inverse=True)
    seen = torch.zeros(2, unique.shape[0], dtype=torch.bool, device=ids.device)
    seen[second, place] = True
    bag = torch.where(seen.all(dim=0)[place], 2, second) + 3 * pair
    return torch.argsort(bag, stable=True), torch.bincount(bag, minlength=num_sides // 2 * 3)


def bag_shares(lengths: Tensor) -> Tensor:
    """Return which part (3B, 1) of a pair's n-grams is in each bag, given the n-grams of each bag (3B,)."""
    counts = lengths.view(-1, 3).to(torch.float32)
    return (counts / counts.sum(1, keepdim=True).clamp(min=1)).reshape(-1, 1)


def pair_features(pooled: Tensor, pair_bags: str) -> Tensor:
    """Compare the bags of pairs: (2B, D) or (3B, D) to (B, 4D) or (B, 5D)."""
    bags = [pooled[index :: NUM_BAGS[pair_bags]] for index in range(NUM_BAGS[pair_bags])]
    first, second = bags[:2]
    return torch.cat([first, second, first * second, (first - second).abs(), *bags[2:]], dim=1)
