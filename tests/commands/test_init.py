"""`reprise init` makes a recipe that runs from files as people have them, without a further edit."""

import csv
import gzip
import json
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from own_files import GENRES, KINDS, ROWS, SENTENCES, SEVERAL, SPANS, TYPES, Kind, binary, conll, delimited, word_rows
from reprise.cli import app
from reprise.commands.init import init, parse_names
from reprise.core.config import LocalDataset, Recipe, to_dict
from reprise.core.errors import UserError
from reprise.core.paths import PREPARED, PRETRAINED, RAW
from reprise.core.validation import read_recipe
from reprise.data.format import split_shards
from reprise.fetch.stage import fetch
from reprise.own_data.arrange import Choices
from reprise.own_data.formats import Options
from reprise.prepare.stage import prepare
from tiny import ROOT, Run


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the catalog and the tokenizer of the tiny model, as the current folder."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copytree(tiny_model, folder / PRETRAINED / "tokenizer")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder outside the project."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


Init = Callable[..., Recipe]


@pytest.fixture
def run_init(project: Path) -> Init:
    """Run `reprise init` in the project; return the recipe of params.yaml."""

    def run(paths: list[Path], **options: Any) -> Recipe:
        fields = {key: options.pop(key) for key in ("text", "label", "task", "split", "names") if key in options}
        if isinstance(fields.get("label"), str):
            fields["label"] = [fields["label"]]
        reading = {key: options.pop(key) for key in ("encoding", "delimiter", "header", "sheet") if key in options}
        init(paths, Choices(**fields), Options(**reading), **options)
        return read_recipe()

    return run


@pytest.mark.parametrize("name", KINDS)
def test_a_file_as_it_is_becomes_a_recipe_that_prepares_without_an_edit(run_init: Init, files: Path, name: str) -> None:
    kind: Kind = KINDS[name]
    if kind.needs:
        pytest.importorskip(kind.needs)
    recipe = run_init(kind.write(files), **kind.options)
    task = recipe.task
    assert (task.text_columns, task.label_column) == (list(kind.text), kind.label)
    assert sorted(task.labels) == sorted(kind.labels)
    assert (task.multi_label is not None) == (kind.labels == GENRES)
    assert (task.token_classification is not None) == (recipe.data.windows is not None) == (kind.labels == TYPES)
    assert (task.id_column, task.split.group_by if task.split else None) == (kind.id, kind.group)
    assert isinstance(task.source, LocalDataset)
    fetch(task.source, None)
    prepare(task, max_length=recipe.train.max_length, windows=recipe.data.windows)
    stats = json.loads((PREPARED / "stats.json").read_text())["splits"]
    assert {"train", "validation", recipe.evaluate.split} <= {*stats} <= {*task.splits}
    cut = {"train", *(task.split.fractions if task.split else ())}
    assert sum(stats[split]["num_examples"] for split in cut) == kind.rows["train"]
    assert {split: stats[split]["num_examples"] for split in stats.keys() - cut} == {
        split: rows for split, rows in kind.rows.items() if split not in cut
    }
    assert split_shards("train")
    assert RAW.is_dir()


