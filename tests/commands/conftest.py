"""A repository with measured seed noise: five runs, shared by the tests that need them."""

import shutil
from pathlib import Path

import pytest

from reprise.results import statistics
from tiny import Run, write_params

# After four epochs every seed has learned the tiny task, so that seed noise is small beside a wrong learning rate.
LEARNED = {"train.epochs": 4}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let intervals of differences take a tenth of the time; tests/results/test_statistics.py tests their numbers."""
    monkeypatch.setattr(statistics, "RESAMPLES", 100)


@pytest.fixture(scope="session")
def measured(trained_repo: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> tuple[Path, str]:
    """A trained repository after `reprise seed-noise`, and the output of that command. Do not change.

    The experiment `mine` is the user's own; the reference is not committed.
    """
    folder = Path(shutil.copytree(trained_repo, tmp_path_factory.mktemp("measured") / "repo", symlinks=True))
    write_params(folder, **LEARNED)
    run(folder, "dvc", "repro")
    run(folder, "git", "commit", "-qam", "Train longer")
    run(folder, "dvc", "exp", "run", "--temp", "--name", "mine", "--set-param", "evaluate.bootstrap_resamples=101")
    return folder, run(folder, "reprise", "seed-noise").stdout
