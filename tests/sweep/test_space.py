"""What `-S` and a file say is parsed into a space, or refused in one line."""

import pytest

from reprise.core.errors import UserError
from reprise.sweep.space import Choice, Range, Space, parse_space, read_overrides


def test_each_form_of_a_dimension_is_parsed() -> None:
    space = parse_space(
        [
            "train.learning_rate=log(1e-5, 3e-4)",
            "train.weight_decay=uniform(0,0.1)",
            "train.epochs=int(1,4)",
            "train.batch_size=choice(16,32)",
            "train.max_length=range(32,129,32)",
            "params.yaml:train.lr_scheduler=linear,constant",
            "train.warmup_ratio=0.1",
        ]
    )
    assert space.dimensions == (
        Choice("train.batch_size", ("16", "32")),
        Range("train.epochs", "int", 1, 4),
        Range("train.learning_rate", "log", 1e-5, 3e-4),
        Choice("train.lr_scheduler", ("linear", "constant")),
        Choice("train.max_length", ("32", "64", "96", "128")),
        Range("train.weight_decay", "uniform", 0, 0.1),
    )
    assert space.fixed == ("train.warmup_ratio=0.1",)


def test_the_order_of_the_options_has_no_effect() -> None:
    texts = ["train.a=1,2", "train.b=log(1,2)", "train.c=3", "train.d=4"]
    assert parse_space(texts) == parse_space(texts[::-1])


def test_numbers_are_rounded_and_stay_between_the_ends() -> None:
    rate = Range("train.learning_rate", "log", 1.2345e-5, 3e-4)
    assert rate.format(7.128590e-5) == "7.13e-05"
    assert rate.format(1.2346e-5) == "1.2345e-05"
    assert Range("train.weight_decay", "uniform", 0, 0.1).format(0.0123456) == "0.0123"
    assert Range("train.warmup_ratio", "uniform", 0.99, 0.991).format(0.9905004) == "0.9905"
    assert Range("train.epochs", "int", 1, 4).format(3.0) == "3"


def test_a_file_says_the_same_as_options() -> None:
    content = {
        "train": {"learning_rate": "log(1e-5,3e-4)", "batch_size": [16, 32], "lora": None},
        "train.lr_scheduler": "linear,constant",
    }
    assert parse_space(read_overrides(content, "space.yaml")) == parse_space(
        [
            "train.learning_rate=log(1e-5,3e-4)",
            "train.batch_size=choice(16,32)",
            "train.lora=null",
            "train.lr_scheduler=linear,constant",
        ]
    )


def test_the_corners_are_all_combinations_of_ends() -> None:
    corners = parse_space(["train.a=log(1,2)", "train.b=3,4,5", "train.c=6"]).corners()
    expected = [(f"train.a={a}", f"train.b={b}") for a in (1.0, 2.0) for b in (3, 4, 5)]
    assert list(corners) == [("train.c=6", *pair) for pair in expected]


def test_a_grid_has_every_combination() -> None:
    assert parse_space(["train.a=int(1,2)", "train.b=x,y"]).grid() == [
        {"train.a": 1, "train.b": "x"}, {"train.a": 1, "train.b": "y"},
        {"train.a": 2, "train.b": "x"}, {"train.a": 2, "train.b": "y"},
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"train.a: log\(\) has no grid"):
        parse_space(["train.a=log(1,2)"]).grid()


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ([], "-S: nothing to search"),
        (["train.epochs=2"], "-S: nothing to search"),
        (["train.epochs=int(1,2.5)"], r"train.epochs=int\(1,2.5\): not integers"),
        (["train.epochs=int(1,a)"], "not integers"),
        (["train.a=log(0,1)"], "expected 0 < low < high"),
        (["train.a=uniform(2,1)"], "expected low < high"),
        (["train.a=uniform(0,inf)"], "expected low < high"),
        (["train.a=log(1,2,3)"], "expected KEY=VALUE, or a KEY with"),
        (["train.a=interval(1,2)"], "expected log"),
        (["train.a=glob(*)"], "expected .*log"),
        (["train.a=choice(1)"], "fewer than two values"),
        (["train.a=1,2", "train.a=log(1,2)"], "train.a: given twice"),
        (["seed=1,2"], "seed: a sweep may not change it"),
        (["seed=1", "train.a=1,2"], "seed: a sweep may not change it"),
        (["evaluate.split=test", "train.a=1,2"], "evaluate.split: a sweep may not change it"),
        (["task.max_examples=100", "train.a=1,2"], "task.max_examples: a sweep may not change it"),
        (["run.save_steps=1,2"], "run.save_steps: a sweep may not change it"),
        (["train.a"], "expected KEY=VALUE"),
    ],
)
def test_what_is_no_space_is_refused_in_one_line(overrides: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        parse_space(overrides)
    assert len(str(error.value).splitlines()) == 1


def test_a_file_without_keys_is_refused() -> None:
    with pytest.raises(UserError, match=r"space.yaml: expected keys"):
        read_overrides(["train.a=1,2"], "space.yaml")


def test_what_does_not_change_the_recipe_may_be_fixed() -> None:
    assert parse_space(["run.trackers=[tensorboard]", "train.a=1,2"]) == Space(
        (Choice("train.a", ("1", "2")),), ("run.trackers=[tensorboard]",)
    )
