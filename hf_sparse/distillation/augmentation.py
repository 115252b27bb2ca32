"""Texts made of those of D_train and C, which the teacher labels like others: many short ones say more than few.

Runs of words: what the teacher says of a whole text is of all its words together, of a few words it is of these.
Crossed texts: one begins as one text does, up to two words that another has too, and goes on as the other does behind
them. Both are cut at blanks and random, but the same for the same texts.
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm.auto import tqdm

from hf_sparse.distillation.recipe_data import Augmentation

logger = logging.getLogger(__name__)

# Texts of C that are read, the first ones; where there are more, none need to be made.
POOL_TEXTS: Final = 1_000_000
# Where the recipe leaves the numbers open.
_FEWEST_TEXTS: Final = 1_000
_MOST_WORDS: Final = 64
_DEFAULT_NUMBER: Final = 150_000
_DEFAULT_RATIO: Final = 2  # to the texts that are there, so that labelling takes no more than five times as long
# Of a run of words, and of the text that comes out of two.
_FEWEST_WORDS: Final = 2
_LONGEST_RUN: Final = 8
_FEWEST_CROSSED: Final = 3
_SHARED_WORDS: Final = 2
# Of the texts are no longer than a crossed one may be.
_LONGEST: Final = 0.99
# Draws for each text: of few texts that share little there are not as many as are asked for.
_DRAWS: Final = 20
_TABLE_ROWS: Final = 8_192

Ids = npt.NDArray[np.int64]


class WordPool:
    """The words of texts, as blanks divide them.

    Args:
        texts: The texts.

    Attributes:
        num_words: Of each text.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        numbers: dict[str, int] = {}
        found: list[npt.NDArray[np.int32]] = []
        for text in texts:
            found.append(np.array([numbers.setdefault(word, len(numbers)) for word in text.split()], np.int32))
        self._words = list(numbers)
        self._ids = found
        self.num_words: Ids = np.array([len(ids) for ids in found], np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self, text: int) -> npt.NDArray[np.int32]:
        """Return the numbers of the words of a text."""
        return self._ids[text]

    def join(self, ids: npt.NDArray[np.int32]) -> str:
        """Return words as a text, with single blanks."""
        return " ".join([self._words[number] for number in ids.tolist()])

    def pairs(self, texts: Sequence[int]) -> tuple[Ids, Ids]:
        """Return a number for every two words in a row of texts, from the second word on; and the starts of each text.

        The numbers of text `i` are `pairs[starts[i] : starts[i + 1]]`; equal words have equal numbers.
        """
        parts = [self._ids[text].astype(np.int64)[1:] for text in texts]
        codes = [part[:-1] * len(self._words) + part[1:] for part in parts]
        starts = np.concatenate(([0], np.cumsum([len(part) for part in codes], dtype=np.int64)))
        return np.concatenate(codes) if codes else np.zeros(0, np.int64), starts


def runs_of_words(pool: WordPool, texts: Sequence[int], number: int, *, progress: bool = False) -> list[str]:
    """Return distinct runs of 2 to 8 words out of texts, in random order, none of them a whole text.

    Args:
        pool: Words of the texts.
        texts: Which texts of the pool; one that is there twice is drawn twice as often.
        number: How many; fewer are found where there are no more.
        progress: Show a bar on stderr.
    """
    long = [text for text in texts if pool.num_words[text] > _FEWEST_WORDS]
    if not long:
        return []

    def cut(draw: random.Random) -> str:
        ids = pool.ids(long[draw.randrange(len(long))])
        length = draw.randint(_FEWEST_WORDS, min(_LONGEST_RUN, len(ids) - 1))
        start = draw.randrange(len(ids) - length + 1)
        return pool.join(ids[start : start + length])

    return _distinct(cut, number, title="runs of words", progress=progress)


