"""The pipeline with real DVC commands, as in the README, on the tiny recipe."""

import hashlib
import json
import re
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reprise.results.run import RECORDED, folder_reader, read_recorded, read_result
from reprise.results.runs import resolve_run
from tiny import NO_NETWORK, OWNER, Run, write_params, write_reviews

STAGES = (
    "environment", "sources", "fetch-data", "fetch-model", "prepare", "check-data", "teacher", "preflight", "train",
    "evaluate",
)  # fmt: skip


def ran(output: str) -> list[str]:
    """Return the stages that DVC ran, parsed from its output."""
    return re.findall(r"Running stage '([\w-]+)'", output)


def digests(folder: Path, *folders: str) -> dict[str, str]:
    files = [file for subfolder in folders for file in sorted((folder / subfolder).rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def results(folder: Path) -> dict[str, str]:
    """Return the digests of all files whose bits the recipe determines."""
    folders = ("data/prepared", "data/checks", "data/teacher", "models/final", "metrics", "plots", "predictions")
    found = digests(folder, *folders)
    for name in ("speed", "provenance"):  # the only files with times and commits
        del found[f"metrics/{name}.json"]
    return found


def recorded(folder: Path) -> list[dict[str, Any] | None]:
    """Return provenance and speed of the run in a folder; None where they are of another run."""
    return [read_recorded(folder_reader(folder), file) for file in RECORDED]


def test_the_graph_has_the_expected_edges(repo: Path, run: Run) -> None:
    graph = run(repo, "dvc", "dag", "--dot").stdout
    edges = set(re.findall(r'"([\w-]+)" -> "([\w-]+)"', graph))
    assert edges == {
        ("sources", "fetch-data"),
        ("sources", "fetch-model"),
        ("fetch-data", "prepare"),
        ("fetch-model", "prepare"),
        ("fetch-model", "train"),
        ("prepare", "preflight"),
        ("fetch-data", "check-data"),
        ("prepare", "check-data"),
        ("environment", "check-data"),
        ("check-data", "preflight"),
        ("sources", "teacher"),
        ("prepare", "teacher"),
        ("environment", "teacher"),
        ("teacher", "preflight"),
        ("teacher", "train"),
        ("fetch-model", "preflight"),
        ("environment", "preflight"),
        ("preflight", "train"),
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
    assert None not in recorded(repo_copy)
    assert run(repo_copy, "git", "status", "--porcelain").stdout == ""


@pytest.mark.full
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
    after, recipe = results(repo_copy), "models/final/recipe.json"
    assert after.pop(recipe) != before.pop(recipe)
    assert after == before


@pytest.mark.full
def test_another_lock_retrains_and_the_original_is_restored_from_the_run_cache(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    lock = repo_copy / "docker/cpu/requirements.txt"
    original = lock.read_text()
    lock.write_text(original + "# rebuilt\n")
    again = ["environment", "check-data", "teacher", "preflight", "train", "evaluate"]
    assert ran(run(repo_copy, "dvc", "repro").stdout) == again
    lock.write_text(original)
    back = run(repo_copy, "dvc", "repro").stdout
    assert ran(back) == ["environment"]
    assert "Stage 'train' is cached - skipping run" in back
    assert results(repo_copy) == before
    # DVC knows neither speed nor provenance: they are still those of the run with the other lock, though equal in bits.
    assert run(repo_copy, "git", "diff", "--name-only").stdout.split() == [str(file) for file in RECORDED]
    assert recorded(repo_copy) == [None, None]
    assert "the speed is not recorded (restored from the run cache)." in run(repo_copy, "reprise", "summary").stdout
    provenance = read_result(folder_reader(repo_copy), "here").provenance
    assert {key.partition(".")[0] for key in provenance} == {"environment"}
    refused = run(repo_copy, "reprise", "export", "../exported", code=2).stderr
    assert refused.startswith("reprise: error: metrics/provenance.json: not recorded (restored from the run cache); ")
    run(repo_copy, "git", "restore", "metrics")
    assert None not in recorded(repo_copy)


@pytest.mark.full
def test_the_model_that_was_trained_again_has_speed_and_provenance(repo_copy: Path, run: Run) -> None:
    write_params(repo_copy, seed=7)
    run(repo_copy, "dvc", "repro")
    write_params(repo_copy)
    run(repo_copy, "dvc", "repro")
    assert recorded(repo_copy) == [None, None]
    assert ran(run(repo_copy, "dvc", "repro", "--force", "--single-item", "train").stdout) == ["train"]
    assert None not in recorded(repo_copy)
    assert run(repo_copy, "git", "diff", "--name-only").stdout.split() == [str(file) for file in RECORDED]


@pytest.mark.full  # tests/commands/test_verify.py has the bits of a commit that is trained again
def test_only_speed_and_provenance_change_when_a_clone_trains(trained_repo: Path, run: Run, tmp_path: Path) -> None:
    run(tmp_path, "git", "clone", "-q", str(trained_repo), "clone")
    clone = tmp_path / "clone"
    assert {"prepare", "train", "evaluate"} <= set(ran(run(clone, "dvc", "repro").stdout))
    assert set(run(clone, "git", "diff", "--name-only").stdout.split()) <= {str(file) for file in RECORDED}
    assert None not in recorded(clone)
    assert json.loads(run(clone, "dvc", "metrics", "diff", "--json").stdout) == {}


@pytest.mark.full
def test_an_experiment_carries_its_own_speed_and_provenance(
    repo_copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(name: str) -> list[dict[str, Any] | None]:
        return [read_recorded(resolve_run(name).read, file) for file in RECORDED]

    monkeypatch.chdir(repo_copy)
    before = [file.read_bytes() for file in RECORDED]
    run(repo_copy, "dvc", "exp", "run", "--temp", "-n", "copied", "-S", "seed=7", "-S", "train.epochs=1")
    assert [file.read_bytes() for file in RECORDED] == before
    run(repo_copy, "dvc", "exp", "run", "-n", "inplace", "-S", "seed=8", "-S", "train.epochs=1")
    run(repo_copy, "dvc", "exp", "run", "-n", "restored", "-S", "seed=42", "-S", "train.epochs=2")
    assert of("restored") == [None, None]
    copied, inplace = of("copied"), of("inplace")
    assert None not in copied + inplace
    assert copied != inplace
    run(repo_copy, "dvc", "exp", "apply", "inplace")
    assert recorded(repo_copy) == inplace
    run(repo_copy, "dvc", "exp", "apply", "copied")
    assert recorded(repo_copy) == copied


@pytest.mark.full
def test_an_experiment_before_any_results_carries_its_speed_and_provenance(
    repo: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(repo, tmp_path / "repo", symlinks=True))
    run(folder, "dvc", "exp", "run", "--temp", "-n", "first")
    assert run(folder, "git", "status", "--porcelain").stdout == ""
    monkeypatch.chdir(folder)
    assert None not in [read_recorded(resolve_run("first").read, file) for file in RECORDED]


def test_a_change_in_local_data_is_detected(repo_copy: Path, run: Run) -> None:
    with (repo_copy / "data/own/reviews.csv").open("a") as file:
        file.write('9999,"a warm and clever end",fresh,film 7\n')
    status = json.loads(run(repo_copy, "dvc", "status", "--json").stdout)
    assert {"data/own": "modified"} in [
        change.get("changed deps") for change in status["sources"] if isinstance(change, dict)
    ]
    assert ran(run(repo_copy, "dvc", "repro", "prepare").stdout) == ["sources", "fetch-data", "prepare"]
    stats = json.loads((repo_copy / "data/prepared/stats.json").read_text())
    assert sum(split["num_examples"] for split in stats["splits"].values()) == 241


def test_other_files_in_the_folder_of_local_data_rerun_no_fetch(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    (repo_copy / "data/own/other.csv").write_text("text\nof another recipe\n")
    assert ran(run(repo_copy, "dvc", "repro").stdout) == ["environment", "sources"]
    assert ran(run(repo_copy, "dvc", "repro").stdout) == ["environment"]
    assert results(repo_copy) == before
    assert run(repo_copy, "git", "status", "--porcelain").stdout == " M dvc.lock\n?? data/own/other.csv\n"


def test_an_earlier_source_is_restored_from_the_run_cache(repo_copy: Path, run: Run) -> None:
    before = digests(repo_copy, "data/raw", "models/pretrained")
    write_reviews(repo_copy / "data/own/fewer.csv", films=10)
    write_params(repo_copy, **{"task.source.train": "data/own/fewer.csv"})
    assert ran(run(repo_copy, "dvc", "repro", "fetch-data", "fetch-model").stdout) == ["sources", "fetch-data"]
    assert digests(repo_copy, "data/raw").keys() == {"data/raw/all/fewer.csv"}
    write_params(repo_copy)
    back = run(repo_copy, *NO_NETWORK, "dvc", "repro", "fetch-data", "fetch-model", env=OWNER).stdout
    assert "Stage 'fetch-data' is cached - skipping run" in back
    assert ran(back) == ["sources"]
    assert digests(repo_copy, "data/raw", "models/pretrained") == before


def test_a_missing_table_is_reported_before_raw_data_is_removed(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy) | digests(repo_copy, "data/raw", "models/pretrained")
    (repo_copy / "data/own/reviews.csv").unlink()
    failed = run(repo_copy, "dvc", "repro", code=None)
    assert "reprise: error: data/own/reviews.csv: task.source.train: not found" in failed.stderr
    assert ran(failed.stdout) == ["environment", "sources"]
    assert results(repo_copy) | digests(repo_copy, "data/raw", "models/pretrained") == before


def test_an_untracked_table_is_reported_before_an_experiment_trains(repo_copy: Path, run: Run) -> None:
    write_reviews(repo_copy / "data/own/mine.csv")
    write_params(repo_copy, **{"task.source.train": "data/own/mine.csv"})
    failed = run(repo_copy, "dvc", "exp", "run", "--temp", code=None)
    assert "reprise: error: data/own/mine.csv: task.source.train: not tracked" in failed.stderr
    assert "git add data/own/mine.csv" in failed.stderr
    assert set(ran(failed.stdout)) <= {"environment", "sources"}


def test_a_shallow_clone_is_reported_before_an_experiment_trains(trained_repo: Path, run: Run, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", "--depth", "1", f"file://{trained_repo}", str(clone))
    failed = run(clone, "dvc", "exp", "run", "--temp", code=None)
    assert f"reprise: error: {clone}: a shallow clone; " in failed.stderr
    assert ran(failed.stdout) == ["environment"]


@pytest.mark.full
def test_a_path_that_is_not_ascii_runs_the_pipeline_and_experiments_in_place(
    trained_repo: Path, run: Run, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained_repo, tmp_path / "r\u00e9pertoire", symlinks=True))
    assert ran(run(folder, "dvc", "repro").stdout) == ["environment"]
    done = run(folder, "dvc", "exp", "run", "-n", "here", "-S", "evaluate.bootstrap_resamples=101")
    assert ran(done.stdout) == ["environment", "evaluate"]
    refused = run(folder, "reprise", "seeds", "-n", "2", code=2)
    assert refused.stderr.startswith(f"reprise: error: {folder}: not an ASCII path; ")


@pytest.mark.full
def test_experiments_need_no_git_identity(repo_copy: Path, run: Run) -> None:
    for key in ("user.name", "user.email"):
        run(repo_copy, "git", "config", "--unset", key)
    nobody = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    run(repo_copy, "dvc", "exp", "run", "--temp", "-n", "mine", "-S", "evaluate.bootstrap_resamples=101", env=nobody)
    assert "[mine]" in run(repo_copy, "dvc", "exp", "list").stdout


@pytest.mark.full
def test_all_stages_after_fetch_run_without_network_and_without_a_home_folder(
    repo: Path, trained_repo: Path, run: Run, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(repo), str(clone))
    run(clone, "dvc", "repro", "fetch-data", "fetch-model")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        run(clone, sys.executable, "-c", connect)
        assert "Network is unreachable" in run(clone, *NO_NETWORK, sys.executable, "-c", connect, code=1).stderr
    homeless = OWNER | {"HOME": "/proc/none", "HF_HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"}
    assert ran(run(clone, *NO_NETWORK, "dvc", "repro", env=homeless).stdout) == [
        "environment",
        "prepare",
        "check-data",
        "teacher",
        "preflight",
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


def test_a_failed_check_of_the_data_stops_before_training_and_shows_why(
    repo_copy: Path, run: Run, reprise: Run
) -> None:
    before = results(repo_copy)
    failed = run(repo_copy, "dvc", "exp", "run", "-S", "data.checks.label_imbalance.fail=0.2", code=None)
    assert failed.returncode != 0
    assert ran(failed.stdout) == ["environment", "check-data"]
    (line,) = (line for line in failed.stderr.splitlines() if line.startswith("reprise: error: "))
    assert line.startswith("reprise: error: params.yaml: data.checks.label_imbalance.fail: ")
    assert "FAIL" in reprise(repo_copy, "data").stdout
    kept = {name: digest for name, digest in before.items() if not name.startswith("data/checks")}
    assert {name: digest for name, digest in results(repo_copy).items() if not name.startswith("data/checks")} == kept
    write_params(repo_copy, **{"data.checks.label_imbalance.warn": 0.2})
    assert ran(run(repo_copy, "dvc", "repro").stdout) == ["environment", "check-data", "preflight"]
    assert "WARN" in reprise(repo_copy, "data").stdout


def test_a_mistake_in_the_recipe_is_reported_before_any_work(repo_copy: Path, run: Run) -> None:
    before = results(repo_copy)
    with (repo_copy / "params.yaml").open("a") as file:
        file.write("sead: 3\n")
    failed = run(repo_copy, "dvc", "repro", code=None)
    assert failed.returncode != 0
    assert "reprise: error: params.yaml: sead: unknown key; did you mean seed?" in failed.stderr
    assert ran(failed.stdout) == ["environment"]
    assert results(repo_copy) == before


def test_the_model_of_a_version_is_an_artifact_that_others_get(repo_copy: Path, tmp_path: Path, run: Run) -> None:
    run(repo_copy, "gto", "register", "model", "--version", "v1.0.0")
    shown = run(repo_copy, "gto", "show", "--json", "model").stdout
    assert "v1.0.0" in shown
    run(tmp_path, "dvc", "artifacts", "get", str(repo_copy), "model", "--rev", "v1.0.0", "-o", "received")
    assert sorted(digests(tmp_path, "received").values()) == sorted(digests(repo_copy, "models/final").values())


def test_params_and_metrics_are_compared(repo_copy: Path, run: Run) -> None:
    write_params(repo_copy, **{"train.learning_rate": 1e-3})
    (change,) = json.loads(run(repo_copy, "dvc", "params", "diff", "--json").stdout)["params.yaml"].items()
    assert change == ("train.learning_rate", {"old": 5e-3, "new": 1e-3, "diff": pytest.approx(-4e-3)})
    assert ran(run(repo_copy, "dvc", "repro").stdout) == ["environment", "train", "evaluate"]
    shown = json.loads(run(repo_copy, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert set(shown) == {f"metrics/{name}.json" for name in ("preflight", "train", "evaluate")}
    compared = json.loads(run(repo_copy, "dvc", "metrics", "diff", "--json").stdout)
    assert "ece" in compared["metrics/evaluate.json"]


def test_all_plots_are_rendered(repo_copy: Path, run: Run) -> None:
    rendered = json.loads(run(repo_copy, "dvc", "plots", "show", "--json").stdout)["data"]
    assert {name.removeprefix("dvc.yaml::") for name in rendered} == {
        f"plots/{name}.csv"
        for name in ("train", "validation", "confusion", "per_class", "precision_recall", "calibration", "residuals")
    }
    for name, plots in rendered.items():
        if name.endswith("residuals.csv"):
            assert plots == []  # of labels, it has no rows
            continue
        (plot,) = plots
        assert plot["content"]["$schema"].endswith("v5.json"), name
        assert "<DVC_METRIC" not in json.dumps(plot["content"]), name
    run(repo_copy, "dvc", "plots", "show")
    assert (repo_copy / "dvc_plots/index.html").read_text().count("vega") > 0


@pytest.mark.full
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
