"""`reprise export --format onnx`: the files answer as the trained model, in any company, and run without torch."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from reprise.commands.export_onnx import table_rows
from reprise.core.errors import UserError
from reprise.core.files import read_json, sha256
from reprise.core.validation import check_recipe
from reprise.onnx.evaluation import compare_answers, too_different
from reprise.onnx.files import EVALUATION, FILES, ONNX, SPEED, check_judged, find_onnx
from reprise.onnx.model import OnnxModel
from reprise.sharing.folder import folder_problems
from reprise.sharing.record import read_record
from reprise.tasks.registry import task_kind
from tiny import BAD, FILLER, GOOD, Run, tiny_recipe

# What `predict --model` must not import: each takes a second, or is not installed where models are served.
HEAVY = ("torch", "transformers", "datasets", "accelerate", "pandas", "pyarrow", "dvc", "hydra", "sklearn")


@pytest.fixture(scope="module")
def repository(trained_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained_repo, tmp_path_factory.mktemp("exporting") / "repo", symlinks=True))


@pytest.fixture(scope="module")
def exported(repository: Path, run: Run) -> Path:
    """A trained model, exported in all precisions. Do not change."""
    done = run(repository, "reprise", "export", "../model", "--format", "onnx", "--fp16", "--int8", "--tolerance", "1")
    assert done.stderr == ""
    (repository.parent / "printed").write_text(done.stdout, encoding="utf-8")
    return repository.parent / "model"


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """A writable copy."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


@pytest.fixture(scope="module")
def texts() -> list[tuple[str]]:
    """Texts of 1 to 12 words: batches of other texts have other lengths."""
    draw = np.random.default_rng(0)
    return [(" ".join(draw.choice([*GOOD, *BAD, *FILLER], draw.integers(1, 13))),) for _ in range(60)]


def test_the_file_in_fp32_has_the_metrics_and_predictions_of_the_model(repository: Path, exported: Path) -> None:
    judged, evaluated = read_json(exported / EVALUATION), read_json(repository / "metrics/evaluate.json")
    assert (judged["split"], judged["num_examples"]) == ("test", 48)
    assert list(judged["files"]) == ["model.onnx", "model_fp16.onnx", "model_quantized.onnx"]
    found = judged["files"]["model.onnx"]
    for name in ("accuracy", "f1", "ci95"):
        assert found[name] == judged[name] == evaluated[name]
    assert (found["changed"], found["p"]) == (0, 1.0)
    assert 0 < found["max_logit_difference"] < 1e-5
    assert found["max_logit_difference"] < judged["files"]["model_fp16.onnx"]["max_logit_difference"] < 0.01
    sizes = [(exported / ONNX / name).stat().st_size for name in judged["files"]]
    assert sizes == [each["bytes"] for each in judged["files"].values()]
    assert sizes[0] > sizes[1]


def test_the_table_is_printed_and_on_the_card(repository: Path, exported: Path) -> None:
    rows = [line for line in (exported / "README.md").read_text().splitlines() if line.startswith("| model\\_")]
    printed = (repository.parent / "printed").read_text()
    assert len(rows) == 2
    assert all(row in printed for row in rows)
    speed = read_json(exported / SPEED)
    assert list(speed["per_second"]) == [
        "transformers pipeline, batches of 32", "reprise predict, PyTorch", *read_json(exported / EVALUATION)["files"],
    ]  # fmt: skip
    assert min(speed["per_second"].values()) > 0


def test_the_graph_is_plain_onnx_for_any_rows_and_lengths(exported: Path) -> None:
    file = exported / ONNX / FILES["fp32"]
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 20)]
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    assert shapes == {name: ["rows", "length"] for name in inputs} | {"logits": ["rows", 2]}


def test_another_process_writes_the_same_bytes(repository: Path, exported: Path, tmp_path: Path, run: Run) -> None:
    program = (
        "import sys; from pathlib import Path; from reprise.onnx.exporter import export_onnx\n"
        "export_onnx(Path(sys.argv[1]), Path(sys.argv[2]), ['fp32', 'fp16', 'int8'])"
    )
    run(repository, sys.executable, "-c", program, "models/final", str(tmp_path), env={"PYTHONHASHSEED": "7"})
    digests = {name: sha256(exported / ONNX / name) for name in FILES.values()}
    assert {name: sha256(tmp_path / name) for name in FILES.values()} == digests


@pytest.mark.parametrize("precision", FILES)
def test_a_text_has_the_same_bits_in_any_company_and_with_any_threads(
    exported: Path, texts: list[tuple[str]], precision: Any
) -> None:
    file = exported / ONNX / FILES[precision]
    model = OnnxModel(file, threads=2)
    together, _ = model(texts)
    assert len({row.tobytes() for row in together}) > 40
    for others in (OnnxModel(file, threads=1), model):
        for index in np.random.default_rng(1).permutation(len(texts))[:20]:
            assert others([texts[index]])[0].tobytes() == together[index].tobytes()
    order = np.random.default_rng(2).permutation(len(texts))
    shuffled, _ = model([texts[index] for index in order])
    assert shuffled.tobytes() == together[order].tobytes()


