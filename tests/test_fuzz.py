"""Whatever a user or a server gives, the outcome is success or one line: recipes, tables, model folders, answers.

`make test` runs some 150 cases, `make test-full` 25,000. Every accepted one is compared with what was given.
"""

import contextlib
import copy
import csv
import gzip
import io
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from datasets import Dataset
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hub import COMMIT, LocalHub, serving
from reprise.commands.compose import compose_recipe, write_recipe
from reprise.core.config import HubDataset, LocalDataset, to_dict
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe, read_recipe
from reprise.data.format import split_shards
from reprise.fetch import hub
from reprise.fetch.local import find_dataset
from reprise.fetch.model_files import copy_model_files
from reprise.hub import limits as hub_limits
from reprise.prepare.stage import prepare
from reprise.train.preflight import preflight
from tiny import ROOT, TINY_RECIPE, tiny_recipe

RecordProperty = Callable[[str, object], None]  # of pytest's fixture `record_property`
MEMORY = 2**34  # bytes of address space, so that a case that would take all memory fails
LONGEST_S = 10  # of a case, beyond which it counts as a hang


def cases(default: int, full: int) -> list[Any]:
    """Return the number of cases for `make test` and, marked, for `make test-full`."""
    return [default, pytest.param(full, marks=[pytest.mark.full, pytest.mark.timeout(3600)])]


def run_cases(
    number: int,
    strategy: st.SearchStrategy[Any],
    attempt: Callable[[Any], object],
    report: RecordProperty,
) -> None:
    """Try a number of random cases; report how many succeeded and how many were refused."""
    outcomes, problems, longest = {"success": 0, "refused": 0}, list[str](), 0.0

    @settings(
        max_examples=number, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def try_one(case: Any) -> None:
        nonlocal longest
        start = time.perf_counter()
        try:
            attempt(case)
            outcomes["success"] += 1
        except UserError as error:
            outcomes["refused"] += 1
            problems.extend([str(error)] if len(str(error).splitlines()) != 1 or len(str(error)) > 2000 else [])
        longest = max(longest, time.perf_counter() - start)
        assert longest < LONGEST_S, case

    try_one()
    report("outcomes", f"{sum(outcomes.values())} random cases: {outcomes}, the longest took {longest:.1f} s")
    assert problems == []
    assert sum(outcomes.values()) >= number
    assert min(outcomes.values()) > 0, "the cases are all of one kind"


# params.yaml

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=8), st.integers(), st.dates(),
    st.sampled_from(["auto", "text", "1e-4", "train", "${seed}", "../x", "", "yes", "0x1F", 2**63, 2**70, 10**12]),
)  # fmt: skip
# Pieces of YAML that replace some bytes.
PIECES = [
    b"2020-13-45", b"9" * 5000, b"0x" + b"f" * 4000, b"[" * 500, b"&a [*a]", b"*a", b"<<: *a", b"&a x", b"!!set {a}",
    b"!!binary x", b"!!python/name:os", b"? [a]\n: b", b"\n---\n", b"%YAML 1.1\n", b"\xef\xbb\xbf", b"\r", b"\t",
    b"{", b"'",
    b"|\n", b"1_000", b".inf", b".nan", b"~", b"1:30", b"x" * 10_000, b"12:30:45", b"0o7", b"=", b"<<", b"#", b"- ",
]  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


def paths_of(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key in nested dictionaries."""
    for key, value in content.items() if isinstance(content, dict) else ():
        yield (*path, key)
        yield from paths_of(value, (*path, key))


@st.composite
def recipes(draw: st.DrawFn) -> bytes:
    """The tiny recipe as YAML, with some keys removed, added or given another value, and some bytes replaced."""
    content: dict[str, Any] = copy.deepcopy(TINY_RECIPE)
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        *sections, last = draw(st.sampled_from(sorted(paths_of(TINY_RECIPE))))
        section: Any = content
        for name in sections:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            continue
        action = draw(st.sampled_from(["change", "remove", "add"]))
        if action == "remove":
            section.pop(last, None)
        elif action == "add":
            section[draw(st.text(max_size=5))] = draw(VALUES)
        elif isinstance(value := section.get(last), int | float) and draw(st.booleans()):
            section[last] = value * draw(st.sampled_from([-1, 0, 2, 10]))
        else:
            section[last] = draw(VALUES)
    return mutated(draw, yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True).encode())


def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Replace a few bytes, or none."""
    text = bytearray(content)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, max(len(text) - 1, 0)))
        piece = draw(st.one_of(st.binary(max_size=3), st.sampled_from(PIECES)))
        text[place : place + draw(st.integers(0, 3))] = piece
    return bytes(text)


