"""The catalog's tasks of the Hub with synthetic tables in its schema: the real client, then the real prepare stage."""

import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from ruamel.yaml import YAML

from hub import LocalHub, serving
from reprise.commands.compose import compose_recipe
from reprise.core.config import HubDataset
from reprise.core.paths import PREPARED
from reprise.core.validation import check_recipe
from reprise.data.format import split_file
from reprise.prepare.columns import UNLABELED
from reprise.prepare.stage import prepare
from tiny import FILLER, ROOT, Run

COMMIT = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
SPLITS = {"train": "train", "validation": "validation", "test": "test"}
# Reprise's split names, and the Hub's.
MATCHED_AND_MISMATCHED = {
    "train": "train",
    "validation": "validation_matched",
    "validation_mismatched": "validation_mismatched",
    "test": "test_matched",
    "test_mismatched": "test_mismatched",
}


@dataclass(frozen=True)
class Schema:
    """Schema of a configuration of nyu-mll/glue at that commit; each also has `label` and `idx` (int32)."""

    texts: list[str]
    classes: list[str]  # in the order of their ids; [] for regression (float32)
    submission: list[str]  # GLUE's submission files, one per test split, then the format of the labels
    hidden: bool = True  # whether every label of the test splits is -1


SCHEMAS = {
    "cola": Schema(["sentence"], ["unacceptable", "acceptable"], ["CoLA.tsv", "numbers"]),
    "sst2": Schema(["sentence"], ["negative", "positive"], ["SST-2.tsv", "numbers"]),
    "mrpc": Schema(["sentence1", "sentence2"], ["not_equivalent", "equivalent"], ["MRPC.tsv", "numbers"], hidden=False),
    "stsb": Schema(["sentence1", "sentence2"], [], ["STS-B.tsv", "numbers"]),
    "qqp": Schema(["question1", "question2"], ["not_duplicate", "duplicate"], ["QQP.tsv", "numbers"]),
    "mnli": Schema(
        ["premise", "hypothesis"], ["entailment", "neutral", "contradiction"], ["MNLI-m.tsv", "MNLI-mm.tsv", "names"]
    ),
    "qnli": Schema(["question", "sentence"], ["entailment", "not_entailment"], ["QNLI.tsv", "names"]),
    "rte": Schema(["sentence1", "sentence2"], ["entailment", "not_entailment"], ["RTE.tsv", "names"]),
    "wnli": Schema(["sentence1", "sentence2"], ["not_entailment", "entailment"], ["WNLI.tsv", "numbers"]),
}


# The labels of GoEmotions in the order of their ids.
EMOTIONS = """admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval
    disgust embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief remorse
    sadness surprise neutral""".split()  # noqa: SIM905  shorter


def splits_of(task: str) -> dict[str, str]:
    return MATCHED_AND_MISMATCHED if task == "mnli" else SPLITS


def rows_on_the_hub(task: str, split: str) -> dict[str, list[Any]]:
    """Build synthetic rows of a split: every class occurs, texts are unique, and no id is the row index."""
    schema, numbers = SCHEMAS[task], range(6)
    labels: list[float] = [number % len(schema.classes) if schema.classes else number * 0.8 for number in numbers]
    if schema.hidden and split.startswith("test"):
        labels = [UNLABELED] * len(labels)
    texts = {name: [f"the {FILLER[n]} of {name}, {split} {n}" for n in numbers] for name in schema.texts}
    return {**texts, "label": labels, "idx": [7 * number + 3 for number in numbers]}


def files_on_the_hub(task: str) -> dict[str, bytes]:
    """Build the Parquet files of a configuration, with the features in their metadata as `datasets` writes them."""
    schema, files = SCHEMAS[task], {}
    kinds = {name: Value("string") for name in schema.texts}
    label = ClassLabel(names=schema.classes) if schema.classes else Value("float32")
    features = Features({**kinds, "label": label, "idx": Value("int32")})
    for split in splits_of(task).values():
        rows = Dataset.from_dict(rows_on_the_hub(task, split), features)
        shards = 2 if split == "train" else 1
        for shard in range(shards):
            stream = io.BytesIO()
            rows.shard(shards, shard, contiguous=True).to_parquet(stream)
            files[f"{task}/{split}-{shard:05}-of-{shards:05}.parquet"] = stream.getvalue()
    return files


def test_every_hub_task_is_tested() -> None:
    tasks = [file.stem for file in (ROOT / "recipes/task").glob("*.yaml")]
    sources = {task: compose_recipe([f"task={task}"], ROOT / "recipes")["task"]["source"] for task in tasks}
    assert {task for task in tasks if sources[task]["kind"] == "hub"} == SCHEMAS.keys() | OTHERS.keys()


