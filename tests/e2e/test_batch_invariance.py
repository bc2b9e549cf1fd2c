"""The losses do not depend on the number of processes or on the micro-batch size.

Trains fifty steps with the default recipe's model and data in fp32. `make test-batch-invariance` prints the tables; it
takes minutes on two cores, so `make test` checks the same with the tiny model (tests/train/engines/test_accelerate.py).
"""

import json
import shutil
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from ruamel.yaml import YAML

from tiny import ROOT, Run

pytestmark = [pytest.mark.batch_invariance, pytest.mark.timeout(1800)]

STEPS, BATCH_SIZE, MICRO_BATCH_SIZE = 50, 32, 8
PRINTED_STEPS = (1, 2, 5, 10, 20, 30, 40, 50)
TOLERANCE = 1e-5  # relative, of a step's mean loss

Train = Callable[..., tuple[npt.NDArray[np.float64], list[str], float]]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Train:
    """Train fifty steps of the default recipe; return losses, data order digests and validation accuracy."""
    clone = tmp_path_factory.mktemp("batch-invariance") / "clone"
    run(ROOT, "git", "clone", "-q", str(ROOT), str(clone))
    yaml = YAML()
    recipe = yaml.load((clone / "params.yaml").read_text(encoding="utf-8"))
    recipe["task"]["max_examples"] = STEPS * BATCH_SIZE
    recipe["train"] |= {"precision": "fp32", "epochs": 1, "batch_size": BATCH_SIZE}
    prepared = clone / "data/prepared/stats.json"

    def train(processes: int, micro_batch_size: int) -> tuple[npt.NDArray[np.float64], list[str], float]:
        recipe["train"]["micro_batch_size"] = micro_batch_size
        yaml.dump(recipe, clone / "params.yaml")
        if not prepared.exists():
            run(clone, "dvc", "repro", "prepare")
        profile = clone / "docker/cpu/accelerate.yaml"
        profile.write_text(f"num_processes: {processes}\n", encoding="utf-8")
        print(f"batch invariance: {processes} process(es), micro-batch size {micro_batch_size}", flush=True)
        run(clone, "reprise", "train", env={"OMP_NUM_THREADS": "1"})
        losses = pd.read_csv(clone / "plots/train.csv")["loss"].to_numpy()
        results = json.loads((clone / "metrics/provenance.json").read_text(encoding="utf-8"))["results"]
        metrics = json.loads((clone / "metrics/train.json").read_text(encoding="utf-8"))
        shutil.rmtree(clone / "models/final")
        assert losses.shape == (STEPS,)
        return losses, results[0]["data_order_sha256"], metrics["validation"]["accuracy"]

    return train


def compare(title: str, losses: dict[str, npt.NDArray[np.float64]]) -> float:
    """Print the losses of the first run and the others' relative differences; return the largest difference."""
    first, *others = losses
    differences = {name: np.abs(losses[name] / losses[first] - 1) for name in others}
    print(f"\n{title}\n\n| step | loss, {first} | " + " | ".join(others) + " |\n|" + "---|" * (2 + len(others)))
    for step in PRINTED_STEPS:
        cells = " | ".join(f"{differences[name][step - 1]:.1e}" for name in others)
        print(f"| {step} | {losses[first][step - 1]:.6f} | {cells} |")
    print("| largest of 50 | | " + " | ".join(f"{differences[name].max():.1e}" for name in others) + " |", flush=True)
    return max(float(difference.max()) for difference in differences.values())


def test_one_two_and_three_processes_give_the_same_losses(train: Train) -> None:
    runs = {processes: train(processes, MICRO_BATCH_SIZE) for processes in (1, 2, 3)}
    names = {1: "1 process", 2: "2 processes", 3: "3 processes"}
    largest = compare("Micro-batches of 8", {names[number]: run[0] for number, run in runs.items()})
    assert runs[1][1] == runs[2][1] == runs[3][1], "the data order differs"
    assert largest < TOLERANCE
    accuracies = [accuracy for _, _, accuracy in runs.values()]
    assert max(accuracies) - min(accuracies) < 0.01


def test_any_micro_batch_size_gives_the_same_losses(train: Train) -> None:
    runs = {f"micro-batches of {size}": train(1, size)[0] for size in (32, 16, 8, 5)}
    assert compare("One process", runs) < TOLERANCE
