"""The README is true: its figures are the committed ones, its targets, verbs and links exist."""

import json
import re
from pathlib import Path

import pytest

from tiny import ROOT, Run, committed

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_its_figures_are_those_of_the_committed_metrics() -> None:
    judged = json.loads(committed("metrics/evaluate.json"))
    for metric in ("accuracy", "f1"):
        low, high = judged["ci95"][metric].values()
        row = f"│ {judged[metric]:.4f} │ {low:.4f} – {high:.4f} │   {judged['baseline'][metric]:.4f} │"
        assert row in README
    low, high = judged["ci95"]["accuracy"].values()
    assert f"**{judged['accuracy']:.3f}** ({low:.3f} – {high:.3f})" in README
    assert json.dumps(judged) in README


def explained() -> set[str]:
    """The targets of the Makefile that `make help` explains; a line may be about several."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = re.findall(r"^([a-z][a-z0-9 -]*):.*## \S", makefile, flags=re.MULTILINE)
    return {target for line in lines for target in line.split()}


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_target_verb_and_link_that_it_names_exists(text: str) -> None:
    assert set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", text, flags=re.MULTILINE)) - explained() == set()
    verbs = (ROOT / "src/reprise/cli.py").read_text(encoding="utf-8")
    for verb in set(re.findall(r"`reprise ([a-z]+)", text)):
        assert f"def {verb}(" in verbs, verb
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / link).exists(), link


def test_every_target_of_the_makefile_has_a_line_of_help(run: Run) -> None:
    database = run(ROOT, "make", "--print-data-base", "--dry-run", "help").stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", database, flags=re.MULTILINE)
    assert len(phony.split()) > 20
    assert set(phony.split()) - explained() == set()


def test_no_document_names_a_placeholder() -> None:
    for document in sorted(Path(ROOT).glob("*.md")):
        assert "@@" not in document.read_text(encoding="utf-8"), document.name
