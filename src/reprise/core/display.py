"""Show text on a terminal as text: a key, name, label or row never moves the cursor, colours or hides anything."""

import json
import sys
from typing import Any


def printable(text: object) -> str:
    r"""Return a text on one line, with characters that a terminal would obey spelled out, such as `\n` and `\x1b`.

    Among these are marks that reverse the direction of writing, and halves of a character that cannot be encoded.
    """
    line = str(text)
    return line if line.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


def echo(line: object, *, err: bool = False) -> None:
    """Print one line of text at once, to standard error if `err`."""
    print(printable(line), file=sys.stderr if err else sys.stdout, flush=True)


def echo_lines(text: str) -> None:
    """Print a text of several lines, whose line breaks are our own."""
    for line in text.split("\n"):
        echo(line)


def to_json(content: Any, *, indent: int | None = None) -> str:
    r"""Return JSON that is safe to print and has the same meaning: what is not printable is written as `\u001b`.

    Raises:
        ValueError: the content has a number that is not finite.
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _json_escape(char) for char in text)


def _json_escape(char: str) -> str:
    return "".join(f"\\u{unit}" for unit in char.encode("utf-16-be", "surrogatepass").hex(" ", 2).split())
