"""Files in the shape of public ones, as people have them, and what `reprise init` should make of each."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.feather

from tiny import BAD, FILLER, GOOD

ROWS = 60


@dataclass(frozen=True)
class Kind:
    """A kind of file and what is expected of it.

    Attributes:
        write: writes it below a folder and returns what is given to the command.
        text: the columns to read.
        label: the column to predict.
        labels: sorted; empty for regression.
        rows: of each split that is written.
        options: of the command, where the file alone does not say enough.
        id: the column that identifies a row.
        group: the column whose rows stay together.
        needs: a package that the reader needs.
    """

    write: Callable[[Path], list[Path]]
    text: Sequence[str]
    label: str
    labels: Sequence[str]
    rows: dict[str, int] = field(default_factory=lambda: {"train": ROWS})
    options: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    group: str | None = None
    needs: str = ""


def sentences(number: int = ROWS, *, accents: str = "") -> list[tuple[str, bool]]:
    """Return different sentences, each with whether it is good."""
    draw = random.Random(0)
    found = []
    for row in range(number):
        good = row % 2 == 0
        words = draw.choices(FILLER, k=6) + draw.choices(GOOD if good else BAD, k=2)
        draw.shuffle(words)
        found.append((f"{' '.join(words)}{accents}, {row}", good))
    return found


def delimited(rows: list[list[Any]], delimiter: str = ",", **options: Any) -> str:
    """Return rows as text of a table, by default with the quotes of CSV."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n", **options).writerows(rows)
    return stream.getvalue()


def lines(rows: list[list[Any]], delimiter: str = "\t") -> str:
    """Return rows as text without any quoting."""
    return "".join(delimiter.join(map(str, row)) + "\n" for row in rows)


def binary(labels: tuple[str, str] = ("negative", "positive"), **options: Any) -> list[list[str]]:
    """Return rows of a text and one of two labels."""
    return [[text, labels[good]] for text, good in sentences(**options)]


def records(**extra: Callable[[int], Any]) -> list[dict[str, Any]]:
    """Return rows as objects with a text, a label and further fields."""
    return [
        {"text": text, "label": label, **{key: make(n) for key, make in extra.items()}}
        for n, (text, label) in enumerate(binary())
    ]


def text_file(name: str, content: str, encoding: str = "utf-8") -> Callable[[Path], list[Path]]:
    """Return a function that writes one text file."""
    return bytes_file(name, content.encode(encoding))


def bytes_file(name: str, content: bytes) -> Callable[[Path], list[Path]]:
    """Return a function that writes one file."""

    def write(folder: Path) -> list[Path]:
        (folder / name).write_bytes(content)
        return [folder / name]

    return write


def frame_file(
    name: str, save: Callable[[pd.DataFrame, Path], Any], rows: list[dict[str, Any]]
) -> Callable[[Path], list[Path]]:
    """Return a function that writes a data frame with `save`."""

    def write(folder: Path) -> list[Path]:
        save(pd.DataFrame(rows), folder / name)
        return [folder / name]

    return write


def several(**contents: str) -> Callable[[Path], list[Path]]:
    """Return a function that writes a file for each name, with one dot for each double underscore."""

    def write(folder: Path) -> list[Path]:
        for name, content in contents.items():
            (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
        return [folder / name.replace("__", ".") for name in contents]

    return write


def class_folders(folder: Path) -> list[Path]:
    for split in ("train", "test"):
        for number, (text, good) in enumerate(sentences()):
            file = folder / "aclImdb" / split / ("pos" if good else "neg") / f"{number}_7.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{split} {text}<br />the end\n", encoding="utf-8")
    (folder / "aclImdb/train/unsup").mkdir()
    (folder / "aclImdb/train/unsup/0_0.txt").write_text("no label", encoding="utf-8")
    (folder / "aclImdb/README").write_text("Large Movie Review Dataset", encoding="utf-8")
    return [folder / "aclImdb"]


