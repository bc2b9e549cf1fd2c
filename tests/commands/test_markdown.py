"""Texts in Markdown, rendered by GitHub's own parser: the reader sees what was given, and nobody is notified."""

import re

import pytest

from rendered_markdown import Shown, referring, rendered, to_html
from reprise.commands.markdown import code_span, escape_markdown, markdown_table

HOSTILE = [
    "a|b", r"a\|b", "<img src=x onerror=alert(1)>", "<!-- hidden", "[label](https://example.org)", "![i](x.png)",
    "@team", "@org/team", "a @b, c@d", "user@example.org", "mailto:user@example.org",
    "#12", "org/repo#12", "gh-12", "GH-7", "https://example.org/a_b_c?d=e&f", "http://www.example.org",
    "www.example.org", "ftp://example.org", "<https://a.b>", "`code`", "``", "a`b", "*bold*", "__init__", "~~gone~~",
    "&lt;b&gt;", "&#64;team", ":tada:", "a:+1:", "$x_1$", "$$x$$", "# heading", "## two", "- item", "+ item", "* item",
    "1. first", "23) item", "> quote", "---", "===", "[x] done", "[^1]", "\\", "a\\", "\\@team", "constructor",
    "__proto__", "-0.05", "1.5", "é ü 漢字 🎉",
]  # fmt: skip


@pytest.mark.parametrize("given", HOSTILE)
@pytest.mark.parametrize("before", ["", "- ", "**first**: ", "> "])
def test_a_text_is_shown_as_given_and_refers_to_nothing(given: str, before: str) -> None:
    shown = rendered(before + escape_markdown(given))
    assert shown.text.removeprefix("first: ") == given
    assert set(shown.elements) <= {"p", "span", "strong", "ul", "li", "blockquote"}
    assert shown.elements.count("li") == before.count("-")
    assert referring(shown) == []


def test_the_texts_of_a_table_stay_in_their_cells() -> None:
    rows = [[given, "end"] for given in HOSTILE]
    page = to_html("\n".join(markdown_table(["@team", "a|b"], rows)))
    cells = [Shown(cell).text for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", page, flags=re.DOTALL)]
    assert cells == ["@team", "a|b", *(cell for row in rows for cell in row)]
    assert set(Shown(page).elements) == {"table", "thead", "tbody", "tr", "th", "td", "span"}
    assert referring(Shown(page)) == []


@pytest.mark.parametrize("given", HOSTILE)
def test_code_is_shown_as_given(given: str) -> None:
    shown = rendered(f"of {code_span(given)} here")
    assert (shown.text, shown.elements) == (f"of {given} here", ["p", "code"])


def test_control_characters_are_spelled_out_and_line_breaks_end_no_cell() -> None:
    assert rendered(escape_markdown("a\n\n# b\r\x1b[31m\u202ec")).text == r"a\n\n# b\r\x1b[31m\u202ec"
    assert rendered(code_span("a\n\n# b")).text == r"a\n\n# b"
    assert escape_markdown("  a   b ") == "a b"