def crossed_texts(pool: WordPool, texts: Sequence[int], number: int, *, progress: bool = False) -> list[str]:
    """Return distinct new texts that begin as one text and go on as another behind two words of both, in random order.

    Args:
        pool: Words of the texts.
        texts: Which texts of the pool; one that is there twice is drawn twice as often.
        number: How many; fewer are found where there are no more.
        progress: Show a bar on stderr.
    """
    codes, starts = pool.pairs(texts)
    if not len(codes):
        return []
    order = np.argsort(codes, kind="stable")
    owners = np.repeat(np.arange(len(texts)), np.diff(starts))
    ordered = codes[order]
    begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    group = np.empty(len(codes), np.int64)  # of each place, with the places of the same two words
    group[order] = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(codes))))
    ends = np.append(begins[1:], len(codes))
    known = {pool.join(pool.ids(text)) for text in set(texts)}
    lengths = pool.num_words[np.asarray(texts)]
    longest = int(np.sort(lengths)[int(_LONGEST * len(texts))])

    def cross(draw: random.Random) -> str | None:
        first = draw.randrange(len(texts))
        if lengths[first] <= _SHARED_WORDS + 1:
            return None
        cut = draw.randrange(1, int(lengths[first]) - _SHARED_WORDS + 1)
        same = group[starts[first] + cut - 1]
        place = order[begins[same] + draw.randrange(int(ends[same] - begins[same]))]
        second = owners[place]
        rest = pool.ids(texts[second])[place - starts[second] + 1 :]
        if not _FEWEST_CROSSED <= cut + len(rest) <= longest:
            return None
        text = pool.join(np.concatenate((pool.ids(texts[first])[:cut], rest)))
        return None if text in known else text

    found = _distinct(cross, number, title="crossed texts", progress=progress)
    random.Random(0).shuffle(found)
    return found


def _distinct(
    draw_text: Callable[[random.Random], str | None], number: int, *, title: str, progress: bool
) -> list[str]:
    """Return distinct texts, at most `number`, in the order in which they are drawn; None is a draw for nothing."""
    draw = random.Random(0)
    found: dict[str, None] = {}
    with tqdm(total=number, desc=title, unit=" texts", disable=not progress) as bar:
        for _ in range(_DRAWS * number):
            text = draw_text(draw)
            if text is not None:
                found[text] = None
                bar.update(len(found) - bar.n)
                if len(found) == number:
                    break
    return list(found)


def numbers_to_make(recipe: Augmentation, *, num_texts: int, words: float) -> dict[str, int]:
    """Return how many texts of which kind a recipe asks for, `crossed` and `fragments`.

    Args:
        recipe: What it says; null is twice as many as there are, at most 150,000, where there are 1,000 to 1,000,000
            texts of no more than 64 words on average, and otherwise none.
        num_texts: Texts of D_train and C of which they are made.
        words: Mean of these texts.
    """
    fits = _FEWEST_TEXTS <= num_texts <= POOL_TEXTS and words <= _MOST_WORDS
    default = min(_DEFAULT_RATIO * num_texts, _DEFAULT_NUMBER) if fits else 0
    return {
        "crossed": default if recipe.crossed is None else recipe.crossed,
        "fragments": default if recipe.fragments is None else recipe.fragments,
    }


def make_texts(
    recipe: Augmentation,
    numbers: dict[str, int],
    train: Iterable[str],
    corpus: Iterable[str],
    *,
    progress: bool = False,
) -> Iterator[pa.Table]:
    """Yield what is made of texts as tables with a column `text`.

    Args:
        recipe: How many texts of which kind are asked for.
        numbers: The same, as `numbers_to_make` finds them.
        train: Texts of D_train.
        corpus: Texts of C.
        progress: Show bars on stderr.

    Raises:
        ValueError: If a number is asked for, but none can be made.
    """
    from_train = list(train) if recipe.train_weight else []
    pool = WordPool([*from_train, *corpus])
    # D_train may be there several times, as it is less than C but what counts.
    texts = [*list(range(len(from_train))) * recipe.train_weight, *range(len(from_train), len(pool))]
    makers = {"crossed": crossed_texts, "fragments": runs_of_words}
    for name, number in numbers.items():
        if not number:
            continue
        key, made = f"data.augmentation.{name}", makers[name](pool, texts, number, progress=progress)
        if getattr(recipe, name) and not made:
            raise ValueError(
                f"{key} is {number}, but nothing can be made of the {len(pool)} texts of data.train and data.corpus: "
                "they share no two words, or no blanks divide them; set it to 0"
            )
        fewer = f", not {number}" if len(made) < number else ""
        logger.info("%s: %d texts made of %d%s, for the teacher to label too", key, len(made), len(pool), fewer)
        for start in range(0, len(made), _TABLE_ROWS):
            rows = pa.array(made[start : start + _TABLE_ROWS], pa.large_string())
            yield pa.table({"text": rows})
