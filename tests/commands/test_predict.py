"""`reprise predict`: the same answers as the evaluate stage's, from the command line, tables and lines."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState

from reprise.commands import predict as predicting
from reprise.commands.predict import (
    format_predictions,
    parse_row,
    predict_file,
    predict_texts,
    read_lines,
    write_submission,
)
from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe, read_recipe
from tiny import Run, tiny_recipe

PAIR = ["question", "sentence"]


@pytest.fixture
def at(cooked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the cooked model, data and predictions, as the working directory."""
    for name in ("models", "data", "predictions"):
        shutil.copytree(cooked / name, tmp_path / name)
    shutil.copy(cooked / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    return tmp_path


@pytest.fixture
def recipe(at: Path) -> Recipe:
    return read_recipe()


@pytest.fixture
def evaluated(at: Path) -> list[dict[str, Any]]:
    """The rows of the test split with what the evaluate stage predicted."""
    rows: list[dict[str, Any]] = pq.read_table(at / "predictions/test.parquet").to_pylist()
    return rows


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def write_table(file: Path, texts: list[str]) -> None:
    table = pd.DataFrame({"number": range(len(texts)), "text": texts})
    if file.suffix == ".parquet":
        table.to_parquet(file)
    elif file.suffix == ".jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_csv(file, sep="\t" if file.suffix == ".tsv" else ",", index=False)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_the_rows_that_were_evaluated_have_the_same_labels_and_probabilities_to_the_bit(
    at: Path, recipe: Recipe, evaluated: list[dict[str, Any]], ending: str
) -> None:
    file, out = at / f"in.{ending}", at / "out.jsonl"
    write_table(file, [row["text"] for row in evaluated])
    predict_file(recipe, file, out, cpu=True)
    found = lines_of(out.read_text())
    assert [row["text"] for row in found] == [row["text"] for row in evaluated]
    assert [row["label"] for row in found] == [row["prediction"] for row in evaluated]
    assert {row["label"] for row in found} == {"rotten", "fresh"}
    probabilities = np.array([list(row["probabilities"].values()) for row in found], dtype=np.float32)
    assert probabilities.tolist() == [row["probabilities"] for row in evaluated]
    assert list(found[0]["probabilities"]) == ["rotten", "fresh"]


@pytest.mark.parametrize("engine", ["pytorch", "trainer"])
def test_every_engine_predicts_the_same(at: Path, evaluated: list[dict[str, Any]], engine: str) -> None:
    recipe = check_recipe(tiny_recipe(**{"train.engine": engine}), "recipe")
    out = io.StringIO()
    predict_texts(recipe, [(row["text"],) for row in evaluated], out, cpu=True)
    found = [list(row["probabilities"].values()) for row in lines_of(out.getvalue())]
    assert np.array(found, dtype=np.float32).tolist() == [row["probabilities"] for row in evaluated]


