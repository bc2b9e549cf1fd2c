"""Packages that some commands need and training never installs, each in a lock of its own."""

from importlib.util import find_spec

from reprise.core.errors import UserError

ONNX_LOCK = "docker/cpu/onnx.txt"
SERVE_LOCK = "docker/serve/requirements.txt"
SWEEP_LOCK = "docker/cpu/sweep.txt"


def require_packages(*packages: str, lock: str, key: str) -> None:
    """Check that packages are installed, which training does not install.

    Args:
        packages: names to import.
        lock: the file that has them.
        key: what needs them, for the error.

    Raises:
        UserError: one is not.
    """
    for package in packages:
        if find_spec(package) is None:
            expected = f"`docker/make-venv --add .venv {lock}`"
            raise UserError(f"the package {package} is not installed", key=key, expected=expected)
