"""`reprise export`: the folder can be loaded by transformers and read by the Hub, and its metrics are measured."""

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import pipeline

from factories import CHECKS
from rendered_markdown import referring, rendered
from reprise.commands.classes import read_classes, read_confusions
from reprise.commands.export import export
from reprise.commands.model_card import model_card, reproduce_command
from reprise.core.display import printable
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.validation import check_recipe
from reprise.results.reference import MeanStd, Reference
from reprise.sharing.record import redact_url
from reprise.tasks.curves import confusion_pairs, per_class_table, worst_confusions
from tiny import Run, tiny_recipe, write_params, write_unnoticed

FILES = {
    "README.md", "config.json", "model.safetensors", "params.yaml", "provenance.json", "recipe.json", "tokenizer.json",
    "dvc.lock", "reproduce.json", "ro-crate-metadata.json", "metadata",
}  # fmt: skip
MRPC = {
    "task.source": {"kind": "hub", "repo": "nyu-mll/glue", "config": "mrpc", "revision": "b" * 40},
    "task.text_columns": ["sentence1", "sentence2"],
    "task.split": None,
    "task.filter": None,
    "task.id_column": None,
    "model.source": {"kind": "hub", "repo": "google-bert/bert-base-uncased", "revision": "8" * 40},
}


