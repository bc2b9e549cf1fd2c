"""The pipeline with real DVC commands, as in the README, on the tiny recipe."""

import hashlib
import json
import re
import socket
import sys
import time
from pathlib import Path

import pytest

from tiny import NO_NETWORK, OWNER, Run, write_params

STAGES = ("environment", "fetch", "prepare", "train", "evaluate")


def ran(output: str) -> list[str]:
    """Return the stages that DVC ran, parsed from its output."""
    return re.findall(r"Running stage '(\w+)'", output)


def digests(folder: Path, *folders: str) -> dict[str, str]:
    files = [file for subfolder in folders for file in sorted((folder / subfolder).rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def results(folder: Path) -> dict[str, str]:
    """Return the digests of all files whose bits the recipe determines."""
    found = digests(folder, "data/prepared", "models/final", "metrics", "plots", "predictions")
    for name in ("speed", "provenance"):  # the only files with times and commits
        del found[f"metrics/{name}.json"]
    return found


def test_the_graph_has_the_expected_edges(repo: Path, run: Run) -> None:
    graph = run(repo, "dvc", "dag", "--dot").stdout
    edges = set(re.findall(r'"(\w+)" -> "(\w+)"', graph))
    assert edges == {
        ("fetch", "prepare"),
        ("fetch", "train"),
        ("prepare", "train"),
        ("prepare", "evaluate"),
        ("train", "evaluate"),
        ("environment", "train"),
        ("environment", "evaluate"),
    }


def test_the_tiny_recipe_beats_the_baseline(trained_repo: Path) -> None:
    metrics = json.loads((trained_repo / "metrics/evaluate.json").read_text())
    assert metrics["accuracy"] > metrics["baseline"]["accuracy"] + 0.3
    assert metrics["constant_prediction"] is False
    assert metrics["ci95"]["accuracy"]["low"] <= metrics["accuracy"] <= metrics["ci95"]["accuracy"]["high"]


def test_a_second_run_runs_only_environment(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    assert ran(run(repo_copy, "dvc", "repro").stdout) == ["environment"]
    assert results(repo_copy) == before
    assert run(repo_copy, "git", "status", "--porcelain").stdout == ""


def test_a_run_from_scratch_gives_the_same_bits(repo: Path, trained_repo: Path, run: Run, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(repo), str(clone))
    assert set(ran(run(clone, "dvc", "repro").stdout)) == set(STAGES)
    assert results(clone) == results(trained_repo)


def test_a_code_change_in_evaluate_does_not_retrain(repo_copy: Path, run: Run) -> None:
    with (repo_copy / "src/reprise/evaluate/stage.py").open("a") as file:
        file.write("# a comment\n")
    assert ran(run(repo_copy, "dvc", "repro").stdout) == ["environment", "evaluate"]


def test_another_split_is_evaluated_without_retraining(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    done = run(repo_copy, "dvc", "exp", "run", "-S", "evaluate.split=validation")
    assert ran(done.stdout) == ["environment", "evaluate"]
    assert json.loads((repo_copy / "metrics/evaluate.json").read_text())["split"] == "validation"
    assert digests(repo_copy, "models/final").items() <= before.items()


def test_a_submission_does_not_change_other_results(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    write_params(repo_copy, **{"task.submission": {"files": {"test": "reviews.tsv"}, "labels": "names"}})
    assert ran(run(repo_copy, "dvc", "repro").stdout) == ["environment"]
    assert results(repo_copy) == before


@pytest.mark.full
def test_other_buckets_change_no_bit_on_a_cpu(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    write_params(repo_copy, **{"train.bucket_lengths": [16]})
    assert ran(run(repo_copy, "dvc", "repro").stdout) == ["environment", "train", "evaluate"]
    assert results(repo_copy) == before


def test_another_lock_retrains_and_the_original_is_restored_from_the_run_cache(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    lock = repo_copy / "docker/cpu/requirements.txt"
    original = lock.read_text()
    lock.write_text(original + "# rebuilt\n")
    assert ran(run(repo_copy, "dvc", "repro").stdout) == ["environment", "train", "evaluate"]
    lock.write_text(original)
    back = run(repo_copy, "dvc", "repro").stdout
    assert ran(back) == ["environment"]
    assert "Stage 'train' is cached - skipping run" in back
    assert results(repo_copy) == before


def test_a_change_in_local_data_is_detected(repo_copy: Path, run: Run) -> None:
    with (repo_copy / "data/own/reviews.csv").open("a") as file:
        file.write('9999,"a warm and clever end",fresh,film 7\n')
    status = json.loads(run(repo_copy, "dvc", "status", "--json").stdout)
    assert {"data/own": "modified"} in [
        change.get("changed deps") for change in status["fetch"] if isinstance(change, dict)
    ]
    assert ran(run(repo_copy, "dvc", "repro", "prepare").stdout) == ["fetch", "prepare"]
    stats = json.loads((repo_copy / "data/prepared/stats.json").read_text())
    assert sum(split["num_examples"] for split in stats["splits"].values()) == 241


def test_all_stages_after_fetch_run_without_network(repo: Path, trained_repo: Path, run: Run, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(repo), str(clone))
    run(clone, "dvc", "repro", "fetch")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        run(clone, sys.executable, "-c", connect)
        assert "Network is unreachable" in run(clone, *NO_NETWORK, sys.executable, "-c", connect, code=1).stderr
    assert ran(run(clone, *NO_NETWORK, "dvc", "repro", env=OWNER).stdout) == [
        "environment",
        "prepare",
        "train",
        "evaluate",
    ]
    assert results(clone) == results(trained_repo)


def test_a_failed_stage_loses_no_results_and_the_corrected_recipe_is_restored(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    write_params(repo_copy, **{"task.labels": ["rotten", "freesh"]})
    failed = run(repo_copy, "dvc", "repro", code=None)
    assert failed.returncode != 0
    assert "unknown label 'fresh'; did you mean 'freesh'?" in failed.stderr
    after = results(repo_copy)
    # DVC removes only the output of the failed stage from the workspace; the cache still has it.
    assert after == {name: digest for name, digest in before.items() if not name.startswith("data/prepared")}
    write_params(repo_copy)
    corrected = run(repo_copy, "dvc", "repro").stdout
    assert ran(corrected) == ["environment"]
    assert "Stage 'prepare' is cached - skipping run" in corrected
    assert results(repo_copy) == before


def test_a_mistake_in_the_recipe_is_reported_before_any_work(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    with (repo_copy / "params.yaml").open("a") as file:
        file.write("sead: 3\n")
    failed = run(repo_copy, "dvc", "repro", code=None)
    assert failed.returncode != 0
    assert "reprise: error: params.yaml: sead: unknown key; did you mean seed?" in failed.stderr
    assert ran(failed.stdout) == ["environment"]
    assert results(repo_copy) == before


def test_params_and_metrics_are_compared(repo_copy: Path, run: Run) -> None:
    write_params(repo_copy, **{"train.learning_rate": 1e-3})
    (change,) = json.loads(run(repo_copy, "dvc", "params", "diff", "--json").stdout)["params.yaml"].items()
    assert change == ("train.learning_rate", {"old": 5e-3, "new": 1e-3, "diff": pytest.approx(-4e-3)})
    assert ran(run(repo_copy, "dvc", "repro").stdout) == ["environment", "train", "evaluate"]
    shown = json.loads(run(repo_copy, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert set(shown) == {f"metrics/{name}.json" for name in ("train", "speed", "provenance", "evaluate")}
    compared = json.loads(run(repo_copy, "dvc", "metrics", "diff", "--json").stdout)
    assert "ece" in compared["metrics/evaluate.json"]


def test_all_plots_are_rendered(repo_copy: Path, run: Run) -> None:
    rendered = json.loads(run(repo_copy, "dvc", "plots", "show", "--json").stdout)["data"]
    assert {name.removeprefix("dvc.yaml::") for name in rendered} == {
        f"plots/{name}.csv" for name in ("train", "validation", "confusion", "precision_recall", "calibration")
    }
    for name, plots in rendered.items():
        (plot,) = plots
        assert plot["content"]["$schema"].endswith("v5.json"), name
        assert "<DVC_METRIC" not in json.dumps(plot["content"]), name
    run(repo_copy, "dvc", "plots", "show")
    assert (repo_copy / "dvc_plots/index.html").read_text().count("vega") > 0


def test_an_experiment_with_a_changed_parameter_is_listed(repo_copy: Path, run: Run) -> None:
    done = run(repo_copy, "dvc", "exp", "run", "-n", "slower", "-S", "train.learning_rate=1e-3")
    assert ran(done.stdout) == ["environment", "train", "evaluate"]
    table = run(repo_copy, "dvc", "exp", "show", "--csv").stdout
    assert "slower" in table
    assert "learning_rate: 0.001" in (repo_copy / "params.yaml").read_text()


@pytest.mark.full
def test_queued_experiments_run_in_copies_with_their_own_code(repo_copy: Path, run: Run) -> None:
    with (repo_copy / "src/reprise/train/stage.py").open("a") as file:
        file.write("# of this copy\n")
    run(repo_copy, "dvc", "exp", "run", "--queue", "-S", "train.learning_rate=2e-3,1e-3", "-S", "train.epochs=1")
    # Edits after queueing must not affect queued experiments.
    with (repo_copy / "src/reprise/train/stage.py").open("a") as file:
        file.write("raise SystemExit('the code of the working tree, not of the experiment')\n")
    run(repo_copy, "dvc", "queue", "start")
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        states = re.findall(r"Success|Failed|Running|Queued", run(repo_copy, "dvc", "queue", "status").stdout)
        if states and not {"Running", "Queued"} & set(states):
            break
        time.sleep(3)
    assert states == ["Success", "Success"]
    rows = run(repo_copy, "dvc", "exp", "show", "--csv").stdout
    assert "0.002" in rows
    assert "0.001" in rows


def test_a_colleague_pulls_and_has_nothing_to_run(repo_copy: Path, run: Run, tmp_path: Path) -> None:
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    run(repo_copy, "dvc", "remote", "add", "--default", "local", str(remote))
    run(repo_copy, "git", "commit", "-qam", "Share it")
    run(repo_copy, "dvc", "push")
    run(tmp_path, "git", "clone", "-q", str(repo_copy), str(clone))
    run(clone, "dvc", "pull")
    assert ran(run(clone, "dvc", "repro").stdout) == ["environment"]
    assert results(clone) == results(repo_copy)
