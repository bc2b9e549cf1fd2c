"""Preemption: signals to the real command on one and two ranks, and the bits of the resumed run."""

import re
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from interrupts import Running, checkpoints, position, results, set_processes
from reprise.train.distributed.preemption import StopRequest, handle_signals
from tiny import Run, write_params

Uninterrupted = Callable[[int], dict[str, bytes]]

# Three examples per step, one per rank of three. Saving after every step makes epochs long enough for a signal to
# arrive in the intended one.
LONG = {"train.epochs": 3, "train.batch_size": 3, "train.micro_batch_size": 1, "run.save_steps": 1}
EPOCH, STEPS = 48, 144


@pytest.fixture(scope="module")
def uninterrupted(prepared_dir: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Uninterrupted:
    """The results of an uninterrupted run, by its number of processes."""
    made: dict[int, dict[str, bytes]] = {}

    def uninterrupted(processes: int) -> dict[str, bytes]:
        if processes not in made:
            folder = Path(shutil.copytree(prepared_dir, tmp_path_factory.mktemp("uninterrupted") / "prepared"))
            write_params(folder, **LONG)
            set_processes(folder, processes)
            run(folder, "reprise", "train")
            made[processes] = results(folder)
        return made[processes]

    return uninterrupted


def stopped_after(training: Running) -> int:
    """The step in the last line of a stopped run."""
    last = training.stderr.splitlines()[-1]
    output = re.fullmatch(rf"reprise train: stopped after step (\d+)/{STEPS}; `dvc repro` resumes from there", last)
    assert output, training.stderr
    return int(output[1])


@pytest.mark.full
@pytest.mark.parametrize(
    ("processes", "signals"),
    [
        (1, (signal.SIGTERM, signal.SIGINT)),
        pytest.param(1, (signal.SIGINT, signal.SIGTERM), marks=pytest.mark.full),
        pytest.param(2, (signal.SIGTERM, signal.SIGINT), marks=pytest.mark.full),
        pytest.param(2, (signal.SIGINT, signal.SIGTERM), marks=pytest.mark.full),
        # From three on, the order of the sum over ranks determines the last bit.
        pytest.param(3, (signal.SIGTERM, signal.SIGINT), marks=pytest.mark.full),
    ],
)
def test_run_stopped_by_signals_in_two_epochs_ends_with_the_same_bits(
    workdir: Path, run: Run, uninterrupted: Uninterrupted, processes: int, signals: tuple[signal.Signals, ...]
) -> None:
    write_params(workdir, **LONG)
    set_processes(workdir, processes)
    stops: list[int] = []
    for epoch, number in enumerate(signals):
        with Running(workdir, "reprise", "train") as training:
            training.until(lambda epoch=epoch: any(position(found)[1] == epoch for found in checkpoints(workdir)))
            training.send(number)
            output = training.end(128 + number)
        assert re.findall(r"resuming from step (\d+)/", output) == [str(step) for step in stops[-1:]]
        stops.append(stopped_after(training))
        assert epoch * EPOCH < stops[-1] <= (epoch + 1) * EPOCH
        assert position(checkpoints(workdir)[-1]) == (stops[-1], epoch)
        assert results(workdir) == {}
    assert f"train: resuming from step {stops[-1]}/{STEPS}, from " in run(workdir, "reprise", "train").stdout
    assert results(workdir) == uninterrupted(processes)


@pytest.mark.full  # tests/deploy/test_multihost.py kills workers, too
def test_workers_end_with_a_killed_launcher_and_the_run_resumes(
    workdir: Path, run: Run, uninterrupted: Uninterrupted
) -> None:
    write_params(workdir, **LONG)
    set_processes(workdir, 2)
    with Running(workdir, "reprise", "train") as training:
        training.until(lambda: checkpoints(workdir))
        family = psutil.Process(training.process.pid).children(recursive=True)
        training.send(signal.SIGKILL)
        training.end(-signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert len(family) >= 3  # torchrun and what it started
        assert alive == []
    assert re.search(r"train: resuming from step [1-9]", run(workdir, "reprise", "train").stdout)
    assert results(workdir) == uninterrupted(2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_a_request_while_it_is_handled(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(either) for either in (signal.SIGTERM, signal.SIGINT)]
    with handle_signals() as stop:
        assert stop.signal == 0
        signal.raise_signal(number)
        assert stop.signal == number
    assert capsys.readouterr().err == f"train: {number.name}: finishing the step and writing a checkpoint\n"
    assert [signal.getsignal(either) for either in (signal.SIGTERM, signal.SIGINT)] == before


def test_thread_handles_no_signals_and_sees_the_stop_file(
    tmp_path: Path,
) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    requests: list[StopRequest] = []

    def handle_in_thread() -> None:
        with handle_signals(tmp_path / "stop") as stop:
            assert [signal.getsignal(number) for number in numbers] == before
            requests.append(stop)

    thread = threading.Thread(target=handle_in_thread)
    thread.start()
    thread.join()
    (stop,) = requests
    assert (stop.signal, stop.file) == (0, tmp_path / "stop")
    assert [signal.getsignal(number) for number in numbers] == before


def test_second_ctrl_c_ends_the_process_as_usual() -> None:
    with handle_signals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
