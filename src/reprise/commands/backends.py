"""Find the backends of this machine, and train on one of them in a temporary folder.

What runs is the stage of `dvc repro`: `reprise train` with this checkout's code, data and pretrained model. The
temporary folder keeps the results of the workspace untouched.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from reprise.core.errors import UserError
from reprise.core.files import scratch_dir
from reprise.core.paths import PREPARED, PRETRAINED, TEACHER
from reprise.data.format import stats_path
from reprise.hardware import ENVIRONMENT, HARDWARE_DIR, current_hardware, has_device_files, read_facts

# Accelerate uses XLA whenever torch_xla can be imported, so CPU and XLA need separate environments.
ENVIRONMENTS = {"cpu": Path(".venv"), "xla": Path(".venv-xla")}


@dataclass(frozen=True)
class Backend:
    """How to start training on a backend.

    Attributes:
        python: path of the Python interpreter.
        hardware: value of REPRISE_HARDWARE.
        variables: further environment variables.
    """

    python: str
    hardware: str
    variables: dict[str, str]


def find_backends() -> dict[str, Backend]:
    """Return the available backends by name: cpu, cuda, xla (on a TPU, or else on XLA's CPU device)."""
    current = "xla" if find_spec("torch_xla") else "cpu"
    backends = {}
    for name, hardware in {"cpu": "cpu", "xla": "tpu"}.items():
        python = sys.executable if name == current else str(ENVIRONMENTS[name].absolute() / "bin/python")
        if Path(python).exists():
            device = {"PJRT_DEVICE": "CPU"} if name == "xla" and not has_device_files(read_facts(hardware)) else {}
            backends[name] = Backend(python, hardware, device)
    if current == "cpu" and torch.cuda.is_available():
        backends["cuda"] = Backend(sys.executable, "cuda", {})
    return backends


def current_backend() -> Backend:
    """Return the backend that `reprise train` uses in this environment."""
    return Backend(sys.executable, current_hardware(), {})


@contextmanager
def train_in_tempdir(recipe: dict[str, Any], backend: Backend) -> Iterator[Path]:
    """Train a recipe on a backend; yield the folder with the resulting metrics/ and plots/.

    Args:
        recipe: content of params.yaml, for the data that is prepared here. Its trackers are not used.
        backend: one of `find_backends`.

    Raises:
        UserError: data or model are missing, or training fails; its error output is above.
    """
    for required in (stats_path(PREPARED), PRETRAINED / "model"):
        if not required.exists():
            raise UserError("not found", file=required, expected="the output of `dvc repro prepare`")
    with scratch_dir("parity") as folder:
        with (folder / "params.yaml").open("w", encoding="utf-8") as file:
            # Trackers would write to the folder, which is deleted.
            YAML().dump(recipe | {"run": recipe["run"] | {"trackers": []}}, file)
        inputs = (HARDWARE_DIR, PREPARED, TEACHER, PRETRAINED / "tokenizer", PRETRAINED / "model", ENVIRONMENT)
        for path in (each for each in inputs if each != TEACHER or recipe["train"].get("distill")):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(path.absolute())
        environment = os.environ | backend.variables | {"REPRISE_HARDWARE": backend.hardware}
        if Path("src/reprise").is_dir():  # run the code of this checkout, not the installed one
            environment["PYTHONPATH"] = str(Path("src").absolute())
        if subprocess.call([backend.python, "-m", "reprise", "train"], cwd=folder, env=environment):
            expected = "it to train this recipe"
            raise UserError("`reprise train` failed, see above", file=backend.python, expected=expected)
        yield folder
