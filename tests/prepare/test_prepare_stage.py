"""Prepared data is complete or absent, has the same bytes on every machine, and has its statistics in stats.json."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, Value
from transformers import AutoTokenizer

from reprise.core.config import Task, Windows
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import PREPARED, PRETRAINED, RAW
from reprise.core.validation import check_recipe
from reprise.data.format import split_file, split_shards, stats_path
from reprise.modeling.splits import drop_text_columns, load_split, split_parts
from reprise.prepare import stage
from reprise.prepare.cut import MAX_VALUE
from reprise.prepare.stage import prepare
from reprise.train.dataset import ShardedDataset
from tiny import FILLER, GOOD, Run, tiny_recipe, write_params, write_reviews

SPLITS = ("train", "validation", "test")
# A task on the rows of `write_raw`, which have the columns text and label and separate splits.
SEPARATE_SPLITS = {"label_column": "label", "labels": ["a", "b"], "id_column": None, "filter": None, "split": None}
PAIRS = {"text_columns": ["text", "pair"]}
REGRESSION = {"labels": [], "metrics": ["pearson"]}


def task(**changes: Any) -> Task:
    recipe = {f"task.{key}": value for key, value in changes.items()} | {"evaluate.split": "validation"}
    return check_recipe(tiny_recipe(**recipe), "recipe").task


def row(text: str, label: str | float = "a", pair: str = "the end") -> dict[str, Any]:
    return {"text": text, "label": label, "pair": pair}


def write_raw(**splits: list[dict[str, Any]]) -> None:
    """Write the rows of each split as the raw data."""
    for split, rows in splits.items():
        (RAW / split).mkdir(parents=True)
        (RAW / split / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prepared(split: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = Dataset.from_file(str(split_file(split))).to_dict()
    return columns


def all_bytes(folder: Path = PREPARED) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set offline mode like the command: otherwise `datasets` reports each use of a reader to the Hub."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def workdir(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, a folder with the tokenizer."""
    tokenizer = tmp_path / PRETRAINED / "tokenizer"
    tokenizer.mkdir(parents=True)
    for name in "config.json", "tokenizer.json", "tokenizer_config.json":
        shutil.copyfile(tiny_model / name, tokenizer / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def reviews(workdir: Path) -> Path:
    """The working directory with the synthetic reviews as one raw table."""
    (RAW / "all").mkdir(parents=True)
    write_reviews(RAW / "all/reviews.csv")
    return workdir


@pytest.fixture
def outputs_unchanged(reviews: Path) -> Callable[[], bool]:
    """Prepare the reviews; the function returns whether the outputs are unchanged and no partial ones exist."""
    prepare(task(), max_length=16)
    before = all_bytes()

    def outputs_unchanged() -> bool:
        return all_bytes() == before and [path.name for path in PREPARED.parent.iterdir() if path.name[0] == "."] == []

    return outputs_unchanged


def test_two_runs_give_the_same_bytes(reviews: Path) -> None:
    prepare(task(), max_length=16)
    first = all_bytes()
    prepare(task(), max_length=16)
    assert all_bytes() == first
    assert sorted(first) == ["stats.json", "test.arrow", "train.arrow", "validation.arrow"]


@pytest.mark.full
def test_the_number_of_cores_does_not_change_the_bytes(reviews: Path, run: Run) -> None:
    prepare(task(), max_length=16)
    here = all_bytes()
    write_params(reviews)
    cpu = str(min(os.sched_getaffinity(0)))
    for command, threads in (["taskset", "-c", cpu], "1"), ([], "2"):
        shutil.rmtree(PREPARED)
        environment = {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true", "PYTHONHASHSEED": threads}
        run(reviews, *command, "reprise", "prepare", env=environment)
        assert all_bytes() == here


def test_every_kept_review_occurs_once_and_every_film_is_in_one_split(reviews: Path) -> None:
    prepare(task(), max_length=16)
    columns = {split: prepared(split) for split in SPLITS}
    numbers = [number for split in SPLITS for number in columns[split]["id"]]
    assert len(numbers) == len(set(numbers)) == 240  # 40 films with 6 reviews; the rest are plots
    film_of = {line.split(",")[0]: line.rsplit(",")[-1] for line in (RAW / "all/reviews.csv").read_text().splitlines()}
    films = {split: {film_of[number] for number in columns[split]["id"]} for split in SPLITS}
    assert sum(map(len, films.values())) == len(set.union(*films.values())) == 40
    assert {split: len(columns[split]["id"]) for split in SPLITS} == {"train": 144, "validation": 48, "test": 48}


def test_rows_keep_their_order_within_a_split(reviews: Path) -> None:
    prepare(task(), max_length=16)
    for split in SPLITS:
        numbers = [int(number) for number in prepared(split)["id"]]
        assert numbers == sorted(numbers)


def test_the_order_of_the_table_does_not_change_the_splits(reviews: Path) -> None:
    prepare(task(), max_length=16)
    before = {split: set(prepared(split)["id"]) for split in SPLITS}
    head, *lines = (RAW / "all/reviews.csv").read_text().splitlines()
    (RAW / "all/reviews.csv").write_text("\n".join([head, *lines[::-1]]) + "\n")
    prepare(task(), max_length=16)
    assert {split: set(prepared(split)["id"]) for split in SPLITS} == before


def test_texts_that_differ_only_in_case_and_white_space_are_in_one_split(workdir: Path) -> None:
    texts = [f"{word} {other}" for word in FILLER[:5] for other in GOOD[:3]]
    write_raw(all=[row(text) for text in texts] + [row(f" {text.upper()}  ", "b") for text in texts])
    prepare(
        task(**SEPARATE_SPLITS | {"split": {"validation": 0.2, "test": 0.2, "group_by": None, "seed": 0}}),
        max_length=16,
    )
    plain = {split: {" ".join(text.lower().split()) for text in prepared(split)["text"]} for split in SPLITS}
    assert {split: len(texts) for split, texts in plain.items()} == {"train": 9, "validation": 3, "test": 3}
    assert len(set.union(*plain.values())) == 15


def test_texts_are_tokenized_by_the_models_tokenizer_without_attention_mask(workdir: Path, tiny_model: Path) -> None:
    write_raw(train=[row("the film is funny")], validation=[row("dull")])
    prepare(task(**SEPARATE_SPLITS), max_length=16)
    columns = prepared("train")
    ids = columns.pop("input_ids")
    assert AutoTokenizer.from_pretrained(tiny_model).convert_ids_to_tokens(ids[0]) == [
        "[CLS]", "the", "film", "is", "funny", "[SEP]"
    ]  # fmt: skip
    assert columns == {
        "id": ["0"],
        "text": ["the film is funny"],
        "label": [0],
        "token_type_ids": [[0] * 6],
        "length": [6],
    }


def test_the_statistics_count_rows_tokens_and_labels(workdir: Path) -> None:
    words = ["the"] * 20
    write_raw(
        train=[row(" ".join(words[:length]), label) for length, label in [(1, "a"), (2, "b"), (6, "b"), (9, "b")]],
        validation=[row("dull")],
        test=[row("dull", "-1"), row("funny", "b"), row("", "-1")],
    )
    prepare(task(**SEPARATE_SPLITS), max_length=8)
    stats = read_json(stats_path())
    assert {key: stats[key] for key in ("task", "labels", "max_length")} == {
        "task": "reviews",
        "labels": ["a", "b"],
        "max_length": 8,
    }
    assert list(stats["splits"]) == ["test", "train", "validation"]
    hashes = {split: hashlib.sha256(split_file(split).read_bytes()).hexdigest() for split in SPLITS}
    assert {split: stats["splits"][split].pop("sha256") for split in SPLITS} == hashes
    assert stats["splits"]["train"] == {
        "num_examples": 4,
        "tokens": 3 + 4 + 8 + 8,  # two more than words; 9 words are cut to 6
        "unknown_tokens": 0,
        "length_quantiles": {  # of the whole texts
            "0.0": 3, "0.25": 3, "0.5": 4, "0.75": 8, "0.9": 8, "0.95": 8, "0.99": 8, "1.0": 11
        },
        "rows_at_max_length": 2,
        "truncated_rows": 1,
        "truncation": {"8": {"rows": 1, "tokens": 3}, **{n: {"rows": 0, "tokens": 0} for n in ("128", "256", "512")}},
        "full_tokens": 3 + 4 + 8 + 11,
        "label_counts": {"a": 1, "b": 3},
        "hidden_labels": 0,
    }  # fmt: skip
    assert stats["splits"]["test"]["label_counts"] == {"a": 0, "b": 1}
    assert stats["splits"]["test"]["hidden_labels"] == 2


def test_no_row_is_longer_than_max_length(reviews: Path) -> None:
    prepare(task(), max_length=8)
    for split in SPLITS:
        columns = prepared(split)
        lengths = [len(ids) for ids in columns["input_ids"]]
        assert columns["length"] == lengths
        assert max(lengths) == 8
        assert read_json(stats_path())["splits"][split]["rows_at_max_length"] == lengths.count(8)


def test_a_sentence_pair_is_tokenized_as_two_segments(workdir: Path) -> None:
    write_raw(train=[row("the film", pair="a very dull end")], validation=[row("dull")])
    prepare(task(**SEPARATE_SPLITS | PAIRS), max_length=16)
    columns = prepared("train")
    assert columns["text_pair"] == ["a very dull end"]
    # [CLS] the film [SEP] a very dull end [SEP]
    assert columns["token_type_ids"] == [[0, 0, 0, 0, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("text", "pair", "segments"),
    [
        ("the film", "a very dull and flat and empty end", [0, 0, 0, 0, 1, 1, 1, 1]),
        ("a very dull and flat and empty end", "the film", [0, 0, 0, 0, 0, 1, 1, 1]),
    ],
)
def test_the_longer_text_of_a_pair_is_truncated(workdir: Path, text: str, pair: str, segments: list[int]) -> None:
    write_raw(train=[row(text, pair=pair)], validation=[row("dull")])
    prepare(task(**SEPARATE_SPLITS | PAIRS), max_length=8)
    assert prepared("train")["token_type_ids"] == [segments]


def test_pairs_with_a_common_text_in_either_column_are_in_one_split(workdir: Path) -> None:
    write_raw(
        all=[
            row(f"text {number // 2}", pair=f"text {(number + 1) // 2 + 100 * (number % 4 // 2)}")
            for number in range(80)
        ]
    )
    split = {"validation": 0.25, "test": 0.25, "group_by": None, "seed": 0}
    prepare(task(**SEPARATE_SPLITS | PAIRS | {"split": split}), max_length=16)
    texts = {split: {*prepared(split)["text"], *prepared(split)["text_pair"]} for split in SPLITS}
    assert sum(map(len, texts.values())) == len(set.union(*texts.values()))


def test_regression_has_numbers_as_labels_and_statistics_of_their_distribution(workdir: Path) -> None:
    write_raw(train=[row("dull", 1), row("flat", 2.5), row("warm", 4)], validation=[row("dull", 1)])
    prepare(task(**SEPARATE_SPLITS | REGRESSION), max_length=16)
    assert prepared("train")["label"] == [1.0, 2.5, 4.0]
    assert Dataset.from_file(str(split_file("train"))).features["label"] == Value("float64")
    stats = read_json(stats_path())["splits"]["train"]
    assert (stats["label_mean"], stats["label_std"]) == (2.5, pytest.approx(1.5**0.5))
    assert "label_counts" not in stats


def test_max_examples_samples_each_split_by_content(reviews: Path) -> None:
    prepare(task(), max_length=16)
    everything = {split: prepared(split)["id"] for split in SPLITS}
    prepare(task(max_examples=10), max_length=16)
    few = {split: prepared(split)["id"] for split in SPLITS}
    prepare(task(max_examples=20), max_length=16)
    more = {split: prepared(split)["id"] for split in SPLITS}
    for split in SPLITS:
        assert [len(few[split]), len(more[split])] == [10, 20]
        assert set(few[split]) < set(more[split]) < set(everything[split])
        assert few[split] != everything[split][:10]
    assert read_json(stats_path())["splits"]["train"]["num_examples"] == 20


def test_max_examples_above_the_number_of_rows_keeps_all(reviews: Path) -> None:
    prepare(task(), max_length=16)
    before = all_bytes()
    prepare(task(max_examples=1000), max_length=16)
    assert all_bytes() == before


def test_a_source_with_splits_needs_no_test_split(workdir: Path) -> None:
    write_raw(train=[row("dull")], validation=[row("warm")])
    prepare(task(**SEPARATE_SPLITS), max_length=16)
    assert sorted(all_bytes()) == ["stats.json", "train.arrow", "validation.arrow"]


def test_a_single_table_named_train_is_also_split(workdir: Path) -> None:
    write_raw(train=[row(f"{number} film") for number in range(10)])
    prepare(
        task(**SEPARATE_SPLITS | {"split": {"validation": 0.2, "test": 0.3, "group_by": None, "seed": 0}}),
        max_length=16,
    )
    assert {split: len(prepared(split)["id"]) for split in SPLITS} == {"train": 5, "validation": 2, "test": 3}


def test_prepared_rows_can_be_memory_mapped(reviews: Path) -> None:
    prepare(task(), max_length=16)
    with pa.memory_map(str(split_file("train"))) as mapped, pa.ipc.open_stream(mapped) as stream:
        rows = stream.read_all()
    assert np.asarray(rows["length"]).sum() == read_json(stats_path())["splits"]["train"]["tokens"]
    (mapped_file,) = Dataset.from_file(str(split_file("train"))).cache_files
    assert mapped_file["filename"] == str(split_file("train").absolute())


def test_a_large_split_is_written_to_several_shards_with_the_same_rows(
    reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(task(), max_length=16)
    complete, stats = {split: prepared(split) for split in SPLITS}, read_json(stats_path())["splits"]["train"]
    rows = len(complete["train"]["id"])
    monkeypatch.setattr(stage, "SHARD_ROWS", rows // 2)
    prepare(task(), max_length=16)
    count = -(-rows // (rows // 2))
    files = [PREPARED / f"train-{number:05d}-of-{count:05d}.arrow" for number in range(count)]
    assert split_shards("train") == files
    assert split_shards("test") == [PREPARED / "test.arrow"]
    assert {path.name for path in PREPARED.iterdir()} == {
        "stats.json", "test.arrow", "validation.arrow", *(file.name for file in files)
    }  # fmt: skip
    assert load_split("train").to_dict() == complete["train"]
    shards = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    digest_of_all = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert read_json(stats_path())["splits"]["train"] == stats | {"sha256": digest_of_all, "shards": shards}


def warnings() -> list[dict[str, Any]]:
    """Return the warnings without those about the tiny vocabulary."""
    listed: list[dict[str, Any]] = read_json(stats_path())["warnings"]
    return [warning for warning in listed if warning["id"] != "unknown_tokens"]


def test_examples_that_are_in_two_splits_are_counted_and_printed(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(
        train=[row("dull", "a"), row("the end", "b"), row("warm film", "a")],
        validation=[row("dull", "a"), row(" The  END", "b"), row("flat", "a"), row("a story", "b")],
        test=[row("flat", "a"), row("plot", "b")],
    )
    prepare(task(**SEPARATE_SPLITS), max_length=16)
    counts = [
        {"split": "validation", "other": "train", "exact": 1, "normalized": 2, "examples": 4},
        {"split": "test", "other": "train", "exact": 0, "normalized": 0, "examples": 2},
        {"split": "test", "other": "validation", "exact": 1, "normalized": 1, "examples": 2},
    ]
    assert read_json(stats_path())["shared_texts"] == counts
    assert warnings() == [{"id": "shared_texts"} | counts[0], {"id": "shared_texts"} | counts[2]]
    printed = capsys.readouterr().out
    assert "prepare: warning: validation: 2 of 4 examples are also in train, 1 of them literally" in printed
    assert "prepare: warning: test: 1 of 2 examples are also in validation" in printed


def test_pairs_are_in_two_splits_only_if_both_texts_are(workdir: Path) -> None:
    write_raw(
        train=[row("dull", "a"), row("warm", "b")],
        validation=[row("dull", "a", pair="another end"), row("warm", "b", pair="THE end")],
    )
    prepare(task(**SEPARATE_SPLITS | PAIRS), max_length=16)
    (counts,) = read_json(stats_path())["shared_texts"]
    assert (counts["exact"], counts["normalized"]) == (0, 1)


def test_one_table_is_split_without_shared_texts(reviews: Path) -> None:
    prepare(task(), max_length=16)
    assert [pair["normalized"] for pair in read_json(stats_path())["shared_texts"]] == [0, 0, 0]
    assert warnings() == []


def test_texts_with_different_labels_are_counted_over_all_splits(workdir: Path) -> None:
    write_raw(
        train=[row("dull", "a"), row("dull", "b"), row("warm", "a"), row("warm", "a")],
        validation=[row(" WARM", "b"), row("flat", "a")],
        test=[row("flat", "-1")],
    )
    prepare(task(**SEPARATE_SPLITS), max_length=16)
    assert {"id": "conflicting_labels", "texts": 2, "examples": 5} in warnings()


@pytest.mark.parametrize(
    ("splits", "warning"),
    [
        (("ab", "aabb"), {"id": "labels_not_in_train", "split": "train", "labels": ["c"]}),
        (("abc", "ca"), {"id": "labels_not_in_split", "split": "validation", "labels": ["b"]}),
        (("abc", "bb"), {"id": "single_label", "split": "validation", "label": "b"}),
    ],
)
def test_labels_without_examples_are_reported(workdir: Path, splits: tuple[str, str], warning: dict[str, Any]) -> None:
    train, validation = splits
    write_raw(
        train=[row(f"{number} dull", label) for number, label in enumerate(train)],
        validation=[row(f"{number} warm", label) for number, label in enumerate(validation)],
        test=[row("the end", "-1")],  # unpublished labels are not judged
    )
    prepare(task(**SEPARATE_SPLITS | {"labels": ["a", "b", "c"]}), max_length=16)
    assert warning in warnings()
    assert {each["split"] for each in warnings()} <= {"train", "validation"}


def test_a_regression_with_equal_numbers_is_reported(workdir: Path) -> None:
    write_raw(train=[row("dull", 1), row("flat", 2)], validation=[row("warm", 3), row("tired", 3)], test=[row("x", -1)])
    prepare(task(**SEPARATE_SPLITS | REGRESSION), max_length=16)
    assert warnings() == [{"id": "constant_label", "split": "validation", "label": 3.0}]


def test_shares_far_from_those_of_the_recipe_are_reported(workdir: Path) -> None:
    # Three groups of ten rows: none can be a tenth.
    write_raw(all=[row(f"{number} film", "ab"[number % 2], pair=f"group {number % 3}") for number in range(30)])
    split = {"validation": 0.1, "test": 0.3, "group_by": "pair", "seed": 0}
    with pytest.raises(UserError, match="validation split is empty"):
        prepare(task(**SEPARATE_SPLITS | {"split": split}), max_length=16)
    split["validation"] = 0.25
    prepare(task(**SEPARATE_SPLITS | {"split": split}), max_length=16)
    obtained = {"id": "split_share", "split": "validation", "asked": 0.25, "obtained": pytest.approx(1 / 3)}
    group = {
        "id": "large_group",
        "rows": 10,
        "of": 30,
        "sharing": 10,
        "key": "group_by",
        "column": "pair",
        "value": "group 0",
    }
    assert warnings() == [obtained, group]


def cut(**keys: Any) -> dict[str, Any]:
    """Return changes of the recipe that cut splits from one table."""
    return SEPARATE_SPLITS | {"split": {"validation": 0.1, "test": 0.1, "group_by": None, "seed": 0} | keys}


def test_the_share_of_each_split_is_shown_beside_the_one_asked(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(all=many("own", 40))
    prepare(task(**cut(test=0.12)), max_length=16)
    assert read_json(stats_path())["split_shares"] == {
        "validation": {"rows": 4, "of": 40, "asked": 0.1, "obtained": 0.1},
        "test": {"rows": 5, "of": 40, "asked": 0.12, "obtained": 0.125},
    }
    prepare(task(**cut(test=0.12), max_examples=4), max_length=16)
    printed = capsys.readouterr().out.splitlines()
    assert "prepare: test: 5 examples (12.5 % of 40; asked 12 %)" in printed
    assert "prepare: test: 4 examples (of 5, 12.5 % of 40; asked 12 %)" in printed
    assert "prepare: train: 31 examples" in printed


def test_a_text_that_ties_a_table_together_is_named_and_group_texts_is_the_way_out(workdir: Path) -> None:
    # Three of four hypotheses are "yes"; each premise occurs twice.
    pairs = [row(f"premise {n // 2}", "ab"[n % 2], pair="Yes" if n % 4 else f"no {n}") for n in range(80)]
    write_raw(all=pairs)
    columns = PAIRS | {"text_columns": ["text", "pair"]}
    with pytest.raises(UserError) as caught:
        prepare(task(**cut() | columns), max_length=16)
    assert (caught.value.file, caught.value.key) == ("params.yaml", "task.split")
    assert (
        "80 of 80 rows stay together in one split, 60 of them through 'Yes' in column 'pair' (task.split.group_texts)"
        in caught.value.problem
    )
    prepare(task(**cut(group_by="text", group_texts=False) | columns), max_length=16)
    texts = {split: set(prepared(split)["text"]) for split in SPLITS}
    assert {split: len(each) for split, each in texts.items()} == {"train": 32, "validation": 4, "test": 4}
    assert len(set.union(*texts.values())) == 40
    assert "Yes" in set(prepared("train")["text_pair"]) & set(prepared("test")["text_pair"])
    assert not [each for each in warnings() if each["id"] in ("large_group", "split_share", "shared_texts")]


def test_texts_that_are_in_several_splits_by_request_are_still_reported(workdir: Path) -> None:
    write_raw(all=[row("ok" if n % 2 else f"fine {n}", "ab"[n % 2], pair=f"user {n // 4}") for n in range(80)])
    prepare(task(**cut(group_by="pair", group_texts=False)), max_length=16)
    shared = {(each["split"], each["other"]): each["exact"] for each in warnings() if each["id"] == "shared_texts"}
    assert shared == {("validation", "train"): 4, ("test", "train"): 4, ("test", "validation"): 4}


def test_a_large_group_is_named_even_if_the_shares_are_as_asked(workdir: Path) -> None:
    rows = [row("the same" if n < 60 else f"other {n}", "ab"[n % 2]) for n in range(100)]
    write_raw(all=rows)
    prepare(task(**cut(validation=0.2, test=None)), max_length=16)
    named = {
        "id": "large_group",
        "rows": 60,
        "of": 100,
        "sharing": 60,
        "key": "group_texts",
        "column": "text",
        "value": "the same",
    }
    assert [each for each in warnings() if each["id"] in ("large_group", "split_share")] == [named]


def test_a_long_value_is_shortened_in_the_warning_of_its_group(workdir: Path) -> None:
    write_raw(all=[row("long\ntext " * 50 if n < 60 else f"other {n}", "ab"[n % 2]) for n in range(100)])
    prepare(task(**cut(validation=0.2, test=None)), max_length=16)
    (value,) = (each["value"] for each in warnings() if each["id"] == "large_group")
    assert (value[:20], value[-1], len(value)) == ("long text long text ", "…", MAX_VALUE + 1)


def test_stratified_splits_have_the_same_shares_of_the_labels(workdir: Path) -> None:
    write_raw(all=[row(f"film {n}", "b" if n % 25 == 0 else "a") for n in range(500)])
    counts = {}
    for stratify in False, True:
        prepare(task(**cut(stratify=stratify)), max_length=16)
        counts[stratify] = [read_json(stats_path())["splits"][split]["label_counts"]["b"] for split in SPLITS]
    assert counts == {False: [17, 2, 1], True: [16, 2, 2]}


def test_stratified_splits_of_numbers_have_the_same_distribution(workdir: Path) -> None:
    write_raw(all=[row(f"film {n}", n**2 / 100) for n in range(400)])
    means = {}
    for stratify in False, True:
        prepare(task(**cut(stratify=stratify) | REGRESSION), max_length=16)
        means[stratify] = [read_json(stats_path())["splits"][split]["label_mean"] for split in SPLITS]
    spread = {stratify: max(each) - min(each) for stratify, each in means.items()}
    assert spread[True] < 30 < 100 < spread[False]  # of a mean of 532


def test_the_newest_rows_are_tested_and_groups_stay_whole(workdir: Path) -> None:
    days = [f"2024-{1 + n // 20:02}-{1 + n % 20:02}" for n in range(100)]
    rows = [row(f"film {n}", "ab"[n % 2], pair=f"group {n}") | {"day": day} for n, day in enumerate(days)]
    rows[0]["pair"] = "group 99"  # the oldest row belongs to the newest
    write_raw(all=rows[::-1])
    prepare(task(**cut(order_by="day", group_by="pair")), max_length=16)
    numbers = {split: sorted(int(text.split()[1]) for text in prepared(split)["text"]) for split in SPLITS}
    assert numbers == {
        "test": [0, *range(91, 100)],
        "validation": [*range(81, 91)],
        "train": [*range(1, 81)],
    }
    assert prepared("train").keys() == {"id", "text", "label", "input_ids", "token_type_ids", "length"}


def test_a_time_that_most_rows_share_is_named(workdir: Path) -> None:
    rows = [row(f"film {n}", "ab"[n % 2]) | {"year": 2020 if n < 70 else 1900 + n} for n in range(100)]
    write_raw(all=rows)
    with pytest.raises(UserError) as caught:
        prepare(task(**cut(order_by="year")), max_length=16)
    assert "70 of them through '2020' in column 'year' (task.split.order_by)" in caught.value.problem


def test_folds_are_a_column_of_train_and_validation(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(all=many("own", 100))
    prepare(task(**cut(validation=0.16, test=0.2)), max_length=16)
    without = {split: prepared(split) for split in SPLITS}
    prepare(task(**cut(validation=None, test=0.2, folds=5)), max_length=16)
    columns = {split: prepared(split) for split in SPLITS}
    assert columns["validation"].pop("fold") == [0] * 16
    folds = columns["train"].pop("fold")
    assert [folds.count(fold) for fold in range(6)] == [0, 16, 16, 16, 16, 0]
    assert columns == without  # folds divide the same splits further
    assert Dataset.from_file(str(split_file("train"))).features["fold"] == Value("int8")
    stats = read_json(stats_path())
    assert stats["folds"] == [16] * 5
    assert stats["split_shares"]["validation"] == {"rows": 16, "of": 100, "asked": 0.16, "obtained": 0.16}
    assert "prepare: folds: 5 of 16 to 16 examples" in capsys.readouterr().out


def test_folds_of_a_source_with_a_test_split_divide_its_training_rows(workdir: Path) -> None:
    write_raw(train=many("train", 60), test=many("test", 10))
    source = {"kind": "local", "train": "data/own/train.csv", "validation": None, "test": "data/own/test.csv"}
    prepare(task(**cut(validation=None, test=None, folds=3, stratify=True) | {"source": source}), max_length=16)
    assert {split: len(prepared(split)["id"]) for split in SPLITS} == {"train": 40, "validation": 20, "test": 10}
    assert sorted(set(prepared("train")["fold"])) == [1, 2]
    assert "fold" not in prepared("test")


def test_training_reads_examples_without_their_fold(workdir: Path) -> None:
    write_raw(all=many("own", 100))
    prepare(task(**cut(validation=None, folds=5)), max_length=16)
    (example,) = ShardedDataset(split_parts("train")).__getitems__([0])
    assert example.keys() == {"label", "input_ids", "token_type_ids", "length"}
    assert drop_text_columns(load_split("validation")).column_names == list(example)


@pytest.mark.parametrize("test", [0.1, None])
def test_more_folds_than_groups_are_refused(workdir: Path, test: float | None) -> None:
    write_raw(all=many("own", 50))
    with pytest.raises(UserError) as caught:
        prepare(task(**cut(folds=60, validation=None, test=test)), max_length=16)
    assert (caught.value.file, caught.value.key) == ("params.yaml", "task.split.folds")
    assert caught.value.expected == "fewer folds"


def test_a_column_of_groups_or_times_is_needed_only_where_splits_are_cut(workdir: Path) -> None:
    write_raw(train=[row(f"film {n}") | {"day": n} for n in range(10)], test=many("test", 4))
    source = {"kind": "local", "train": "data/own/train.csv", "validation": None, "test": "data/own/test.csv"}
    prepare(task(**cut(validation=0.2, test=None, order_by="day", group_by="day") | {"source": source}), max_length=16)
    assert prepared("validation")["text"] == ["film 8", "film 9"]


def test_truncated_rows_are_reported_with_the_lengths_of_the_whole_texts(workdir: Path) -> None:
    train = [row("the " * length + FILLER[length % 7], "ab"[length % 2]) for length in (1, 2, 8, 40)]
    write_raw(train=train, validation=[row("dull", "a"), row("flat", "b")])
    prepare(task(**SEPARATE_SPLITS), max_length=8)
    assert warnings() == [
        {"id": "truncated", "split": "train", "examples": 2, "share": 0.5, "median": 5, "longest": 43}
    ]


def test_words_that_the_model_does_not_know_are_reported(workdir: Path) -> None:
    write_raw(train=[row("電影", "a"), row("warm", "b")], validation=[row("dull", "a"), row("flat", "b")])
    prepare(task(**SEPARATE_SPLITS), max_length=8)
    (warning,) = read_json(stats_path())["warnings"]
    assert (warning["id"], warning["split"], warning["token"]) == ("unknown_tokens", "train", "[UNK]")
    assert warning["share"] * read_json(stats_path())["splits"]["train"]["tokens"] == prepared("train")["input_ids"][
        0
    ].count(AutoTokenizer.from_pretrained(PRETRAINED / "tokenizer").unk_token_id)


@pytest.mark.parametrize("changes", [{}, PAIRS], ids=["texts", "pairs"])
def test_rows_without_text_are_left_out_with_a_warning(workdir: Path, changes: dict[str, Any]) -> None:
    empty = [row("", "a"), row(" \n\u3000\t", "b")] if not changes else [row("x", "a", pair=" "), row("", "b")]
    write_raw(
        train=[row("dull", "a"), *empty, row("warm", "b")],
        validation=[row("tired", "a"), row("flat", "b")],
        test=[row("", "-1"), row("lazy", "-1")],  # a benchmark asks for a prediction of every row
    )
    prepare(task(**SEPARATE_SPLITS | changes), max_length=16)
    assert prepared("train")["id"] == ["0", "3"]
    assert prepared("test")["id"] == ["0", "1"]
    assert warnings() == [{"id": "empty_texts", "table": "train", "examples": 2, "first_row": 2}]


def test_rows_without_text_are_left_out_before_one_table_is_split(reviews: Path) -> None:
    prepare(task(), max_length=16)
    arrows = {split: split_file(split).read_bytes() for split in SPLITS}
    with (RAW / "all/reviews.csv").open("a", encoding="utf-8") as file:
        file.write('1001," ",fresh,film 1\n1002,,rotten,film 2\n')
    prepare(task(), max_length=16)
    assert {split: split_file(split).read_bytes() for split in SPLITS} == arrows
    assert warnings() == [{"id": "empty_texts", "table": "all", "examples": 2, "first_row": 281}]


def test_a_table_without_any_text_is_refused(workdir: Path) -> None:
    write_raw(train=[row("", "a")], validation=[row("dull")])
    with pytest.raises(UserError, match="train split is empty"):
        prepare(task(**SEPARATE_SPLITS), max_length=16)


@pytest.mark.parametrize(
    ("name", "line", "warning"),
    [
        ("a.csv", '"an open quote,a\nanother,b\nthe last",b', "row_in_text"),
        ("a.csv", '"two lines, a word\nand another, b",b', None),
        ("a.tsv", '"they say ""no"" today"\tb', "quoted_texts"),
        ("a.tsv", '"no"\tb', None),
    ],
)
def test_texts_that_a_quote_may_have_changed_are_reported(
    workdir: Path, name: str, line: str, warning: str | None
) -> None:
    separator = "\t" if name.endswith("tsv") else ","
    for split, texts in ("train", ["dull", "warm"]), ("validation", ["flat", "tired"]):
        (RAW / split).mkdir(parents=True)
        lines = [
            f"text{separator}label",
            *(f"{text}{separator}{label}" for text, label in zip(texts, "ab", strict=True)),
        ]
        (RAW / split / name).write_text("\n".join([*lines, line if split == "train" else f"end{separator}a"]) + "\n")
    prepare(task(**SEPARATE_SPLITS), max_length=32)
    expected = [{"id": warning, "table": "train", "examples": 1, "first_row": 3}] if warning else []
    assert warnings() == expected


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("train/mine.csv", "data/own/mine.csv"),
        ("validation/part-1.csv", "data/own/parts/part-1.csv"),
        ("validation", "data/own/parts"),
        ("train/other.csv", "data/raw/train/other.csv"),
        ("test/a.csv", "data/raw/test/a.csv"),
    ],
)
def test_an_error_about_a_copy_in_data_raw_names_the_users_file(workdir: Path, file: str, named: str) -> None:
    (workdir / "data/own/parts").mkdir(parents=True)
    source = {"kind": "local", "train": "data/own/mine.csv", "validation": "data/own/parts", "test": None}
    assert stage._users_file(f"data/raw/{file}", task(source=source, split=None), RAW) == named


@pytest.mark.parametrize(
    ("changes", "max_length", "message"),
    [
        pytest.param(
            {"split": {"validation": 0.2, "test": 0.001, "group_by": "film", "seed": 0}},
            16,
            "params.yaml: task.split: the test split is empty: its fraction gives no row",
            id="a fraction that gives no row",
        ),
        pytest.param(
            {"split": None},
            16,
            "params.yaml: task.split: the source has no train and no validation split; "
            "expected fractions such as {validation: 0.1, test: 0.1}",
            id="one table and no fractions",
        ),
        pytest.param(
            {"filter": {"verdict": ["raw"]}},
            16,
            "params.yaml: task.filter: no row is left",
            id="a filter that matches nothing",
        ),
        pytest.param(
            {"label_column": "verdit"},
            16,
            "data/own/reviews.csv: no column 'verdit' (task.label_column",
            id="no label column",
        ),
        pytest.param({"labels": ["rotten", "ripe"]}, 16, "data/own/reviews.csv: row ", id="an unknown label"),
        pytest.param(
            {}, 65, "params.yaml: train.max_length: expected at most the model's 64", id="longer than the model accepts"
        ),
    ],
)
def test_bad_input_is_reported_in_one_line_and_keeps_the_earlier_outputs(
    outputs_unchanged: Callable[[], bool], changes: dict[str, Any], max_length: int, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        prepare(task(**changes), max_length=max_length)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert outputs_unchanged()


@pytest.mark.parametrize(
    ("splits", "changes", "message"),
    [
        pytest.param(
            ["train", "validation"],
            {"split": {"validation": 0.2, "test": 0.2, "group_by": None, "seed": 0}},
            "params.yaml: task.split.validation: expected null, since the source has splits: train, validation",
            id="fractions for a source with splits",
        ),
        pytest.param(
            ["train", "test"],
            {},
            "params.yaml: task.split: the source has no validation split; expected fractions",
            id="no validation split",
        ),
        pytest.param(
            ["train", "validation"],
            {"filter": {"text": ["the train film"]}},
            "params.yaml: task.source: the validation split is empty: no row of its table is left",
            id="a split that is empty after the filter",
        ),
    ],
)
def test_splits_that_do_not_fit_the_recipe_are_reported_and_write_nothing(
    workdir: Path, splits: list[str], changes: dict[str, Any], message: str
) -> None:
    write_raw(**{split: [row(f"the {split} film")] for split in splits})
    with pytest.raises(UserError) as caught:
        prepare(task(**SEPARATE_SPLITS | changes), max_length=16)
    assert str(caught.value).startswith(message)
    assert [path.name for path in PREPARED.parent.iterdir()] == ["raw"]


def many(split: str, rows: int) -> list[dict[str, Any]]:
    return [row(f"the {split} film {number}", "ab"[number % 2]) for number in range(rows)]


@pytest.mark.parametrize(
    ("given", "fractions"),
    [
        (("train", "test"), {"validation": 0.2, "test": None}),
        (("train", "validation"), {"validation": None, "test": 0.2}),
        (("all",), {"validation": 0.2, "test": None}),
    ],
    ids=["validation", "test", "validation of one table"],
)
def test_a_split_that_the_source_lacks_is_cut_from_train_and_the_others_stay(
    workdir: Path, given: tuple[str, ...], fractions: dict[str, float | None]
) -> None:
    write_raw(**{split: many(split, 200) for split in given})
    split = {**fractions, "group_by": None, "seed": 0}
    files = {name: f"data/own/{name}.csv" if name in given else None for name in ("validation", "test")}
    source = {"kind": "local", "train": "data/own/train.csv", **files}
    prepare(task(**SEPARATE_SPLITS | {"split": split, "source": source}), max_length=16)
    (cut,) = (name for name, fraction in fractions.items() if fraction)
    sizes = {split: len(prepared(split)["text"]) for split in (*SPLITS,) if split_shards(split)}
    assert sizes.keys() == {"train", cut, *given} - {"all"}
    assert (sizes["train"] + sizes[cut], sizes[cut]) == (200, 40)
    other = {*given} - {"train", "all"}
    assert {name: len(prepared(name)["text"]) for name in other} == dict.fromkeys(other, 200)
    assert set(prepared("train")["text"]).isdisjoint(prepared(cut)["text"])
    assert not [warning for warning in warnings() if warning["id"] == "split_share"]


def test_the_maximum_length_of_the_model_is_accepted(workdir: Path) -> None:
    write_raw(train=[row("the " * 100)], validation=[row("dull")])
    prepare(task(**SEPARATE_SPLITS), max_length=64)
    assert prepared("train")["length"] == [64]


WORDS = {"text_columns": ["text"], "token_classification": {"subwords": "first"}, "labels": ["name"]}
WORDS |= {"positive_label": None, "metrics": ["entity_f1"]}


def words_task() -> Task:
    changes = {f"task.{key}": value for key, value in {**SEPARATE_SPLITS, **WORDS}.items()}
    changes |= {"evaluate.split": "validation", "data.windows": {"stride": 2, "pooling": None}}
    return check_recipe(tiny_recipe(**changes), "recipe").task


def spans(*pairs: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "label": "name"} for start, end in pairs]


def test_widened_spans_and_words_without_a_token_are_said(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "the film is very lively", "label": spans((4, 6), (17, 23))}]
    rows.append({"text": "the \u200b film", "label": spans((6, 10))})
    write_raw(train=rows, validation=[{"text": "a film", "label": spans((2, 6))}])
    prepare(words_task(), max_length=8, windows=Windows(stride=2, pooling=None))
    printed = capsys.readouterr().out
    assert "train: 1 examples have spans that begin or end within a word, the first is row 1" in printed
    assert "train: 1 words without any token" in printed
    train = prepared("train")
    assert train["label"] == [[0, 1, 0, 0, 1], [0, 1]]
    found = zip(train["word_starts"][1], train["word_ends"][1], strict=True)
    assert [train["text"][1][start:end] for start, end in found] == ["the", "film"]
    statistics = read_json(stats_path())["splits"]["train"]
    assert (statistics["label_counts"], statistics["words"], statistics["lost_words"]) == ({"name": 3}, 7, 1)


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        (spans((0, 3), (2, 4)), "shares a word with another"),
        (spans((0, 99)), "expected one within the 8 characters"),
        ([{"start": 0, "end": 3, "label": "nam"}], "unknown label 'nam'; did you mean 'name'?"),
    ],
)
def test_a_span_that_does_not_fit_is_one_line_with_its_row(
    workdir: Path, label: list[dict[str, Any]], problem: str
) -> None:
    write_raw(train=[{"text": "the film", "label": spans((0, 3))}, {"text": "the film", "label": label}])
    with pytest.raises(UserError) as caught:
        prepare(words_task(), max_length=8, windows=Windows(stride=2, pooling=None))
    assert caught.value.key == "row 2"
    assert problem in caught.value.problem
    assert not PREPARED.exists()


def test_a_long_text_has_windows_beside_it_and_nothing_is_truncated(workdir: Path) -> None:
    long = " ".join(["the film is very lively"] * 6)
    write_raw(train=[row(long), row("short", "b")], validation=[row("a film"), row("a story", "b")])
    prepare(task(**SEPARATE_SPLITS), max_length=8, windows=Windows(stride=2, pooling="mean"))
    assert prepared("train")["text"] == [long, "short"]
    assert "input_ids" not in prepared("train")
    windows = Dataset.from_file(str(PREPARED / "windows/train.arrow"))
    assert max(windows["length"]) == 8
    assert windows["example"][:] == [0] * 7 + [1]
    statistics = read_json(stats_path())["splits"]["train"]
    assert statistics["truncated_rows"] == 0
    assert (statistics["windows"], statistics["most_windows"]) == (8, 7)
    assert statistics["full_tokens"] == 30 + 2 + 1 + 2  # words, and special tokens
    assert statistics["tokens"] == sum(windows["length"])
