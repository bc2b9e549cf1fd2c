"""The repository that DVC copied to a folder is found."""

from pathlib import Path

import pytest

from reprise.core.paths import experiment_root


@pytest.mark.parametrize(
    ("folder", "root"),
    [
        ("/home/user/repo/.dvc/tmp/exps/standalone/tmpa1b2", "/home/user/repo"),
        ("/home/user/repo/.dvc/tmp/exps/tmpa1b2", "/home/user/repo"),
        ("/home/user/repo/.dvc/tmp/verify/0123", None),
        ("/home/exps/repo", None),
        ("/", None),
    ],
)
def test_the_repository_of_a_copy_is_found(folder: str, root: str | None) -> None:
    assert experiment_root(Path(folder)) == (Path(root) if root else None)
