"""Whatever a user gives, the outcome is success or one line: random recipes, tables and model folders.

`make test` runs 200 cases, `make test-full` 2,000.
"""

import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from reprise.core.config import LocalDataset
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe, read_recipe
from reprise.fetch.local import find_dataset
from reprise.fetch.model_files import copy_model_files
from reprise.prepare.stage import prepare
from reprise.train.preflight import preflight
from tiny import TINY_RECIPE, tiny_recipe

RecordProperty = Callable[[str, object], None]  # of pytest's fixture `record_property`
FULL = 10  # times the cases of the default suite


def cases(number: int) -> list[Any]:
    """Return the number of cases for `make test` and, marked, for `make test-full`."""
    return [number, pytest.param(FULL * number, marks=pytest.mark.full)]


def run_cases(
    number: int,
    strategy: st.SearchStrategy[Any],
    attempt: Callable[[Any], object],
    report: RecordProperty,
) -> None:
    """Try a number of random cases; report how many succeeded and how many were refused."""
    outcomes, problems = {"success": 0, "refused": 0}, list[str]()

    @settings(
        max_examples=number, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def try_one(case: Any) -> None:
        try:
            attempt(case)
            outcomes["success"] += 1
        except UserError as error:
            outcomes["refused"] += 1
            problems.extend([str(error)] if len(str(error).splitlines()) != 1 else [])

    try_one()
    report("outcomes", f"{sum(outcomes.values())} random cases: {outcomes}")
    assert problems == []
    assert sum(outcomes.values()) >= number
    assert min(outcomes.values()) > 0, "the cases are all of one kind"


# params.yaml

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=8),
    st.sampled_from(["auto", "text", "1e-4", "train", "${seed}", "../x", "", "yes", "0x1F"]),
)  # fmt: skip
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
    with tempfile.TemporaryFile() as file:
        YAML().dump(content, file)
        file.seek(0)
        text = bytearray(file.read())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(text) - 1))
        text[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(text)


@pytest.mark.parametrize("number", cases(90))
def test_any_recipe_is_read_or_refused(tmp_path: Path, record_property: RecordProperty, number: int) -> None:
    def attempt(text: bytes) -> None:
        (tmp_path / "params.yaml").write_bytes(text)
        read_recipe(tmp_path / "params.yaml")

    run_cases(number, recipes(), attempt, record_property)


# Tables

ODD_CELLS = st.one_of(
    st.sampled_from(["", " ", "\"", "a \"quoted\" word", "x\ty", "two\nlines", "fresh", "-1"]), st.text(max_size=10)
)  # fmt: skip
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": ",", ".parquet": ","}


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A name with an extension, and a table that more or less fits the tiny recipe."""
    suffix = draw(st.sampled_from([".csv", ".csv", ".tsv", ".tsv", ".jsonl", ".jsonl", ".parquet", ".txt"]))
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
        row[draw(st.integers(0, len(row) - 1))] = draw(ODD_CELLS)
    if suffix == ".jsonl":
        text = "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    else:
        quote = suffix == ".csv" and draw(st.booleans())
        lines = [['"' + cell.replace('"', '""') + '"' if quote else cell for cell in row] for row in [columns, *rows]]
        text = "\n".join(map(SEPARATORS[suffix].join, lines))
    content = bytearray((text + draw(st.sampled_from(["\n", "", "\n\n"]))).encode("utf-8", "replace"))
    if draw(st.sampled_from([False, False, True])):
        place = draw(st.integers(0, len(content)))
        content[place : place + 1] = draw(st.sampled_from([b"\0", b"\xff", b'"', b"\r", b"\xef\xbb\xbf", b""]))
    return f"table{suffix}", bytes(content)


@pytest.mark.parametrize("number", cases(70))
def test_any_table_is_prepared_or_refused(
    prepared_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: RecordProperty,
    number: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(prepared_dir / "models", "models")
    changes = {"task.split.group_by": None, "task.filter": None, "task.id_column": None}

    def attempt(case: tuple[str, bytes]) -> None:
        name, content = case
        shutil.rmtree("data", ignore_errors=True)
        Path("data/raw/all").mkdir(parents=True)
        Path("data/own").mkdir()
        Path("data/own", name).write_bytes(content)
        recipe = check_recipe(tiny_recipe(**{"task.source.train": f"data/own/{name}"}, **changes), "test")
        assert isinstance(recipe.task.source, LocalDataset)
        for split, file in find_dataset(recipe.task.source):
            shutil.copyfile(file, Path("data/raw", split) / file.name)
        prepare(recipe.task, max_length=recipe.train.max_length)

    run_cases(number, tables(), attempt, record_property)


# Model folders

CONFIG_VALUES = st.one_of(st.none(), st.booleans(), st.integers(-1, 70), st.sampled_from(["gelu", "bert", "x", [], {}]))


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
        "removed": draw(st.sampled_from([None, None, None, "tokenizer.json", "tokenizer_config.json", "config.json"])),
    }


@pytest.mark.parametrize("number", cases(40))
def test_any_model_folder_passes_or_is_refused(
    prepared_dir: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: RecordProperty,
    number: int,
) -> None:
    monkeypatch.chdir(tmp_path)
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
    if changes["removed"]:
        (source / changes["removed"]).unlink(missing_ok=True)
