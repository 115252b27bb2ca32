"""The contestants, one module a kind.

A worker loads these modules by their path, some of them where hf_sparse is missing or must seem so: they import
nothing of the package but what a student's user would.
"""
