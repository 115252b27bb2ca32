"""`python -m hf_sparse`: the same as the command `hf-sparse`."""

from hf_sparse.cli import main

if __name__ == "__main__":
    main()
