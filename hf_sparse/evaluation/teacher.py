"""A teacher that is asked about labelled texts."""

import time

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from hf_sparse.distillation.recipe import TeacherRecipe
from hf_sparse.distillation.teacher import TeacherEncoder, labelling_dtype, load_classifier, load_tokenizer
from hf_sparse.evaluation.labelled_texts import LabelledTexts, label_names

_TOKENS_PER_BATCH = 8192


class Teacher:
    """A teacher whose logits come in the order of the student's labels.

    Args:
        model: Folder or Hub id of the teacher.
        names: The student's labels.
        max_length: Tokens that it reads of a text.

    Attributes:
        seconds: How long it has worked.

    Raises:
        ValueError: It cannot be loaded, or has other labels.
    """

    def __init__(self, model: str, names: list[str], *, max_length: int) -> None:
        recipe = TeacherRecipe(model=model, max_length=max_length)
        classifier = load_classifier(recipe)
        own = label_names(classifier.config)
        if sorted(own) != sorted(names):
            raise ValueError(
                f"teacher {model!r} has the labels {', '.join(own)}, but the student has {', '.join(names)}; name the "
                "teacher that the student was distilled from"
            )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._columns = [own.index(name) for name in names]
        self._encoder = TeacherEncoder(
            classifier,
            load_tokenizer(recipe),
            max_length=max_length,
            tokens_per_batch=_TOKENS_PER_BATCH,
            device=device,
            dtype=labelling_dtype("auto", device),
        )
        self.seconds = 0.0

    def logits(self, texts: LabelledTexts) -> npt.NDArray[np.float32]:
        """Return its logits (B, C) of texts; a bar goes to stderr."""
        started = time.perf_counter()
        with tqdm(total=len(texts.texts), desc="teacher", unit=" texts", disable=None) as bar:
            logits = self._encoder.logits(texts.texts, texts.text_pairs, bar=bar)
        self.seconds += time.perf_counter() - started
        return logits[:, self._columns]
