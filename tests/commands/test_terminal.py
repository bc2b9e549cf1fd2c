"""Tables on the terminal show strings as they are."""

import pytest
from rich.table import Table
from rich.text import Text

from reprise.commands.terminal import Terminal

NAMES = [
    "[red]loud[/red]",
    "[link=https://example.org]here[/link]",
    "[/]",
    ":tada:",
    r"\[x]",
    "a\nb\x1b[31m",
    "\u202egnp",
]
SHOWN = [
    "[red]loud[/red]",
    "[link=https://example.org]here[/link]",
    "[/]",
    ":tada:",
    r"\[x]",
    r"a\nb\x1b[31m",
    r"\u202egnp",
]


def test_names_in_a_table_are_neither_markup_nor_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    table = Table(title=NAMES[0], caption=NAMES[5])
    table.add_column("experiment", footer=NAMES[6])
    table.add_column(NAMES[1])
    table.show_footer = True
    for name in NAMES:
        table.add_row(name, "end")
    terminal.print(table, width=200)
    printed = capsys.readouterr().out
    for name in SHOWN:
        assert name in printed
    assert {char for char in printed if not char.isprintable()} == {"\n"}


def test_a_line_is_one_line_and_our_own_style_stays(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    for name in NAMES:
        terminal.print(f"Warning: {name}", style="bold", soft_wrap=True)
    terminal.print(Text("two\nlines"))
    assert capsys.readouterr().out.splitlines() == [*(f"Warning: {name}" for name in SHOWN), "two", "lines"]
