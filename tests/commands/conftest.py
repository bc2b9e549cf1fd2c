"""A recipe whose seeds were measured: five cookings, so once for all tests that need them."""

import shutil
from pathlib import Path

import pytest

from tiny import Run, write_params

# Four epochs teach every seed all of the tiny task, so that a seed's noise is small beside a wrong learning rate.
LEARNED = {"train.epochs": 4}


@pytest.fixture(scope="session")
def measured(cooked: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> tuple[Path, str]:
    """A kitchen with a recipe that learns, cooked, where `reprise seed-noise` was typed; and what it printed.

    The experiment `mine` is the user's own, the reference is not committed. Do not change.
    """
    folder = Path(shutil.copytree(cooked, tmp_path_factory.mktemp("measured") / "kitchen", symlinks=True))
    write_params(folder, **LEARNED)
    run(folder, "dvc", "repro")
    run(folder, "git", "commit", "-qam", "Cook longer")
    run(folder, "dvc", "exp", "run", "--temp", "--name", "mine", "--set-param", "evaluate.bootstrap_resamples=101")
    return folder, run(folder, "reprise", "reference").stdout
