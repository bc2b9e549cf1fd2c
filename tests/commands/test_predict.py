"""`reprise predict`: the same predictions as the evaluate stage, from arguments, tables and standard input."""

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

from reprise.commands import predict as module
from reprise.commands.predict import (
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
def workdir(trained_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the trained model, data and predictions."""
    for name in ("models", "data", "predictions"):
        shutil.copytree(trained_repo / name, tmp_path / name)
    shutil.copy(trained_repo / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    return tmp_path


@pytest.fixture
def recipe(workdir: Path) -> Recipe:
    return read_recipe()


@pytest.fixture
def evaluated(workdir: Path) -> list[dict[str, Any]]:
    """The predictions of the evaluate stage for the test split."""
    rows: list[dict[str, Any]] = pq.read_table(workdir / "predictions/test.parquet").to_pylist()
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


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_evaluated_examples_get_bit_identical_labels_and_probabilities(
    workdir: Path, recipe: Recipe, evaluated: list[dict[str, Any]], suffix: str
) -> None:
    file, out = workdir / f"in.{suffix}", workdir / "out.jsonl"
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
def test_every_engine_predicts_the_same(workdir: Path, evaluated: list[dict[str, Any]], engine: str) -> None:
    recipe = check_recipe(tiny_recipe(**{"train.engine": engine}), "recipe")
    out = io.StringIO()
    predict_texts(recipe, [(row["text"],) for row in evaluated], out, cpu=True)
    found = [list(row["probabilities"].values()) for row in lines_of(out.getvalue())]
    assert np.array(found, dtype=np.float32).tolist() == [row["probabilities"] for row in evaluated]


def test_examples_of_several_chunks_keep_their_order(
    workdir: Path, recipe: Recipe, evaluated: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    out = io.StringIO()
    predict_texts(recipe, iter([(row["text"],) for row in evaluated]), out, cpu=True)
    assert [(row["text"], row["label"]) for row in lines_of(out.getvalue())] == [
        (row["text"], row["prediction"]) for row in evaluated
    ]
    assert "predict: 42 examples" in capsys.readouterr().err


def test_each_argument_or_line_of_standard_input_gets_one_line(repo_copy: Path, run: Run) -> None:
    (prediction,) = lines_of(run(repo_copy, "reprise", "predict", "a bright and funny film").stdout)
    assert prediction["text"] == "a bright and funny film"
    assert prediction["label"] == "fresh"
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    lines = run(repo_copy, "sh", "-c", "printf 'a dull story\\n\\na bright and funny film' | reprise predict")
    assert [row["text"] for row in lines_of(lines.stdout)] == ["a dull story", "", "a bright and funny film"]
    assert lines.stderr == ""


def test_predictions_of_a_table_go_to_standard_output_or_a_file(repo_copy: Path, run: Run) -> None:
    printed = run(repo_copy, "reprise", "predict", "--file", "data/own/reviews.csv").stdout
    run(repo_copy, "reprise", "predict", "--file", "data/own/reviews.csv", "--out", "out.jsonl")
    assert (repo_copy / "out.jsonl").read_text() == printed
    assert len(printed.splitlines()) == 280


def test_a_tab_separates_the_texts_of_a_pair_and_is_kept_in_a_single_text() -> None:
    assert list(read_lines(["who?\tnobody\n", "a\tb"], PAIR)) == [("who?", "nobody"), ("a", "b")]
    assert list(read_lines(["a\tb\n"], ["text"])) == [("a\tb",)]


@pytest.mark.parametrize(("texts", "columns"), [(["one", "two"], ["text"]), (["one"], PAIR), (["a", "b", "c"], PAIR)])
def test_a_wrong_number_of_texts_is_refused(texts: list[str], columns: list[str]) -> None:
    with pytest.raises(UserError, match=rf"^predict: expected .*\({', '.join(columns)}\), got {len(texts)}: "):
        parse_row(texts, columns)


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
        ("text\nx\n", "in.txt", "out.jsonl", "in.txt: unknown extension; expected .csv"),
        (
            "text\nx\n",
            "in.csv",
            "out.csv",
            "out.csv: expected another file than the input, ending in .jsonl",
        ),
        ('{"text": "a"}\n', "in.jsonl", "in.jsonl", "in.jsonl: expected another file than the input"),
    ],
)
def test_an_unreadable_table_is_refused_and_earlier_predictions_are_kept(
    workdir: Path, recipe: Recipe, content: str, name: str, out: str, message: str
) -> None:
    write(content, name)
    if out != name:
        write("earlier predictions\n", out)
    before = Path(out).read_text()
    with pytest.raises(UserError) as refused:
        predict_file(recipe, Path(name), Path(out), cpu=True)
    assert str(refused.value).startswith(message)
    assert Path(out).read_text() == before
    assert not list(workdir.glob(".*.partial"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["text", "--file", "x.csv"],
            "predict: expected only one of texts, --file (optionally with --out) and --submission",
        ),
        (["--out", "x.jsonl"], "predict: expected only one of texts, --file (optionally with --out) and --submission"),
        (["--file", "nowhere.csv"], "nowhere.csv: not found; expected CSV, TSV, JSON lines or Parquet"),
        (
            ["--submission", "glue"],
            "params.yaml: task.submission: reviews has none; expected a benchmark task, such as those of GLUE",
        ),
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_refused_in_one_line(repo_copy: Path, run: Run, arguments: list[str], message: str) -> None:
    done = run(repo_copy, "reprise", "predict", *arguments, code=2)
    assert done.stderr.startswith(f"reprise: error: {message}")
    assert done.stderr.count("\n") == 1


def test_a_missing_model_is_refused_with_the_command_to_train_it(workdir: Path, recipe: Recipe) -> None:
    shutil.rmtree("models/final")
    with pytest.raises(UserError, match=r"^models/final: not found; expected the model that `dvc repro` makes$"):
        predict_texts(recipe, [("x",)], io.StringIO(), cpu=True)


@pytest.mark.parametrize(("labels", "spelled"), [("names", ["rotten", "fresh"]), ("numbers", ["0", "1"])])
def test_a_submission_has_index_and_label_in_the_benchmarks_format(
    workdir: Path, evaluated: list[dict[str, Any]], labels: str, spelled: list[str]
) -> None:
    submission = {"files": {"test": "CoLA.tsv"}, "labels": labels}
    recipe = check_recipe(tiny_recipe(**{"task.submission": submission}), "recipe")
    write_submission(recipe, workdir / "glue", cpu=True)
    header, *rows = (workdir / "glue/CoLA.tsv").read_text().splitlines()
    assert header == "index\tprediction"
    assert [row.split("\t") for row in rows] == [
        [row["id"], spelled[["rotten", "fresh"].index(row["prediction"])]] for row in evaluated
    ]


def test_a_submission_of_a_missing_split_is_refused(workdir: Path) -> None:
    submission = {"files": {"test": "CoLA.tsv"}, "labels": "names"}
    recipe = check_recipe(tiny_recipe(**{"task.submission": submission}), "recipe")
    (workdir / "data/prepared/test.arrow").unlink()
    with pytest.raises(UserError, match=r"^data/prepared/test\.arrow: not found; expected the test split"):
        write_submission(recipe, workdir / "glue", cpu=True)
    assert not (workdir / "glue").exists()