def saved_dataset(folder: Path) -> list[Path]:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])}
    )
    splits = {}
    for split in ("train", "validation", "test"):
        rows = [{"text": f"{split} {text}", "label": int(good)} for text, good in sentences()]
        splits[split] = datasets.Dataset.from_list(rows, features=features)
    datasets.DatasetDict(splits).save_to_disk(folder / "sms")
    return [folder / "sms"]


def zipped(name: str, **members: str) -> Callable[[Path], list[Path]]:
    """Return a function that writes a zip archive with a file for each member."""

    def write(folder: Path) -> list[Path]:
        with zipfile.ZipFile(folder / name, "w") as archive:
            for member, content in members.items():
                archive.writestr(member.replace("__", "."), content)
            archive.writestr("__MACOSX/._data.csv", b"\0\5\26\7")
        return [folder / name]

    return write


def excel(folder: Path) -> list[Path]:
    frame = pd.DataFrame(records(id=lambda n: n + 1))
    with pd.ExcelWriter(folder / "Survey 2025.xlsx", engine="openpyxl") as book:
        frame.to_excel(book, sheet_name="Answers", index=False)
        pd.DataFrame({"about": ["Answers of a survey"]}).to_excel(book, sheet_name="Notes", index=False)
    return [folder / "Survey 2025.xlsx"]


HEADED = [["text", "label"], *binary()]
QUOTED = [[text.replace("film", '"film"'), label] for text, label in binary(("ham", "spam"))]
TWEETS = [
    ["id", "user", "text", "label"],
    *([str(10**17 + n), f"user{n % 20}", text, label] for n, (text, label) in enumerate(binary())),
]
PAIRS = [text for text, _ in sentences()]
NLI = ["entailment", "neutral", "contradiction"]

GENRES = ["comedy", "drama", "science fiction", "war"]
# Each text with up to three of them.
SEVERAL = [(text, [g for k, g in enumerate(GENRES) if (n >> k) % 2][:3]) for n, text in enumerate(PAIRS)]


def _genre_id(genre: str) -> str:
    return str(GENRES.index(genre))


def _flags(genres: list[str]) -> list[int]:
    return [int(genre in genres) for genre in GENRES]


TYPES = ["person", "place"]


def _sentence(number: int) -> tuple[list[str], list[str]]:
    """Return words and their tags in IOB2; each sentence is another one."""
    names = (["Ada", "Lovelace"], ["Priya"], ["New", "York"], ["Lyon"])
    words, tags = [], []
    for position, word in enumerate(PAIRS[number].replace(",", " ,").split()):
        words.append(word)
        tags.append("O")
        if position % 4 == number % 4:
            kind = (number + position) % 4
            words += names[kind]
            tags += [f"B-{TYPES[kind // 2]}", *[f"I-{TYPES[kind // 2]}"] * (len(names[kind]) - 1)]
    return words, tags


# Words and tags of sentences, and the characters of each entity in the words joined by spaces.
SENTENCES = [_sentence(number) for number in range(ROWS)]


def spans_of(words: list[str], tags: list[str]) -> list[tuple[int, int, str]]:
    """Return start, end and label of the entities."""
    found: list[tuple[int, int, str]] = []
    start = 0
    for word, tag in zip(words, tags, strict=True):
        end = start + len(word)
        if tag.startswith("B-"):
            found.append((start, end, tag[2:]))
        elif tag.startswith("I-"):
            found[-1] = (found[-1][0], end, tag[2:])
        start = end + 1
    return found


SPANS = [(" ".join(words), spans_of(words, tags)) for words, tags in SENTENCES]


def conll(between: str = " ", *, prefix: str = "", documents: int = 0) -> str:
    """Return the sentences as CoNLL, with two more columns; `documents` sentences are of one document."""
    blocks = []
    for number, (words, tags) in enumerate(SENTENCES):
        if documents and number % documents == 0:
            blocks.append(between.join(("-DOCSTART-", "-X-", "-X-", "O")) + "\n\n")
        rows = zip([f"{prefix}{words[0]}", *words[1:]], tags, strict=True)
        blocks.append("".join(between.join((word, "NN", "B-NP", tag)) + "\n" for word, tag in rows) + "\n")
    return "".join(blocks)


