"""`reprise ensemble`: judged on the stored predictions, written as a folder that predicts the same, or refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from reprise.commands import ensemble as module
from reprise.commands.ensemble import ensemble, read_predictions
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.results.runs import Run as RunOfResults
from stored_predictions import KINDS, references, synthetic_run, table
from tiny import Run


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RunOfResults]:
    """The runs of every selector: three seeds with predictions; in an empty folder."""
    found = []
    for seed in (44, 42, 43):
        run = synthetic_run(f"run-{seed}", seed=seed)
        final = replace(run.result.outputs["models/final"], md5=f"{seed:032x}.dir")
        result = replace(run.result, outputs=run.result.outputs | {"models/final": final})
        found.append(replace(run, result=result))
    monkeypatch.setattr(module, "resolve_runs", lambda _: found)
    monkeypatch.setattr(RunOfResults, "predictions", lambda run: table("two labels", run.seed))
    monkeypatch.chdir(tmp_path)
    return found


def test_the_ensemble_is_compared_with_the_first_run_that_was_named(
    runs: list[RunOfResults], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ensemble(["seeds:HEAD"], None, soup=False)
    printed = capsys.readouterr().out
    assert printed.startswith("ensemble of 3: run-44 (seed 44), run-42 (seed 42), run-43 (seed 43)\n")
    mean = np.mean([np.array(table("two labels", seed)["probabilities"].tolist()) for seed in (42, 43, 44)], axis=0)
    accuracy = float((mean.argmax(axis=1) == references("two labels")).mean())
    stored = [KINDS["two labels"].label_values(list(table("two labels", seed)["prediction"])) for seed in (44, 42, 43)]
    alone = [float((each == references("two labels")).mean()) for each in stored]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line]
    assert [row[:3] for row in rows[:4]] == [
        ["accuracy", "run-44 (seed 44)", f"{alone[0]:.4f}"],
        ["", "mean of the 3 members", f"{np.mean(alone):.4f}"],
        ["", "ensemble", f"{accuracy:.4f}"],
        ["", "ensemble minus run-44 (seed 44)", f"{accuracy - alone[0]:+.4f}"],
    ]
    assert rows[1][3] == f"{min(alone):.4f} to {max(alone):.4f} (range)"
    assert "The ensemble of 3 runs is " in printed
    assert "60 examples of the test split. The difference is to run-44, the first run named" in printed
    assert not list(Path().iterdir())


def test_a_folder_with_files_is_refused_before_a_run_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(UserError, match=r"expected a folder that is empty or does not exist$"):
        ensemble(["no run"], tmp_path, soup=False)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_outputs_that_are_not_on_this_machine_are_named(
    runs: list[RunOfResults], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(RunOfResults, "copy_output", lambda run, _folder, _target: run.seed != 43)
    with pytest.raises(UserError, match=r"^run-43: models/final: not on this machine; expected it in DVC's cache"):
        ensemble(["seeds:HEAD"], tmp_path / "out", soup=False)
    monkeypatch.setattr(RunOfResults, "predictions", lambda run: table("two labels", 1) if run.seed == 44 else None)
    with pytest.raises(UserError, match=r"^run-42: predictions: not on this machine"):
        read_predictions(runs)
    assert not (tmp_path / "out").exists()


def test_a_soup_needs_one_pretrained_model_and_the_data_of_the_first_run(
    runs: list[RunOfResults], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"^data/prepared: not the data that run-44 was evaluated on"):
        ensemble(["seeds:HEAD"], None, soup=True)
    outputs = runs[1].result.outputs
    other = replace(outputs["models/pretrained"], md5="0" * 32)
    runs[1] = replace(runs[1], result=replace(runs[1].result, outputs=outputs | {"models/pretrained": other}))
    with pytest.raises(UserError, match=r"^run-42: has another pretrained model; expected that of run-44, for a soup$"):
        ensemble(["seeds:HEAD"], None, soup=True)


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_two_seeds_are_an_ensemble_and_a_soup_that_predict(
    seeded: tuple[Path, str, str], tmp_path: Path, reprise: Run
) -> None:
    repo = Path(shutil.copytree(seeded[0], tmp_path / "repo", symlinks=True))
    printed = reprise(repo, "ensemble", "seeds:HEAD", "--output", "both").stdout
    assert printed.startswith("ensemble of 2: HEAD (seed 42), seed-43-")
    described = read_json(repo / "both/ensemble.json")
    assert [member["seed"] for member in described["members"]] == [42, 43]
    members = [repo / "both/members/0", repo / "both/members/1"]
    final = repo / "models/final"
    assert {file.name: file.read_bytes() for file in members[0].iterdir()} == {
        file.name: file.read_bytes() for file in final.iterdir()
    }
    assert (members[1] / "model.safetensors").read_bytes() != (final / "model.safetensors").read_bytes()

    rows = pq.read_table(repo / "predictions/test.parquet").to_pylist()
    pd.DataFrame({"text": [row["text"] for row in rows]}).to_csv(repo / "in.csv", index=False)
    asked = [
        lines_of(reprise(repo, "predict", "--file", "in.csv", "--model", str(folder.relative_to(repo))).stdout)
        for folder in (repo / "both", *members)
    ]
    probabilities = [np.array([list(row["probabilities"].values()) for row in each]) for each in asked]
    np.testing.assert_allclose(probabilities[0], (probabilities[1] + probabilities[2]) / 2, atol=1e-7)
    right = np.mean([found["label"] == row["label"] for found, row in zip(asked[0], rows, strict=True)])
    assert described["evaluation"]["accuracy"] == right
    assert described["evaluation"]["num_examples"] == len(rows)

    refused = reprise(repo, "ensemble", "seeds:HEAD", "--output", "both", code=2)
    assert refused.stderr == "reprise: error: both: expected a folder that is empty or does not exist\n"
    reprise(repo, "ensemble", "seeds:HEAD", "--soup", "--output", "soup")
    judged = read_json(repo / "soup/soup.json")
    assert judged["members"] == described["members"]
    answers = lines_of(reprise(repo, "predict", "--file", "in.csv", "--model", "soup").stdout)
    right = np.mean([found["label"] == row["label"] for found, row in zip(answers, rows, strict=True)])
    assert judged["evaluation"]["accuracy"] == right
