"""`reprise verify`: cook a commit again, from scratch and elsewhere, and say how much of its result came again.

It works in a git worktree of its own under .dvc/tmp, with a DVC cache of its own: what lies about in the checkout
is neither used nor touched. Only what `fetch` brings may come from the user's cache, by the digests in dvc.lock.
"""

import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reprise.core.config import LOCAL_DATA
from reprise.core.errors import UserError
from reprise.core.paths import PRETRAINED, RAW
from reprise.hardware import current_hardware
from reprise.results.diff import diff_runs, format_differences
from reprise.results.reference import Reference, find_reference
from reprise.results.run import RunResult, commit_reader, folder_reader, read_result
from reprise.results.vcs import check_output, dvc, resolve_commit, try_output
from reprise.results.verdict import LOSS_TOLERANCE, Verdict, first_divergence, judge_outputs

WORKTREES = Path(".dvc/tmp/verify")


def verify(revision: str) -> Verdict:
    """Cook a commit from scratch, print a verdict for each output of it, and return the worst.

    A verification that was interrupted leaves its worktree, where the next one of the same commit goes on.

    Raises:
        UserError: there is no such commit, nothing of it was cooked, or its pipeline fails.
    """
    commit = resolve_commit(revision)
    committed = read_result(commit_reader(commit), where=revision)
    reference = find_reference(committed, current_hardware())
    if try_output("git", "status", "--porcelain"):
        print(f"verify: what you have changed since {revision} is left out, and stays as it is", flush=True)
    worktree = reproduce(commit)
    cooked = read_result(folder_reader(worktree), where=str(worktree))
    verdicts = judge_outputs(committed, cooked, reference)
    try_output("git", "worktree", "remove", "--force", str(worktree))
    worst = max(verdicts.values())
    print_verdicts(revision, verdicts, committed, cooked, reference)
    return worst


def reproduce(commit: str) -> Path:
    """Check a commit out into a worktree and cook it there; return the worktree.

    Raises:
        UserError: the pipeline fails.
    """
    cache = check_output("dvc", "cache", "dir")
    folder = WORKTREES / commit
    if folder.is_dir() and try_output("git", "rev-parse", "HEAD", folder=folder) == commit:
        print(f"verify: goes on in {folder}, which an interrupted verification has left", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        check_output("git", "worktree", "prune")
        check_output("git", "worktree", "add", "--detach", str(folder), commit)
        print(f"verify: cooks {commit[:12]} in {folder}", flush=True)
    # An empty cache of its own (.dvc/cache), so that nothing but a training gives the training's results.
    check_output("dvc", "config", "--local", "cache.dir", "cache", folder=folder)
    check_output("dvc", "remote", "add", "--local", "--force", "workspace", cache, folder=folder)
    own = (try_output("git", "ls-files", f"{LOCAL_DATA}/*.dvc", folder=folder) or "").splitlines()
    for fetched in (RAW, PRETRAINED, *own):
        if try_output("dvc", "pull", "--remote", "workspace", str(fetched), folder=folder) is not None:
            print(f"verify: {fetched} comes from DVC's cache", flush=True)
    if dvc("repro", folder=folder):
        raise UserError(f"{folder}: the pipeline failed, see above; expected it to cook as it did when committed")
    return folder


def print_verdicts(
    revision: str, verdicts: dict[str, Verdict], committed: RunResult, cooked: RunResult, reference: Reference | None
) -> None:
    """Print a verdict for each output, then what is behind it, and what was cooked with differs."""
    console = Console(highlight=False)
    outputs = Table(title=f"{revision}, cooked again")
    for heading in ("stage", "output", "verdict"):
        outputs.add_column(heading)
    for path, verdict in verdicts.items():
        outputs.add_row(committed.outputs[path].stage, path, str(verdict))
    console.print(outputs)
    if max(verdicts.values()) > Verdict.IDENTICAL:
        console.print(metrics_table(committed, cooked, reference))
        if not reference:
            console.print(
                "No reference was made for this recipe on this hardware: see `reprise seed-noise`.", soft_wrap=True
            )
        precision = committed.recipe["train.precision"]
        parting = first_divergence(committed, cooked)
        losses = f"{len(committed.losses)} losses"
        console.print(
            f"All {losses} have the same bits."
            if parting is None
            else f"The {losses} part at step {parting.step}, by at most {100 * parting.largest:.2g} % of their mean "
            f"(equivalent in {precision}: {100 * LOSS_TOLERANCE[precision]:g} %).",
            soft_wrap=True,
        )
        for line in format_differences(diff_runs([committed], [cooked])):
            console.print(f"Differs: {line}", markup=False, soft_wrap=True)
    console.print(f"Verdict: [bold]{max(verdicts.values())}[/bold]")


def metrics_table(committed: RunResult, cooked: RunResult, reference: Reference | None) -> Table:
    """The figures of both, and between what they count as equivalent or as one more seed's."""
    table = Table()
    for heading in ("stage", "figure", "committed", "cooked again", "one more seed"):
        table.add_column(heading, justify="left" if heading in ("stage", "figure") else "right")
    for stage, metrics in committed.metrics.items():
        for name, value in metrics.items():
            found = cooked.metrics[stage].get(name)
            low_high = "{:.4f} – {:.4f}".format(*reference.prediction_interval(stage, name)) if reference else ""
            table.add_row(stage, name, f"{value:.4f}", "absent" if found is None else f"{found:.4f}", low_high)
    return table
