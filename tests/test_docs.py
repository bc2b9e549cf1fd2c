"""The documentation: its numbers are those of the files they come from, and the reference is complete."""

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from ruamel.yaml import YAML

import measured
import reference
from reprise.cli import app
from reprise.core.config import Data, Evaluate, Model, Run, Task, Train
from reprise.core.errors import UserError
from reprise.core.files import write_json
from reprise.sharing.statement import public_pem, sign, statement
from reprise.sharing.verdict import PREDICATE_TYPE
from tiny import ROOT


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.reference_pages(ROOT)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with one line of the default recipe's summary."""
    monkeypatch.setattr(measured, "TEMPLATES", {"page.md": "Epoch {train[best_epoch]} of 2, {gib:.1f} GiB"})
    monkeypatch.setattr(measured, "collect", lambda: {"train": {"best_epoch": 2}, "gib": 2.31})
    monkeypatch.setattr(measured, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["measured.py"])
    return tmp_path / "page.md"


def test_a_number_that_is_not_that_of_its_file_is_an_error(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page.write_text("Epoch 1 of 2, 2.3 GiB.\n")
    assert measured.main() == 1
    assert "page.md: Epoch 1 of 2, 2.3 GiB.\n  expected: Epoch 2 of 2, 2.3 GiB." in capsys.readouterr().out
    assert page.read_text() == "Epoch 1 of 2, 2.3 GiB.\n"


def test_numbers_are_written_on_request(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page.write_text("Epoch 1 of 2, 17 GiB.\n")
    monkeypatch.setattr(sys, "argv", ["measured.py", "--write"])
    assert measured.main() == 0
    assert page.read_text() == "Epoch 2 of 2, 2.3 GiB.\n"


def test_a_line_that_no_page_has_is_an_error(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page.write_text("Nothing was measured.\n")
    assert measured.main() == 1
    assert "page.md: no line like: Epoch 2 of 2, 2.3 GiB" in capsys.readouterr().out


@pytest.mark.parametrize("section", [Task, Model, Train, Evaluate, Run, Data])
def test_the_reference_has_every_key_of_the_recipe(section: type, pages: dict[str, str]) -> None:
    _, _, text = pages["params"].partition(f"\n## {section.__name__.lower()}\n")
    keys = re.findall(r"^\| `(\w+)` \|", text.partition("\n## ")[0], flags=re.MULTILINE)
    assert keys == [field.name for field in dataclasses.fields(section)]


def test_the_reference_explains_every_key_of_training(pages: dict[str, str]) -> None:
    _, _, text = pages["params"].partition("\n## train\n")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", text.partition("\n## ")[0], flags=re.MULTILINE)
    assert len(rows) > 10
    assert [key for key, meaning in rows if not meaning] == []


def test_the_reference_has_every_command_and_its_options(pages: dict[str, str]) -> None:
    commands = [command for command in app.registered_commands if not command.hidden]
    names = [command.name or command.callback.__name__.replace("_", "-") for command in commands if command.callback]
    assert {"train", "compare", "seed-noise"} <= set(names)
    assert sorted(re.findall(r"^### (\S+)$", pages["cli"], flags=re.MULTILINE)) == sorted(names)
    assert "`REPRISE_MAX_RESTARTS`" in pages["cli"]
    assert "`REPRISE_MAX_RESTARTS`" in pages["environment"]


def test_the_reference_has_every_target_of_make(pages: dict[str, str]) -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert pages["make"].count("| `make ") == len(listed.strip().splitlines())


def test_the_reference_has_the_values_of_the_metrics_files(pages: dict[str, str]) -> None:
    accuracy = json.loads((ROOT / "metrics/evaluate.json").read_text())["accuracy"]
    assert f"| `accuracy` | a metric of `task.metrics` | `{accuracy}` |" in pages["metrics"]


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """A folder `reference` with a recipe's weights, and a signed verdict about them."""
    (tmp_path / "attestations").mkdir()
    (tmp_path / "processors.csv").write_text(
        f"recipe,weights_sha256,processor,how\ntrain=portable,{'7' * 64},AMD EPYC,native\n"
    )
    write_json(tmp_path / "attestations/1.json", verdict_of("7" * 64))
    return tmp_path


def verdict_of(weights: str, processor: str = "cpu: Xeon | @me") -> dict[str, Any]:
    """Sign that weights were rebuilt on a processor."""
    key = ed25519.Ed25519PrivateKey.generate()
    place = {"devices": [processor], "cpuCapability": "AVX2", "threads": 2, "python": "3.11.7"}
    predicate = {
        "verdicts": {"models/final": "identical"},
        "environment": place,
        "timeVerified": "2026-11-29T19:14:38+00:00",
        "verifier": {"publicKey": public_pem(key.public_key())},
    }
    return sign(statement({"model.safetensors": weights}, PREDICATE_TYPE, predicate), key)


def test_a_signed_verdict_is_a_row_of_the_table_of_processors(references: Path) -> None:
    *_, authors, other = reference.processors_page(references).strip().splitlines()
    assert authors == f"| train=portable | {'7' * 16} | AMD EPYC | identical | the authors, native |"
    assert other.startswith(f"| train=portable | {'7' * 16} | cpu: Xeon \\| <span>@</span>me, AVX2, 2 threads, Python ")
    assert re.search(r"\| identical \| key [0-9a-f]{16}, 2026-11-29 \|$", other)


def test_a_changed_verdict_and_one_about_other_weights_fail_the_build(references: Path) -> None:
    file = references / "attestations/1.json"
    signed, other = verdict_of("7" * 64), verdict_of("7" * 64, "cpu: another")
    for content in (signed | {"payload": other["payload"]}, verdict_of("8" * 64), {}):
        write_json(file, content)
        with pytest.raises(UserError) as refused:
            reference.processors_page(references)
        assert refused.value.file == str(file)
