"""Print what the stage check-data found."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from reprise.commands.terminal import Terminal
from reprise.core.display import echo_lines, to_json
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import DATA_CHECKS
from reprise.data.checks import CHECKS_FILE, LABEL_ERRORS, MEANINGS, NEAR_DUPLICATES, read_checks
from reprise.data.format import stats_path
from reprise.tasks.metrics.registry import display_name

STYLES = {"ok": "", "warn": "yellow", "fail": "red"}
SHOWN = 3  # scripts, and columns that give the label away
SORTED_FROM = 0.5  # of the baseline's error, what the position in the file removes


def print_data(*, as_json: bool) -> None:
    """Print the checks of the prepared data, on one screen of 80 columns, or all numbers as JSON.

    Raises:
        UserError: there are none, or they are of other data.
    """
    file = DATA_CHECKS / CHECKS_FILE
    found = "of other data than data/prepared" if file.is_file() else "not found"
    checks = read_checks(read_json(stats_path()))
    if checks is None:
        raise UserError(found, file=file, expected="the result of `dvc repro check-data`")
    if as_json:
        echo_lines(to_json(checks, indent=2))
        return
    console = Terminal()
    rows = ", ".join(f"{each['examples']:,} {split}" for split, each in checks["splits"].items())
    console.print(f"{checks['task']}: {rows} examples", style="bold", soft_wrap=True)
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in ("share", "of", "split", "", "warn", "fail"):
        table.add_column(heading, justify="right" if heading in ("share", "warn", "fail") else "left")
    for name, check in checks["checks"].items():
        status = Text("" if check["status"] == "ok" else check["status"].upper(), style=STYLES[check["status"]])
        limits = [f"{100 * check[level]:g} %" if check[level] else "–" for level in ("warn", "fail")]
        table.add_row(f"{check['share']:.2%}", MEANINGS[name], check["split"], status, *limits)
    console.print(table)
    console.print()
    for line in lines(checks):
        console.print(line)
    console.print(f"Lists: {DATA_CHECKS / NEAR_DUPLICATES}, {DATA_CHECKS / LABEL_ERRORS}", soft_wrap=True)


def lines(checks: Mapping[str, Any]) -> list[str]:
    """Return what the table of checks does not show: baseline, truncation, columns, limits of the search."""
    found: list[str] = []
    if baseline := checks["baseline"]:
        for split, metrics in baseline["metrics"].items():
            listed = ", ".join(
                f"{display_name(name, checks['positive_label'], len(checks['labels']))} {value:.4f}"
                for name, value in metrics.items()
            )
            found.append(f"{baseline['name']}, {split}: {listed}")
    train = checks["splits"]["train"]
    costs = [f"{length}: {each['rows']:.1%}" for length, each in train["truncation"].items()]
    found.append(f"Training texts that a maximum length cuts: {', '.join(costs)}")
    scripts = [f"{name} {share:.1%}" for name, share in train["scripts"].items()]
    found.append(f"Scripts of the training texts: {', '.join(scripts[:SHOWN]) or 'none'}")
    shares = [f"{each['column']} {each['share']:.1%}" for each in checks["columns"]]
    found.append(f"Columns: {', '.join(shares[:SHOWN])}")
    if checks["position"] >= SORTED_FROM:
        found.append("The file is in the order of its labels, which is harmless: training shuffles it.")
    return [*found, *checks["notes"]]
