"""Stopping from outside: signals to the real command, in one process and in two, and the bits it ends with."""

import re
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from interrupts import Running, checkpoints, position, results, set_processes
from reprise.train.distributed.preemption import STOP_FILE, StopRequest, handle_signals
from tiny import Run, write_params

Whole = Callable[[int], dict[str, bytes]]

# Three rows a step, so that each of three processes has something to add. A checkpoint after every step takes its time,
# and a signal arrives in the epoch that it is meant for.
LONG = {"train.epochs": 3, "train.batch_size": 3, "train.micro_batch_size": 1, "run.save_steps": 1}
EPOCH, STEPS = 48, 144


@pytest.fixture(scope="module")
def whole(bench: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Whole:
    """The results of a run that is never stopped, by the number of its processes."""
    made: dict[int, dict[str, bytes]] = {}

    def whole(processes: int) -> dict[str, bytes]:
        if processes not in made:
            folder = Path(shutil.copytree(bench, tmp_path_factory.mktemp("whole") / "bench"))
            write_params(folder, **LONG)
            set_processes(folder, processes)
            run(folder, "reprise", "train")
            made[processes] = results(folder)
        return made[processes]

    return whole


def stopped_after(training: Running) -> int:
    """The step that a training says it was stopped after, in its last line."""
    last = training.stderr.splitlines()[-1]
    said = re.fullmatch(rf"reprise train: stopped after step (\d+)/{STEPS}; `dvc repro` goes on from there", last)
    assert said, training.stderr
    return int(said[1])


@pytest.mark.parametrize(
    ("processes", "signals"),
    [
        (1, (signal.SIGTERM, signal.SIGINT)),
        pytest.param(1, (signal.SIGINT, signal.SIGTERM), marks=pytest.mark.thorough),
        pytest.param(2, (signal.SIGTERM, signal.SIGINT), marks=pytest.mark.thorough),
        (2, (signal.SIGINT, signal.SIGTERM)),
        # From three on, the order in which the processes' parts are summed decides the last bit.
        pytest.param(3, (signal.SIGTERM, signal.SIGINT), marks=pytest.mark.thorough),
    ],
)
def test_stopped_in_the_first_epoch_and_in_the_next_it_goes_on_to_the_bits_of_an_unbroken_run(
    at: Path, run: Run, whole: Whole, processes: int, signals: tuple[signal.Signals, ...]
) -> None:
    write_params(at, **LONG)
    set_processes(at, processes)
    stops: list[int] = []
    for epoch, number in enumerate(signals):
        with Running(at, "reprise", "train") as training:
            training.until(lambda epoch=epoch: any(position(found)[1] == epoch for found in checkpoints(at)))
            training.send(number)
            said = training.end(128 + number)
        assert re.findall(r"goes on after step (\d+)/", said) == [str(step) for step in stops[-1:]]
        stops.append(stopped_after(training))
        assert epoch * EPOCH < stops[-1] <= (epoch + 1) * EPOCH
        assert position(checkpoints(at)[-1]) == (stops[-1], epoch)
        assert results(at) == {}
    assert f"train: goes on after step {stops[-1]}/{STEPS}, from " in run(at, "reprise", "train").stdout
    assert results(at) == whole(processes)


def test_where_the_launcher_is_killed_its_processes_end_too_and_the_run_goes_on(
    at: Path, run: Run, whole: Whole
) -> None:
    write_params(at, **LONG)
    set_processes(at, 2)
    with Running(at, "reprise", "train") as training:
        training.until(lambda: checkpoints(at))
        family = psutil.Process(training.process.pid).children(recursive=True)
        training.send(signal.SIGKILL)
        training.end(-signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert len(family) >= 3  # torchrun and what it started
        assert alive == []
    assert re.search(r"train: goes on after step [1-9]", run(at, "reprise", "train").stdout)
    assert results(at) == whole(2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_wish_for_as_long_as_somebody_listens(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(either) for either in (signal.SIGTERM, signal.SIGINT)]
    with handle_signals() as stop:
        assert stop.signal == 0
        signal.raise_signal(number)
        assert stop.signal == number
    assert capsys.readouterr().err == f"train: {number.name}: finishing the step and keeping a checkpoint\n"
    assert [signal.getsignal(either) for either in (signal.SIGTERM, signal.SIGINT)] == before


def test_in_a_thread_nobody_takes_signals_and_the_launchers_file_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STOP_FILE, str(tmp_path / "stop"))
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    heard: list[StopRequest] = []

    def listen() -> None:
        with handle_signals() as stop:
            assert [signal.getsignal(number) for number in numbers] == before
            heard.append(stop)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    (stop,) = heard
    assert (stop.signal, stop.file) == (0, tmp_path / "stop")
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_second_ctrl_c_ends_it_as_if_nobody_listened() -> None:
    with handle_signals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
