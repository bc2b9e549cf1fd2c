"""`reprise export`, typed: a folder that transformers loads and the Hub reads, in which every figure is measured."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import pipeline

from reprise.commands.export import model_card, redact_url, reproduce_command
from reprise.core.files import read_json
from reprise.core.validation import check_recipe
from reprise.results.reference import MeanStd, Reference
from tiny import Run, tiny_recipe, write_params

FILES = {"README.md", "config.json", "model.safetensors", "params.yaml", "provenance.json", "tokenizer.json"}
MRPC = {
    "task.source": {"kind": "hub", "repo": "nyu-mll/glue", "config": "mrpc", "revision": "b" * 40},
    "task.text_columns": ["sentence1", "sentence2"],
    "task.split": None,
    "task.filter": None,
    "task.id_column": None,
    "model.source": {"kind": "hub", "repo": "google-bert/bert-base-uncased", "revision": "8" * 40},
}


@pytest.fixture(scope="module")
def exported(cooked: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """What `reprise export` makes of the cooked kitchen, whose remote has a password in its URL. Do not change."""
    folder = Path(shutil.copytree(cooked, tmp_path_factory.mktemp("exporting") / "kitchen", symlinks=True))
    run(folder, "git", "remote", "add", "origin", "https://me:s3cr3t@example.org:8443/team/reviews.git")
    said = run(folder, "reprise", "export", "../model").stdout
    assert "export: to upload it, `hf upload YOUR_NAME/model ../model`" in said
    return folder.parent / "model"


@pytest.fixture
def told(cooked: Path) -> dict[str, Any]:
    """What a model card is written from."""
    return {
        "evaluated": read_json(cooked / "metrics/evaluate.json"),
        "prepared": read_json(cooked / "data/prepared/stats.json"),
        "provenance": read_json(cooked / "metrics/provenance.json"),
        "reference": None,
        "origin": "",
    }


def text_of(told: dict[str, Any], **changes: Any) -> str:
    return str(model_card(check_recipe(tiny_recipe(**changes), "params.yaml"), **told))


def test_the_folder_holds_the_model_and_what_made_it_and_nothing_pickled(exported: Path, cooked: Path) -> None:
    found = {file.name for file in exported.iterdir()}
    assert found == FILES | {"tokenizer_config.json"}
    for name, origin in (("params.yaml", "params.yaml"), ("provenance.json", "metrics/provenance.json")):
        assert (exported / name).read_bytes() == (cooked / origin).read_bytes()


def test_it_predicts_what_was_evaluated(exported: Path, cooked: Path) -> None:
    rows = pq.read_table(cooked / "predictions/test.parquet").to_pydict()
    classify = pipeline("text-classification", model=str(exported), device="cpu")
    predicted = classify(rows["text"], truncation=True, max_length=16)
    assert [one["label"] for one in predicted] == rows["prediction"]
    best = [max(probabilities) for probabilities in rows["probabilities"]]
    assert [one["score"] for one in predicted] == pytest.approx(best, abs=1e-5)


def test_the_hub_reads_the_figures_of_the_card(exported: Path, cooked: Path) -> None:
    card, judged = ModelCard.load(exported / "README.md"), read_json(cooked / "metrics/evaluate.json")
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        name: judged[name] for name in ("accuracy", "f1")
    }
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-classification")
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}


def test_the_card_tells_figures_data_limits_origin_and_the_command(exported: Path, cooked: Path) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    judged, provenance = (read_json(cooked / f"metrics/{name}.json") for name in ("evaluate", "provenance"))
    low, high = (judged["ci95"]["f1"][end] for end in ("low", "high"))
    assert f"| f1 | {judged['f1']:.4f} | {low:.4f} – {high:.4f} | {judged['baseline']['f1']:.4f} |" in text
    assert "| train | 144 | 82 | 62 | 15 |" in text
    assert "no `film` and no text is in two splits" in text
    assert "Texts are cut after 16 tokens." in text
    assert 'classify("…", truncation=True, max_length=16)' in text
    assert text.endswith("|\n")
    assert "What another seed would change was not measured." in text
    (session,), (result,) = provenance["sessions"], provenance["results"]
    assert f"git checkout {session['commit']}\nmake train\n" in text
    assert result["weights"]["model.safetensors"] in text
    assert f"torch {session['environment']['packages']['torch']}" in text
    assert "uncommitted changes" not in text
    assert "Constant prediction" not in text


def test_no_secret_of_the_remote_is_in_any_file(exported: Path) -> None:
    assert "git clone https://example.org:8443/team/reviews.git reprise" in (exported / "README.md").read_text()
    for file in exported.iterdir():
        assert b"s3cr3t" not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("url", "shown"),
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
def test_a_url_is_shown_without_secrets_and_a_place_of_this_machine_not_at_all(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_a_folder_with_something_in_it_stays_as_it_is(served: Path, run: Run) -> None:
    (served / "there").mkdir()
    (served / "there/mine").write_text("mine", encoding="utf-8")
    refused = run(served, "reprise", "export", "there", code=2)
    assert refused.stderr == "reprise: error: there: expected a folder that is empty or not there yet\n"
    refused = run(served, "reprise", "export", "there/mine", code=2)
    assert refused.stderr == "reprise: error: there/mine: expected a folder that is empty or not there yet\n"
    assert [file.name for file in (served / "there").iterdir()] == ["mine"]


def test_no_folder_can_be_made_below_a_file_and_a_link_to_a_folder_is_filled(served: Path, run: Run) -> None:
    refused = run(served, "reprise", "export", "README.md/below", code=2)
    assert refused.stderr == "reprise: error: README.md/below: expected a folder that is empty or not there yet\n"
    (served / "empty").mkdir()
    (served / "link").symlink_to("empty")
    run(served, "reprise", "export", "link")
    assert {file.name for file in (served / "empty").iterdir()} >= FILES


def test_what_is_not_the_recipes_is_not_exported(served: Path, run: Run) -> None:
    write_params(served, **{"train.epochs": 3})
    refused = run(served, "reprise", "export", "model", code=2)
    assert refused.stderr == (
        "reprise: error: params.yaml: train did not cook what lies here; expected `dvc repro` first\n"
    )
    assert not (served / "model").exists()


def test_nothing_cooked_is_not_exported(kitchen: Path, run: Run) -> None:
    refused = run(kitchen, "reprise", "export", "../nothing", code=2)
    assert refused.stderr.startswith("reprise: error: params.yaml: ")
    assert refused.stderr.endswith("did not cook what lies here; expected `dvc repro` first\n")
    assert not (kitchen.parent / "nothing").exists()


def test_a_constant_prediction_is_stated(told: dict[str, Any]) -> None:
    told["evaluated"] |= {"constant_prediction": True}
    assert (
        "**Constant prediction: it predicts the same for every example of the evaluation split. Do not use it.**"
        in text_of(told)
    )


def test_a_model_from_uncommitted_changes_is_said_to_be_one(told: dict[str, Any]) -> None:
    provenance = copy.deepcopy(told["provenance"])
    provenance["sessions"].insert(0, provenance["sessions"][0] | {"dirty": True})
    assert "from a checkout with uncommitted changes" in text_of(told | {"provenance": provenance})


def test_the_seeds_are_told_where_they_were_measured(told: dict[str, Any]) -> None:
    metrics = {"train": {}, "evaluate": {"accuracy": MeanStd(0.845, 0.0041), "f1": MeanStd(0.868, 0.0032)}}
    reference = Reference({}, {}, metrics, {str(seed): {} for seed in range(5)})
    text = text_of(told | {"reference": reference})
    assert "Over 5 seeds of this recipe:" in text
    assert "| accuracy | 0.8450 | 0.0041 |" in text
    assert "not measured, nor" in text
    assert "What another seed would change was not measured" not in text


def test_sentence_pairs_of_the_hub_name_their_sources_where_the_hub_looks(told: dict[str, Any]) -> None:
    text = text_of(told, **MRPC)
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["base_model"] == "google-bert/bert-base-uncased"
    assert metadata["datasets"] == ["nyu-mll/glue"]
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"] == {
        "name": "reviews", "type": "nyu-mll/glue", "config": "mrpc", "split": "test", "revision": "b" * 40
    }  # fmt: skip
    assert 'classify({"text": "…", "text_pair": "…"}, truncation' in text
    assert f"`nyu-mll/glue`, `mrpc` of the Hub at revision `{'b' * 40}`." in text


def test_a_regression_is_told_as_one(told: dict[str, Any]) -> None:
    told["evaluated"] = {
        "split": "test", "num_examples": 9, "pearson": 0.5, "constant_prediction": False,
        "ci95": {"pearson": {"low": 0.4, "high": 0.6}}, "baseline": {"pearson": 0.0},
    }  # fmt: skip
    told["prepared"]["labels"] = []
    text = text_of(told, **{"task.labels": [], "task.metrics": ["pearson"], "task.filter": None})
    assert "fine-tuned to predict the number `verdict` by text" in text
    assert "| pearson | 0.5000 | 0.4000 – 0.6000 | 0.0000 |" in text
    assert 'max_length=16, function_to_apply="none")' in text
    assert "| train | 144 | 15 |" in text
    assert "It gives every text a number" in text


@pytest.mark.parametrize(
    ("hardware", "image", "command"),
    [
        ("cpu", None, "make train"),
        ("cpu", "reprise:cpu@sha256:1", "make train-cpu"),
        ("cuda", "reprise:cuda@sha256:1", "make train-gpu"),
        ("tpu", None, "make train-tpu"),
    ],
)
def test_the_command_is_that_of_the_hardware(hardware: str, image: str | None, command: str) -> None:
    assert reproduce_command({"environment": {"hardware": hardware}, "image": image}) == command
