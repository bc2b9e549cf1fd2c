"""The README has the committed metrics, and its make targets, commands and links exist."""

import json
import re
from pathlib import Path

import pytest

from tiny import ROOT, Run, committed

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_its_numbers_are_the_committed_metrics() -> None:
    metrics = json.loads(committed("metrics/evaluate.json"))
    for metric in ("accuracy", "f1"):
        low, high = metrics["ci95"][metric].values()
        row = f"│ {metrics[metric]:.4f} │ {low:.4f} – {high:.4f} │   {metrics['baseline'][metric]:.4f} │"
        assert row in README
    low, high = metrics["ci95"]["accuracy"].values()
    assert f"**{metrics['accuracy']:.3f}** ({low:.3f} – {high:.3f})" in README
    assert json.dumps(metrics) in README


def documented_targets() -> set[str]:
    """Return the Makefile targets that `make help` lists; one line may list several."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = re.findall(r"^([a-z][a-z0-9 -]*):.*## \S", makefile, flags=re.MULTILINE)
    return {target for line in lines for target in line.split()}


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_target_command_and_link_exists(text: str) -> None:
    assert set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", text, flags=re.MULTILINE)) - documented_targets() == set()
    cli = (ROOT / "src/reprise/cli.py").read_text(encoding="utf-8")
    for command in set(re.findall(r"`reprise ([a-z][a-z-]*)", text)):
        assert f"def {command.replace('-', '_')}(" in cli, command
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / link).exists(), link


def test_every_makefile_target_has_a_help_text(run: Run) -> None:
    database = run(ROOT, "make", "--print-data-base", "--dry-run", "help").stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", database, flags=re.MULTILINE)
    assert len(phony.split()) > 20
    assert set(phony.split()) - documented_targets() == set()


def test_no_document_contains_a_placeholder() -> None:
    for document in sorted(Path(ROOT).glob("*.md")):
        assert "@@" not in document.read_text(encoding="utf-8"), document.name