def test_more_rows_than_are_in_memory_together_keep_their_order(
    at: Path, recipe: Recipe, evaluated: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(predicting, "CHUNK_ROWS", 7)
    out = io.StringIO()
    predict_texts(recipe, iter([(row["text"],) for row in evaluated]), out, cpu=True)
    assert [(row["text"], row["label"]) for row in lines_of(out.getvalue())] == [
        (row["text"], row["prediction"]) for row in evaluated
    ]
    assert "predict: 42 rows" in capsys.readouterr().err


def test_texts_on_the_command_line_and_lines_of_standard_input_are_answered_a_line_each(served: Path, run: Run) -> None:
    (answer,) = lines_of(run(served, "reprise", "predict", "a bright and funny film").stdout)
    assert answer["text"] == "a bright and funny film"
    assert answer["label"] == "fresh"
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    lines = run(served, "sh", "-c", "printf 'a dull story\\n\\na bright and funny film' | reprise predict")
    assert [row["text"] for row in lines_of(lines.stdout)] == ["a dull story", "", "a bright and funny film"]
    assert lines.stderr == ""


def test_a_table_is_answered_on_standard_output_or_in_a_file(served: Path, run: Run) -> None:
    said = run(served, "reprise", "predict", "--file", "data/own/reviews.csv").stdout
    run(served, "reprise", "predict", "--file", "data/own/reviews.csv", "--out", "out.jsonl")
    assert (served / "out.jsonl").read_text() == said
    assert len(said.splitlines()) == 280


def test_a_tab_in_a_line_parts_the_texts_of_a_pair_and_a_line_of_one_text_may_hold_it() -> None:
    assert list(read_lines(["who?\tnobody\n", "a\tb"], PAIR)) == [("who?", "nobody"), ("a", "b")]
    assert list(read_lines(["a\tb\n"], ["text"])) == [("a\tb",)]


@pytest.mark.parametrize(("texts", "columns"), [(["one", "two"], ["text"]), (["one"], PAIR), (["a", "b", "c"], PAIR)])
def test_more_or_fewer_texts_than_the_recipe_has_columns_are_told(texts: list[str], columns: list[str]) -> None:
    with pytest.raises(UserError, match=rf"^predict: expected .*\({', '.join(columns)}\), got {len(texts)}: "):
        parse_row(texts, columns)


def test_a_regression_answers_with_a_value_and_its_shortest_digits() -> None:
    assert list(format_predictions(np.array([[0.1], [-2.5]], dtype=np.float32), [])) == [
        {"label": 0.1},
        {"label": -2.5},
    ]


def write(content: str, name: str) -> str:
    Path(name).write_text(content)
    return name


@pytest.mark.parametrize(
    ("content", "name", "out", "message"),
    [
        ("words\nx\n", "in.csv", "out.jsonl", "in.csv: no column 'text' (task.text_columns); its columns are words"),
        ('{"text": null}\n', "in.jsonl", "out.jsonl", "in.jsonl, row 1: expected text in column 'text', got None"),
        ('{"text": "a"}\n{"text": 3}\n', "in.jsonl", "out.jsonl", "in.jsonl"),
        ("", "in.csv", "out.jsonl", "in.csv: empty"),
        ("text\nx\n", "in.txt", "out.jsonl", "in.txt: unknown ending; expected .csv"),
        (
            "text\nx\n",
            "in.csv",
            "out.csv",
            "out.csv: expected another file than the one that is read, ending in .jsonl",
        ),
        ('{"text": "a"}\n', "in.jsonl", "in.jsonl", "in.jsonl: expected another file than the one that is read"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_and_the_file_of_earlier_answers_is_kept(
    at: Path, recipe: Recipe, content: str, name: str, out: str, message: str
) -> None:
    write(content, name)
    if out != name:
        write("earlier answers\n", out)
    before = Path(out).read_text()
    with pytest.raises(UserError) as refused:
        predict_file(recipe, Path(name), Path(out), cpu=True)
    assert str(refused.value).startswith(message)
    assert Path(out).read_text() == before
    assert not list(at.glob(".*.partial"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text", "--file", "x.csv"], "predict: expected texts, --file (with --out or without) or --submission"),
        (["--out", "x.jsonl"], "predict: expected texts, --file (with --out or without) or --submission"),
        (["--file", "nowhere.csv"], "nowhere.csv: not found; expected CSV, TSV, JSON lines or Parquet"),
        (["--submission", "glue"], "params.yaml: task.submission: reviews has none; expected a task of GLUE, say"),
    ],
    ids=" ".join,
)
def test_what_is_asked_wrongly_is_one_line(served: Path, run: Run, arguments: list[str], message: str) -> None:
    done = run(served, "reprise", "predict", *arguments, code=2)
    assert done.stderr.startswith(f"reprise: error: {message}")
    assert done.stderr.count("\n") == 1


def test_without_a_model_it_is_told_how_to_make_one(at: Path, recipe: Recipe) -> None:
    shutil.rmtree("models/final")
    with pytest.raises(UserError, match=r"^models/final: not found; expected the model that `dvc repro` makes$"):
        predict_texts(recipe, [("x",)], io.StringIO(), cpu=True)


@pytest.mark.parametrize(("labels", "spelled"), [("names", ["rotten", "fresh"]), ("numbers", ["0", "1"])])
def test_a_submission_names_every_row_and_its_label_as_the_benchmark_wants(
    at: Path, evaluated: list[dict[str, Any]], labels: str, spelled: list[str]
) -> None:
    submission = {"files": {"test": "CoLA.tsv"}, "labels": labels}
    recipe = check_recipe(tiny_recipe(**{"task.submission": submission}), "recipe")
    write_submission(recipe, at / "glue", cpu=True)
    header, *rows = (at / "glue/CoLA.tsv").read_text().splitlines()
    assert header == "index\tprediction"
    assert [row.split("\t") for row in rows] == [
        [row["id"], spelled[["rotten", "fresh"].index(row["prediction"])]] for row in evaluated
    ]


def test_a_submission_of_a_split_that_was_not_prepared_is_told(at: Path) -> None:
    submission = {"files": {"test": "CoLA.tsv"}, "labels": "names"}
    recipe = check_recipe(tiny_recipe(**{"task.submission": submission}), "recipe")
    (at / "data/prepared/test.arrow").unlink()
    with pytest.raises(UserError, match=r"^data/prepared/test\.arrow: not found; expected the test split"):
        write_submission(recipe, at / "glue", cpu=True)
    assert not (at / "glue").exists()
