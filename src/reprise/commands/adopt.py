"""`reprise sweep --adopt`: write the winner of a sweep to params.yaml."""

from reprise.commands.compose import made_by, write_recipe
from reprise.commands.seeds import apply_overrides
from reprise.core.config import PARAMS
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.sweep.result import folder_of, key_of, read_result


def adopt(name: str, trial: int | None) -> None:
    """Write a trial's overrides to params.yaml, with the answer of the sweep in a comment.

    Args:
        name: of the sweep.
        trial: its number; None for the winner.

    Raises:
        UserError: the sweep has not finished, has no winner or no such trial, or params.yaml has changed since.
    """
    folder = folder_of(name)
    result = read_result(folder)
    number = result.winner if trial is None else trial
    if number is None:
        raise UserError(f"no winner: {result.sentence}", file=folder, expected="--trial NUMBER to adopt one anyway")
    overrides = result.trials.get(str(number))
    if overrides is None:
        raise UserError(f"got {number}", file=folder, key="--trial", expected=f"1 to {len(result.trials)}")
    if apply_overrides([]) != result.recipe:
        raise UserError("changed since the sweep", file=PARAMS, expected="the recipe that the sweep compared with")
    keys = {key_of(override) for override in overrides}
    earlier = made_by(PARAMS)
    command = None if earlier is None else [*(text for text in earlier if key_of(text) not in keys), *overrides]
    comment = f"Adopted trial {number} of the sweep {name}: {result.sentence}"
    for difference in write_recipe(apply_overrides(overrides), command, PARAMS, comment):
        echo(f"{PARAMS}: {difference}")
    echo("Run it: dvc repro")
