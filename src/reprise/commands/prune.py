"""`reprise prune`: remove the experiments that did not start from HEAD."""

from collections.abc import Callable

from rich.table import Table

from reprise.commands.terminal import Terminal
from reprise.core.display import echo
from reprise.results.runs import experiments
from reprise.results.vcs import check_output, resolve_commit


def prune(confirm: Callable[[str], bool]) -> None:
    """List the experiments that did not start from HEAD, and remove them after confirmation.

    Args:
        confirm: asks the user a yes-no question.
    """
    head = resolve_commit("HEAD")
    old = [experiment for experiment in experiments() if experiment.base != head]
    if not old:
        echo("prune: no experiments of other commits than HEAD; remove others with `dvc exp remove`")
        return
    table = Table()
    for heading in ("experiment", "started from", "created"):
        table.add_column(heading)
    for experiment in old:
        table.add_row(experiment.name, experiment.base[:12], f"{experiment.created:%Y-%m-%d %H:%M}")
    Terminal().print(table)
    if not confirm(f"Remove these {len(old)} experiments?"):
        echo("prune: nothing was removed")
        return
    # By ref, because experiments of several commits may share a name.
    check_output("dvc", "exp", "remove", *(experiment.ref for experiment in old))
    echo(f"prune: {len(old)} removed; free their cache with `dvc gc --workspace --all-commits --all-experiments`")