@pytest.fixture(scope="module")
def exported(trained_repo: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The exported folder of a trained repository with a password in the URL of its remote. Do not change."""
    folder = Path(shutil.copytree(trained_repo, tmp_path_factory.mktemp("exporting") / "repo", symlinks=True))
    run(folder, "git", "remote", "add", "origin", "https://me:s3cr3t@example.org:8443/team/reviews.git")
    output = run(folder, "reprise", "export", "../model").stdout
    assert "export: upload it with `reprise export ../model --push YOUR_NAME/model`" in output
    return folder.parent / "model"


@pytest.fixture
def arguments(trained_repo: Path) -> dict[str, Any]:
    """Arguments of `model_card`."""
    return {
        "evaluated": read_json(trained_repo / "metrics/evaluate.json"),
        "prepared": read_json(trained_repo / "data/prepared/stats.json"),
        "provenance": read_json(trained_repo / "metrics/provenance.json"),
        "reference": None,
        "origin": "",
        "classes": read_classes(trained_repo / "plots"),
        "confusions": read_confusions(trained_repo / "plots"),
    }


def text_of(arguments: dict[str, Any], **changes: Any) -> str:
    return str(model_card(check_recipe(tiny_recipe(**changes), "params.yaml"), **arguments))


def test_the_folder_holds_model_recipe_and_provenance_and_nothing_pickled(exported: Path, trained_repo: Path) -> None:
    found = {file.name for file in exported.iterdir()}
    assert found == FILES | {"tokenizer_config.json"}
    assert {file.name for file in (exported / "metadata").iterdir()} == {
        "croissant.json", "sbom.cdx.json", "slsa-provenance.json"
    }  # fmt: skip
    copies = ("params.yaml", "params.yaml"), ("dvc.lock", "dvc.lock"), ("provenance.json", "metrics/provenance.json")
    for name, origin in copies:
        assert (exported / name).read_bytes() == (trained_repo / origin).read_bytes()


def test_the_exported_model_predicts_as_evaluated(exported: Path, trained_repo: Path) -> None:
    rows = pq.read_table(trained_repo / "predictions/test.parquet").to_pydict()
    classify = pipeline("text-classification", model=str(exported), device="cpu")
    predicted = classify(rows["text"], truncation=True, max_length=16)
    assert [one["label"] for one in predicted] == rows["prediction"]
    best = [max(probabilities) for probabilities in rows["probabilities"]]
    assert [one["score"] for one in predicted] == pytest.approx(best, abs=1e-5)


@pytest.mark.full
def test_a_calibrated_model_has_the_same_probabilities_everywhere(repo_copy: Path, run: Run) -> None:
    write_params(repo_copy, **{"train.learning_rate": 3e-3, "train.calibration": "temperature"})
    run(repo_copy, "dvc", "repro")
    run(repo_copy, "reprise", "export", "../model")
    (temperature,) = read_json(repo_copy / "models/final/recipe.json")["temperatures"]
    assert temperature != 1.0
    rows = pq.read_table(repo_copy / "predictions/test.parquet").to_pydict()
    classify = pipeline("text-classification", model=str(repo_copy.parent / "model"), device="cpu", top_k=None)
    predicted = classify(rows["text"], truncation=True, max_length=16)
    assert [{one["label"]: one["score"] for one in row} for row in predicted] == [
        pytest.approx(dict(zip(("rotten", "fresh"), probabilities, strict=True)), abs=1e-5)
        for probabilities in rows["probabilities"]
    ]
    pd.DataFrame({"text": rows["text"]}).to_parquet(repo_copy / "texts.parquet")
    printed = run(repo_copy, "reprise", "predict", "--file", "texts.parquet").stdout.splitlines()
    found = [[*json.loads(line)["probabilities"].values()] for line in printed]
    assert found == [pytest.approx(probabilities, abs=1e-6) for probabilities in rows["probabilities"]]
    evaluated = read_json(repo_copy / "metrics/evaluate.json")
    before = f"they were by {evaluated['ece_uncalibrated']:.3f} before temperature scaling on the validation split."
    assert before in (repo_copy.parent / "model/README.md").read_text(encoding="utf-8")


def test_the_metadata_of_the_card_holds_the_metrics(exported: Path, trained_repo: Path) -> None:
    card, evaluated = ModelCard.load(exported / "README.md"), read_json(trained_repo / "metrics/evaluate.json")
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        name: evaluated[name] for name in ("accuracy", "f1")
    }
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-classification")
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}


def test_the_card_has_metrics_data_limits_provenance_and_the_command(exported: Path, trained_repo: Path) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    evaluated, provenance = (read_json(trained_repo / f"metrics/{name}.json") for name in ("evaluate", "provenance"))
    low, high = (evaluated["ci95"]["f1"][end] for end in ("low", "high"))
    assert (
        f"| f1 (fresh) | {evaluated['f1']:.4f} | {low:.4f} – {high:.4f} | {evaluated['baseline']['f1']:.4f} |" in text
    )
    assert "accuracy by Wilson, f1 by Wilson." in text
    assert "| train | 144 | 15 |" in text
    assert "| label | train | validation | test |\n| --- | --- | --- | --- |\n| rotten | 82 |" in text
    (_, fresh) = read_classes(trained_repo / "plots").to_dict("records")
    scores = " | ".join(f"{fresh[name]:.3f}" for name in ("f1", "precision", "recall"))
    assert f"| fresh | {scores} | {fresh['support']} |" in text
    assert "no `film` and no text is in two splits" in text
    assert "Texts are truncated to 16 tokens." in text
    assert 'classify("…", truncation=True, max_length=16)' in text
    assert text.endswith("|\n")
    assert "The effect of the seed was not measured." in text
    (session,), (result,) = provenance["sessions"], provenance["results"]
    assert f"git checkout {session['commit']}\nmake train\n" in text
    assert result["weights"]["model.safetensors"] in text
    assert f"torch {session['environment']['packages']['torch']}" in text
    assert "uncommitted changes" not in text
    assert "Constant prediction" not in text


def test_no_secret_of_the_remote_is_in_any_file(exported: Path) -> None:
    assert "git clone https://example.org:8443/team/reviews.git reprise" in (exported / "README.md").read_text()
    for file in filter(Path.is_file, exported.rglob("*")):
        assert b"s3cr3t" not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://token@example.org/a.git", "https://example.org/a.git"),
        ("https://example.org/a.git?private_token=1#x", "https://example.org/a.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("ssh://git@example.org/a.git", "ssh://git@example.org/a.git"),
        ("ssh://git:word@example.org/a.git", "ssh://git@example.org/a.git"),
        ("/home/me/a", ""),
        ("", ""),
    ],
)
def test_a_url_loses_its_secrets_and_a_local_path_is_dropped(url: str, expected: str) -> None:
    assert redact_url(url) == expected


def test_a_folder_that_is_not_empty_is_refused_and_unchanged(repo_copy: Path, reprise: Run) -> None:
    (repo_copy / "full").mkdir()
    (repo_copy / "full/mine").write_text("mine", encoding="utf-8")
    refused = reprise(repo_copy, "export", "full", code=2)
    assert refused.stderr == "reprise: error: full: expected a folder that is empty or does not exist\n"
    refused = reprise(repo_copy, "export", "full/mine", code=2)
    assert refused.stderr == "reprise: error: full/mine: expected a folder that is empty or does not exist\n"
    assert [file.name for file in (repo_copy / "full").iterdir()] == ["mine"]


def test_a_path_below_a_file_is_refused_and_a_link_to_a_folder_is_followed(repo_copy: Path, reprise: Run) -> None:
    refused = reprise(repo_copy, "export", "README.md/below", code=2)
    assert refused.stderr == "reprise: error: README.md/below: expected a folder that is empty or does not exist\n"
    (repo_copy / "empty").mkdir()
    (repo_copy / "link").symlink_to("empty")
    reprise(repo_copy, "export", "link")
    assert {file.name for file in (repo_copy / "empty").iterdir()} >= FILES


def test_results_of_another_recipe_are_not_exported(repo_copy: Path, reprise: Run) -> None:
    write_params(repo_copy, **{"train.epochs": 3})
    refused = reprise(repo_copy, "export", "model", code=2)
    assert refused.stderr.startswith("reprise: error: params.yaml: out of date: train; ")
    assert "train.epochs" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (repo_copy / "model").exists()


def test_without_results_nothing_is_exported(repo: Path, reprise: Run) -> None:
    refused = reprise(repo, "export", "../nothing", code=2)
    assert refused.stderr.startswith("reprise: error: params.yaml: out of date: ")
    assert refused.stderr.endswith("train, evaluate; expected `dvc repro` first\n")
    assert not (repo.parent / "nothing").exists()


def test_the_linear_baseline_and_near_duplicates_are_stated_if_the_data_was_checked(arguments: dict[str, Any]) -> None:
    assert "TF-IDF" not in text_of(arguments)
    text = text_of(arguments | {"checks": CHECKS})
    assert re.search(r"TF-IDF and logistic regression reach accuracy 0\.7916, f1 .*0\.8125 on the same examples", text)
    assert "3 of the 48 texts are nearly equal to one of an earlier split." in text


def test_a_constant_prediction_is_stated(arguments: dict[str, Any]) -> None:
    arguments["evaluated"] |= {"constant_prediction": True}
    assert "**Constant prediction: every example got the same prediction. Do not use it.**" in text_of(arguments)


def test_uncommitted_changes_are_stated(arguments: dict[str, Any]) -> None:
    provenance = copy.deepcopy(arguments["provenance"])
    provenance["sessions"].insert(0, provenance["sessions"][0] | {"dirty": True})
    assert "from a checkout with uncommitted changes" in text_of(arguments | {"provenance": provenance})


def test_metrics_over_seeds_are_stated_if_measured(arguments: dict[str, Any]) -> None:
    metrics = {"train": {}, "evaluate": {"accuracy": MeanStd(0.845, 0.0041), "f1": MeanStd(0.868, 0.0032)}}
    reference = Reference({}, {}, metrics, {str(seed): {} for seed in range(5)})
    text = text_of(arguments | {"reference": reference})
    assert "Over 5 seeds of this recipe:" in text
    assert "| accuracy | 0.8450 | 0.0041 |" in text
    assert "not measured, nor fairness" in text
    assert "The effect of the seed was not measured" not in text


def test_hub_sources_of_sentence_pairs_are_in_the_metadata(arguments: dict[str, Any]) -> None:
    text = text_of(arguments, **MRPC)
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["base_model"] == "google-bert/bert-base-uncased"
    assert metadata["datasets"] == ["nyu-mll/glue"]
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"] == {
        "name": "reviews", "type": "nyu-mll/glue", "config": "mrpc", "split": "test", "revision": "b" * 40
    }  # fmt: skip
    assert 'classify({"text": "…", "text_pair": "…"}, truncation' in text
    assert f"`nyu-mll/glue`, `mrpc` of the Hub at revision `{'b' * 40}`." in text


def test_a_regression_is_described_as_one(arguments: dict[str, Any]) -> None:
    arguments["evaluated"] = {
        "split": "test", "num_examples": 9, "pearson": 0.5, "constant_prediction": False,
        "ci95": {"pearson": {"low": 0.4, "high": 0.6}}, "baseline": {"pearson": 0.0},
        "ci95_method": {"pearson": "BCa bootstrap"},
    }  # fmt: skip
    arguments["prepared"]["labels"] = []
    arguments |= {name: arguments[name].iloc[:0] for name in ("classes", "confusions")}
    text = text_of(arguments, **{"task.labels": [], "task.metrics": ["pearson"], "task.filter": None})
    assert "fine-tuned to predict the number verdict from text" in text
    assert "| pearson | 0.5000 | 0.4000 – 0.6000 | 0.0000 |" in text
    assert "pearson by BCa bootstrap with 100 resamples." in text
    assert 'max_length=16, function_to_apply="none")' in text
    assert "| train | 144 | 15 |" in text
    assert "It predicts a number for every text" in text


def test_many_labels_have_a_row_each_and_the_card_counts_the_errors_that_it_leaves_out(
    arguments: dict[str, Any],
) -> None:
    labels = [f"label {number}" for number in range(77)]
    arguments["prepared"]["labels"] = labels
    for split in arguments["prepared"]["splits"].values():
        split["label_counts"] = dict.fromkeys(labels, 2)
    actual = np.arange(154) % 77
    predicted = (actual + (actual % 2)) % 77
    arguments["classes"] = per_class_table(predicted, actual, labels)
    arguments["confusions"] = worst_confusions(confusion_pairs(predicted, actual, labels))
    text = text_of(arguments, **{"task.labels": labels, "task.positive_label": None})
    assert max(line.count("|") for line in text.splitlines()) == 6
    assert "| label 76 | 2 | 2 | 2 |" in text
    assert "| label 1 | 0.000 | – | 0.000 | 2 |" in text
    assert "The most frequent errors (28 less frequent kinds are not listed):" in text
    assert "| label 1 | label 2 | 2 | 100.0 % |" in text
    # Metrics, labels, errors, splits, labels of the splits, software.
    assert rendered(text[text.index("# tiny on") :]).elements.count("table") == 6


@pytest.mark.parametrize(
    ("hardware", "image", "command"),
    [
        ("cpu", None, "make train"),
        ("cpu", "reprise:cpu@sha256:1", "make train-cpu"),
        ("cuda", "reprise:cuda@sha256:1", "make train-gpu"),
        ("tpu", None, "make train-tpu"),
    ],
)
def test_the_command_fits_the_hardware(hardware: str, image: str | None, command: str) -> None:
    assert reproduce_command({"environment": {"hardware": hardware}, "image": image}) == command


def test_labels_cannot_add_markdown_to_the_card(arguments: dict[str, Any]) -> None:
    labels = ["a|b", "<img src=x>"]
    arguments["evaluated"]["positive_label"] = labels[1]
    arguments["prepared"]["labels"] = labels
    for split in arguments["prepared"]["splits"].values():
        split["label_counts"] = dict.fromkeys(labels, 1)
    text = text_of(arguments, **{"task.labels": labels, "task.filter": None})
    assert "| a\\|b | 1 | 1 | 1 |\n| \\<img src=x\\> | 1 | 1 | 1 |" in text
    body = text[text.index("# tiny on") :]
    assert "<img" not in body.replace("\\<img", "")
    rows = [line for line in text.splitlines() if line.startswith("| a\\|b |")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 5


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("models/final/model.safetensors", "models/final"),
        ("data/prepared/stats.json", "data/prepared"),
        pytest.param("data/checks/checks.json", "data/checks", marks=pytest.mark.full),
        ("metrics/evaluate.json", "metrics/evaluate.json"),
        pytest.param("metrics/provenance.json", "metrics/provenance.json", marks=pytest.mark.full),
    ],
)
def test_what_rotted_or_was_edited_is_not_exported_under_the_digest_of_another(
    repo_copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch, path: str, named: str
) -> None:
    run(repo_copy, "dvc", "status")  # DVC remembers sizes and times of the files of this copy
    monkeypatch.chdir(repo_copy)
    file = Path(path)
    content = file.read_bytes()
    digit = content.rindex(b"1") if file.suffix == ".json" else len(content) // 2  # the JSON stays valid
    write_unnoticed(file, content[:digit] + b"2" + content[digit + 1 :])
    with pytest.raises(UserError) as refused:
        export(Path("../exported"))
    assert refused.value.file == named
    assert not Path("../exported").exists()


def test_the_rendered_card_shows_names_as_given_and_refers_to_nobody(arguments: dict[str, Any]) -> None:
    labels = ["@team", "#12 https://example.org", "`code`\n# heading", "__proto__ | constructor"]
    column = "x`[click](https://example.org)`|@team"
    arguments["prepared"]["labels"] = labels
    for split in arguments["prepared"]["splits"].values():
        split["label_counts"] = dict.fromkeys(labels, 1)
    session = arguments["provenance"]["sessions"][-1]
    session |= {"image": "reprise:cpu@sha256:1", "devices": ["<b>cpu</b> @owner"]}
    arguments["evaluated"]["split"] = "test"
    card = text_of(
        arguments,
        **{"task.labels": labels, "task.text_columns": [column], "task.filter": None, "task.split.group_by": column,
           "task.positive_label": None},
    )  # fmt: skip
    shown = rendered(card[card.index("# tiny on") :])
    given = [printable(label) for label in labels]
    assert {"a", "img", "b"} & set(shown.elements) == set()
    assert referring(shown) == []
    assert f"fine-tuned to classify texts as {' or '.join(given)} from {column}." in shown.text
    assert f"so that no {column} and no text is in two splits" in shown.text
    assert "<b>cpu</b> @owner" in shown.text
    for label in given:
        assert label in shown.text
