"""Groups of runs that differ only in the seed."""

import numpy as np

from factories import make_run
from reprise.report.seeds import seed_groups
from reprise.report.table import varying_keys
from reprise.results.reference import summarize_seeds


def test_runs_that_differ_only_in_the_seed_are_a_group() -> None:
    runs = [
        make_run(),
        make_run("gentle", "experiment", **{"train.learning_rate": 1e-3}),
        make_run("other", "experiment", seed=43),
        make_run("gentle-44", "experiment", **{"train.learning_rate": 1e-3, "seed": 44}),
        make_run("alone", "experiment", **{"train.learning_rate": 1e-4}),
    ]
    groups = seed_groups(runs, [], varying_keys(runs))
    assert [(group.label, [(each.seed, each.run) for each in group.seeds]) for group in groups] == [
        ("learning_rate=0.005", [(42, 0), (43, 2)]),
        ("learning_rate=0.001", [(42, 1), (44, 3)]),
    ]
    assert groups[0].seeds[1].metrics["accuracy"] == runs[2].metrics["accuracy"]


def test_other_code_or_hardware_is_another_group_with_another_name() -> None:
    runs = [
        *(make_run(f"a{seed}", "experiment", seed=seed) for seed in (1, 2)),
        *(make_run(f"b{seed}", "experiment", seed=seed, how={"code": "1" * 32}) for seed in (1, 2)),
        *(make_run(f"c{seed}", "experiment", seed=seed, how={"hardware": "cuda"}) for seed in (1, 2)),
    ]
    groups = seed_groups(runs, [], varying_keys(runs))
    assert [[each.run for each in group.seeds] for group in groups] == [[0, 1], [2, 3], [4, 5]]
    assert len({group.label for group in groups}) == 3
    assert groups[0].label == "tiny on reviews"


def test_of_two_runs_with_one_seed_the_first_counts() -> None:
    (group,) = seed_groups(
        [make_run(), make_run("again", "experiment"), make_run("b", "experiment", seed=1)], [], ["seed"]
    )
    assert [(each.seed, each.run) for each in group.seeds] == [(1, 2), (42, 0)]


def test_the_seeds_of_a_reference_join_the_runs_of_its_recipe_on_its_hardware() -> None:
    measured = {seed: make_run("", seed=seed).result for seed in (42, 43, 44)}
    reference = summarize_seeds(measured)
    (group,) = seed_groups([make_run(), make_run("own", "experiment", seed=43)], [("cpu", reference)], ["seed"])
    assert [(each.seed, each.run) for each in group.seeds] == [(42, 0), (43, 1), (44, None)]
    assert group.seeds[2].metrics["accuracy"].value == measured[44].metrics["evaluate"]["accuracy"]
    assert group.seeds[2].metrics["validation f1"].value == measured[44].metrics["train"]["f1"]
    assert np.isclose(group.seeds[2].metrics["training loss"].value, measured[44].losses.mean())
    assert seed_groups([make_run()], [("cuda", reference)], []) == []
    assert seed_groups([make_run(**{"train.epochs": 3})], [("cpu", reference)], []) == []


def test_the_spread_of_a_group_is_mean_and_sample_standard_deviation() -> None:
    runs = [make_run(f"{seed}", "experiment", seed=seed) for seed in range(5)]
    (group,) = seed_groups(runs, [], ["seed"])
    accuracies = [run.metrics["accuracy"].value for run in runs]
    np.testing.assert_allclose(group.spread("accuracy"), [np.mean(accuracies), np.std(accuracies, ddof=1)])
    assert group.spread("peak MiB") == (2299, 0)
