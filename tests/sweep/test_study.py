"""Trials are a function of the space, the seed and the results, whatever interrupts a sweep."""

import json
import math
from pathlib import Path

import pytest

from reprise.core.errors import UserError
from reprise.sweep.space import parse_space
from reprise.sweep.study import Finished, Sampler, Study

SPACE = parse_space(["train.learning_rate=log(1e-5,1e-2)", "train.batch_size=8,16,32", "train.epochs=int(1,5)"])
GRID = parse_space(["train.batch_size=8,16,32", "train.epochs=int(1,5)"])
TRIALS = 14  # TPE draws at random in the first ten


def objective(overrides: tuple[str, ...]) -> float | None:
    """A metric that has its best value at a learning rate of 1e-3; as of a pipeline that fails with 32 and 1 epoch."""
    values = dict(override.split("=") for override in overrides)
    if (values["train.batch_size"], values["train.epochs"]) == ("32", "1"):
        return None
    rate = float(values.get("train.learning_rate", 1e-3))
    return -abs(math.log10(rate) + 3) + int(values["train.epochs"]) / 10 - int(values["train.batch_size"]) / 100


def opened(folder: Path, sampler: Sampler = "tpe", seed: int = 0, recipe: str = "recipe") -> Study:
    space = GRID if sampler == "grid" else SPACE
    return Study(folder / "journal.log", space, sampler, seed, recipe, greater_is_better=True)


def searched(study: Study, trials: int = TRIALS) -> list[Finished]:
    while len(study.finished()) < trials:
        trial, asked = study.ask()
        study.tell(trial, objective(asked.overrides))
    return study.finished()


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_killed_and_resumed_it_proposes_the_same_trials(tmp_path: Path, sampler: Sampler) -> None:
    expected = searched(opened(tmp_path / "once", sampler))
    journal = tmp_path / "killed/journal.log"
    for count in range(0, TRIALS, 3):
        study = opened(journal.parent, sampler)
        searched(study, count)
        _, asked = study.ask()  # and killed while it runs, and while it writes
        assert asked.overrides == expected[count].overrides
        with journal.open("a", encoding="utf-8") as file:
            file.write('{"op_code":')
        journal.with_name("journal.log.lock").symlink_to("journal.log")
    resumed = searched(opened(journal.parent, sampler))
    assert resumed == expected
    assert [each.number for each in resumed] == list(range(1, TRIALS + 1))


def test_a_trial_that_failed_is_kept_and_not_asked_again(tmp_path: Path) -> None:
    study = opened(tmp_path)
    trial, asked = study.ask()
    study.tell(trial, None)
    assert opened(tmp_path).finished() == [Finished(1, asked.overrides, None)]
    assert opened(tmp_path).ask()[1].number == 2


def test_another_seed_proposes_others(tmp_path: Path) -> None:
    first, second = (opened(tmp_path / str(seed), seed=seed).ask()[1] for seed in (0, 1))
    assert first.overrides != second.overrides


def test_tpe_learns_from_the_results(tmp_path: Path) -> None:
    trials = searched(opened(tmp_path), 30)
    metrics = [each.metric for each in trials if each.metric is not None]
    assert sum(metrics[-10:]) / 10 > sum(metrics[:10]) / 10 + 0.3


def test_the_parameter_that_decides_is_the_most_important(tmp_path: Path) -> None:
    study = opened(tmp_path, "random")
    searched(study, 9)
    assert study.importance() is None  # too few
    searched(study, 30)
    found = study.importance()
    assert found is not None
    assert next(iter(found)) == "train.learning_rate"
    assert sum(found.values()) == pytest.approx(1)
    assert opened(tmp_path, "random").importance() == found


def test_a_grid_ends(tmp_path: Path) -> None:
    study = opened(tmp_path, "grid")
    assert study.size == 15
    assert len({each.overrides for each in searched(study, 15)}) == 15
    assert opened(tmp_path / "tpe").size is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sampler": "random"}, "another sampler"),
        ({"sampler": "grid"}, "another space"),
        ({"seed": 1}, "another sweep seed"),
        ({"recipe": "other"}, "another recipe, code or software"),
    ],
)
def test_another_sweep_under_the_same_name_is_refused(tmp_path: Path, change: dict[str, str], problem: str) -> None:
    searched(opened(tmp_path), 2)
    before = (tmp_path / "journal.log").read_bytes()
    with pytest.raises(UserError, match=problem):
        opened(tmp_path, **change)  # type: ignore[arg-type]
    assert (tmp_path / "journal.log").read_bytes() == before


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    searched(opened(tmp_path), 2)
    lines = (tmp_path / "journal.log").read_text().splitlines()
    assert all(map(json.loads, lines))
    (tmp_path / "journal.log").write_text("\n".join([*lines[:2], "not JSON", *lines[2:], ""]))
    with pytest.raises(UserError, match="damaged"):
        opened(tmp_path)
