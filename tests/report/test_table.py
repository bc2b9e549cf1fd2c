"""The table of runs: columns and cells."""

import dataclasses

import pytest

from factories import make_run
from reprise.report.run import MetricValue
from reprise.report.table import (
    Cell,
    Column,
    format_duration,
    hardware,
    is_lower_better,
    metric_cell,
    table,
    varying_keys,
)


def test_columns_are_differing_keys_and_metrics() -> None:
    runs = [
        make_run(),
        make_run("gentler", "experiment", **{"train.learning_rate": 1e-3, "train.bucket_lengths": [8, 16]}),
    ]
    columns, rows = table(runs)
    assert [column.heading for column in columns] == [
        "created", "train.bucket_lengths", "train.learning_rate",
        "accuracy", "f1", "validation accuracy", "validation f1", "training loss", "calibration error",
        "training time", "examples/s", "peak MiB", "hardware",
    ]  # fmt: skip
    assert columns[1:3] == [Column("train.bucket_lengths"), Column("train.learning_rate", numeric=True)]
    assert [row[1] for row in rows] == [Cell("auto", key="auto"), Cell("[8, 16]", key="[8, 16]")]
    assert [row[2] for row in rows] == [Cell("0.005", key=0.005), Cell("0.001", key=0.001)]
    assert {len(row) for row in rows} == {len(columns)}


def test_errors_and_costs_are_better_if_they_are_lower() -> None:
    names = ["rmse", "validation mae", "training loss", "calibration error", "training seconds", "peak MiB"]
    names += ["uncalibrated error"]
    assert all(map(is_lower_better, names))
    assert not any(
        map(is_lower_better, ["accuracy", "r2", "validation pearson", "examples/s", "of an earlier version"])
    )
    columns, _ = table([make_run()])
    assert [column.heading for column in columns if column.lower_is_better] == [
        "training loss", "calibration error", "training time", "peak MiB"
    ]  # fmt: skip


def test_a_single_run_has_no_differing_keys() -> None:
    assert varying_keys([make_run()]) == []


def test_of_other_sources_only_the_name_is_shown() -> None:
    other = {"task.name": "messages", "task.source": {"kind": "local", "train": "data/own/other.csv"}}
    assert varying_keys([make_run(), make_run("other", **other)]) == ["task.name"]
    moved = {"task.source": {"kind": "local", "train": "data/own/other.csv", "validation": None, "test": None}}
    assert varying_keys([make_run(), make_run("moved", **moved)]) == ["task.source.train"]


def test_a_missing_value_is_a_dash_sorted_last() -> None:
    runs = [
        make_run(),
        make_run("bare", change=lambda files: [files.pop(path) for path in list(files) if path.stem == "speed"]),
    ]
    columns, rows = table(runs)
    place = [column.heading for column in columns].index("examples/s")
    assert rows[0][place].key > 0
    assert rows[1][place] == Cell("–", key=None)


@pytest.mark.parametrize(
    ("name", "metric", "cell"),
    [
        ("accuracy", MetricValue(0.83896, 0.81932, 0.85939), Cell("0.8390", "0.819 – 0.859", 0.83896)),
        ("training loss", MetricValue(0.36), Cell("0.3600", "", 0.36)),
        ("rmse", MetricValue(30541.14, 29537.4, 32016.1), Cell("30,541.1", "29,537.4 – 32,016.1", 30541.14)),
        ("mae", MetricValue(0.00012, 0.0001, 0.0002), Cell("0.00012", "0.0001 – 0.0002", 0.00012)),
        ("peak MiB", MetricValue(2299), Cell("2,299", "", 2299)),
        ("examples/s", MetricValue(123.64), Cell("123.6", "", 123.64)),
        ("training seconds", MetricValue(165.83), Cell("2 min 46 s", "", 165.83)),
        ("accuracy", None, Cell("–", "", None)),
    ],
)
def test_metrics_are_formatted_for_reading(name: str, metric: MetricValue | None, cell: Cell) -> None:
    assert metric_cell(name, metric) == cell


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (165.8, "2 min 46 s"),
        (3599.7, "1 h 00 min"),
        (7530, "2 h 05 min"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


def test_devices_are_counted() -> None:
    run = make_run()
    provenance = {**run.result.provenance, "devices": ["H100", "H100"], "processes": 2, "threads": 1}
    run = dataclasses.replace(run, result=dataclasses.replace(run.result, provenance=provenance))
    assert hardware(run) == ("2 × H100", "2 processes, 1 thread")
    nothing = dataclasses.replace(run, result=dataclasses.replace(run.result, provenance={}))
    assert hardware(nothing) == ("–", "")
