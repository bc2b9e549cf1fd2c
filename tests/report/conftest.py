"""A repository with experiments."""

import shutil
from pathlib import Path

import pytest

from tiny import Run


@pytest.fixture(scope="session")
def with_experiments(trained_repo: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A trained repository with the experiments `second` (another seed) and `gentler` (another learning rate).

    Do not change.
    """
    folder = Path(shutil.copytree(trained_repo, tmp_path_factory.mktemp("experiments") / "repo", symlinks=True))
    for name, setting in (("second", "seed=43"), ("gentler", "train.learning_rate=0.001")):
        run(folder, "dvc", "exp", "run", "--name", name, "-S", setting)
        run(folder, "git", "reset", "--quiet", "--hard")
    run(folder, "dvc", "checkout")
    return folder
