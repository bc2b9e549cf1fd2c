"""The section of a sweep: its numbers, links and texts. For the browser see test_browser."""

import dataclasses
import json

import pytest

from factories import make_record, make_run
from reprise.report.charts import log_ticks
from reprise.report.context import build_context
from reprise.report.sweeps import Chart, best_so_far, pareto_front, position, sweep_section
from reprise.sweep.record import Record, RecordedDimension


def chart(record: Record, title: str) -> Chart:
    """Return a chart of the section of a sweep."""
    section = sweep_section("sweep", record, 0, {})
    (found,) = [each for each in (*section.charts, *section.slices) if each.title == title]
    return found


def test_the_best_so_far_follows_the_direction_of_the_metric() -> None:
    values = [0.5, 0.7, 0.6, 0.4]
    assert best_so_far(values, greater_is_better=True) == [0.5, 0.7, 0.7, 0.7]
    assert best_so_far(values, greater_is_better=False) == [0.5, 0.5, 0.5, 0.4]


def test_the_pareto_front_has_the_trials_that_no_other_dominates() -> None:
    points = [(30, 0.8), (10, 0.6), (20, 0.9), (20, 0.7), (10, 0.5), (40, 0.9), (50, 0.95)]
    assert pareto_front(points, greater_is_better=True) == [1, 2, 6]
    assert pareto_front(points, greater_is_better=False) == [4]
    assert pareto_front([(10, 0.6), (10, 0.6)], greater_is_better=True) == [0, 1]  # neither dominates
    assert pareto_front([], greater_is_better=True) == []


def test_a_value_has_its_place_on_an_axis() -> None:
    log = RecordedDimension("a", "log", ("1e-05", "0.001"))
    assert [position(log, value) for value in ("1e-05", "0.0001", "0.001")] == pytest.approx([0, 0.5, 1])
    assert position(RecordedDimension("a", "int", ("1", "5")), "2") == 0.25
    assert [position(RecordedDimension("a", "choice", ("x", "y", "z")), value) for value in "xyz"] == [0, 0.5, 1]


def test_a_logarithmic_axis_has_round_numbers() -> None:
    assert log_ticks(1e-5, 3e-4) == [1e-5, 2e-5, 5e-5, 1e-4, 2e-4]
    assert log_ticks(1e-6, 1e-2) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]


def test_every_kind_of_dimension_has_a_chart() -> None:
    dimensions = (
        RecordedDimension("train.dropout", "uniform", ("0.0", "0.1")),
        RecordedDimension("b", "int", ("1", "4")),
    )
    trials = tuple(dataclasses.replace(trial, values=("0.05", "2")) for trial in make_record().trials)
    record = make_record(dimensions=dimensions, trials=trials)
    for each, step in (("train.dropout", None), ("b", 1)):
        assert chart(record, each).spec["encoding"]["x"]["axis"].get("tickMinStep") == step


def test_the_history_leaves_out_a_failed_trial_and_says_so() -> None:
    history = chart(make_record(), "History")
    assert [row["trial"] for row in history.rows] == [number for number in range(1, 13) if number != 7]
    assert history.caption.endswith("1 failed trial is left out.")
    assert history.rows[-1]["best"] == max(row["value"] for row in history.rows)


def test_the_lowest_loss_is_the_best_trial() -> None:
    record = make_record(metric="mae", greater_is_better=False)
    lowest = min(trial.metric for trial in record.trials if trial.metric is not None)
    assert chart(record, "History").rows[-1]["best"] == lowest
    first = sweep_section("sweep", record, 0, {}).trials[0]
    assert (first.metric, first.is_best) == (f"{lowest:.4f}", True)
    lines = chart(record, "Parallel coordinates").rows
    assert {row["value"] for row in lines if row["quality"] == 1} == {lowest}


def test_training_time_is_in_minutes_if_a_trial_takes_many() -> None:
    record = make_record()
    assert "training time (min)" in chart(record, "Metric and training time").columns.values()
    fast = tuple(dataclasses.replace(trial, seconds=trial.seconds and trial.seconds / 10) for trial in record.trials)
    assert "training time (s)" in chart(make_record(trials=fast), "Metric and training time").columns.values()
    untimed = tuple(dataclasses.replace(trial, seconds=None) for trial in record.trials)
    section = sweep_section("sweep", make_record(trials=untimed), 0, {})
    assert "Metric and training time" not in [each.title for each in section.charts]


def test_a_sweep_that_runs_has_no_answer_but_its_trials() -> None:
    record = make_record(answer=None, importance=None, finals=(), number=20)
    section = sweep_section("sweep", record, 0, {})
    assert (section.is_finished, section.answer) == (False, "Not finished: 12 of 20 trials.")
    assert "Importance of the parameters" not in [each.title for each in section.charts]
    assert len(section.slices) == 2
    in_finals = sweep_section("sweep", make_record(answer=None), 0, {}).answer
    assert in_finals == "Not finished: 12 of 12 trials, and 4 runs with fresh seeds."
    begun = sweep_section("sweep", make_record(answer=None, finals=(), trials=(), number=20), 0, {})
    assert (begun.answer, begun.charts, begun.slices) == ("Not finished: 0 of 20 trials.", [], [])


def test_trials_link_to_the_runs_of_the_report_by_commit() -> None:
    renamed = dataclasses.replace(make_run("renamed", "experiment"), commit=f"{5:040x}")
    context = build_context([make_run(), renamed], searches={"sweep": make_record()})
    (section,) = context.searches
    links = {trial.number: trial.run and trial.run.index for trial in section.trials}
    assert links == {number: 1 if number == 5 else None for number in range(1, 13)}
    json.dumps(context.data, allow_nan=False)


def test_several_sweeps_have_charts_of_their_own() -> None:
    context = build_context([make_run()], searches={"a": make_record(), "b": make_record()})
    assert [section.name for section in context.searches] == ["a", "b"]
    drawn = [each.id for section in context.searches for each in (*section.charts, *section.slices)]
    assert len(drawn) == len(set(drawn)) == 12
    assert set(drawn) == set(context.data["searches"]) <= set(context.charts)
