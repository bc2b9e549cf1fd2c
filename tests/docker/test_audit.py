"""`make audit`: what it says of vulnerabilities and licences, and that it never calls what it could not check sound."""

import importlib.util
import json
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from tiny import ROOT

SPEC = importlib.util.spec_from_file_location("audit", ROOT / "docker/audit.py")
assert SPEC is not None
assert SPEC.loader is not None
audit: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for a pip-audit of the test, with locks of two packages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(audit, "locked", lambda: {"pip": {"26.3"}, "torch": {"2.9.0", "2.13.0+cpu"}})
    monkeypatch.setattr(audit, "check_licences", lambda *_: [])


def answer(**packages: Any) -> str:
    """What pip-audit answers: by package its vulnerabilities, None if it has no data."""
    return json.dumps(
        {
            "dependencies": [
                {"name": name, "skip_reason": "not found"} if ids is None else
                {"name": name, "version": "1", "vulns": [{"id": each, "fix_versions": ["2"]} for each in ids]}
                for name, ids in packages.items()
            ]
        }
    )  # fmt: skip


def install(program: str) -> None:
    file = Path(".venv-tools/bin/pip-audit")
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    file.chmod(0o755)


@pytest.mark.parametrize(
    ("program", "code", "printed_line"),
    [
        (f"echo '{answer(pip=[], torch=[])}'", 0, "vulnerabilities: 0 known"),
        (f"echo '{answer(pip=[], torch=['CVE-1'])}'; exit 1", 1, "torch 1: CVE-1, fixed in 2"),
        (f"echo '{answer(pip=[], torch=None)}'", 0, "the index has no data about: torch"),
        (f"echo '{answer(pip=None)}'", 3, "NOT CHECKED"),
        ("echo 'ConnectionError' >&2; exit 1", 3, "NOT CHECKED"),
    ],
    ids=["none", "found", "some-unknown", "no-data", "no-network"],
)
def test_the_exit_code_says_what_was_found_and_whether_it_was_looked_for(
    workdir: None, capsys: pytest.CaptureFixture[str], program: str, code: int, printed_line: str
) -> None:
    install(program)
    assert audit.main() == code
    printed = capsys.readouterr()
    assert printed_line in printed.out + printed.err


def test_each_locked_version_is_asked_for_by_its_public_number(workdir: None) -> None:
    install(f'while [ "$1" != --requirement ]; do shift; done; cat "$2" >> asked; echo \'{answer(pip=[])}\'')
    assert audit.main() == 0
    assert Path("asked").read_text().split() == ["pip==26.3", "pip==26.3", "torch==2.13.0", "torch==2.9.0"]


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause", True),
        ("Apache-2.0 OR GPL-2.0-or-later", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0 AND (MIT OR BSD-3-Clause)", False),
        ("GNU General Public License v2 (GPLv2)", False),
        ("MIT AND GPL-3.0-only", False),
        ("LicenseRef-Proprietary", False),
        ("", False),
    ],
)
def test_a_licence_is_allowed_only_if_it_is_listed(statement: str, allowed: bool) -> None:
    assert audit.is_permissive(statement) is allowed


def test_every_installed_package_of_the_locks_has_an_allowed_or_reviewed_licence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    installed = {audit.normalized(each.metadata["Name"]): each for each in distributions()}
    assert audit.check_licences(audit.locked(), installed) == []
    assert "torch-xla" in capsys.readouterr().out  # of another hardware: named, not passed over


def test_a_package_without_an_allowed_licence_is_named(tmp_path: Path) -> None:
    (tmp_path / "mystery-1.dist-info").mkdir()
    (tmp_path / "mystery-1.dist-info/METADATA").write_text("Name: mystery\nVersion: 1\nLicense: Ask me\n")
    (package,) = distributions(path=[str(tmp_path)])
    assert audit.check_licences(["mystery"], {"mystery": package}) == ["mystery: licence 'Ask me'"]
