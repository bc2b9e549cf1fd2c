"""`reprise verify`: reproduce a commit from scratch in a temporary worktree and grade each output.

The git worktree under .dvc/tmp has its own DVC cache, so results in the checkout are neither used nor changed. Only
what was fetched may come from the user's cache; it is hashed again and compared with dvc.lock.
"""

import os
import shutil
from pathlib import Path

from rich.table import Table
from rich.text import Text

from reprise.commands.terminal import Terminal
from reprise.core.config import LOCAL_DATA
from reprise.core.display import echo
from reprise.core.dvc_lock import LOCK
from reprise.core.errors import UserError
from reprise.core.lock import write_lock
from reprise.core.paths import PRETRAINED, RAW
from reprise.hardware import check_installed, current_hardware, locked_versions
from reprise.results.diff import diff_runs, format_differences
from reprise.results.integrity import cache_damage, tracked_outputs, workspace_damage
from reprise.results.reference import Reference, find_reference
from reprise.results.run import RunResult, commit_reader, folder_reader, read_result
from reprise.results.vcs import check_output, dvc, resolve_commit, try_output
from reprise.results.verdict import LOSS_TOLERANCE, Verdict, describe_verdict, first_divergence, grade_outputs

WORKTREES = Path(".dvc/tmp/verify")


def verify(revision: str) -> Verdict:
    """Reproduce a commit from scratch, print a verdict for each output, and return the worst.

    An interrupted verification keeps its worktree; the next one of the same commit resumes in it.

    Raises:
        UserError: the commit does not exist or has no results, an installed file or an object in DVC's cache is
            damaged, or the pipeline fails.
    """
    commit = resolve_commit(revision)
    verdicts, _ = verify_commit(revision, commit, read_result(commit_reader(commit), where=revision))
    return max(verdicts.values())


def verify_commit(name: str, commit: str, committed: RunResult) -> tuple[dict[str, Verdict], RunResult]:
    """Reproduce a commit and print a verdict for each output.

    Args:
        name: what the user calls it.
        commit: full hash.
        committed: its result.

    Returns:
        The verdicts by output, and the run that was compared.
    """
    hardware = current_hardware()
    reference = find_reference(committed, hardware)
    check_installed(locked_versions(hardware), complete=True)
    if try_output("git", "status", "--porcelain"):
        echo("verify: uncommitted changes are ignored and left untouched")
    with write_lock(Path(f".reprise-verify-{commit[:12]}.lock"), "verify"):
        worktree = reproduce(commit)
        reproduced = read_result(folder_reader(worktree), where=str(worktree))
        verdicts = grade_outputs(committed, reproduced, reference)
        try_output("git", "worktree", "remove", "--force", str(worktree))
    print_verdicts(name, verdicts, committed, reproduced, reference)
    return verdicts, reproduced


def reproduce(commit: str) -> Path:
    """Check out a commit into a worktree and run its pipeline; return the worktree.

    Raises:
        UserError: what DVC's cache has of the fetched files is damaged, or the pipeline fails.
    """
    folder, cache = WORKTREES / commit, Path(check_output("dvc", "cache", "dir"))
    if folder.is_dir() and try_output("git", "rev-parse", "HEAD", folder=folder) == commit:
        echo(f"verify: resuming in {folder}, left by an interrupted verification")
    else:
        shutil.rmtree(folder, ignore_errors=True)
        check_output("git", "worktree", "prune")
        check_output("git", "worktree", "add", "--detach", str(folder), commit)
        echo(f"verify: reproducing {commit[:12]} in {folder}")
    # The worktree's cache (.dvc/cache) starts empty, so that the run cache cannot replace training.
    check_output("dvc", "config", "--local", "cache.dir", "cache", folder=folder)
    # Relative, because DVC writes no path to its configuration that is not ASCII.
    remote = os.path.relpath(cache, folder.resolve())
    check_output("dvc", "remote", "add", "--local", "--force", "workspace", remote, folder=folder)
    for output in tracked_outputs(folder):
        if output.path not in (RAW, PRETRAINED) and not output.path.is_relative_to(LOCAL_DATA):
            continue
        if try_output("dvc", "pull", "--remote", "workspace", str(output.path), folder=folder) is None:
            continue
        # DVC trusts the name of an object in its cache.
        if damage := workspace_damage(output, folder, cache):
            try_output("git", "worktree", "remove", "--force", str(folder))
            raise UserError(
                f"damaged: {output.path} is not as {LOCK} records it",
                file=(cache_damage(output, cache) or damage).files[0],
                expected="what `reprise fsck` calls ok; it names what restores it",
            )
        echo(f"verify: {output.path} restored from the DVC cache")
    if dvc("repro", folder=folder):
        expected = "it to finish as it did for the commit"
        raise UserError("the pipeline failed, see above", file=folder, expected=expected)
    return folder


def print_verdicts(
    revision: str,
    verdicts: dict[str, Verdict],
    committed: RunResult,
    reproduced: RunResult,
    reference: Reference | None,
) -> None:
    """Print a verdict for each output; unless all are identical, also metrics, losses and differing inputs."""
    console = Terminal()
    outputs = Table(title=f"{revision}, reproduced")
    for heading in ("stage", "output", "verdict"):
        outputs.add_column(heading)
    for path, verdict in verdicts.items():
        outputs.add_row(committed.outputs[path].stage, path, str(verdict))
    console.print(outputs)
    if max(verdicts.values()) > Verdict.IDENTICAL:
        console.print(metrics_table(committed, reproduced, reference))
        if not reference:
            console.print(
                "No seed noise was measured for this recipe on this hardware; see `reprise seed-noise`.", soft_wrap=True
            )
        precision = committed.recipe["train.precision"]
        divergence = first_divergence(committed, reproduced)
        losses = f"{len(committed.losses)} losses"
        console.print(
            f"All {losses} are bit-identical."
            if divergence is None
            else f"The {losses} diverge at step {divergence.step}, by at most {100 * divergence.largest:.2g} % "
            f"of their mean (tolerance in {precision}: {100 * LOSS_TOLERANCE[precision]:g} %).",
            soft_wrap=True,
        )
        for line in format_differences(diff_runs([committed], [reproduced])):
            console.print(f"Differs: {line}", soft_wrap=True)
    worst = describe_verdict(max(verdicts.values()), committed, reproduced)
    console.print(Text.assemble("Verdict: ", (worst, "bold")), soft_wrap=True)


def metrics_table(committed: RunResult, reproduced: RunResult, reference: Reference | None) -> Table:
    """Build a table of both runs' metrics, with the prediction intervals for one further seed."""
    table = Table()
    for heading in ("stage", "metric", "committed", "reproduced", "one more seed"):
        table.add_column(heading, justify="left" if heading in ("stage", "metric") else "right")
    for stage, metrics in committed.metrics.items():
        for name, value in metrics.items():
            actual = reproduced.metrics[stage].get(name)
            interval = "{:.4f} – {:.4f}".format(*reference.prediction_interval(stage, name)) if reference else ""
            table.add_row(stage, name, f"{value:.4f}", "absent" if actual is None else f"{actual:.4f}", interval)
    return table
