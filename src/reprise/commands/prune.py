"""`reprise prune`: clear away the experiments that were tried on other commits than HEAD."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from reprise.results.runs import experiments
from reprise.results.vcs import check_output, resolve_commit


def prune(agreed: Callable[[str], bool]) -> None:
    """Show the experiments that were not tried on HEAD, and have DVC remove them if that is agreed to.

    Args:
        agreed: answers a question.
    """
    head = resolve_commit("HEAD")
    old = [experiment for experiment in experiments() if experiment.base != head]
    if not old:
        print("prune: no experiment of another commit than HEAD; `dvc exp remove` removes others")
        return
    table = Table()
    for heading in ("experiment", "tried on", "when"):
        table.add_column(heading)
    for each in old:
        table.add_row(each.name, each.base[:12], f"{each.created:%Y-%m-%d %H:%M}")
    Console(highlight=False, markup=False).print(table)
    if not agreed(f"Remove these {len(old)} experiments?"):
        print("prune: nothing was removed")
        return
    # By ref: experiments of several commits may have the same name.
    check_output("dvc", "exp", "remove", *(each.ref for each in old))
    print(
        f"prune: {len(old)} removed; `dvc gc --workspace --all-commits --all-experiments` frees what they have cached"
    )
