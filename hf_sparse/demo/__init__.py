"""A page to try a student, here or as a Space of the Hub."""

from hf_sparse.demo.app import build_app

__all__ = ["build_app"]
