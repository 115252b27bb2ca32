"""From a teacher and texts to a student: the recipe, its stages and the training."""

from hf_sparse.extras import require_extra

require_extra("train")
