"""`reprise report`: collect the runs, read their files, write the page."""

from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

from tqdm import tqdm

from reprise.core.errors import UserError
from reprise.core.files import atomic_file, read_json
from reprise.core.paths import PREPARED
from reprise.data.format import stats_path
from reprise.report.context import build_context
from reprise.report.dvc_plots import install_offline_template
from reprise.report.errors import find_errors
from reprise.report.page import render
from reprise.report.run import ReportRun, read_run_files
from reprise.results.reference import read_references
from reprise.results.runs import Run, all_runs, resolve_runs
from reprise.results.vcs import check_output, resolve_commit


def report(words: Sequence[str], page: Path) -> None:
    """Write the page of the runs that `words` name, or of the workspace, HEAD and all experiments.

    Raises:
        UserError: a word names no run, or a run is damaged.
    """
    named: dict[str | None, Run] = {}  # by commit: a run that several words name stands there once
    for run in [run for word in words for run in resolve_runs(word)] if words else all_runs():
        named.setdefault(run.commit, run)
    runs = list(named.values())
    if not runs:
        raise UserError("report: nothing was cooked here yet; expected the results of `dvc repro`")
    parents = parents_of([run.commit for run in runs if run.commit])
    entries = [
        load_report_run(run, parents) for run in tqdm(runs, desc="report: read", unit=" runs", delay=2, leave=False)
    ]
    ours = [run for run in runs if run is runs[0] or run.kind != "experiment"]
    judged, predictions = next(
        ((run.name, found) for run in ours if (found := run.predictions()) is not None), ("", None)
    )
    text = render(
        build_context(
            entries,
            references=read_references(),
            card=read_json(stats_path(PREPARED)) if stats_path(PREPARED).is_file() else None,
            judged_run=judged,
            mistaken=[] if predictions is None else find_errors(predictions),
        )
    )
    with atomic_file(page) as partial:
        partial.write_text(text, encoding="utf-8")
    install_offline_template()
    print(f"report: {len(runs)} runs, {len(text.encode()) / 1e6:.1f} MB, in {page.absolute().as_uri()}")


def load_report_run(run: Run, parents: dict[str, str]) -> ReportRun:
    """A run with its files read. What lies in the workspace comes after HEAD."""
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
    """The first parent of each commit that has one."""
    if not commits:
        return {}
    lines = check_output("git", "rev-list", "--no-walk", "--parents", *commits).splitlines()
    return {commit: parents[0] for commit, *parents in map(str.split, lines) if parents}
