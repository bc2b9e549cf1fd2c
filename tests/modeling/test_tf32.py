"""TF32 is off, whatever the environment asks for; tests/train/test_stage.py has it for training."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from tiny import ROOT, Run


def test_a_variable_of_the_base_image_does_not_turn_it_on() -> None:
    code = (
        "import torch; from reprise.modeling.tf32 import disable_tf32; before = torch.get_float32_matmul_precision(); "
        "disable_tf32(); backends = torch.backends; print(before, torch.get_float32_matmul_precision(), "
        "backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.stdout.split() == ["high", "highest", "False", "False"]


def test_evaluation_turns_it_off(repo_copy: Path, reprise: Run) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    reprise(repo_copy, "evaluate")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_nothing_in_the_package_turns_it_on() -> None:
    names = ("allow_tf32 = True", "set_float32_matmul_precision", '"tf32"', "tf32=True")
    sources = {file: file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py")}
    assert [file for file, text in sources.items() if any(name in text for name in names)] == []
