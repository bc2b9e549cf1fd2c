"""`reprise report`: collect the runs, read their files and write the page."""

from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from tqdm import tqdm

from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_file, read_json
from reprise.core.paths import PREPARED
from reprise.data.checks import read_checks
from reprise.data.format import stats_path
from reprise.report.context import build_context
from reprise.report.dvc_plots import install_offline_template
from reprise.report.errors import find_errors
from reprise.report.page import render
from reprise.report.run import ReportRun, read_run_files
from reprise.results.reference import read_references
from reprise.results.run import RunResult, describe_edited
from reprise.results.runs import Run, all_runs, resolve_runs
from reprise.results.vcs import check_output, resolve_commit
from reprise.results.workspace import read_made
from reprise.sweep.record import read_record, sweep_names
from reprise.sweep.result import folder_of


def report(selectors: Sequence[str], page: Path) -> None:
    """Write the report.

    Args:
        selectors: selectors of the runs; if empty, the workspace, HEAD and all experiments, and all sweeps.
        page: output file.

    Raises:
        UserError: a selector names no run, a run or a sweep is damaged, or there are no runs.
    """
    searches = {} if selectors else {name: read_record(folder_of(name)) for name in sweep_names()}
    by_commit: dict[str | None, Run] = {}  # a run that several selectors name is shown once
    for run in [run for selector in selectors for run in resolve_runs(selector)] if selectors else all_runs():
        by_commit.setdefault(run.commit, run)
    runs = list(by_commit.values())
    if not runs:
        raise UserError("no runs yet", key="report", expected="the results of `dvc repro`")
    parents = parents_of([run.commit for run in runs if run.commit])
    if None in by_commit:
        for change in read_made("the workspace's results were made").changes:
            echo(f"report: {change}")
    for run in runs:
        for path in run.result.edited:
            echo(f"report: {run.name}: {describe_edited(path)}")
    report_runs = [
        load_report_run(run, parents) for run in tqdm(runs, desc="report: read", unit=" runs", delay=2, leave=False)
    ]
    candidates = [run for run in runs if run is runs[0] or run.kind != "experiment"]
    errors_run, errors = next(
        (
            (run.name, find_errors(predictions, run.result.task_kind))
            for run in candidates
            if (predictions := run.predictions()) is not None
        ),
        ("", []),
    )
    stats = prepared_stats(runs[0].result)
    text = render(
        build_context(
            report_runs,
            references=read_references(),
            searches=searches,
            stats=stats,
            checks=read_checks(stats or {}),
            errors_run=errors_run,
            errors=errors,
        )
    )
    with atomic_file(page) as partial:
        partial.write_text(text, encoding="utf-8")
    install_offline_template()
    echo(f"report: {len(runs)} runs, {len(text.encode()) / 1e6:.1f} MB, saved to {page.absolute().as_uri()}")


def prepared_stats(result: RunResult) -> dict[str, Any] | None:
    """Read the statistics of the data that a run was trained on; None if data/prepared/ has other data, or none."""
    if not stats_path(PREPARED).is_file():
        return None
    stats = read_json(stats_path(PREPARED))
    digests = {f"data.{split}": content["sha256"] for split, content in stats["splits"].items()}
    return stats if digests.items() <= result.provenance.items() else None


def load_report_run(run: Run, parents: dict[str, str]) -> ReportRun:
    """Read the files of a run.

    Args:
        run: the run; the parent of the workspace is HEAD.
        parents: parent of each commit.
    """
    return ReportRun(
        name=run.name,
        kind=run.kind,
        commit=run.commit or "",
        parent=parents.get(run.commit, "") if run.commit else resolve_commit("HEAD"),
        created=run.created.astimezone(UTC).isoformat() if run.created else "",
        result=run.result,
        **read_run_files(run.read),
    )


def parents_of(commits: Sequence[str]) -> dict[str, str]:
    """Return the first parent of each commit that has one."""
    if not commits:
        return {}
    lines = check_output("git", "rev-list", "--no-walk", "--parents", *commits).splitlines()
    return {commit: parents[0] for commit, *parents in map(str.split, lines) if parents}
