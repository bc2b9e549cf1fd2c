"""Errors that the user can correct, reported in one line."""

from pathlib import Path

from reprise.core.display import printable


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
        sentence = "; ".join(filter(None, [problem, f"expected {expected}" if expected else ""]))
        line = ": ".join(filter(None, [self.file, key, sentence]))
        super().__init__(printable(line))
