"""A small HTTP service: `hf-sparse serve FOLDER_OR_REPO`."""

from hf_sparse.serving.serve import serve

__all__ = ["serve"]
