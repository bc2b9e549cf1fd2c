"""`reprise seeds`, `compare` and `prune` with real DVC experiments, two seeds per group."""

import json
import shutil
from pathlib import Path

import pytest

from reprise.commands.seeds import check_copyable
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.validation import check_recipe
from reprise.results.runs import all_experiments, resolve_runs
from tiny import WORSE, Run, tiny_recipe

pytestmark = pytest.mark.timeout(900)  # five runs, one after another


@pytest.fixture
def worse(seeded: tuple[Path, str, str], run: Run) -> str:
    """The name of an experiment with the worse recipe and seed 42."""
    (name,) = [name for name in names(seeded[0], run) if name.startswith("seed-42-")]
    return name


def names(folder: Path, run: Run) -> list[str]:
    return sorted(run(folder, "dvc", "exp", "list", "--name-only", "--all-commits").stdout.split())


def test_seeds_are_experiments_and_the_one_of_head_is_reused(seeded: tuple[Path, str, str], run: Run) -> None:
    folder, first, second = seeded
    assert "seeds: seed 42, 1 of 2: reusing HEAD" in first
    assert "seeds: seed 43, 2 of 2\n" in first
    assert [name[:8] for name in names(folder, run)] == ["seed-42-", "seed-43-", "seed-43-"]
    assert "reusing" not in second
    assert run(folder, "git", "status", "--porcelain").stdout == ""