# A pair, a single text and a number; the others are variants.
@pytest.mark.parametrize(
    "task",
    [task if task in ("mrpc", "sst2", "stsb") else pytest.param(task, marks=pytest.mark.full) for task in SCHEMAS],
)
def test_a_glue_task_is_fetched_and_prepared_with_the_hubs_labels(
    task: str, tmp_path: Path, tiny_model: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed = compose_recipe([f"task={task}"], ROOT / "recipes")
    composed["model"] = {"name": "tiny", "source": {"kind": "local", "path": "data/own/tiny"}}
    recipe = check_recipe(composed, "recipe")
    source = recipe.task.source
    assert isinstance(source, HubDataset)
    assert (source.repo, source.config, source.revision) == ("nyu-mll/glue", task, COMMIT)
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(composed, file)
    shutil.copytree(tiny_model, tmp_path / "data/own/tiny")

    on_hub = files_on_the_hub(task)
    fetch(source, on_hub, tmp_path, run)

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    prepare(recipe.task, max_length=64)
    schema, splits = SCHEMAS[task], splits_of(task)
    assert {file.stem for file in PREPARED.glob("*.arrow")} == set(splits)
    assert recipe.task.labels == schema.classes
    for split, name in splits.items():
        prepared, expected = Dataset.from_file(str(split_file(split))), rows_on_the_hub(task, name)
        assert prepared["label"][:] == pytest.approx(expected["label"])  # the Hub's own class ids
        assert prepared["id"][:] == [str(number) for number in expected["idx"]]
        for column, on_the_hub in zip(("text", "text_pair"), schema.texts, strict=False):
            assert prepared[column][:] == expected[on_the_hub]
        assert ("text_pair" in prepared.column_names) == (len(schema.texts) == 2)


def fetch(source: HubDataset, on_hub: dict[str, bytes], folder: Path, run: Run) -> None:
    """Fetch from a local Hub that has these files, and another task's."""
    with serving(LocalHub(commit=source.revision)) as hub:
        hub.add("dataset", source.repo, on_hub | {"ax/test-00000-of-00001.parquet": b"another task"})
        environment = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(folder / "hub-cache"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PYTHONPATH": str(ROOT / "src"),
        }
        run(folder, sys.executable, "-m", "reprise", "fetch", env=environment)
        assert hub.downloads() == set(on_hub)


# Columns of texts, of ids of labels, and of row ids; the names of the ids; three rows, and their prepared labels.
OTHERS: dict[str, tuple[dict[str, Any], list[str], dict[str, list[Any]], list[list[int]]]] = {
    "go-emotions": (
        {"text": Value("string"), "labels": [], "id": Value("string")},
        EMOTIONS,
        {"text": ["one", "two", "three"], "labels": [[27], [0, 2], []], "id": ["a", "b", "c"]},
        [[int(number in given) for number in range(28)] for given in ([27], [0, 2], [])],
    ),
    "few-nerd": (
        {"id": Value("string"), "tokens": List(Value("string")), "ner_tags": []},
        ["O", "art", "building", "event", "location", "organization", "other", "person", "product"],
        {
            "id": ["0", "1", "2"],
            "tokens": [["Ada", "King", "sang"], ["in", "Paris"], ["again"]],
            "ner_tags": [[7, 7, 0], [0, 4], [0]],
        },
        [[13, 14, 0], [0, 7], [0]],
    ),
}


@pytest.mark.parametrize("task", OTHERS)
def test_another_task_is_fetched_and_prepared_with_the_hubs_labels(
    task: str, tmp_path: Path, tiny_model: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, names, rows, labels = OTHERS[task]
    composed = compose_recipe([f"task={task}"], ROOT / "recipes")
    composed["model"] = {"name": "tiny", "source": {"kind": "local", "path": "data/own/tiny"}}
    recipe = check_recipe(composed, "recipe")
    assert isinstance(recipe.task.source, HubDataset)
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(composed, file)
    shutil.copytree(tiny_model, tmp_path / "data/own/tiny")
    features = Features({name: kind or List(ClassLabel(names=names)) for name, kind in columns.items()})
    files = {}
    for split in SPLITS:
        stream = io.BytesIO()
        ids = [f"{split} {row}" for row in rows["id"]]  # equal files would be downloaded once
        Dataset.from_dict(rows | {"id": ids}, features).to_parquet(stream)
        files[f"{recipe.task.source.config}/{split}-00000-of-00001.parquet"] = stream.getvalue()
    fetch(recipe.task.source, files, tmp_path, run)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    prepare(recipe.task, max_length=64, windows=recipe.data.windows)
    prepared = Dataset.from_file(str(split_file("test")))
    assert prepared["label"][:] == labels
    assert prepared["id"][:] == [f"test {row}" for row in rows["id"]]


@pytest.mark.parametrize("task", SCHEMAS)
def test_a_glue_task_names_its_submission_files(task: str) -> None:
    submission = check_recipe(compose_recipe([f"task={task}"], ROOT / "recipes"), "recipe").task.submission
    assert submission is not None
    assert [*submission.files.values(), submission.labels] == SCHEMAS[task].submission
    assert list(submission.files) == [split for split in splits_of(task) if split.startswith("test")]
