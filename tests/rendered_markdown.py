"""Markdown as GitHub shows it, by its own parser."""

import re
from html.parser import HTMLParser

import cmarkgfm
from cmarkgfm.cmark import Options


class Shown(HTMLParser):
    """The elements of a page and the texts of its nodes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.texts: list[str] = []
        self.code: set[int] = set()  # the texts that are code
        self.inside: list[str] = []
        self.is_same_node = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.elements.append(tag)
        self.inside.append(tag)
        self.is_same_node = False

    def handle_endtag(self, tag: str) -> None:
        self.inside.remove(tag)
        self.is_same_node = False

    def handle_data(self, data: str) -> None:
        if self.is_same_node:  # the parser may hand over one node in parts
            self.texts[-1] += data
        else:
            self.texts.append(data)
        if "code" in self.inside:
            self.code.add(len(self.texts) - 1)
        self.is_same_node = True

    @property
    def text(self) -> str:
        return "".join(self.texts).strip()


def to_html(markdown: str) -> str:
    return str(cmarkgfm.github_flavored_markdown_to_html(markdown, Options.CMARK_OPT_UNSAFE))


def rendered(markdown: str) -> Shown:
    return Shown(to_html(markdown))


def referring(shown: Shown) -> list[str]:
    """Return the texts that GitHub turns into a mention, a reference, an emoji or a formula; it leaves code alone."""
    pattern = re.compile(r"@\w|#\d|\bgh-\d|:[\w+-]+:|\$\S|https?://|\bwww\.", re.IGNORECASE)
    return [text for index, text in enumerate(shown.texts) if index not in shown.code and pattern.search(text)]