def iob1(tags: list[str]) -> list[str]:
    """Return IOB2 tags whose entities have no neighbours in IOB1."""
    return [tag.replace("B-", "I-") for tag in tags]


def parquet_of_tag_ids(folder: Path) -> list[Path]:
    tags = ["O", *(f"{prefix}-{label}" for label in TYPES for prefix in "BI")]
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "tokens": datasets.List(datasets.Value("string")),
            "pos_tags": datasets.List(datasets.Value("int64")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=tags)),
        }
    )
    rows = [
        {"id": str(n), "tokens": words, "pos_tags": [0] * len(words), "ner_tags": names}
        for n, (words, names) in enumerate(SENTENCES)
    ]
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "conll.parquet")
    return [folder / "conll.parquet"]


def word_rows() -> list[list[Any]]:
    """Return one word per row, with the number of the sentence in its first row."""
    return [
        [f"Sentence: {number}" if not position else "", word, "NN", tag]
        for number, sentence in enumerate(SENTENCES, start=1)
        for position, (word, tag) in enumerate(zip(*sentence, strict=True))
    ]


def parquet_of_class_ids(folder: Path) -> list[Path]:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "labels": datasets.List(datasets.ClassLabel(names=GENRES)),
            "id": datasets.Value("string"),
        }
    )
    for split in ("train", "test"):
        rows = [
            {"text": f"{split}: {text}", "labels": [GENRES.index(g) for g in genres], "id": f"{split}{n}"}
            for n, (text, genres) in enumerate(SEVERAL)
        ]
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return [folder / "train.parquet", folder / "test.parquet"]


