"""Decode lines of text that a user gives on standard input, and compare texts by hashes."""

import codecs
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from reprise.core.errors import UserError


def normalize(text: str) -> str:
    """Return the text without differences of case and white space."""
    return " ".join(text.casefold().split())


def hash_texts(texts: list[list[str]]) -> npt.NDArray[np.uint64]:
    """Hash each row of one or two columns of texts; shape [rows]."""
    import pandas as pd  # a third of a second, which `predict` need not wait

    rows = np.array(["\x1f".join(row) for row in zip(*texts, strict=True)], dtype=object)
    return pd.util.hash_array(rows, categorize=False)


def decode_lines(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Decode lines of UTF-8 without their ends, LF or CR LF, and without a byte order mark.

    Args:
        lines: as a binary file yields them.
        name: what an error calls their source.

    Raises:
        UserError: A line is not UTF-8, or contains a null byte.
    """
    for number, line in enumerate(lines, start=1):
        content = line.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            content = content.removeprefix(codecs.BOM_UTF8)
        if b"\0" in content:
            raise UserError("contains a null byte", file=name, key=f"line {number}", expected="text in UTF-8")
        try:
            yield content.decode("utf-8")
        except UnicodeDecodeError:
            expected = "text in UTF-8: convert it, for example with iconv"
            raise UserError("not UTF-8", file=name, key=f"line {number}", expected=expected) from None
