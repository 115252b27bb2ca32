"""`hf-sparse plan`: what a recipe will take, before anything starts."""

from hf_sparse.extras import require_extra

require_extra("train")
