"""The documentation has the committed metrics, and its make targets, commands and links exist."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from reprise.commands.summary import next_commands
from tiny import ROOT, Run, committed

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXPERIMENTS = (ROOT / "docs/guides/experiments.md").read_text(encoding="utf-8")
PERFORMANCE = (ROOT / "docs/benchmarks/performance.md").read_text(encoding="utf-8")
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [str(document.relative_to(ROOT)) for document in DOCUMENTS]


def test_its_numbers_are_the_committed_metrics() -> None:
    metrics = json.loads(committed("metrics/evaluate.json"))
    for metric in ("accuracy", "f1"):
        low, high = metrics["ci95"][metric].values()
        row = f"│ {metrics[metric]:.4f} │ {low:.4f} – {high:.4f} │   {metrics['baseline'][metric]:.4f} │"
        assert row in README
    low, high = metrics["ci95"]["accuracy"].values()
    assert f"**{metrics['accuracy']:.3f}** ({low:.3f} – {high:.3f})" in PERFORMANCE
    assert json.dumps(metrics) in EXPERIMENTS


def test_its_summary_ends_with_the_commands_that_the_command_prints() -> None:
    assert "\n".join(f"  {command:<42} {meaning}" for command, meaning in next_commands(["text"])) in README


def documented_targets() -> set[str]:
    """Return the Makefile targets that `make help` lists with a text; one line may list several in braces."""
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^  make ([^ {]+)(?:\{(.*)\})? +\S", listed, flags=re.MULTILINE)
    return {name + kind for name, kinds in lines for kind in kinds.split(",")}


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_target_command_and_link_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"(?:`|^|\$ |&& )make ([a-z0-9-]+)", text, flags=re.MULTILINE)
    assert set(targets) - documented_targets() == set()
    cli = (ROOT / "src/reprise/cli.py").read_text(encoding="utf-8")
    for command in set(re.findall(r"(?:`|^|\$ |&& )reprise ([a-z][a-z-]*)", text, flags=re.MULTILINE)):
        assert f"def {command.replace('-', '_')}(" in cli, command
    for path in re.findall(r"`((?:benchmarks|deploy|docker|notebooks|recipes|reference|src|tests)/[\w./-]+)`", text):
        assert "NAME" in path or (ROOT / path).exists(), path
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        # The reference is generated when the site is built, which checks its links.
        assert target.exists() or target.parent == ROOT / "docs/reference", link
        if anchor:
            assert anchor in anchors(target), link


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_of_the_documentation_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in sorted((ROOT / "docs").rglob("*.md")):
        assert f": {page.relative_to(ROOT / 'docs')}\n" in navigation, page


def test_every_makefile_target_has_a_help_text(run: Run) -> None:
    database = run(ROOT, "make", "--print-data-base", "--dry-run", "help").stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", database, flags=re.MULTILINE)
    assert len(phony.split()) > 20
    assert set(phony.split()) - documented_targets() == set()


def test_no_document_contains_a_placeholder() -> None:
    for document in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        assert "@@" not in document.read_text(encoding="utf-8"), document.name


def test_the_readme_has_at_most_220_lines() -> None:
    assert len(README.splitlines()) <= 220


def test_every_test_that_security_md_names_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 120
    defined = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    assert len(named) > 10
    assert [name for name in named if f"def {name}(" not in defined] == []
    assert [path for path in re.findall(r"`(tests/[\w/.]+)`", text) if not (ROOT / path).is_file()] == []
