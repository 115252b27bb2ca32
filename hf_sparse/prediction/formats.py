"""The formats that texts are read from and answers written to, and the names of files that have them."""

from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

Format: TypeAlias = Literal["txt", "jsonl", "csv", "tsv", "parquet"]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)
# In place of a file: standard input, standard output.
STANDARD: Final = "-"
DELIMITERS: Final = {"csv": ",", "tsv": "\t"}


def file_format(path: str, chosen: Format | None, *, standard: Format, option: str) -> Format:
    """Return the format of a file: what was chosen, else what its name ends with.

    Args:
        path: The file, or `-`.
        chosen: By the user; None looks at the name.
        standard: That of `-`.
        option: Name of the option that chooses, for the message.

    Raises:
        ValueError: The name says nothing, or a Parquet file cannot be what is asked for.
    """
    suffix = Path(path.removesuffix(".gz")).suffix.removeprefix(".")
    found = chosen or (standard if path == STANDARD else suffix)
    for known in FORMATS:
        if known == found:
            if known == "parquet" and (path == STANDARD or is_compressed(path)):
                raise ValueError(f"Parquet is read and written as a plain file, not as {path!r}; name a .parquet file")
            return known
    raise ValueError(f"the name {path!r} does not end with .{', .'.join(FORMATS)}; say what it holds with --{option}")


def is_compressed(path: str) -> bool:
    """Tell whether a file is compressed by gzip, by its name."""
    return path.endswith(".gz")
