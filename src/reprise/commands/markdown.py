"""Text in Markdown: a pull request's comparison, and model cards."""

from collections.abc import Sequence
from typing import Any


def markdown_table(headings: Sequence[str], rows: Any) -> list[str]:
    """Format a table in GitHub's Markdown, one row per line."""
    return [f"| {' | '.join(map(escape_markdown, each))} |" for each in (headings, ["---"] * len(headings), *rows)]


def escape_markdown(text: str) -> str:
    """Escape a text so that Markdown shows it literally, on one line."""
    flat = " ".join(text.split())
    for sign in "\\|*_`<[":
        flat = flat.replace(sign, f"\\{sign}")
    return flat
