"""Errors that the user can correct, reported in one line."""

from pathlib import Path

from reprise.core.display import printable

MAX_PART_CHARS = 500  # of a problem, a key or an expectation in the line


class UserError(Exception):
    """Bad input; the command exits with code 2 and prints one line: `file: key: problem; expected …`.

    Attributes:
        problem: what is wrong, "" where `expected` says it all.
        file: the file or folder that is wrong, as the user names it; "" for an argument.
        key: the key, column, option, variable or argument, such as `train.epochs`.
        expected: what would be right, without the word "expected".
    """

    def __init__(self, problem: str = "", *, file: Path | str = "", key: str = "", expected: str = "") -> None:
        """Compose the line of the parts that are given."""
        self.problem, self.file, self.key, self.expected = problem, str(file), key, expected
        sentence = "; ".join(filter(None, [_cut(problem), f"expected {_cut(expected)}" if expected else ""]))
        line = ": ".join(filter(None, [self.file, _cut(key), sentence]))
        super().__init__(printable(line))


def _cut(text: str) -> str:
    """Keep a line readable whatever a file holds: a label of thousands of characters, or thousands of labels."""
    return text if len(text) <= MAX_PART_CHARS else f"{text[:MAX_PART_CHARS]}…"
