"""What the launcher passes to its workers, and how they answer."""

from pathlib import Path

import pytest

from reprise.train.worker_env import WorkerEnv, read_message, write_message


@pytest.mark.parametrize(
    "sent", [WorkerEnv(), WorkerEnv(6, 60), WorkerEnv(2, 1, Path("stop"), Path("error"), Path("liveness"))]
)
def test_a_worker_reads_what_the_launcher_passes(sent: WorkerEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WorkerEnv(1, 1, Path("stop"), Path("error"), Path("liveness")).variables():
        monkeypatch.delenv(name, raising=False)
    assert WorkerEnv.read() == WorkerEnv()
    for name, value in sent.variables().items():
        monkeypatch.setenv(name, value)
    assert WorkerEnv.read() == sent


def test_a_message_goes_to_its_file_or_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "error"
    assert read_message(file) == ""
    write_message(file, "wrong – again")
    assert read_message(file) == "wrong – again"
    assert capsys.readouterr().err == ""
    write_message(None, "no launcher")
    assert capsys.readouterr().err == "no launcher\n"
