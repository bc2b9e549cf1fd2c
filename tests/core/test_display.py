"""Texts on a terminal are text: nothing of a name, label or row moves the cursor, colours or hides what is shown."""

import json

import pytest

from reprise.core.display import echo, printable, to_json

HOSTILE = {
    "a\nb": r"a\nb",
    "a\r\x1b[2K\x1b[31mred": r"a\r\x1b[2K\x1b[31mred",
    "\x1b]8;;https://example.org\x07link\x1b]8;;\x07": r"\x1b]8;;https://example.org\x07link\x1b]8;;\x07",
    "\x9b31m": r"\x9b31m",
    "\u202eevil\u2066": r"\u202eevil\u2066",
    "a\u2028b\x85c\x0bd": r"a\u2028b\x85c\x0bd",
    "\udcff": r"\udcff",
    "zero\u200bwidth\x00\x7f\t": r"zero\u200bwidth\x00\x7f\t",
    "[red]é 漢字 🎉[/red] \\n": "[red]é 漢字 🎉[/red] \\n",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_what_a_terminal_would_obey_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_line_is_one_line_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"prepare: warning: {''.join(HOSTILE)}")
    echo("predict: a\nb", err=True)
    printed = capsys.readouterr()
    assert printed.out == f"prepare: warning: {''.join(HOSTILE.values())}\n"
    assert printed.err == "predict: a\\nb\n"


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_printable_and_means_the_same(indent: int | None) -> None:
    content = {text: [text, 0.5, None] for text in HOSTILE}
    printed = to_json(content, indent=indent)
    assert json.loads(printed) == content
    assert all(line.isprintable() for line in printed.split("\n"))
    assert "é 漢字 🎉" in printed
    assert "\n" not in to_json(content)


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"probability": float("nan")})
