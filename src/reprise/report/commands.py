"""Shell commands that get a run's results and that reproduce it."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reprise.report.run import ReportRun

PLAIN_VALUE = re.compile(r"[A-Za-z_][\w./:@+-]*", re.ASCII)
# Words that Hydra's grammar does not parse as strings (hydra.cc/docs/advanced/override_grammar/basic).
RESERVED_WORDS = {"null", "true", "false", "nan", "inf"}
Recipe = Mapping[str, Any]


@dataclass(frozen=True)
class Command:
    """Lines to type, and their purpose."""

    purpose: str
    lines: list[str]


def run_commands(run: ReportRun, by_commit: dict[str, ReportRun]) -> list[Command]:
    """Return the commands that get a run's results and that reproduce it.

    An experiment that changed only params.yaml is reproduced by `dvc exp run` on its parent commit.

    Args:
        run: the run.
        by_commit: all runs of the report that have a commit.
    """
    prefix = docker_prefix(run)
    verify = Command("Reproduce it and grade every output", [f"make verify REV={run.commit}"])
    base = by_commit.get(run.parent)
    if run.kind == "commit":
        return [Command("Get its results", [f"git checkout {run.commit}", "dvc checkout"]), verify]
    experiment = None
    if base is not None and base.result.code == run.result.code:
        arguments = experiment_command(run.params, base.params)
        experiment = None if arguments is None else [f"git checkout {base.commit}", f"{prefix}{shlex.join(arguments)}"]
    if run.kind == "workspace":
        if not run.params_are_current:
            return []  # every command would run another recipe
        return [Command("Run it again", experiment or [f"{prefix}dvc repro"])]
    return [
        Command("Get its results", [f"dvc exp apply {shlex.join([run.name])}"]),
        Command("Run it again", experiment or [f"git checkout {run.commit}", f"{prefix}dvc repro"]),
        verify,
    ]


def docker_prefix(run: ReportRun) -> str:
    """Return the command prefix that runs a command in the image of the run's hardware; empty if it used none."""
    provenance = run.result.provenance
    hardware = provenance.get("environment.hardware", "cpu")
    return f"docker/run {hardware} " if provenance.get("image") or hardware != "cpu" else ""


def experiment_command(recipe: Recipe, base: Recipe) -> list[str] | None:
    """Return the arguments of the `dvc exp run` that changes one params.yaml to another.

    Args:
        recipe: wanted params.yaml, nested.
        base: params.yaml of the commit on which the command is run, nested.

    Returns:
        The arguments, None if `-S` cannot express the change: keys are added or removed, or are no identifiers.
    """
    try:
        overrides = [f"{key}={to_hydra(value)}" for key, value in changes(recipe, base)]
    except LookupError:
        return None
    return ["dvc", "exp", "run", *(argument for override in overrides for argument in ("-S", override))]


def changes(recipe: Recipe, base: Recipe, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys whose values differ, with the value in `recipe`.

    Raises:
        LookupError: a mapping has other keys, or a mapping is replaced by a list or the reverse.
    """
    require_identifiers(recipe)
    if recipe.keys() != base.keys():
        raise LookupError(prefix)
    for key, value in recipe.items():
        before = base[key]
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            yield from changes(value, before, f"{prefix}{key}.")
        elif {type(value), type(before)} == {list, dict}:
            raise LookupError(f"{prefix}{key}")
        elif value != before or type(value) is not type(before):
            yield f"{prefix}{key}", value


def to_hydra(value: Any) -> str:
    """Format a value in Hydra's override grammar, which `-S` uses.

    Raises:
        LookupError: a key of a mapping is no identifier.
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case Mapping():
            require_identifiers(value)
            return "{" + ",".join(f"{key}:{to_hydra(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + ",".join(map(to_hydra, value)) + "]"
    text = str(value)
    if PLAIN_VALUE.fullmatch(text) and text.lower() not in RESERVED_WORDS:
        return text
    # In quotes a backslash is literal, except before a quote.
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def require_identifiers(mapping: Mapping[str, Any]) -> None:
    """Check that every key can be part of a dotted key.

    Raises:
        LookupError: a key is no identifier.
    """
    for key in mapping:
        if not str(key).isidentifier():
            raise LookupError(key)