def refused(run_init: Init, paths: list[Path], **options: Any) -> UserError:
    """Return the error of one line; nothing was written."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    with pytest.raises(UserError) as caught:
        run_init(paths, **options)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return caught.value


def write(folder: Path, name: str, content: str | bytes) -> list[Path]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return [folder / name]


TABLE = delimited([["text", "label"], *binary()])
PARTS_OF_SPEECH = "The DT\nEU NNP\nrejects VBZ\n. .\n\nPeter NNP\nleaves VBZ\n. .\n\n"
CONLLU = (
    "# text = The EU\n1\tThe\tthe\tDET\tDT\t_\t2\tdet\t_\t_\n2\tEU\tEU\tPROPN\tNNP\t_\t0\troot\t_\tSpaceAfter=No\n\n"
)
IDS = '{"tokens": ["The", "EU", "is"], "ner_tags": [0, 1, 0]}\n' * 30


def spans_with_a_last(*last: tuple[int | str, ...]) -> str:
    rows = [*([text, spans] for text, spans in SPANS), ["in New York", last]]
    return "".join(json.dumps({"text": text, "spans": spans}) + "\n" for text, spans in rows)


@pytest.mark.parametrize(
    ("name", "content", "options", "key"),
    [
        ("empty.csv", "", {}, ""),
        ("header.csv", "text,label\n", {}, ""),
        ("one-column.txt", "a line\nanother line\n", {}, ""),
        ("ragged.csv", TABLE.replace("\n", ",x\n", 3), {}, "line 4"),
        ("open-quote.csv", TABLE + '"no end,positive\nthe film,negative,\n', {}, "line 62"),
        ("picture.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100), {}, ""),
        ("old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), {}, ""),
        ("cut-off.csv.gz", gzip.compress(TABLE.encode())[:-20], {}, ""),
        ("bomb.csv.gz", gzip.compress(bytes(2**20) * 1100), {}, ""),
        ("cut-off.zip", b"PK\3\4" + bytes(100), {}, ""),
        ("damaged.parquet", b"PAR1" + bytes(100), {}, ""),
        ("damaged.jsonl", '{"text": "a"}\n{"text": \n', {}, "line 2"),
        ("list.jsonl", '{"text": "a"}\n[1]\n', {}, "line 2"),
        ("no-objects.json", '{"a": 1, "b": [1, 2]}', {}, ""),
        ("words.txt", PARTS_OF_SPEECH * 10, {}, "words, tags"),
        ("words.conllu", CONLLU * 10, {}, ""),
        ("short.conll", conll() + "word\n", {}, f"line {conll().count(chr(10)) + 1}"),
        (
            "short.jsonl",
            '{"tokens": ["The", "EU"], "tags": ["O", "B-a"]}\n' * 30 + '{"tokens": ["a"], "tags": ["O", "O"]}\n',
            {},
            "row 31, tags",
        ),
        ("ids.jsonl", IDS, {}, "ner_tags"),
        ("ids.jsonl", IDS, {"names": {"0": "O"}}, "--names"),
        ("overlap.jsonl", spans_with_a_last((3, 6, "person"), (3, 11, "place")), {}, f"row {ROWS + 1}, spans"),
        ("long.jsonl", spans_with_a_last((3, 99, "place")), {}, f"row {ROWS + 1}, spans"),
        (
            "half.csv",
            delimited(
                [
                    ["words", "tags"],
                    *([json.dumps(each) for each in row] for row in SENTENCES),
                    ['["\\ud83d"]', '["O"]'],
                ]
            ),
            {},
            f"row {ROWS + 1}, tags",
        ),
        ("damaged-span.jsonl", spans_with_a_last((3, 5)), {}, f"row {ROWS + 1}, spans"),
        ("no-sentence.csv", "word,tag\n" + "The,O\nEU,B-a\nis,O\n" * 30, {}, ""),
        ("sentence.csv", "sentence,word,tag\n" + "1,The,O\n1,EU,B-a\n2,is,O\n" * 30, {}, "sentence"),
        ("no-entities.csv", TABLE, {"task": "entities"}, "--task"),
        ("labels.jsonl", '{"text": "the film", "labels": ["a", "b"]}\n' * 30, {}, "labels"),
        ("lists.jsonl", '{"text": "the film", "labels": [["a"], ["b"]]}\n' * 30, {}, "labels"),
        (
            "ner.jsonl",
            "".join(
                f'{{"text": "the EU is {n}", "tokens": ["the", "EU{n}"], "tags": ["O", "O"]}}\n' for n in range(30)
            ),
            {},
            "tokens",
        ),
        ("ner.jsonl", '{"text": "the EU is", "labels": ["O", "B", "O"]}\n' * 30, {"task": "classification"}, "labels"),
        ("single.csv", TABLE, {"task": "multi-label"}, "--label"),
        ("single.csv", TABLE, {"task": "multi-label", "label": "label"}, "--label"),
        (
            "flags.csv",
            TABLE.replace("label", "label,n", 1).replace("tive\n", "tive,1\n"),
            {"label": ["n", "label"]},
            "--label",
        ),
        ("multi.txt", "__label__a __label__b the film\n", {}, "line 1"),
        ("wrong-encoding.csv", TABLE.replace("film", "caf\xe9"), {"encoding": "ascii"}, "--encoding"),
        ("no-encoding.csv", TABLE, {"encoding": "klingon"}, "--encoding"),
        ("column.csv", TABLE, {"label": "lable"}, "--label"),
        ("column.csv", TABLE, {"text": ["txt"]}, "--text"),
        ("column.csv", TABLE, {"text": ["text"], "label": "text"}, "--label"),
        ("column.csv", TABLE, {"split": "label"}, "--split"),
        ("numbers.csv", "a,b\n1,2\n3,4\n", {}, "--text"),
        ("no-label.csv", "text\tdate\nthe film was good\tx y\nthe plot was bad\tx y\n", {}, "--label"),
        ("no-number.csv", TABLE, {"task": "regression"}, "--task"),
        ("positive.csv", TABLE, {"positive": "yes"}, "--positive"),
        ("names.csv", TABLE, {"names": {"positive": "good"}}, "--names"),
        ("name.csv", TABLE, {"name": "../mine"}, "--name"),
        ("name.csv", TABLE, {"name": "mrpc"}, "--name"),
        ("override.csv", TABLE, {"overrides": ["train.epochs=0"]}, "train.epochs"),
    ],
)
def test_a_file_that_cannot_be_a_task_is_one_line_that_names_it(
    run_init: Init, files: Path, name: str, content: str | bytes, options: dict[str, Any], key: str
) -> None:
    assert refused(run_init, write(files, name, content), **options).key == key


def test_a_file_that_is_not_there_is_named(run_init: Init, files: Path) -> None:
    assert refused(run_init, [files / "nothing.csv"]).file == str(files / "nothing.csv")


def test_an_archive_with_a_password_is_refused(run_init: Init, files: Path) -> None:
    with zipfile.ZipFile(files / "locked.zip", "w") as archive:
        archive.writestr("a.csv", TABLE)
    content = bytearray((files / "locked.zip").read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag of encryption
    (files / "locked.zip").write_bytes(bytes(content))
    assert refused(run_init, [files / "locked.zip"]).problem == "encrypted"


def test_an_archive_writes_nothing_outside_of_its_folder(run_init: Init, files: Path) -> None:
    with zipfile.ZipFile(files / "outside.zip", "w") as archive:
        archive.writestr("../../escaped.csv", TABLE)
        archive.writestr("data.csv", TABLE)
    run_init([files / "outside.zip"])
    assert not list(files.parent.rglob("escaped.csv"))


def test_the_same_rows_for_training_and_testing_are_refused(run_init: Init, files: Path) -> None:
    paths = write(files, "train.csv", TABLE) + write(files, "test.csv", TABLE)
    assert "the same rows" in refused(run_init, paths).problem


def test_a_table_of_which_no_split_is_named_is_refused(run_init: Init, files: Path) -> None:
    paths = write(files, "train.csv", TABLE) + write(files, "more.csv", TABLE.replace("film", "book"))
    assert refused(run_init, paths).file == str(files / "more.csv")


def test_a_name_of_the_catalog_is_not_taken(run_init: Init, files: Path) -> None:
    assert run_init(write(files, "sst2.csv", TABLE)).task.name == "own-sst2"


def test_options_choose_other_columns_and_another_kind(run_init: Init, files: Path) -> None:
    rows = [[text, f"a summary of {n}", n % 5, n % 3] for n, (text, _) in enumerate(binary())]
    paths = write(files, "reviews.csv", delimited([["review", "summary", "stars", "helpful"], *rows]))
    assert run_init(paths).task.label_column == "stars"
    task = run_init(paths, text=["summary"], label="helpful", task="regression", name="other").task
    assert (task.text_columns, task.label_column, task.labels) == (["summary"], "helpful", [])
    assert "pearson" in task.metrics


def test_rare_labels_are_measured_by_more_than_accuracy(run_init: Init, files: Path) -> None:
    rows = [[text, "spam" if n % 10 == 0 else "ham"] for n, (text, _) in enumerate(binary())]
    task = run_init(write(files, "mail.csv", delimited([["text", "label"], *rows]))).task
    assert task.metrics[0] != "accuracy"
    assert task.positive_label == "spam"


@pytest.mark.parametrize(("rare", "stratify"), [(249, True), (250, False)])
def test_splits_are_stratified_where_a_random_one_may_hold_few_of_the_rarest_label(
    run_init: Init, files: Path, capsys: pytest.CaptureFixture[str], rare: int, stratify: bool
) -> None:
    rows = [[f"the film number {n} was dull", "bad" if n < rare else "good"] for n in range(1200)]
    task = run_init(write(files, "mail.csv", delimited([["text", "label"], *rows]))).task
    assert task.split is not None
    assert task.split.stratify == stratify
    assert ("stratified, as 10% of 'bad' are 25 rows" in capsys.readouterr().out) == stratify


def test_numbers_are_not_stratified_and_every_key_of_the_split_is_in_the_recipe(run_init: Init, files: Path) -> None:
    rows = [[f"the film number {n} was dull", n / 7] for n in range(100)]
    task = run_init(write(files, "mail.csv", delimited([["text", "score"], *rows]))).task
    written = YAML(typ="safe").load(Path("recipes/task/mail.yaml"))["task"]["split"]
    assert written == to_dict(task.split) == {
        "validation": 0.2, "test": 0.2, "group_by": None, "group_texts": True, "stratify": False,
        "order_by": None, "folds": None, "seed": 0,
    }  # fmt: skip


def test_a_column_of_single_labels_is_preferred_to_one_of_lists(run_init: Init, files: Path) -> None:
    lines = [json.dumps({"text": text, "labels": ["a"], "topic": label}) for text, label in binary()]
    assert run_init(write(files, "mail.jsonl", "\n".join(lines))).task.label_column == "topic"


def several_csv(separator: str = ";", *, name: str = "genres") -> str:
    return delimited([["text", name], *([text, separator.join(genres)] for text, genres in SEVERAL)])


def table_rows(name: str) -> list[dict[str, str]]:
    with Path(f"data/own/{name}/train.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("separator", [";", "|", ", "])
def test_rows_of_several_labels_keep_them(
    run_init: Init, files: Path, separator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = run_init(write(files, "films.csv", several_csv(separator)))
    assert recipe.task.multi_label is not None
    assert to_dict(recipe.task.multi_label) == {"separator": "|", "thresholds": "tuned"}
    assert recipe.task.positive_label is None
    assert recipe.task.metrics == ["f1_macro", "f1_micro", "f1_samples", "subset_accuracy", "average_precision"]
    assert [row["genres"] for row in table_rows("films")] == ["|".join(genres) for _, genres in SEVERAL]
    printed = capsys.readouterr().out
    assert (
        f"multi-label, since 'genres' has labels between {separator.strip()!r} (--task classification if not)"
        in printed
    )
    without = sum(not genres for _, genres in SEVERAL)
    assert f"note: train: {without} rows without 'genres' have none of the labels" in printed


def test_labels_are_joined_by_what_no_label_contains(run_init: Init, files: Path) -> None:
    rows = [{"text": text, "labels": [f"{g}|;/" for g in genres]} for text, genres in SEVERAL]
    recipe = run_init(write(files, "films.jsonl", "\n".join(map(json.dumps, rows))))
    assert recipe.task.multi_label is not None
    assert recipe.task.multi_label.separator == ","
    assert recipe.task.labels == [f"{g}|;/" for g in GENRES]


def test_lists_as_pandas_writes_them_are_read(run_init: Init, files: Path) -> None:
    rows = [["text", "tags"], *([text, str(genres)] for text, genres in SEVERAL)]
    assert run_init(write(files, "films.csv", delimited(rows))).task.labels == GENRES


FLAGS = delimited(
    [
        ["comment", "toxic", "obscene", "threat"],
        *([f"{text} {n}", n % 2, int(n % 3 == 0), int(n % 5 == 0)] for n, (text, _) in enumerate(SEVERAL)),
    ]
)


def test_columns_of_0_and_1_become_labels_and_can_be_chosen(
    run_init: Init, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write(files, "comments.csv", FLAGS)
    assert run_init(paths).task.labels == ["obscene", "threat", "toxic"]
    assert "since 'toxic', 'obscene', 'threat' are columns of 0 and 1 (--label" in capsys.readouterr().out
    assert table_rows("comments")[0] == {"comment": f"{SEVERAL[0][0]} 0", "labels": "obscene|threat"}
    chosen = run_init(paths, name="chosen", label=["threat", "toxic"]).task
    assert (chosen.labels, chosen.label_column) == (["threat", "toxic"], "labels")
    assert table_rows("chosen")[0] == {"comment": f"{SEVERAL[0][0]} 0", "obscene": "1", "labels": "threat"}
    alone = run_init(paths, name="alone", label="threat").task
    assert (alone.labels, alone.label_column, alone.multi_label) == (["0", "1"], "threat", None)


def test_rows_without_a_known_answer_are_left_out(run_init: Init, files: Path) -> None:
    hidden = FLAGS.replace(",0,0,0", ",-1,-1,-1")
    kept = len([line for line in FLAGS.splitlines() if not line.endswith(",0,0,0")]) - 1
    run_init(write(files, "train.csv", FLAGS) + write(files, "test.csv", hidden.replace("the", "a")), name="toxic")
    assert json.loads(Path("data/own/toxic/source.json").read_text())["rows"] == {"train": 60, "test": kept}


def test_columns_with_exactly_one_1_per_row_are_a_single_label(run_init: Init, files: Path) -> None:
    rows = [
        ["text", "no", "yes", "maybe"],
        *([text, *([0] * (n % 3)), 1, *([0] * (2 - n % 3))] for n, (text, _) in enumerate(SEVERAL)),
    ]
    task = run_init(write(files, "answers.csv", delimited(rows))).task
    assert (task.labels, task.multi_label) == (["maybe", "no", "yes"], None)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("category", lambda n: ("Arts, Music", "Politics", "Business, Finance")[n % 3]),
        ("label", lambda n: f"class {n % 3}"),
        ("label", lambda n: f"{n % 2},{n % 5}"),  # decimal commas
    ],
)
def test_one_label_per_row_is_not_taken_for_several(
    run_init: Init, files: Path, column: str, value: Callable[[int], str]
) -> None:
    rows = [["text", column, "is_reply"], *([text, value(n), n % 2] for n, (text, _) in enumerate(SEVERAL))]
    task = run_init(write(files, "mail.csv", delimited(rows))).task
    assert (task.label_column, task.multi_label) == (column, None)


def test_one_label_is_asked_for_where_several_are_guessed(run_init: Init, files: Path) -> None:
    paths = write(files, "films.csv", several_csv())
    assert run_init(paths, task="classification").task.multi_label is None
    assert run_init(
        write(files, "other.csv", several_csv(name="stuff")), task="multi-label", label="stuff"
    ).task.multi_label


def entity_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"data/own/{name}/train.jsonl").read_text().splitlines()]


def test_words_and_tags_are_written_as_they_are_and_described(
    run_init: Init, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = run_init(write(files, "news.conll", conll(documents=5)))
    assert entity_rows("news") == [
        {"words": words, "tags": tags, "document": f"news-{number // 5 + 1}"}
        for number, (words, tags) in enumerate(SENTENCES)
    ]
    assert to_dict(recipe.task)["metrics"] == ["entity_f1", "entity_precision", "entity_recall"]
    assert recipe.data.windows is not None
    assert recipe.data.windows.stride == min(32, recipe.train.max_length // 4)
    printed = capsys.readouterr().out
    counts = {label: sum(each == label for _, spans in SPANS for *_, each in spans) for label in TYPES}
    for shown in (
        "'tags' has a tag for each word of 'words': IOB2",
        "'column3': --label",
        "12 documents",
        ", ".join(f'"{label}" {count}' for label, count in counts.items()),
        f"{sum(len(words) for words, _ in SENTENCES)}, {sum(counts.values())} entities",
    ):
        assert shown in printed


def test_documents_are_kept_together_only_where_there_are_enough(run_init: Init, files: Path) -> None:
    task = run_init(write(files, "news.conll", conll(documents=7))).task
    assert task.split is not None
    assert task.split.group_by is None


def test_spans_of_any_tool_are_written_in_one_form(run_init: Init, files: Path) -> None:
    expected = [[{"start": s, "end": e, "label": name} for s, e, name in spans] for _, spans in SPANS]
    for tool in ("Doccano", "Label Studio"):
        (kind,) = (kind for name, kind in KINDS.items() if tool in name)
        recipe = run_init(kind.write(files))
        assert [row[kind.label] for row in entity_rows(recipe.task.name)] == expected


def test_another_column_of_tags_can_be_chosen(run_init: Init, files: Path) -> None:
    task = run_init(write(files, "news.conll", conll()), label="column3").task
    assert (task.label_column, task.labels) == ("column3", ["NP"])


def test_ids_of_tags_get_names(run_init: Init, files: Path) -> None:
    task = run_init(write(files, "ids.jsonl", IDS), names={"0": "O", "1": "B-ORG"}).task
    assert task.labels == ["ORG"]
    assert entity_rows("ids")[0]["ner_tags"] == ["O", "B-ORG", "O"]


def test_tags_without_a_type_get_one(run_init: Init, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = conll().replace("-person", "").replace("-place", "")
    assert run_init(write(files, "terms.conll", content)).task.labels == ["entity"]
    assert "name no type" in capsys.readouterr().out


def test_rows_of_entities_that_changed_are_counted(
    run_init: Init, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_init(write(files, "news.conll", conll()))
    capsys.readouterr()
    run_init(write(files, "news.conll", conll()))
    assert "changed since the last time: nothing" in capsys.readouterr().out
    run_init(write(files, "news.conll", conll().replace("Lovelace NN B-NP I-person", "Lovelace NN B-NP I-place", 1)))
    assert "(1 with another label)" in capsys.readouterr().out


def test_a_text_without_entities_stays_and_one_without_an_answer_does_not(run_init: Init, files: Path) -> None:
    rows = [{"text": text, "spans": [[*span] for span in spans]} for text, spans in SPANS]
    rows += [{"text": "nothing here", "spans": []}, {"text": "not known", "spans": None}]
    run_init(write(files, "mail.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert [row["text"] for row in entity_rows("mail")] == [text for text, _ in SPANS] + ["nothing here"]


def test_rows_that_an_annotator_rejected_may_have_any_spans(run_init: Init, files: Path) -> None:
    rows = [{"text": text, "spans": [[*span] for span in spans], "answer": "accept"} for text, spans in SPANS]
    rows.insert(0, {"text": "no", "spans": [[0, 9, "place"]], "answer": "reject"})
    run_init(write(files, "mail.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert [row["text"] for row in entity_rows("mail")] == [text for text, _ in SPANS]


def test_words_without_characters_are_prepared(run_init: Init, files: Path) -> None:
    rows = [{"words": ["", *words], "tags": ["O", *tags]} for words, tags in SENTENCES]
    recipe = run_init(write(files, "mail.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert isinstance(recipe.task.source, LocalDataset)
    fetch(recipe.task.source, None)
    prepare(recipe.task, max_length=recipe.train.max_length, windows=recipe.data.windows)
    splits = json.loads((PREPARED / "stats.json").read_text())["splits"].values()
    assert sum(split["words"] for split in splits) == sum(len(words) for words, _ in SENTENCES)


def test_spans_that_count_otherwise_are_noted(run_init: Init, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"text": text, "spans": [{"start": s, "end": e - (n > 3), "text": text[s:e], "label": x} for s, e, x in spans]}
        for n, (text, spans) in enumerate(SPANS)
    ]
    run_init(write(files, "mail.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert "have another text than their characters, the first in row 5" in capsys.readouterr().out


def test_a_dataset_that_was_tokenized_is_not_taken_for_words_and_tags(run_init: Init, files: Path) -> None:
    rows = [
        {"text": text, "label": label, "input_ids": [101, 7, n], "token_type_ids": [0, 0, 0]}
        for n, (text, label) in enumerate(binary())
    ]
    recipe = run_init(write(files, "mail.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert (recipe.task.text_columns, recipe.task.label_column) == (["text"], "label")


def test_a_folder_of_conll_files_has_its_splits(run_init: Init, files: Path) -> None:
    for name in ("train", "dev", "test"):
        write(files, f"{name}.txt", conll(prefix=name))
    write(files, "README.md", "about")
    recipe = run_init([files])
    assert (recipe.task.splits, recipe.task.split) == (("train", "validation", "test"), None)


def test_a_file_of_words_without_tags_is_left_out(run_init: Init, files: Path) -> None:
    words = delimited([["Sentence #", "Word"], *([n, word] for n, word, *_ in word_rows())])
    paths = write(files, "train.csv", delimited([["Sentence #", "Word", "POS", "Tag"], *word_rows()]))
    assert run_init(paths + write(files, "test.csv", words), name="ner").task.splits == ("train", "validation", "test")
    assert not Path("data/own/ner/test.jsonl").exists()
    paths = write(files, "train.conll", conll())
    run_init(
        paths + write(files, "test.conll", "".join("\n".join([*words, "\n"]) for words, _ in SENTENCES)), name="news"
    )
    assert not Path("data/own/news/test.jsonl").exists()
    assert refused(run_init, [files / "test.conll"]).key == "words"


def test_another_task_is_chosen_for_a_table_of_words(run_init: Init, files: Path) -> None:
    table = delimited([["word", "tag"], *([f"word{n}", "B-a" if n % 3 else "O"] for n in range(60))])
    assert run_init(write(files, "words.csv", table), task="classification").task.labels == ["B-a", "O"]


def test_train_and_validation_are_evaluated_on_validation_with_the_last_epoch(run_init: Init, files: Path) -> None:
    recipe = run_init(write(files, "train.csv", TABLE) + write(files, "dev.csv", TABLE.replace("film", "book")))
    assert (recipe.evaluate.split, recipe.train.keep_epoch, recipe.task.split) == ("validation", "last", None)


def test_a_known_file_shows_what_changed(run_init: Init, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_init(write(files, "mail.csv", TABLE))
    capsys.readouterr()
    run_init(write(files, "mail.csv", TABLE))
    assert "changed since the last time: nothing" in capsys.readouterr().out
    run_init(
        write(files, "mail.csv", TABLE.replace("label\n", "label,from\n").replace("ive\n", "ive,a\n") + "x,odd,b\n")
    )
    out = capsys.readouterr().out
    assert "column 'from' is new" in out
    assert f"rows 'train': {ROWS} → {ROWS + 1}" in out
    assert "label 'odd': 0 → 1" in out


def test_a_known_file_shows_how_many_rows_are_new_gone_or_relabelled(
    run_init: Init, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [[f'the "film", {n}\nwas dull', "ab"[n % 2]] for n in range(40)]
    run_init(write(files, "mail.csv", delimited([["text", "label"], *rows])))
    changed = [*rows[:4:-1], [rows[0][0], "c"], [rows[1][0], "c"], *([f"the new film {n}", "b"] for n in range(9))]
    capsys.readouterr()
    run_init(write(files, "mail.csv", delimited([["text", "label"], *changed])))
    printed = [line.partition("last time: ")[2] for line in capsys.readouterr().out.splitlines() if "last time" in line]
    assert printed[:2] == [
        "another content of the files",
        "rows 'train': 40 → 46 (9 new, 3 gone, 2 with another label)",
    ]
    assert printed[2] == "label 'c': 0 → 2"  # before those whose number differs
    assert 'recipe task.positive_label: "b" → null' in printed


def test_changes_of_the_recipe_are_shown_before_they_are_refused(
    run_init: Init, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write(files, "mail.csv", TABLE)
    run_init(paths)
    recipe = Path("recipes/task/mail.yaml")
    recipe.write_text(recipe.read_text().replace("epochs: 5", "epochs: 6"))
    refused(run_init, paths)
    assert "changed since the last time: recipe train.epochs: 6 → 5" in capsys.readouterr().out


def test_edits_of_the_recipe_are_not_lost_without_force(run_init: Init, files: Path) -> None:
    paths = write(files, "mail.csv", TABLE)
    run_init(paths)
    recipe = Path("recipes/task/mail.yaml")
    recipe.write_text(recipe.read_text().replace("epochs: 5", "epochs: 6"))
    assert refused(run_init, paths).file == str(recipe)
    assert run_init(paths, force=True).train.epochs == 5


def test_edits_of_params_are_not_lost_without_force(run_init: Init, files: Path) -> None:
    paths = write(files, "mail.csv", TABLE)
    run_init(paths)
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("weight_decay: 0.01", "weight_decay: 0.02"))
    assert "train.weight_decay=0.02" in refused(run_init, paths).expected
    assert run_init(paths, overrides=["train.weight_decay=0.02"]).train.weight_decay == 0.02


def test_a_folder_of_ones_own_is_not_replaced(run_init: Init, files: Path) -> None:
    Path("data/own/mail").mkdir(parents=True)
    Path("data/own/mail/train.csv").write_text("mine")
    assert refused(run_init, write(files, "mail.csv", TABLE)).file == "data/own/mail"


def test_nothing_is_written_without_confirmation_and_the_positive_label_is_asked(project: Path, files: Path) -> None:
    paths = write(files, "mail.csv", TABLE)
    before = sorted(project.rglob("*"))
    assert init(paths, Choices(), Options(), confirm=lambda _: False) is None
    assert sorted(project.rglob("*")) == before
    asked = []
    init(paths, Choices(), Options(), ask=lambda question, default: asked.append((question, default)) or "negative")
    assert [default for _, default in asked] == ["positive"]
    assert read_recipe().task.positive_label == "negative"


def test_the_command_asks_nothing_in_a_pipe(project: Path, files: Path) -> None:
    done = CliRunner().invoke(app, ["init", *map(str, write(files, "mail.csv", TABLE))])
    assert done.exit_code == 0, done.output
    assert read_recipe().task.name == "mail"
    done = CliRunner().invoke(app, ["init", "--name", "news", "--", *map(str, write(files, "news.conll", conll()))])
    assert done.exit_code == 0, done.output  # as `make train DATA=` calls it
    assert read_recipe().task.token_classification is not None
    done = CliRunner().invoke(app, ["init", *map(str, write(files, "mail.csv", TABLE)), "--label", "lable"])
    assert done.exit_code == 2


@pytest.mark.parametrize("text", ["0", "0=", "0=a,1", "0=a,1=a"])
def test_names_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_names(text)
    assert caught.value.key == "--names"


def test_names_are_pairs() -> None:
    assert parse_names("0=hate, 1=none of both") == {"0": "hate", "1": "none of both"}


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name",
    [
        "TSV without header and with quotes in the texts, like SMSSpam",
        "pairs with a score, like STS-B",
        "a folder of texts for each label, like IMDb",
        "genres between bars in CSV",
        "CoNLL with tabs and documents to keep together",
    ],
)
def test_a_file_is_trained_and_evaluated_after_one_command(
    repo: Path, run: Run, tmp_path: Path, files: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    kind, clone = KINDS[name], tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(repo), str(clone))
    (clone / "recipes/model/tiny.yaml").write_text("name: tiny\nsource: {kind: local, path: data/own/tiny}\n")
    start = time.perf_counter()
    done = run(clone, "reprise", "init", *map(str, kind.write(files)), "-S", "model=tiny", "-S", "train.precision=fp32")
    made = time.perf_counter()
    run(clone, "dvc", "repro")
    record_property("times", f"init {made - start:.0f} s, dvc repro {time.perf_counter() - made:.0f} s")
    metrics = json.loads((clone / "metrics/evaluate.json").read_text())
    assert metrics["num_examples"] > 5
    assert ("accuracy" in metrics) == bool(kind.labels and kind.labels not in (GENRES, TYPES))
    assert ("entity_f1" in metrics) == (kind.labels == TYPES)
    assert ("f1_macro" in metrics) == (kind.labels == GENRES)
    assert "make train" in done.stdout


def test_excel_without_its_package_is_one_line_with_the_command_that_adds_it(
    run_init: Init, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with zipfile.ZipFile(files / "book.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    assert "docker/cpu/excel.txt" in refused(run_init, [files / "book.xlsx"]).expected


def test_a_column_of_splits_may_have_a_name_and_values_of_its_own(run_init: Init, files: Path) -> None:
    rows = [[*row, ("TRAIN", "TRIAL", "TEST")[n // 2 % 3]] for n, row in enumerate(binary())]
    task = run_init(write(files, "sick.csv", delimited([["text", "label", "SemEval_set"], *rows]))).task
    assert (task.splits, task.split) == (("train", "validation", "test"), None)


def test_texts_in_another_script_ask_for_a_multilingual_model(
    run_init: Init, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_init(KINDS["Cyrillic in Windows-1251"].write(files))
    assert "-S model=distil-mbert" in capsys.readouterr().out
    run_init(write(files, "mail.csv", TABLE), overrides=["model=distil-mbert"])
    assert "distil-mbert)" not in capsys.readouterr().out
    assert read_recipe().model.name == "distil-mbert"
