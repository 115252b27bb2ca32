"""The benchmark: a student against its teacher and everyone else, from raw strings to labels."""

from hf_sparse.benchmark.bench import bench

__all__ = ["bench"]
