"""Text in Markdown: a pull request's comparison, and model cards."""

import re
from collections.abc import Iterable, Sequence

from reprise.core.display import printable

# Signs of Markdown; and signs that GitHub acts on although they are escaped, because it looks for them in the rendered
# text: a mention, a reference to an issue, an address, an emoji code, a formula. An element of its own ends its search.
SIGNS = re.compile(
    r"""(?P<markdown>[\\|*_`<>\[\]~&])
    | @(?=\w) | \#(?=\d) | (?<=\bgh)-(?=\d) | :(?=//) | (?<=\bwww)\. | :(?=[\w+-]+:) | \$""",
    re.VERBOSE | re.IGNORECASE,
)
# What begins a list, a heading or a line under a heading.
BLOCK = re.compile(r"^(\d{0,9})([-+=#.)])(?=\s|$|[-=#])")


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Format a table in GitHub's Markdown, one row per line."""
    rule = f"| {' | '.join(['---'] * len(headings))} |"
    heading, *others = [f"| {' | '.join(map(escape_markdown, each))} |" for each in (headings, *rows)]
    return [heading, rule, *others]


def escape_markdown(text: str) -> str:
    """Escape a text so that GitHub and the Hub show it literally, on one line: no link, mention or reference."""
    return BLOCK.sub(r"\1\\\2", SIGNS.sub(_escape, _on_one_line(text)))


def _escape(match: re.Match[str]) -> str:
    return f"\\{match[0]}" if match["markdown"] else f"<span>{match[0]}</span>"


def code_span(text: str) -> str:
    """Format a text as code, on one line; between `|` of a table use `escape_markdown`."""
    flat = _on_one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", flat)), default=0))
    return f"{fence} {flat} {fence}" if "`" in flat else f"`{flat}`"


def _on_one_line(text: str) -> str:
    return " ".join(printable(text).split())
