"""The backends that are here, and the train stage run on one of them, in a folder apart.

What is compared is what `dvc repro` runs: `reprise train` with this checkout's code, data and pretrained model, in a
temporary folder of its own, so that nothing here is overwritten.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from reprise.core.errors import UserError
from reprise.core.paths import PREPARED, PRETRAINED
from reprise.data.format import stats_path
from reprise.hardware import ENVIRONMENT, HARDWARE_DIR, current_hardware, tpu_available

# Accelerate takes XLA wherever torch_xla can be imported, so the CPU and XLA never share an environment.
ENVIRONMENTS = {"cpu": Path(".venv"), "xla": Path(".venv-xla")}


@dataclass(frozen=True)
class Backend:
    """What computes: the Python that starts it, the kind of hardware that it is told, and more of its environment."""

    python: str
    hardware: str
    variables: dict[str, str]


def find_backends() -> dict[str, Backend]:
    """The backends that this machine and its environments have, by name: cpu, cuda, xla (on a TPU or on XLA's CPU)."""
    ours = "xla" if find_spec("torch_xla") else "cpu"
    found = {}
    for name, kind in {"cpu": "cpu", "xla": "tpu"}.items():
        python = sys.executable if name == ours else str(ENVIRONMENTS[name].absolute() / "bin/python")
        if Path(python).exists():
            device = {"PJRT_DEVICE": "CPU"} if name == "xla" and not tpu_available() else {}
            found[name] = Backend(python, kind, device)
    if ours == "cpu" and torch.cuda.is_available():
        found["cuda"] = Backend(sys.executable, "cuda", {})
    return found


def current_backend() -> Backend:
    """The one that `reprise train` takes here."""
    return Backend(sys.executable, current_hardware(), {})


@contextmanager
def train_in_tempdir(recipe: dict[str, Any], backend: Backend) -> Iterator[Path]:
    """Train a recipe, as plain sections, on a backend; yield the folder that holds metrics/ and plots/ then.

    Args:
        recipe: as params.yaml says it, for the data that was prepared here.
        backend: one of `find_backends`.

    Raises:
        UserError: nothing was prepared, or training fails; its own words stand above.
    """
    for needed in (stats_path(PREPARED), PRETRAINED / "model"):
        if not needed.exists():
            raise UserError(f"{needed}: not found; expected what `dvc repro prepare` makes")
    with tempfile.TemporaryDirectory(prefix="reprise-") as name:
        folder = Path(name)
        with (folder / "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(recipe | {"run": recipe["run"] | {"trackers": []}}, file)  # the folder goes, with theirs
        for there in (HARDWARE_DIR, PREPARED, PRETRAINED / "tokenizer", PRETRAINED / "model", ENVIRONMENT):
            (folder / there).parent.mkdir(parents=True, exist_ok=True)
            (folder / there).symlink_to(there.absolute())
        environment = os.environ | backend.variables | {"REPRISE_HARDWARE": backend.hardware}
        if Path("src/reprise").is_dir():  # this checkout's code, in whatever environment
            environment["PYTHONPATH"] = str(Path("src").absolute())
        if subprocess.call([backend.python, "-m", "reprise", "train"], cwd=folder, env=environment):
            raise UserError(f"{backend.python}: `reprise train` failed, see above; expected it to train this recipe")
        yield folder