@pytest.mark.parametrize("number", cases(60, 20_000))
def test_any_recipe_is_read_or_refused(tmp_path: Path, record_property: RecordProperty, number: int) -> None:
    def attempt(text: bytes) -> None:
        (tmp_path / "params.yaml").write_bytes(text)
        recipe = read_recipe(tmp_path / "params.yaml")
        assert check_recipe(json.loads(json.dumps(to_dict(recipe))), "the same") == recipe

    run_cases(number, recipes(), attempt, record_property)


# Files of the catalog

CATALOG = ("config.yaml", "train/default.yaml", "model/minilm.yaml", "task/rotten-tomatoes.yaml")
LINES = [
    "seed: 7", "x: 1", "seed: ${train.epochs}", "name: ${task.name}", "a: ${b}${b}", "  - ${oc.env:HOME}", "task: null",
    "defaults: [x]", "  - /etc/passwd", "  - ../x: y", "  - override hydra/help: x", "hydra: {searchpath: [file:///]}",
    "# @package nowhere", "epochs: ???", "_target_: os.system", "<<: {seed: 1}", "a: &a [*a]", "  - optional x: y",
    "name: ${name}", "epochs: ${epochs}", "labels: ${task.labels}", "seed: 2020-13-45", "seed: " + "9" * 5000,
    "[" * 300,
]  # fmt: skip
OVERRIDES = [
    [], ["train.epochs=3"], ["seed=7"], ["train.epochs=${seed}"], ["task=../../x"], ["+x=1"], ["~seed"],
    ["model=x"], ["="],
    ["task.labels=[a,b]"], ["train=default", "train=default"], ["task.labels=" + "[" * 60], ["seed=" + "9" * 5000],
    ["x=${"],
]  # fmt: skip


@st.composite
def catalogs(draw: st.DrawFn) -> tuple[str, bytes, list[str]]:
    """A file of the catalog with some lines replaced or added and some bytes changed, and overrides."""
    name = draw(st.sampled_from(CATALOG))
    lines = (ROOT / "recipes" / name).read_text(encoding="utf-8").splitlines()
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        place = draw(st.integers(0, len(lines) - 1))
        lines[place : place + draw(st.integers(0, 1))] = [draw(st.sampled_from(LINES))]
    return name, mutated(draw, "\n".join(lines).encode()), draw(st.sampled_from([[], *OVERRIDES]))


@pytest.mark.parametrize("number", cases(15, 2000))
def test_any_file_of_the_catalog_is_composed_or_refused(
    tmp_path: Path, record_property: RecordProperty, number: int
) -> None:
    for name in CATALOG:
        (tmp_path / "recipes" / name).parent.mkdir(parents=True, exist_ok=True)

    def attempt(case: tuple[str, bytes, list[str]]) -> None:
        changed, content, overrides = case
        for name in CATALOG:
            shutil.copyfile(ROOT / "recipes" / name, tmp_path / "recipes" / name)
        (tmp_path / "recipes" / changed).write_bytes(content)
        recipe = compose_recipe(overrides, tmp_path / "recipes")
        write_recipe(recipe, overrides, tmp_path / "params.yaml")
        assert to_dict(read_recipe(tmp_path / "params.yaml")) == recipe

    run_cases(number, catalogs(), attempt, record_property)


# Tables