KINDS: dict[str, Kind] = {
    "plain CSV": Kind(text_file("reviews.csv", delimited(HEADED)), ["text"], "label", ["negative", "positive"]),
    "CSV with semicolons and a decimal comma": Kind(
        text_file(
            "noten.csv",
            delimited(
                [["Kommentar Text", "Note"], *([text, f"{n % 7},{n % 10}"] for n, text in enumerate(PAIRS))], ";"
            ),
        ),
        ["Kommentar Text"],
        "Note",
        [],
    ),
    "TSV without header and with quotes in the texts, like SMSSpam": Kind(
        text_file("SMSSpamCollection", lines([[label, text] for text, label in QUOTED])),
        ["column2"],
        "column1",
        ["ham", "spam"],
    ),
    "Latin-1 without header, all quoted, like sentiment140": Kind(
        text_file(
            "training.1600000.processed.noemoticon.csv",
            delimited(
                [
                    [
                        "4" if good else "0",
                        str(1467810369 + n),
                        "Mon Apr 06 22:19:45 PDT 2009",
                        "NO_QUERY",
                        f"user{n}",
                        text,
                    ]
                    for n, (text, good) in enumerate(sentences(accents=" café"))
                ],
                quoting=csv.QUOTE_ALL,
            ),
            "latin-1",
        ),
        ["column6"],
        "column1",
        ["0", "4"],
    ),
    "Windows-1252 with smart quotes and three empty columns, like Kaggle's spam.csv": Kind(
        text_file(
            "spam.csv",
            delimited(
                [
                    ["v1", "v2", "", "", ""],
                    *([label, f"don’t {text} – £100", "", "", ""] for text, label in binary(("ham", "spam"))),
                ]
            ),
            "cp1252",
        ),
        ["v2"],
        "v1",
        ["ham", "spam"],
    ),
    "UTF-16, as Excel saves Unicode text": Kind(
        text_file("unicode.txt", lines([["text", "label"], *binary(accents=" été")]), "utf-16"),
        ["text"],
        "label",
        ["negative", "positive"],
    ),
    "CSV with a byte order mark": Kind(
        text_file("export.csv", delimited(HEADED), "utf-8-sig"), ["text"], "label", ["negative", "positive"]
    ),
    "Cyrillic in Windows-1251": Kind(
        text_file(
            "otzyvy.csv",
            delimited(
                [
                    ["text", "label"],
                    *(
                        [f"Это очень хороший фильм, мне понравилось всё {n}", "да" if n % 2 else "нет"]
                        for n in range(ROWS)
                    ),
                ]
            ),
            "cp1251",
        ),
        ["text"],
        "label",
        ["да", "нет"],
    ),
    "CSV with an index column, as pandas writes it": Kind(
        text_file("frame.csv", delimited([["", "text", "label"], *([n, *row] for n, row in enumerate(binary()))])),
        ["text"],
        "label",
        ["negative", "positive"],
    ),
    "CSV with backslashes before quotes": Kind(
        text_file(
            "mysql.csv",
            "text,label\n"
            + "".join(f'"a \\"{text}\\" film, {n}",{label}\n' for n, (text, label) in enumerate(binary())),
        ),
        ["text"],
        "label",
        ["negative", "positive"],
    ),
    "texts with line breaks in quotes": Kind(
        text_file(
            "letters.csv",
            delimited(
                [
                    ["body", "topic"],
                    *([f"Dear shop,\n{text}\r\nYours", label] for text, label in binary(("bill", "order"))),
                ]
            ),
        ),
        ["body"],
        "topic",
        ["bill", "order"],
    ),
    "separated by bars": Kind(
        text_file("news.txt", lines([["headline", "category"], *binary(("sport", "world"))], "|")),
        ["headline"],
        "category",
        ["sport", "world"],
    ),
    "JSON lines named .json": Kind(
        text_file(
            "Reviews.json",
            "".join(
                json.dumps({"reviewText": row["text"], "overall_score": n % 5 + 1.0, "asin": f"B{n}"}) + "\n"
                for n, row in enumerate(records())
            ),
        ),
        ["reviewText"],
        "overall_score",
        ["1", "2", "3", "4", "5"],
    ),
    "JSON array": Kind(
        text_file("array.json", json.dumps(records(), indent=1)), ["text"], "label", ["negative", "positive"]
    ),
    "nested JSON with the rows inside": Kind(
        text_file(
            "api.json",
            json.dumps(
                {
                    "meta": {"pages": 1},
                    "data": {
                        "items": [
                            {"review": {"body": r["text"]}, "verdict": {"label": r["label"]}, "tags": ["a", "b"]}
                            for r in records()
                        ]
                    },
                }
            ),
        ),
        ["review.body"],
        "verdict.label",
        ["negative", "positive"],
    ),
    "JSON by column, as pandas writes it": Kind(
        frame_file("columns.json", lambda frame, file: frame.to_json(file), records()),
        ["text"],
        "label",
        ["negative", "positive"],
    ),
    "Parquet with true and false": Kind(
        frame_file(
            "toxic.parquet",
            lambda frame, file: frame.to_parquet(file),
            [{"comment_text": t, "toxic": good} for t, good in sentences()],
        ),
        ["comment_text"],
        "toxic",
        ["false", "true"],
    ),
    "Arrow": Kind(
        frame_file(
            "table.feather",
            lambda frame, file: pyarrow.feather.write_feather(pa.Table.from_pandas(frame), file),
            records(),
        ),
        ["text"],
        "label",
        ["negative", "positive"],
    ),
    "Excel, the first of two sheets": Kind(
        excel, ["text"], "label", ["negative", "positive"], id="id", needs="openpyxl"
    ),
    "zip of a CSV, with what macOS adds": Kind(
        zipped("archive.zip", data__csv=delimited(HEADED)), ["text"], "label", ["negative", "positive"]
    ),
    "zip of train and test beside a readme": Kind(
        zipped(
            "corpus.zip",
            README__md="about",
            train__tsv=lines(HEADED),
            test__tsv=lines([["text", "label"], *([f"test {text}", label] for text, label in binary())]),
        ),
        ["text"],
        "label",
        ["negative", "positive"],
        {"train": ROWS, "test": ROWS},
    ),
    "gzip of a TSV": Kind(
        bytes_file("reviews.tsv.gz", gzip.compress(lines(HEADED).encode())), ["text"], "label", ["negative", "positive"]
    ),
    "bzip2 of JSON lines": Kind(
        bytes_file("rows.jsonl.bz2", bz2.compress("".join(json.dumps(r) + "\n" for r in records()).encode())),
        ["text"],
        "label",
        ["negative", "positive"],
    ),
    "xz of a CSV": Kind(
        bytes_file("rows.csv.xz", lzma.compress(delimited(HEADED).encode())),
        ["text"],
        "label",
        ["negative", "positive"],
    ),
    "lines of fastText": Kind(
        text_file(
            "food.train.txt", "".join(f"__label__{label} {text}\n" for text, label in binary(("baking", "sauce")))
        ),
        ["text"],
        "label",
        ["baking", "sauce"],
    ),
    "a folder of texts for each label, like IMDb": Kind(
        class_folders, ["text"], "label", ["neg", "pos"], {"train": ROWS, "test": ROWS}, id="file"
    ),
    "a folder that datasets saved": Kind(
        saved_dataset, ["text"], "label", ["ham", "spam"], dict.fromkeys(("train", "validation", "test"), ROWS)
    ),
    "a column of splits": Kind(
        text_file(
            "all.csv",
            delimited(
                [
                    ["text", "label", "split"],
                    *(
                        [*row, ("train", "train", "train", "train", "dev", "test")[n // 2 % 6]]
                        for n, row in enumerate(binary())
                    ),
                ]
            ),
        ),
        ["text"],
        "label",
        ["negative", "positive"],
        {"train": 40, "validation": 10, "test": 10},
    ),
    "train, dev and test in other orders and names of columns": Kind(
        several(
            train__tsv=lines(HEADED),
            dev__tsv=lines([["label", "text"], *([label, f"dev {text}"] for text, label in binary())]),
            test__tsv=lines([["Label", "sentence"], *([label, f"test {text}"] for text, label in binary())]),
        ),
        ["text"],
        "label",
        ["negative", "positive"],
        dict.fromkeys(("train", "validation", "test"), ROWS),
    ),
    "train with a test file without labels, like Kaggle": Kind(
        several(
            train__csv=delimited(HEADED),
            test__csv=delimited([["text"], *([f"test {text}"] for text, _ in binary())])
            .replace("text\n", "text,note\n", 1)
            .replace("\n", ",x\n")
            .replace("note,x", "note"),
        ),
        ["text"],
        "label",
        ["negative", "positive"],
    ),
    "numeric ids with names": Kind(
        text_file(
            "labeled_data.csv",
            delimited(
                [["", "count", "class", "tweet"], *([n, 3 + n % 2, n % 3, text] for n, text in enumerate(PAIRS))]
            ),
        ),
        ["tweet"],
        "class",
        ["hate", "neither", "offensive"],
        options={"names": {"0": "hate", "1": "offensive", "2": "neither"}},
    ),
    "pairs with a score, like STS-B": Kind(
        text_file(
            "sts-dev.tsv",
            lines(
                [
                    ["index", "genre", "score", "sentence1", "sentence2"],
                    *([n, "news", f"{n % 25 / 5:.3f}", text, f"{text}, too"] for n, text in enumerate(PAIRS)),
                ]
            ),
        ),
        ["sentence1", "sentence2"],
        "score",
        [],
        id="index",
    ),
    "pairs with three labels and some without, like SNLI": Kind(
        text_file(
            "snli.jsonl",
            "".join(
                json.dumps(
                    {
                        "gold_label": "-" if n % 20 == 19 else NLI[n % 3],
                        "annotator_labels": ["neutral"],
                        "sentence1": text,
                        "sentence1_parse": f"( {text} )",
                        "sentence2": f"{text} again",
                        "pairID": f"{n}.jpg#0r1n",
                    }
                )
                + "\n"
                for n, text in enumerate(PAIRS)
            ),
        ),
        ["sentence1", "sentence2"],
        "gold_label",
        sorted(NLI),
        {"train": 57},
        id="pairID",
    ),
    "numeric labels with title and description, like AG News": Kind(
        several(
            train__csv=delimited(
                [
                    ["Class Index", "Title", "Description"],
                    *([n % 4 + 1, f"Title {n} of the story", text] for n, text in enumerate(PAIRS)),
                ],
                quoting=csv.QUOTE_ALL,
            ),
            test__csv=delimited(
                [
                    ["Class Index", "Title", "Description"],
                    *([n % 4 + 1, f"Title {n} of a test", f"test {text}"] for n, text in enumerate(PAIRS)),
                ],
                quoting=csv.QUOTE_ALL,
            ),
        ),
        ["Title", "Description"],
        "Class Index",
        ["1", "2", "3", "4"],
        {"train": ROWS, "test": ROWS},
    ),
    "reviews with stars": Kind(
        text_file(
            "yelp.csv",
            delimited(
                [
                    ["review_id", "business_id", "date", "stars", "text", "useful"],
                    *([f"r{n}", f"b{n % 20}", "2011-01-26", n % 5 + 1, text, n % 4] for n, text in enumerate(PAIRS)),
                ]
            ),
        ),
        ["text"],
        "stars",
        ["1", "2", "3", "4", "5"],
        id="review_id",
        group="business_id",
    ),
    "stars as numbers": Kind(
        text_file("stars.csv", delimited([["review", "stars"], *([text, n % 5 + 1] for n, text in enumerate(PAIRS))])),
        ["review"],
        "stars",
        [],
        options={"task": "regression"},
    ),
    "tweets with id and user": Kind(
        text_file("tweets.csv", delimited(TWEETS)), ["text"], "label", ["negative", "positive"], id="id", group="user"
    ),
    "questions with twenty intents as text": Kind(
        text_file(
            "banking.csv",
            delimited([["text", "category"], *([text, f"intent_{n % 20:02}"] for n, text in enumerate(PAIRS))]),
        ),
        ["text"],
        "category",
        [f"intent_{n:02}" for n in range(20)],
    ),
    "labels that YAML would read as other types": Kind(
        text_file(
            "yesno.csv",
            delimited(
                [
                    ["question", "answer_label"],
                    *([text, ("yes", "no", "null", "010", "${seed}")[n % 5]] for n, text in enumerate(PAIRS)),
                ]
            ),
        ),
        ["question"],
        "answer_label",
        ["010", "${seed}", "no", "null", "yes"],
    ),
    "a folder of several tables": Kind(
        lambda folder: [
            several(
                a__csv=delimited(HEADED),
                b__csv=delimited([["text", "label"], *([f"more {text}", label] for text, label in binary())]),
            )(folder)[0].parent
        ],
        ["text"],
        "label",
        ["negative", "positive"],
        {"train": 2 * ROWS},
    ),
    "lists of labels in JSON lines": Kind(
        text_file("posts.jsonl", "".join(json.dumps({"text": t, "topics": c}) + "\n" for t, c in SEVERAL)),
        ["text"],
        "topics",
        GENRES,
    ),
    "lists of class ids in Parquet, like GoEmotions": Kind(
        parquet_of_class_ids, ["text"], "labels", GENRES, {"train": ROWS, "test": ROWS}, id="id"
    ),
    "genres between bars in CSV": Kind(
        text_file("films.csv", delimited([["plot", "year", "genres"], *([t, 2000, "|".join(c)] for t, c in SEVERAL)])),
        ["plot"],
        "genres",
        GENRES,
    ),
    "ids of labels between commas, with names": Kind(
        text_file("ids.tsv", lines([["text", "label"], *([t, ",".join(map(_genre_id, c))] for t, c in SEVERAL)])),
        ["text"],
        "label",
        GENRES,
        options={"names": dict(zip("0123", GENRES, strict=True))},
    ),
    "a column of 0 and 1 for each label, like Jigsaw's comments": Kind(
        text_file(
            "comments.csv",
            delimited([["id", "comment_text", *GENRES], *([n, t, *_flags(c)] for n, (t, c) in enumerate(SEVERAL))]),
        ),
        ["comment_text"],
        "labels",
        GENRES,
        id="id",
    ),
    "CoNLL with four columns and documents, like CoNLL-2003": Kind(
        several(
            eng__train=conll(documents=5),
            eng__testa=conll(documents=5, prefix="dev-"),
            eng__testb=conll(documents=5, prefix="test-"),
        ),
        ["words"],
        "tags",
        TYPES,
        dict.fromkeys(("train", "validation", "test"), ROWS),
    ),
    "CoNLL with tabs and documents to keep together": Kind(
        text_file("news.conll", conll("\t", documents=5)), ["words"], "tags", TYPES, group="document"
    ),
    "words and tags in IOB1 with comments, like WNUT": Kind(
        text_file(
            "tweets.txt",
            "".join(
                f"# id {n} domain=en\n" + lines([*map(list, zip(words, iob1(tags), strict=True))]) + "\n"
                for n, (words, tags) in enumerate(SENTENCES)
            ),
        ),
        ["words"],
        "tags",
        TYPES,
    ),
    "lists of words and of tags in JSON lines": Kind(
        text_file("tokens.jsonl", "".join(json.dumps({"tokens": w, "ner": t}) + "\n" for w, t in SENTENCES)),
        ["tokens"],
        "ner",
        TYPES,
    ),
    "lists of words and of tag ids in Parquet, like the Hub's conll2003": Kind(
        parquet_of_tag_ids, ["tokens"], "ner_tags", TYPES, id="id"
    ),
    "texts with triples, as Doccano writes them": Kind(
        text_file(
            "doccano.jsonl",
            "".join(json.dumps({"id": n, "text": t, "label": s}) + "\n" for n, (t, s) in enumerate(SPANS)),
        ),
        ["text"],
        "label",
        TYPES,
        id="id",
    ),
    "texts with spans beside tokens and rejected rows, as Prodigy writes them": Kind(
        text_file(
            "prodigy.jsonl",
            "".join(
                json.dumps(
                    {
                        "text": text,
                        "tokens": [{"text": word, "id": k} for k, word in enumerate(text.split())],
                        "spans": [{"start": s, "end": e, "label": name, "token_start": 0} for s, e, name in spans],
                        "answer": "accept" if n % 6 else "reject",
                    }
                )
                + "\n"
                for n, (text, spans) in enumerate(SPANS)
            ),
        ),
        ["text"],
        "spans",
        TYPES,
        {"train": 50},
    ),
    "texts with lists of labels in spans, as Label Studio writes them": Kind(
        text_file(
            "project.json",
            json.dumps(
                [
                    {
                        "text": t,
                        "id": n,
                        "label": [{"start": s, "end": e, "labels": [x]} for s, e, x in f],
                    }
                    for n, (t, f) in enumerate(SPANS)
                ]
            ),
        ),
        ["text"],
        "label",
        TYPES,
        id="id",
    ),
    "words and tags between spaces in CSV": Kind(
        text_file("tags.csv", delimited([["sentence", "tags"], *([" ".join(w), " ".join(t)] for w, t in SENTENCES)])),
        ["sentence"],
        "tags",
        TYPES,
    ),
    "one word per row with the number of the sentence in the first, like Kaggle's ner_dataset": Kind(
        text_file("ner_dataset.csv", delimited([["Sentence #", "Word", "POS", "Tag"], *word_rows()]), "cp1252"),
        ["Word"],
        "Tag",
        TYPES,
    ),
}
