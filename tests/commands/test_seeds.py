"""`reprise seeds`, `compare` and `prune`, typed: two seeds a side, cooked by the real DVC."""

import json
import shutil
from pathlib import Path

import pytest

from reprise.core.files import read_json
from reprise.results.runs import all_experiments, resolve_runs
from tiny import Run

pytestmark = pytest.mark.timeout(900)  # five cookings, one after another

WORSE = ("-S", "train.learning_rate=1e-5")


@pytest.fixture(scope="module")
def seeded(cooked: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> tuple[Path, str, str]:
    """A cooked kitchen with a second seed of its recipe and two of a worse one, and what was printed. Do not change."""
    folder = Path(shutil.copytree(cooked, tmp_path_factory.mktemp("seeded") / "kitchen", symlinks=True))
    first = run(folder, "reprise", "seeds", "-n", "2").stdout
    return folder, first, run(folder, "reprise", "seeds", "-n", "2", *WORSE).stdout


@pytest.fixture
def worse(seeded: tuple[Path, str, str], run: Run) -> str:
    """The name of an experiment with the worse recipe and seed 42."""
    (name,) = [name for name in names(seeded[0], run) if name.startswith("seed-42-")]
    return name


def names(folder: Path, run: Run) -> list[str]:
    return sorted(run(folder, "dvc", "exp", "list", "--name-only", "--all-commits").stdout.split())


def test_seeds_are_experiments_and_what_head_has_is_not_cooked_again(seeded: tuple[Path, str, str], run: Run) -> None:
    folder, first, second = seeded
    assert "seeds: seed 42, 1 of 2: HEAD has it" in first
    assert "seeds: seed 43, 2 of 2\n" in first
    assert [name[:8] for name in names(folder, run)] == ["seed-42-", "seed-43-", "seed-43-"]
    assert "has it" not in second
    assert run(folder, "git", "status", "--porcelain").stdout == ""


def test_mean_deviation_and_ends_are_printed(seeded: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(seeded[0])
    losses = [each.result.metrics["train"]["loss"] for each in resolve_runs("seeds:HEAD")]
    assert len(losses) == 2
    mean, deviation = sum(losses) / 2, abs(losses[0] - losses[1]) / 2**0.5
    row = f"{mean:.4f} │             {deviation:.4f} │ {min(losses):.4f} │ {max(losses):.4f} │"
    assert row in seeded[1]


def test_typed_again_it_cooks_nothing(seeded: tuple[Path, str, str], worse: str, run: Run) -> None:
    said = run(seeded[0], "reprise", "seeds", "-n", "2", *WORSE).stdout
    assert f"seeds: seed 42, 1 of 2: {worse} has it" in said
    assert "Running stage" not in said


def test_a_change_of_the_code_makes_another_group(seeded: tuple[Path, str, str], tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(seeded[0], tmp_path / "kitchen", symlinks=True))
    with (folder / "src/reprise/train/engines/accelerate.py").open("a", encoding="utf-8") as file:
        file.write("raise RuntimeError\n")
    refused = run(folder, "reprise", "seeds", "-n", "1", code=2)
    assert "has it" not in refused.stdout
    assert "params.yaml: seed 42: the pipeline failed, see above" in refused.stderr


@pytest.mark.parametrize("override", ["train.learning_rat=1", "train.learning_rate", "seed=1,2", "train.epochs=0"])
def test_an_override_that_means_nothing_is_told_before_anything_is_cooked(
    cooked: Path, run: Run, override: str
) -> None:
    refused = run(cooked, "reprise", "seeds", "-S", override, code=2)
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert "params.yaml" in refused.stderr


def test_two_groups_are_compared(seeded: tuple[Path, str, str], worse: str, run: Run) -> None:
    told = json.loads(run(seeded[0], "reprise", "compare", "seeds:HEAD", f"seeds:{worse}", "--json").stdout)
    assert told["first"]["seeds"] == told["second"]["seeds"] == [42, 43]
    metrics = {(each["stage"], each["name"]): each for each in told["metrics"]}
    loss = metrics["train", "loss"]
    assert loss["contrast"]["difference"] > 0
    assert "n=2 and 2" in loss["verdict"]
    assert [each["key"] for each in told["differences"]] == ["train.learning_rate"]
    assert told["differences"][0] == {
        "what": "parameter", "key": "train.learning_rate", "before": "0.005", "after": "1e-05",
    }  # fmt: skip
    assert told["pairing"] is None


def test_two_runs_are_compared_row_by_row(
    seeded: tuple[Path, str, str], worse: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = seeded[0]
    told = json.loads(run(folder, "reprise", "compare", "HEAD", worse, "--json", "--rows", "2").stdout)
    pairing = told["pairing"]
    assert pairing["rows"] == read_json(folder / "metrics/evaluate.json")["num_examples"]
    monkeypatch.chdir(folder)
    first, second = (resolve_runs(word)[0].predictions() for word in ("HEAD", worse))
    assert first is not None
    assert second is not None
    right = [each["label"] == each["prediction"] for each in (first, second)]
    assert pairing["discordance"]["only_before"] == int((right[0] & ~right[1]).sum())
    changed = first[first["prediction"] != second["prediction"]]
    assert pairing["changed"] == len(changed)
    sure = sum(each["probabilities"].map(max).astype(float) for each in (first, second))
    surest = changed["id"].loc[sure[changed.index].sort_values(ascending=False, kind="stable").index]
    assert [row["id"] for row in pairing["examples"]] == surest.tolist()[:2]
    low, high = pairing["intervals"]["accuracy"]
    assert low <= right[1].mean() - right[0].mean() <= high
    assert all(each["verdict"].startswith("one seed a side: cannot tell") for each in told["metrics"])


def test_it_is_read_on_the_terminal_and_in_a_pull_request(seeded: tuple[Path, str, str], worse: str, run: Run) -> None:
    said = run(seeded[0], "reprise", "compare", "HEAD", worse, env={"COLUMNS": "200"}).stdout
    assert said.startswith("first: HEAD (seed 42)\n")
    assert "McNemar's exact test" in said
    assert "Differs: parameter: train.learning_rate: 0.005 → 1e-05" in said
    text = run(seeded[0], "reprise", "compare", "seeds:HEAD", f"seeds:{worse}", "--markdown").stdout
    assert "| stage | figure | first | second | difference | 95 % interval | verdict |\n| --- |" in text
    assert "| parameter | train.learning\\_rate | 0.005 | 1e-05 |" in text


def test_what_names_nothing_is_told_in_a_line(cooked: Path, run: Run) -> None:
    refused = run(cooked, "reprise", "compare", "HEAD", "nothing", code=2)
    assert refused.stderr.startswith("reprise: error: nothing: expected `workspace`, an experiment's name")


def test_predictions_that_are_not_in_the_cache_are_not_here(
    seeded: tuple[Path, str, str], tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(seeded[0], tmp_path / "kitchen", symlinks=True))
    shutil.rmtree(folder / ".dvc/cache")
    monkeypatch.chdir(folder)
    assert [each.predictions() for each in all_experiments()] == [None] * 3


def test_experiments_of_other_commits_are_removed_after_asking(
    seeded: tuple[Path, str, str], tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(seeded[0], tmp_path / "kitchen", symlinks=True))
    assert "no experiment of another commit than HEAD" in run(folder, "reprise", "prune").stdout
    run(folder, "git", "commit", "-q", "--allow-empty", "-m", "Go on")
    there = names(folder, run)
    asked = run(folder, "bash", "-c", "echo n | reprise prune").stdout
    assert "Remove these 3 experiments? [y/N]" in asked
    assert names(folder, run) == there
    run(folder, "reprise", "prune", "--yes")
    assert names(folder, run) == []
