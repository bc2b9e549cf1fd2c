"""The fast YAML parser reads DVC's files as DVC does."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import dump_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reprise.results.fast_yaml import load_yaml
from tiny import committed

TRICKY = [
    "no",
    "yes",
    "on",
    "1e-5",
    "0x1F",
    "0o17",
    "010",
    "12:30",
    "~",
    "null",
    "true",
    ".5",
    "5.",
    "",
    "- a",
    "a: b",
    "#",
    "é",
]
LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=6) | st.sampled_from(TRICKY)
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(TRICKY), each, max_size=3)
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.sampled_from(["seed", "train", "no"]), VALUES, max_size=3))
def test_files_of_dvc_are_read_back_equal(tmp_path: Path, content: dict[str, Any]) -> None:
    dump_yaml(tmp_path / "dvc.lock", content)
    assert load_yaml((tmp_path / "dvc.lock").read_bytes()) == content


@pytest.mark.parametrize(
    "scalar", [*TRICKY[:5], "010", "12:30", "1e-05", "-1.5E+3", "3e-5", "+7", ".inf", "True", "NULL", "n"]
)
def test_plain_scalars_are_parsed_as_by_ruamel(scalar: str) -> None:
    expected = YAML(typ="safe").load(f"key: {scalar}")["key"]
    if scalar == "0x1F":  # DVC writes no such number
        assert (load_yaml(f"key: {scalar}".encode())["key"], expected) == ("0x1F", 31)
    else:
        read = load_yaml(f"key: {scalar}".encode())["key"]
        assert (read, type(read)) == (expected, type(expected))


def test_nan_is_parsed() -> None:
    assert math.isnan(load_yaml(b"key: .nan")["key"])


@pytest.mark.parametrize("name", ["dvc.lock", "params.yaml", "dvc.yaml"])
def test_committed_files_are_parsed_as_by_ruamel(name: str) -> None:
    assert load_yaml(committed(name).encode()) == YAML(typ="safe").load(committed(name))


def test_invalid_yaml_is_an_error_and_tags_create_no_objects() -> None:
    for damaged in (b"key: [", b"\tkey: 1", b"key: !!python/object/apply:os.getcwd []"):
        with pytest.raises(yaml.YAMLError):
            load_yaml(damaged)


def test_pyyamls_own_loader_is_unchanged() -> None:
    assert yaml.safe_load("key: no") == {"key": False}
