"""`reprise predict`: the same predictions as the evaluate stage, from arguments, tables and standard input."""

import csv
import dataclasses
import io
import json
import math
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState

from reprise.commands import predict as module
from reprise.commands import predict_table
from reprise.commands.final_model import changes, print_changes
from reprise.commands.predict import parse_row, predict_texts, read_lines
from reprise.commands.predict_table import predict_file, read_file, table_chunks
from reprise.commands.submission import write_submission
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.modeling.inference import load_text_model
from reprise.modeling.inputs import TextModel
from reprise.modeling.recipe import ModelRecipe, model_recipe, read_model_recipe
from tiny import Run, tiny_recipe, write_params

PAIR = ["question", "sentence"]


@pytest.fixture
def workdir(trained_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the trained model, data and predictions."""
    for name in ("models", "data", "predictions"):
        shutil.copytree(trained_repo / name, tmp_path / name)
    for name in ("params.yaml", "dvc.lock"):
        shutil.copy(trained_repo / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    return tmp_path


@pytest.fixture
def recipe(workdir: Path) -> ModelRecipe:
    return read_model_recipe()


@pytest.fixture
def model(recipe: ModelRecipe) -> TextModel:
    return load_text_model(recipe, cpu=True)


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
    workdir: Path, recipe: ModelRecipe, model: TextModel, evaluated: list[dict[str, Any]], suffix: str
) -> None:
    file, out = workdir / f"in.{suffix}", workdir / "out.jsonl"
    write_table(file, [row["text"] for row in evaluated])
    predict_file(recipe, model, file, out)
    found = lines_of(out.read_text())
    assert [row["text"] for row in found] == [row["text"] for row in evaluated]
    assert [row["label"] for row in found] == [row["prediction"] for row in evaluated]
    assert {row["label"] for row in found} == {"rotten", "fresh"}
    probabilities = np.array([list(row["probabilities"].values()) for row in found], dtype=np.float32)
    assert probabilities.tolist() == [row["probabilities"] for row in evaluated]
    assert list(found[0]["probabilities"]) == ["rotten", "fresh"]


@pytest.mark.parametrize("engine", ["pytorch", "trainer"])
def test_every_engine_predicts_the_same(workdir: Path, evaluated: list[dict[str, Any]], engine: str) -> None:
    recipe = model_recipe(check_recipe(tiny_recipe(**{"train.engine": engine}), "recipe"))
    out = io.StringIO()
    model = load_text_model(recipe, cpu=True)
    predict_texts(recipe, model, [(row["text"],) for row in evaluated], out)
    found = [list(row["probabilities"].values()) for row in lines_of(out.getvalue())]
    assert np.array(found, dtype=np.float32).tolist() == [row["probabilities"] for row in evaluated]


def test_examples_of_several_chunks_keep_their_order(
    workdir: Path,
    recipe: ModelRecipe,
    model: TextModel,
    evaluated: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    out = io.StringIO()
    predict_texts(recipe, model, iter([(row["text"],) for row in evaluated]), out)
    assert [(row["text"], row["label"]) for row in lines_of(out.getvalue())] == [
        (row["text"], row["prediction"]) for row in evaluated
    ]
    assert "predict: 42 examples" in capsys.readouterr().err


def test_texts_of_any_length_are_read_a_few_characters_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_CHARS", 10)
    texts = [("abcd",), ("efgh",), ("ijkl",), ("a text that is longer than a part",), (["six", "six"],), ("m",)]
    parts = list(module.parts_of(texts))
    assert [len(part) for part in parts] == [2, 1, 1, 2]
    assert [row for part in parts for row in part] == texts
    assert list(module.parts_of(texts[:1])) == [texts[:1]]


def test_each_argument_or_line_of_standard_input_gets_one_line(repo_copy: Path, run: Run) -> None:
    (prediction,) = lines_of(run(repo_copy, "reprise", "predict", "a bright and funny film").stdout)
    assert prediction["text"] == "a bright and funny film"
    assert prediction["label"] == "fresh"
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    lines = run(repo_copy, "sh", "-c", "printf 'a dull story\\n\\na bright and funny film' | reprise predict")
    assert [row["text"] for row in lines_of(lines.stdout)] == ["a dull story", "", "a bright and funny film"]
    assert lines.stderr == ""
    refused = run(repo_copy, "sh", "-c", r"printf 'a dull story\r\ncaf\351\n' | reprise predict", code=2)
    assert refused.stderr.startswith("reprise: error: standard input: line 2: not UTF-8; ")


def test_predictions_of_a_table_go_to_standard_output_or_a_file(repo_copy: Path, reprise: Run) -> None:
    printed = reprise(repo_copy, "predict", "--file", "data/own/reviews.csv").stdout
    reprise(repo_copy, "predict", "--file", "data/own/reviews.csv", "--out", "out.jsonl")
    assert (repo_copy / "out.jsonl").read_text() == printed
    assert len(printed.splitlines()) == 280


def test_every_format_has_all_columns_of_the_table_and_the_same_predictions(
    workdir: Path,
    recipe: ModelRecipe,
    model: TextModel,
    evaluated: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predict_table, "CHUNK_ROWS", 7)
    rows = [
        {"id": 1000 + number if number else None, "text": row["text"], "label": row["label"], "when": date(2026, 1, 2),
         "tags": ["a"] * (number % 3), "score": math.nan if number == 1 else number / 3}
        for number, row in enumerate(evaluated)
    ]  # fmt: skip
    file = workdir / "in.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        predict_file(recipe, model, file, workdir / name)
    lines, table = lines_of(Path("out.jsonl").read_text()), pq.read_table("out.parquet")
    assert list(lines[0]) == [*rows[0], "predicted_label", "predicted_probabilities"]
    assert [line["predicted_label"] for line in lines] == [row["prediction"] for row in evaluated]
    assert [line["label"] for line in lines] == [row["label"] for row in evaluated]  # the table's own
    assert (lines[1]["when"], lines[1]["score"], lines[2]["tags"]) == ("2026-01-02", None, ["a", "a"])
    assert table.select(list(rows[0])).schema == pq.read_schema(file)
    assert table.to_pylist()[2:] == [
        row | {name: line[name] for name in line if name.startswith("predicted")}
        for row, line in zip(rows[2:], lines[2:], strict=True)
    ]
    header, *cells = csv.reader(Path("out.csv").read_text().splitlines())
    assert header == [*rows[0], "predicted_label", "predicted_probabilities.rotten", "predicted_probabilities.fresh"]
    assert cells[0][0] == ""
    assert cells[2][:1] + cells[2][3:5] == ["1002", "2026-01-02", '["a", "a"]']
    assert [[row[6], float(row[7]), float(row[8])] for row in cells] == [
        [line["predicted_label"], *line["predicted_probabilities"].values()] for line in lines
    ]


def test_the_most_probable_labels_are_listed_best_first(
    workdir: Path, recipe: ModelRecipe, model: TextModel, evaluated: list[dict[str, Any]]
) -> None:
    file = workdir / "in.csv"
    write_table(file, [row["text"] for row in evaluated])
    for count, names in ((1, 1), (2, 2), (9, 2)):
        predict_file(recipe, model, file, workdir / "out.jsonl", top_k=count)
        for line, row in zip(lines_of(Path("out.jsonl").read_text()), evaluated, strict=True):
            assert list(line) == ["number", "text", "label", "top"]
            assert line["label"] == line["top"][0]["label"] == row["prediction"]
            best = sorted(zip(row["probabilities"], ("rotten", "fresh"), strict=True), reverse=True)[:names]
            assert [(np.float32(each["probability"]), each["label"]) for each in line["top"]] == best
    predict_file(recipe, model, file, workdir / "out.csv", top_k=2)
    header = Path("out.csv").read_text().splitlines()[0]
    assert header == "number,text,label,top.1.label,top.1.probability,top.2.label,top.2.probability"
    out = io.StringIO()
    predict_texts(recipe, model, [("a dull story",)], out, top_k=1)
    (printed,) = lines_of(out.getvalue())
    assert list(printed) == ["text", "label", "top"]


def test_the_most_probable_labels_of_a_regression_are_refused(
    workdir: Path, recipe: ModelRecipe, model: TextModel
) -> None:
    number = dataclasses.replace(recipe, task=dataclasses.replace(recipe.task, labels=[], positive_label=None))
    with pytest.raises(UserError) as refused:
        predict_texts(number, model, [("x",)], io.StringIO(), top_k=2)
    assert (refused.value.key, refused.value.expected) == ("predict --top-k", "a model with labels")


def test_a_tab_separates_the_texts_of_a_pair_and_is_kept_in_a_single_text() -> None:
    assert list(read_lines(["who?\tnobody\n", "a\tb"], PAIR)) == [("who?", "nobody"), ("a", "b")]
    assert list(read_lines(["a\tb\n"], ["text"])) == [("a\tb",)]


@pytest.mark.parametrize(("texts", "columns"), [(["one", "two"], ["text"]), (["one"], PAIR), (["a", "b", "c"], PAIR)])
def test_a_wrong_number_of_texts_is_refused(texts: list[str], columns: list[str]) -> None:
    with pytest.raises(UserError, match=rf"^predict: got {len(texts)}: ") as refused:
        parse_row(texts, columns)
    assert refused.value.expected.endswith(f"({', '.join(columns)})")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"text,n\r\na story,1\r\nanother,2\r\n", "in.csv"),
        (b"\xef\xbb\xbftext,n\na story,1\nanother,2\n", "in.csv"),
        (b"\xef\xbb\xbftext\tn\na story\t1\nanother\t2\n", "in.tsv"),
        (b'{"text": "a story"}\r\n{"text": "another"}\r\n', "in.jsonl"),
    ],
    ids=["CSV with CR LF", "CSV with a byte order mark", "TSV with a byte order mark", "JSON lines with CR LF"],
)
def test_line_ends_and_a_byte_order_mark_are_no_text(
    content: bytes, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    rows = read_file(Path(name), ["text"], tmp_path / "cache")
    ((table, texts),) = table_chunks(rows, Path(name), ["text"])
    assert texts == [("a story",), ("another",)]
    assert len(table) == 2


@pytest.mark.parametrize("line", [b"caf\xe9", b"a\0b"], ids=["Latin-1", "null byte"])
def test_a_table_that_is_not_text_is_refused_with_file_and_line(
    line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_bytes(b"text\na story\n" + line + b"\n")
    with pytest.raises(UserError, match=r"^in\.csv: line 3"):
        list(read_file(Path("in.csv"), ["text"], tmp_path / "cache"))


def write(content: str, name: str) -> str:
    Path(name).write_text(content)
    return name


@pytest.mark.parametrize(
    ("content", "name", "out", "file", "key"),
    [
        ("words\nx\n", "in.csv", "out.jsonl", "in.csv", "text"),
        ('{"text": null}\n', "in.jsonl", "out.jsonl", "in.jsonl", "text"),
        ('{"text": "a"}\n{"text": 3}\n', "in.jsonl", "out.jsonl", "in.jsonl", ""),
        ("", "in.csv", "out.jsonl", "in.csv", ""),
        ("text\nx\n", "in.txt", "out.jsonl", "in.txt", ""),
        ("text\nx\n", "in.csv", "out.tsv", "out.tsv", ""),
        ("text\nx\n", "in.csv", "in.csv", "in.csv", ""),
        ('{"text": "a"}\n', "in.jsonl", "in.jsonl", "in.jsonl", ""),
    ],
)
def test_an_unreadable_table_is_refused_and_earlier_predictions_are_kept(
    workdir: Path, recipe: ModelRecipe, model: TextModel, content: str, name: str, out: str, file: str, key: str
) -> None:
    write(content, name)
    if out != name:
        write("earlier predictions\n", out)
    before = Path(out).read_text()
    with pytest.raises(UserError) as refused:
        predict_file(recipe, model, Path(name), Path(out))
    assert str(refused.value).startswith(": ".join(filter(None, [file, key])))
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
def test_wrong_arguments_are_refused_in_one_line(
    repo_copy: Path, reprise: Run, arguments: list[str], message: str
) -> None:
    done = reprise(repo_copy, "predict", *arguments, code=2)
    assert done.stderr.startswith(f"reprise: error: {message}")
    assert done.stderr.count("\n") == 1


def test_a_missing_model_is_refused_with_the_command_to_train_it(workdir: Path, recipe: ModelRecipe) -> None:
    shutil.rmtree("models/final")
    for read in (read_model_recipe, lambda: load_text_model(recipe, cpu=True)):
        with pytest.raises(UserError, match=r"^models/final: not found; expected the model that `dvc repro` makes$"):
            read()


@pytest.mark.parametrize(("labels", "spelled"), [("names", ["rotten", "fresh"]), ("numbers", ["0", "1"])])
def test_a_submission_has_index_and_label_in_the_benchmarks_format(
    workdir: Path, recipe: ModelRecipe, evaluated: list[dict[str, Any]], labels: str, spelled: list[str]
) -> None:
    write_params(workdir, **{"task.submission": {"files": {"test": "CoLA.tsv"}, "labels": labels}})
    write_submission(recipe, workdir / "glue", cpu=True)
    header, *rows = (workdir / "glue/CoLA.tsv").read_text().splitlines()
    assert header == "index\tprediction"
    assert [row.split("\t") for row in rows] == [
        [row["id"], spelled[["rotten", "fresh"].index(row["prediction"])]] for row in evaluated
    ]


def test_a_submission_of_a_missing_split_is_refused(workdir: Path, recipe: ModelRecipe) -> None:
    write_params(workdir, **{"task.submission": {"files": {"test": "CoLA.tsv"}, "labels": "names"}})
    (workdir / "data/prepared/test.arrow").unlink()
    with pytest.raises(UserError, match=r"^data/prepared/test\.arrow: not found; expected the test split"):
        write_submission(recipe, workdir / "glue", cpu=True)
    assert not (workdir / "glue").exists()


def test_a_submission_by_another_recipe_than_the_models_is_refused(workdir: Path, recipe: ModelRecipe) -> None:
    write_params(
        workdir,
        **{
            "task.labels": ["fresh", "rotten"],
            "task.submission": {"files": {"test": "CoLA.tsv"}, "labels": "names"},
        },
    )
    with pytest.raises(UserError) as refused:
        write_submission(recipe, workdir / "glue", cpu=True)
    assert (refused.value.file, refused.value.key) == ("params.yaml", "task.labels")
    assert not (workdir / "glue").exists()


@pytest.mark.parametrize(
    "params",
    [
        "task: [",
        "nothing: here",
        None,
        {"task.labels": ["fresh", "rotten"], "task.positive_label": "fresh"},
        {"task.text_columns": ["a", "b"]},
    ],
    ids=["broken", "another file", "missing", "swapped labels", "another task"],
)
def test_a_model_answers_as_it_was_trained_whatever_params_say_now(
    workdir: Path, evaluated: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], params: Any
) -> None:
    if isinstance(params, dict):
        write_params(workdir, **params)
    else:
        (workdir / "params.yaml").unlink()
        if params:
            (workdir / "params.yaml").write_text(params, encoding="utf-8")
    recipe = read_model_recipe()
    print_changes(recipe)
    shown = capsys.readouterr().err
    model = load_text_model(recipe, cpu=True)
    predict_texts(recipe, model, [(row["text"],) for row in evaluated], out := io.StringIO())
    found = lines_of(out.getvalue())
    assert [row["label"] for row in found] == [row["prediction"] for row in evaluated]
    assert list(found[0]) == ["text", "label", "probabilities"]
    assert shown.count("\n") == 1
    assert shown.startswith("predict: params.yaml")
    if isinstance(params, dict):
        assert shown == f"predict: params.yaml has changed since this model was trained: {next(iter(params))}\n"


def test_a_model_of_other_results_than_the_lock_is_reported(workdir: Path) -> None:
    (workdir / "params.yaml").unlink()
    lock = (workdir / "dvc.lock").read_text(encoding="utf-8")
    (workdir / "dvc.lock").write_text(lock.replace("epochs: 2", "epochs: 7"), encoding="utf-8")
    (line,) = changes(read_model_recipe())
    assert line == "models/final is not the model of dvc.lock: train.epochs; `dvc checkout` restores that one"
    (workdir / "dvc.lock").unlink()
    assert list(changes(read_model_recipe())) == []


def test_a_model_whose_outputs_are_named_otherwise_is_refused(workdir: Path, recipe: ModelRecipe) -> None:
    (workdir / "dvc.lock").unlink()  # it would refuse any edit of the model
    config = workdir / "models/final/config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    content["id2label"] = {"0": "fresh", "1": "rotten"}
    config.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_text_model(recipe, cpu=True)
    assert (refused.value.file, refused.value.key) == ("models/final/config.json", "id2label")
