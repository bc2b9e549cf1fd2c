"""What a run prints while it trains: a bar in a terminal, lines elsewhere."""

import os
import sys
import termios
from collections.abc import Callable, Iterator

import pytest

from reprise.train import progress
from reprise.train.progress import Progress


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Callable[[], list[str]]]]:
    """Makes stderr a terminal of 60 columns; returns a function that reads the lines drawn on it."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (20, 60))

    def open_terminal() -> Callable[[], list[str]]:
        monkeypatch.setattr(sys, "stderr", os.fdopen(slave, "w", closefd=False))

        def read() -> list[str]:
            sys.stderr.write("END")  # The kernel hands over what was written in parts and later: read up to a mark.
            sys.stderr.flush()
            drawn = ""
            while not drawn.endswith("END"):
                drawn += os.read(master, 1 << 16).decode()
            return [line for line in drawn.removesuffix("END").replace("\n", "\r").split("\r") if line.strip()]

        return read

    yield open_terminal
    os.close(slave)
    os.close(master)


def test_the_bar_shows_epoch_and_rate_in_60_columns(terminal: Callable[[], Callable[[], list[str]]]) -> None:
    drawn = terminal()
    bar = Progress(642, 321, 2, enabled=True)
    for steps in range(1, 401):
        bar.advance()
        bar.show(steps, 0.4123, 223.6, 10.0)
    bar.bar.refresh()  # tqdm draws ten times a second
    bar.close()
    lines = drawn()
    assert max(map(len, lines)) <= 60
    assert lines[-1].startswith("epoch 2/2 |")
    assert "400/642" in lines[-1]
    assert "224 examples/s" in lines[-1]


def test_validation_metrics_stand_on_a_line_of_their_own(
    terminal: Callable[[], Callable[[], list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = terminal()
    bar = Progress(642, 321, 2, enabled=True)
    bar.advance()
    bar.show_validation(0, {"accuracy": 0.81})
    bar.close()
    assert capsys.readouterr().out == "train: epoch 1/2: validation accuracy 0.8100\n"
    assert "epoch 1/2 |" in drawn()[-1]


def test_elsewhere_a_line_every_few_seconds_has_epoch_step_loss_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", -1.0)
    Progress(642, 321, 2, enabled=True).show(321, 0.4123, 223.6, 60.0)
    assert capsys.readouterr().out == "train: epoch 1/2, step 321/642, loss 0.412, 224 examples/s, 01:00 left\n"


def test_other_ranks_print_nothing(
    terminal: Callable[[], Callable[[], list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = terminal()
    bar = Progress(642, 321, 2, enabled=False)
    bar.advance()
    bar.show(1, 0.4, 224, 1.0)
    bar.show_validation(0, {"accuracy": 0.81})
    assert capsys.readouterr().out == ""
    assert drawn() == []