ODD_CELLS = st.one_of(
    st.sampled_from([
        "", " ", "\"", "a \"quoted\" word", "x\ty", "two\nlines", "fresh", "-1", "NA", "null", "1e5", "2020-01-01",
        "\u2028",
        "\x85", "=1+1", "a,b", "\ufeff", "nan", "007", "true", "-0", "9" * 400, "x" * 5000,
    ]),
    st.text(max_size=10),
)  # fmt: skip
ODD_VALUES = st.one_of(
    ODD_CELLS, st.none(), st.booleans(), st.integers(), st.floats(), st.just([1, "x"]), st.just({"a": {"b": [None]}}),
    st.sampled_from([2**63, 2**53 + 1, 10**400, 1e308]),
)  # fmt: skip
STEMS = ["table", "q[1]", "q*", "$HOME", "a::b", "http:x", "a b", "{a,b}", "~", "ü", "q?"]
SUFFIXES = [".csv", ".csv", ".tsv", ".tsv", ".jsonl", ".jsonl", ".parquet", ".csv.gz", ".txt"]


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A name with an extension, and a table that more or less fits the tiny recipe."""
    suffix = draw(st.sampled_from(SUFFIXES))
    columns = draw(
        st.sampled_from([["number", "text", "verdict"]] * 5 + [["", "text", "verdict"], ["text"], ["text"] * 3])
    )
    rows = [
        [f"{['bright', 'dull'][index % 2]} film {index}" if name == "text" else ["fresh", "rotten"][index % 2]
         if name == "verdict" else str(index) for name in columns]
        for index in range(draw(st.sampled_from([0, 1, 30, 40])))
    ]  # fmt: skip
    for _ in range(draw(st.integers(0, 2)) if rows else 0):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = draw(ODD_VALUES if suffix == ".jsonl" else ODD_CELLS)
    if suffix == ".jsonl":
        text = "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    else:
        quote = suffix in (".csv", ".csv.gz") and draw(st.booleans())
        lines = [['"' + cell.replace('"', '""') + '"' if quote else cell for cell in row] for row in [columns, *rows]]
        text = "\n".join(map({".tsv": "\t"}.get(suffix, ",").join, lines))
    content = bytearray((text + draw(st.sampled_from(["\n", "", "\n\n"]))).encode("utf-8", "replace"))
    if suffix == ".parquet" and len(set(columns)) == 3 and draw(st.integers(0, 9)):
        sink = io.BytesIO()
        pq.write_table(pa.table({name: [row[n] for row in rows] for n, name in enumerate(columns)}), sink)
        content = bytearray(sink.getvalue())
    if suffix == ".csv.gz":
        content = bytearray(gzip.compress(bytes(content), mtime=0))
    if draw(st.sampled_from([False, False, True])):
        place = draw(st.integers(0, len(content)))
        content[place : place + 1] = draw(st.sampled_from([b"\0", b"\xff", b'"', b"\r", b"\xef\xbb\xbf", b""]))
    return draw(st.sampled_from(["table"] * 5 + STEMS)) + suffix, bytes(content)


def read_independently(file: Path) -> list[dict[str, Any]]:
    """Read a table with other libraries than reprise does, as far as a table can be read at all."""
    content = file.read_bytes()
    if file.suffix == ".gz":
        content = gzip.decompress(content)
    match file.suffixes[-1] if file.suffix != ".gz" else ".csv":
        case ".parquet":
            # The recipe's columns: what a damaged byte did to another one is never read.
            return list(pq.read_table(file, columns=["text", "verdict"]).to_pylist())
        case ".jsonl":
            return [json.loads(line) for line in io.StringIO(content.decode(), newline=None) if line.strip()]
        case suffix:
            text = io.StringIO(content.decode("utf-8-sig"), newline="")
            form: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if suffix == ".tsv" else {}
            names, *rows = [
                row for row in csv.reader(text, **form) if row and not (len(row) == 1 and not row[0].strip())
            ]
            return [dict(zip(names, row, strict=True)) for row in rows]


def assert_prepared_as_given(file: Path, labels: list[str]) -> None:
    """Check that each prepared example is a row of the table, and that only rows without text are missing."""
    given = {str(number): row for number, row in enumerate(read_independently(file))}
    files = [file for split in ("train", "validation", "test") for file in split_shards(split)]
    prepared = {row["id"]: row for file in files for row in Dataset.from_file(str(file)).to_list()}
    assert {number for number, row in given.items() if row["text"].strip()} <= prepared.keys() <= given.keys()
    for number, row in prepared.items():
        assert (row["text"], labels[row["label"]]) == (given[number]["text"], given[number]["verdict"])


@pytest.mark.parametrize("number", cases(30, 2000))
def test_any_table_is_prepared_as_given_or_refused(
    prepared_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: RecordProperty,
    number: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    shutil.copytree(prepared_dir / "models", "models")
    changes = {"task.split.group_by": None, "task.filter": None, "task.id_column": None}

    def attempt(case: tuple[str, bytes]) -> None:
        name, content = case
        shutil.rmtree("data", ignore_errors=True)
        Path("data/raw/all").mkdir(parents=True)
        Path("data/own").mkdir()
        Path("data/own/q1.csv").write_text("text,verdict\nanother table,fresh\n", encoding="utf-8")
        Path("data/own", name).write_bytes(content)
        recipe = check_recipe(tiny_recipe(**{"task.source.train": f"data/own/{name}"}, **changes), "test")
        assert isinstance(recipe.task.source, LocalDataset)
        for split, file in find_dataset(recipe.task.source):
            shutil.copyfile(file, Path("data/raw", split) / file.name)
        prepare(recipe.task, max_length=recipe.train.max_length)
        assert_prepared_as_given(Path("data/own", name), recipe.task.labels)

    run_cases(number, tables(), attempt, record_property)


# Model folders

CONFIG_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 70), st.sampled_from(["gelu", "bert", "x", [], {}, 10**6, 2**31,
    2**70, 1e400]),
)  # fmt: skip


# Files with other content than their name says: a page of a web server, a pointer, deep and long JSON, a wrong header.
REPLACED = [
    ("config.json", b"<html>not found</html>"), ("model.safetensors", b"<html>"), ("tokenizer.json", b"[" * 100_000),
    ("config.json", b"[" * 100_000), ("config.json", b'{"model_type": "bert", "x": ' + b"9" * 5000 + b"}"),
    ("model.safetensors", (2**62).to_bytes(8, "little") + b"{}"), ("model.safetensors", b"\2\0\0\0\0\0\0\0{}"),
    ("tokenizer.json", b"{}"), ("tokenizer_config.json", b'{"tokenizer_class": "os.system"}'), ("config.json", b"\xff"),
    ("tokenizer_config.json", b"[]"), ("config.json", b"[]"), ("vocab.txt", b"\xff\xfe"), ("vocab.txt", b""),
]  # fmt: skip


@st.composite
def model_changes(draw: st.DrawFn) -> dict[str, Any]:
    """Changes to the files of the tiny model: entries of config.json, names and shapes of weights, cut files."""
    keys = [
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "model_type",
        "type_vocab_size", "max_position_embeddings", "pad_token_id", "hidden_act", "return_dict", "id2label",
        "architectures", "hidden_dropout_prob", "torch_dtype", "layer_norm_eps", "is_decoder", "problem_type",
        "num_labels", "position_embedding_type", "initializer_range", "output_attentions", "use_cache",
    ]  # fmt: skip
    return {
        "config": draw(st.dictionaries(st.sampled_from(keys), CONFIG_VALUES, max_size=2)),
        "weights": draw(st.sampled_from(["", "", "module.", "bert.", "x"])),
        "lost": draw(st.sampled_from([None, None, None, 0, 5, 20])),
        "cut": draw(st.sampled_from([None, None, None, "config.json", "model.safetensors", "tokenizer.json"])),
        "replaced": draw(st.sampled_from([None] * 5 + REPLACED)),
        "removed": draw(st.sampled_from([None, None, None, "tokenizer.json", "tokenizer_config.json", "config.json"])),
    }


@pytest.mark.parametrize("number", cases(20, 500))
def test_any_model_folder_passes_or_is_refused(
    prepared_dir: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: RecordProperty,
    request: pytest.FixtureRequest,
    number: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    request.addfinalizer(partial(resource.setrlimit, resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS)))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    shutil.copytree(prepared_dir / "data", "data")
    recipe = check_recipe(tiny_recipe(), "test")

    def attempt(changes: dict[str, Any]) -> None:
        for folder in ("source", "models"):
            shutil.rmtree(folder, ignore_errors=True)
        source = Path(shutil.copytree(tiny_model, "source"))
        change_model(source, changes)
        Path("models/pretrained").mkdir(parents=True)
        copy_model_files(source, Path("models/pretrained"), "source")
        preflight(recipe)

    run_cases(number, model_changes(), attempt, record_property)


def change_model(source: Path, changes: dict[str, Any]) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | changes["config"]))
    weights: dict[str, torch.Tensor] = load_file(source / "model.safetensors")
    names = sorted(weights)
    if changes["lost"] is not None:
        weights.pop(names[changes["lost"]])
    save_file(
        {f"{changes['weights']}{name}": weight for name, weight in weights.items()},
        source / "model.safetensors",
        {"format": "pt"},
    )
    if changes["cut"]:
        file = source / changes["cut"]
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    if changes["replaced"]:
        name, content = changes["replaced"]
        (source / name).write_bytes(content)
    if changes["removed"]:
        (source / changes["removed"]).unlink(missing_ok=True)


# Answers of a server in place of the Hub

REPOSITORY = {
    "mrpc/train-00000-of-00001.parquet": b"rows to train on",
    "mrpc/validation-00000-of-00001.parquet": b"rows to validate on",
}
HEADERS = [
    ("ETag", '"../../../escaped"'), ("ETag", ""), ("ETag", '"' + "a" * 3000 + '"'), ("X-Repo-Commit", "../../escaped"),
    ("X-Repo-Commit", "f" * 40), ("Content-Length", "999999999999"), ("Content-Length", "-1"), ("Content-Length", "x"),
    ("Location", "file:///etc/passwd"), ("Location", "http://127.0.0.1:9/x"), ("Location", "/"), ("Location", "gopher://x"),
    ("Content-Encoding", "gzip"), ("Retry-After", "86400"), ("Retry-After", "1"), ("Retry-After", "9" * 5000),
    ("RateLimit", '"api";r=0;t=86400'), ("Link", '</x>; rel="next"'), ("Link", '<file:///x>; rel="next"'),
    ("X-Linked-Size", "5"), ("X-Linked-Etag", '"/etc/passwd"'), ("X-Xet-Hash", "0"), ("Content-Type", "text/html"),
    ("X-Error-Code", "EntryNotFound"), ("X-Error-Message", "no"), ("Transfer-Encoding", "chunked"),
    ("WWW-Authenticate", "x"),
]  # fmt: skip
LISTED = ["mrpc/..-x.parquet", "../x.parquet", "/etc/passwd", "mrpc/../../x.parquet", "mrpc/train-\0.parquet",
"mrpc/train-" + "x" * 300 + ".parquet",
          "mrpc/train-\n.parquet", "mrpc\\train.parquet", "mrpc/train-/x.parquet", ""]  # fmt: skip
BODIES = [
    b"", b"<html>Sign in</html>", b"{}", b"[]", b"[1]", b"null", b"[" * 100_000, b"[{}]", b'[{"type": "file"}]',
    b'[{"type": "file", "path": 5, "size": 1, "oid": "x"}]', b"9" * 5000, b"\xff", b'"x"', b"[[]]",
    *(json.dumps([{"type": "file", "path": path, "size": 1, "oid": "0" * 40}]).encode() for path in LISTED),
]  # fmt: skip


CACHE = ("datasets--tiny--pairs", ".locks", "CACHEDIR.TAG")  # what the client writes


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """What a server changes in its answers of one kind: the list, the headers of a file, or its content."""
    return {
        "of": draw(st.sampled_from(["/tree/", "HEAD", "GET /datasets", ""])),
        "status": draw(
            st.sampled_from([None] * 6 + [200, 204, 206, 301, 302, 307, 400, 401, 403, 404, 416, 429, 500, 503])
        ),
        "headers": draw(st.lists(st.sampled_from(HEADERS), max_size=2)),
        "body": draw(st.one_of(st.none(), st.none(), st.sampled_from(BODIES), st.binary(max_size=20))),
        "sends": draw(st.sampled_from([None] * 12 + ["without end", "slowly", "nothing"])),
    }


def pieces(sends: str) -> Iterator[bytes]:
    while True:
        time.sleep(0.001 if sends == "without end" else 0.05)
        yield {"without end": b" " * 2**20, "slowly": b" ", "nothing": b""}[sends]


@pytest.mark.parametrize("number", cases(30, 500))
def test_any_answer_of_a_server_is_kept_in_the_cache_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: RecordProperty, number: int
) -> None:
    sleep = time.sleep
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: sleep(min(seconds, 0.01)))
    (tmp_path / "homes").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name, value in {"READ_TIMEOUT_S": 0.2, "STALL_S": 0.5, "LISTING_S": 1.0, "MAX_UNSIZED_BYTES": 2**22}.items():
        monkeypatch.setattr(hub_limits, name, value)
    source = HubDataset("hub", "tiny/pairs", "mrpc", COMMIT)

    with serving(LocalHub()) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        server.add("dataset", "tiny/pairs", REPOSITORY)

        def attempt(changes: dict[str, Any]) -> None:
            def lies(request: str, status: int, headers: dict[str, str], body: bytes) -> Any:
                if changes["of"] not in request:
                    return status, headers, body
                headers |= {name: value.replace("/x", request.split()[1]) for name, value in changes["headers"]}
                if changes["body"] is not None:
                    body = changes["body"]
                    headers["Content-Length"] = str(len(body))
                content = pieces(changes["sends"]) if changes["sends"] else body
                return changes["status"] or status, headers, content

            home = tempfile.mkdtemp(dir=tmp_path / "homes")  # the client also remembers lists by path
            monkeypatch.setattr(constants, "HF_HUB_CACHE", home)
            server.lies = lies
            with contextlib.redirect_stdout(None):
                found = hub.download_dataset(source)
            assert found
            for _, file in found:
                assert file.resolve().is_relative_to(home)
                if not changes["body"]:
                    assert file.read_bytes() == REPOSITORY[f"mrpc/{file.name}"]

        run_cases(number, answers(), attempt, record_property)
    assert [path.name for path in tmp_path.iterdir()] == ["homes"]
    assert not [path for path in tmp_path.glob("homes/*/*") if path.name not in CACHE]
