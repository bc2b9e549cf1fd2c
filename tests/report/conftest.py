"""A repository with experiments."""

import re
import shutil
from pathlib import Path

import pytest

from tiny import Run


@pytest.fixture(scope="session")
def with_experiments(seeded: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A trained repository with the experiments `second` (another seed) and `gentler` (another learning rate).

    Do not change.
    """
    folder = Path(shutil.copytree(seeded[0], tmp_path_factory.mktemp("experiments") / "repo", symlinks=True))
    (_, second), (gentler, unused) = (re.findall(r"^2 seeds: (\S+), (\S+)$", each, re.M)[0] for each in seeded[1:])
    for name, new in ((second, "second"), (gentler, "gentler")):
        run(folder, "dvc", "exp", "rename", name, new)
    run(folder, "dvc", "exp", "remove", unused)
    return folder