def test_predict_has_the_answers_of_the_model_and_imports_no_torch(
    repository: Path, exported: Path, run: Run, reprise: Run, tmp_path: Path
) -> None:
    text = "a bright, moving film"
    program = f"""
import sys
from reprise.__main__ import main
sys.argv = ["reprise", "predict", "--model", {str(exported)!r}, {text!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
"""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    found = json.loads(run(repository, sys.executable, "-c", program, env=home).stdout)
    assert list(tmp_path.iterdir()) == []  # onnxruntime's telemetry would be there
    expected = json.loads(reprise(repository, "predict", text).stdout)
    assert (found["text"], found["label"]) == (text, expected["label"])
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
    smaller = reprise(repository, "predict", "--model", str(exported / ONNX / FILES["int8"]), "--threads", "1", text)
    assert json.loads(smaller.stdout)["probabilities"] == pytest.approx(expected["probabilities"], abs=0.1)


def test_a_table_is_predicted_as_by_the_model(
    repository: Path, exported: Path, texts: list[tuple[str]], reprise: Run, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps({'text': text})}\n" for (text,) in texts))
    outputs = []
    for options in (["--model", str(exported)], []):
        out = tmp_path / f"{len(outputs)}.jsonl"
        reprise(repository, "predict", *options, "--file", str(tmp_path / "in.jsonl"), "--out", str(out))
        outputs.append([json.loads(line) for line in out.read_text().splitlines()])
    assert [row["text"] for row in outputs[0]] == [text for (text,) in texts]
    assert [row["label"] for row in outputs[0]] == [row["label"] for row in outputs[1]]


def test_an_exported_folder_is_found_by_its_file_or_its_weights(exported: Path, tmp_path: Path) -> None:
    assert find_onnx(exported) == exported / "onnx/model.onnx"
    assert find_onnx(exported / "onnx/model_fp16.onnx") == exported / "onnx/model_fp16.onnx"
    assert find_onnx(tmp_path) is None


def test_an_exported_folder_without_onnx_is_asked_with_torch(repository: Path, copied: Path, reprise: Run) -> None:
    shutil.rmtree(copied / ONNX)
    found = json.loads(reprise(repository, "predict", "--model", str(copied), "a bright film").stdout)
    assert found == json.loads(reprise(repository, "predict", "a bright film").stdout)


OTHER_FILE = "not the file that onnx/evaluation.json judged"


def edit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda folder: edit(folder / "onnx/model.onnx"), f"onnx/model.onnx: {OTHER_FILE}"),
        (lambda folder: edit(folder / "tokenizer.json"), f"tokenizer.json: {OTHER_FILE}"),
        (lambda folder: edit(folder / "recipe.json"), f"recipe.json: {OTHER_FILE}"),
        (lambda folder: (folder / "config.json").unlink(), f"config.json: {OTHER_FILE}"),
        (
            lambda folder: (folder / "onnx/evaluation.json").unlink(),
            "onnx/evaluation.json: not found, so nobody has judged this model",
        ),
    ],
    ids=["model", "tokenizer", "recipe", "no config", "not judged"],
)
def test_a_file_that_was_not_judged_is_refused(
    repository: Path, copied: Path, reprise: Run, damage: Any, line: str
) -> None:
    damage(copied)
    done = reprise(repository, "predict", "--model", str(copied), "a bright film", code=2)
    expected = "expected the folder that `reprise export --format onnx` wrote"
    assert done.stderr == f"reprise: error: {copied}/{line}; {expected}\n"


def test_a_damaged_model_that_is_loaded_anyway_is_one_line(copied: Path) -> None:
    file = copied / "onnx/model.onnx"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be loaded") as refused:
        OnnxModel(file)
    assert "\n" not in str(refused.value)


def test_verify_accepts_the_files_and_no_others(copied: Path) -> None:
    record = read_record(copied)
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/evaluation.json"} <= record.files.keys()
    assert list(folder_problems(copied, record)) == []
    (copied / "onnx/other.onnx").write_bytes(b"")
    edit(copied / "onnx/model_fp16.onnx")
    assert [problem.file for problem in folder_problems(copied, record)] == [
        str(copied / "onnx/other.onnx"), str(copied / "onnx/model_fp16.onnx"),
    ]  # fmt: skip