def test_mean_standard_deviation_minimum_and_maximum_are_printed(
    seeded: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(seeded[0])
    losses = [each.result.metrics["train"]["loss"] for each in resolve_runs("seeds:HEAD")]
    assert len(losses) == 2
    mean, deviation = sum(losses) / 2, abs(losses[0] - losses[1]) / 2**0.5
    row = f"{mean:.4f} │             {deviation:.4f} │ {min(losses):.4f} │ {max(losses):.4f} │"
    assert row in seeded[1]


def test_run_again_it_reuses_every_seed(seeded: tuple[Path, str, str], worse: str, run: Run) -> None:
    output = run(seeded[0], "reprise", "seeds", "-n", "2", *WORSE).stdout
    assert f"seeds: seed 42, 1 of 2: reusing {worse}" in output
    assert "Running stage" not in output


@pytest.mark.full
def test_a_code_change_makes_another_group(seeded: tuple[Path, str, str], tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(seeded[0], tmp_path / "repo", symlinks=True))
    with (folder / "src/reprise/train/engines/accelerate.py").open("a", encoding="utf-8") as file:
        file.write("raise RuntimeError\n")
    refused = run(folder, "reprise", "seeds", "-n", "1", code=2)
    assert "reusing" not in refused.stdout
    assert "params.yaml: seed 42: the pipeline failed, see above" in refused.stderr


@pytest.mark.parametrize("override", ["train.learning_rat=1", "train.learning_rate", "seed=1,2", "train.epochs=0"])
def test_an_invalid_override_is_refused_before_any_run(trained_repo: Path, reprise: Run, override: str) -> None:
    refused = reprise(trained_repo, "seeds", "-S", override, code=2)
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert "params.yaml" in refused.stderr


def test_two_groups_are_compared(seeded: tuple[Path, str, str], worse: str, reprise: Run) -> None:
    result = json.loads(reprise(seeded[0], "compare", "seeds:HEAD", f"seeds:{worse}", "--json").stdout)
    assert result["first"]["seeds"] == result["second"]["seeds"] == [42, 43]
    metrics = {(each["stage"], each["name"]): each for each in result["metrics"]}
    loss = metrics["train", "loss"]
    assert loss["test"]["difference"] > 0
    assert "n=2 and 2" in loss["verdict"]
    assert [each["key"] for each in result["differences"]] == ["train.learning_rate"]
    assert result["differences"][0] == {
        "kind": "parameter", "key": "train.learning_rate", "before": "0.005", "after": "1e-05",
    }  # fmt: skip
    assert result["paired"] is None


def test_two_runs_are_compared_example_by_example(
    seeded: tuple[Path, str, str], worse: str, reprise: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = seeded[0]
    result = json.loads(reprise(folder, "compare", "HEAD", worse, "--json", "--rows", "2").stdout)
    paired = result["paired"]
    assert paired["num_examples"] == read_json(folder / "metrics/evaluate.json")["num_examples"]
    monkeypatch.chdir(folder)
    first, second = (resolve_runs(selector)[0].predictions() for selector in ("HEAD", worse))
    assert first is not None
    assert second is not None
    correct = [each["label"] == each["prediction"] for each in (first, second)]
    assert paired["mcnemar"]["only_before"] == int((correct[0] & ~correct[1]).sum())
    changed = first[first["prediction"] != second["prediction"]]
    assert paired["changed"] == len(changed)
    confidence = sum(each["probabilities"].map(max).astype(float) for each in (first, second))
    ranked = changed["id"].loc[confidence[changed.index].sort_values(ascending=False, kind="stable").index]
    assert [row["id"] for row in paired["examples"]] == ranked.tolist()[:2]
    low, high = paired["intervals"]["accuracy"]
    assert low <= correct[1].mean() - correct[0].mean() <= high
    assert all(each["verdict"].startswith("inconclusive: one seed per group") for each in result["metrics"])


def test_a_comparison_is_printed_for_terminal_and_pull_request(
    seeded: tuple[Path, str, str], worse: str, reprise: Run
) -> None:
    output = reprise(seeded[0], "compare", "HEAD", worse, env={"COLUMNS": "200"}).stdout
    assert output.startswith("first: HEAD (seed 42)\n")
    assert "McNemar's exact test" in output
    assert "Differs: parameter: train.learning_rate: 0.005 → 1e-05" in output
    text = reprise(seeded[0], "compare", "seeds:HEAD", f"seeds:{worse}", "--markdown").stdout
    assert "| stage | metric | first | second | difference | 95 % interval | verdict |\n| --- |" in text
    assert "| parameter | train.learning\\_rate | 0.005 | 1e-05 |" in text


def test_an_unknown_selector_is_refused_in_one_line(trained_repo: Path, reprise: Run) -> None:
    refused = reprise(trained_repo, "compare", "HEAD", "nothing", code=2)
    assert refused.stderr.startswith("reprise: error: nothing: expected `workspace`, an experiment's name")


def test_predictions_outside_the_cache_are_none(
    seeded: tuple[Path, str, str], tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(seeded[0], tmp_path / "repo", symlinks=True))
    shutil.rmtree(folder / ".dvc/cache")
    monkeypatch.chdir(folder)
    assert [each.predictions() for each in all_experiments()] == [None] * 3


def test_experiments_of_other_commits_are_removed_after_confirmation(
    seeded: tuple[Path, str, str], tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(seeded[0], tmp_path / "repo", symlinks=True))
    assert "no experiments of other commits than HEAD" in run(folder, "reprise", "prune").stdout
    run(folder, "git", "commit", "-q", "--allow-empty", "-m", "Another commit")
    before = names(folder, run)
    asked = run(folder, "bash", "-c", "echo n | reprise prune").stdout
    assert "Remove these 3 experiments? [y/N]" in asked
    assert names(folder, run) == before
    run(folder, "reprise", "prune", "--yes")
    assert names(folder, run) == []


def test_untracked_files_of_the_recipe_are_reported_before_any_run(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "git", "init", "-q")
    for name in ("reviews.csv", "unrelated.csv", "tiny/config.json", "tiny/model.safetensors", "tiny/.hidden"):
        file = tmp_path / "data/own" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    recipe = check_recipe(tiny_recipe(), "params.yaml")
    with pytest.raises(UserError) as table:
        check_copyable(recipe)
    assert (table.value.file, table.value.key) == ("data/own/reviews.csv", "task.source.train")
    run(tmp_path, "git", "add", "data/own/reviews.csv", "data/own/tiny/config.json")
    with pytest.raises(UserError) as model:
        check_copyable(recipe)
    assert (model.value.file, model.value.key) == ("data/own/tiny/model.safetensors", "model.source.path")
    (tmp_path / "data/own/tiny.dvc").write_text("outs: []")  # as `dvc add data/own/tiny` writes it
    with pytest.raises(UserError):
        check_copyable(recipe)
    run(tmp_path, "git", "add", "data/own/tiny.dvc")
    check_copyable(recipe)
