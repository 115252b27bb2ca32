"""How good and how fast a student is: metrics against gold labels and against the teacher, throughput."""

from hf_sparse.extras import require_extra

require_extra("train")