def test_evaluate_judges_the_files_again_and_writes_nothing(repository: Path, copied: Path, reprise: Run) -> None:
    before = {file: file.read_bytes() for file in repository.glob("metrics/*")}
    printed = reprise(repository, "evaluate", "--model", str(copied)).stdout
    assert "| model\\_quantized.onnx |" in printed
    assert before == {file: file.read_bytes() for file in repository.glob("metrics/*")}

    judged = read_json(copied / EVALUATION)
    judged["files"]["model.onnx"]["accuracy"] = 0.25
    (copied / EVALUATION).write_text(json.dumps(judged))
    done = reprise(repository, "evaluate", "--model", str(copied), code=2)
    assert "onnx/model.onnx: accuracy is " in done.stderr
    assert done.stderr.endswith("expected 0.2500, as in onnx/evaluation.json\n")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--int8"], "export --int8: expected --format onnx beside it"),
        (["--fp16"], "export --fp16: expected --format onnx beside it"),
    ],
)
def test_precisions_without_the_format_are_refused(
    repository: Path, tmp_path: Path, reprise: Run, options: list[str], line: str
) -> None:
    done = reprise(repository, "export", str(tmp_path / "model"), *options, code=2)
    assert done.stderr == f"reprise: error: {line}\n"
    assert not (tmp_path / "model").exists()


def test_a_missing_package_is_one_line_with_the_command_that_installs_it(
    repository: Path, tmp_path: Path, reprise: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reprise.commands.packages.find_spec", lambda _: None)
    done = reprise(repository, "export", str(tmp_path / "model"), "--format", "onnx", code=2)
    assert done.stderr == (
        "reprise: error: export: the package onnx is not installed; "
        "expected `docker/make-venv --add .venv docker/cpu/onnx.txt`\n"
    )
    assert not (tmp_path / "model").exists()


def test_a_missing_package_of_the_server_is_one_line_too(
    tmp_path: Path, reprise: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reprise.commands.packages.find_spec", lambda name: name != "fastapi" or None)
    done = reprise(tmp_path, "serve", "model", code=2)
    assert done.stderr == (
        "reprise: error: serve: the package fastapi is not installed; "
        "expected `docker/make-venv --add .venv docker/serve/requirements.txt`\n"
    )


def test_a_file_that_lost_too_much_is_refused_and_no_folder_is_left(
    repository: Path, tmp_path: Path, reprise: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reprise.onnx.evaluation.is_greater_better", lambda _: False)
    monkeypatch.setattr("reprise.onnx.evaluation.metrics_with_ci", counting_down)
    done = reprise(repository, "export", str(tmp_path / "model"), "--format", "onnx", code=2)
    assert done.stderr == (
        "reprise: error: onnx/model.onnx: accuracy 1.0000 instead of 0.0000 on the test split; "
        "expected a loss of at most 0.01, see --tolerance\n"
    )
    assert list(tmp_path.iterdir()) == []


metrics_left = [1.0, 0.0]


def counting_down(*_: Any, **__: Any) -> dict[str, Any]:
    """Stand in for the metrics: the file is judged first, then the model."""
    return {"accuracy": metrics_left.pop(0)}


def test_a_loss_is_measured_in_the_direction_of_the_metric() -> None:
    judged = {"split": "test", "accuracy": 0.8, "rmse": 2.0, "files": {"model.onnx": {"accuracy": 0.75, "rmse": 2.5}}}
    assert len(list(too_different(judged, "accuracy", 0.04))) == 1
    assert list(too_different(judged, "accuracy", 0.06)) == []
    assert len(list(too_different(judged, "rmse", 0.4))) == 1
    assert list(too_different(judged, "rmse", 0.6)) == []


def test_answers_are_compared_row_by_row() -> None:
    kind = task_kind(["rotten", "fresh"], "fresh")
    before = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], np.float32)
    after = np.array([[1, 0], [1, 0], [0, 3.5], [0, 1]], np.float32)
    found = compare_answers(kind, before, after, np.array([0, 1, 1, 1]))
    assert found == {
        "max_logit_difference": 2.5, "changed": 2, "only_before_correct": 1, "only_after_correct": 1, "p": 1.0,
    }  # fmt: skip
    number = task_kind([], None)
    found = compare_answers(number, before[:, :1], after[:, :1], np.zeros(4))
    assert found == {"max_logit_difference": 1.0}


def test_a_regression_has_no_predictions_that_differ_in_the_table(tmp_path: Path) -> None:
    recipe = check_recipe(
        tiny_recipe(**{"task.labels": [], "task.positive_label": None, "task.metrics": ["rmse"], "task.filter": None}),
        "recipe",
    )
    scores = {"rmse": 0.5, "ci95": {"rmse": {"low": None, "high": None}}}
    judged = {
        **scores,
        "num_examples": 4,
        "files": {"model.onnx": {**scores, "bytes": 10, "max_logit_difference": 0.1}},
    }
    (row,) = table_rows(tmp_path, recipe, judged, {"model.onnx": 12.4})
    assert row == ("model.onnx", "0.0", "rmse 0.5000", "–", "–", "0.1", "12")


def test_a_file_that_is_not_in_the_evaluation_is_refused(copied: Path) -> None:
    shutil.copyfile(copied / "onnx/model.onnx", copied / "onnx/mine.onnx")
    with pytest.raises(UserError, match=r"not in onnx/evaluation\.json"):
        check_judged(copied / "onnx/mine.onnx")
