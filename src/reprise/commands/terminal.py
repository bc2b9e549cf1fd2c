"""Tables and lines on the terminal."""

from typing import Any

from rich.console import Console
from rich.text import Text

from reprise.core.display import printable


class Terminal(Console):
    """A console that shows every string as it is, on one line: no markup, no emoji codes, no control characters.

    Style and line breaks of our own are in a `Text`, which is printed unchanged.
    """

    def __init__(self) -> None:
        """Write to standard output."""
        super().__init__(highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string, of a line or of a cell, title or heading of a table."""
        return super().render_str(printable(text), **options)
