"""What a run prints while it trains: a bar in a terminal, lines elsewhere."""

import io
import sys

import pytest

from reprise.train import progress
from reprise.train.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr a terminal of 60 columns; within a test, because pytest replaces stderr after its fixtures."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    for name, value in (("COLUMNS", "61"), ("LINES", "20")):  # tqdm leaves the last column free
        monkeypatch.setenv(name, value)
    return stream


def test_the_bar_shows_epoch_and_rate_in_60_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    bar = Progress(642, 321, 2, enabled=True)
    for steps in range(1, 401):
        bar.advance()
        bar.show(steps, 0.4123, 223.6, 10.0)
    bar.bar.refresh()  # tqdm draws ten times a second
    bar.close()
    shown = terminal.getvalue().replace("\n", "\r").split("\r")
    assert max(map(len, shown)) <= 60
    last = [line for line in shown if line.strip()][-1]
    assert last.startswith("epoch 2/2 |")
    assert "400/642" in last
    assert "224 examples/s" in last


def test_validation_metrics_stand_on_a_line_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = open_terminal(monkeypatch)
    bar = Progress(642, 321, 2, enabled=True)
    bar.advance()
    bar.show_validation(0, {"accuracy": 0.81})
    assert capsys.readouterr().out == "train: epoch 1/2: validation accuracy 0.8100\n"
    assert "epoch 1/2 |" in terminal.getvalue()
    bar.close()


def test_elsewhere_a_line_every_few_seconds_has_epoch_step_loss_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", -1.0)
    Progress(642, 321, 2, enabled=True).show(321, 0.4123, 223.6, 60.0)
    assert capsys.readouterr().out == "train: epoch 1/2, step 321/642, loss 0.412, 224 examples/s, 01:00 left\n"


def test_other_ranks_print_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = open_terminal(monkeypatch)
    bar = Progress(642, 321, 2, enabled=False)
    bar.advance()
    bar.show(1, 0.4, 224, 1.0)
    bar.show_validation(0, {"accuracy": 0.81})
    assert capsys.readouterr().out == terminal.getvalue() == ""
