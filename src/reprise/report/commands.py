"""What to type to have a run's results, and to cook it again."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reprise.report.run import ReportRun

PLAIN_VALUE = re.compile(r"[A-Za-z_][\w./:@+-]*", re.ASCII)
# What Hydra's grammar does not take for text (hydra.cc/docs/advanced/override_grammar/basic).
RESERVED_WORDS = {"null", "true", "false", "nan", "inf"}
Recipe = Mapping[str, Any]


@dataclass(frozen=True)
class Command:
    """What to type, and what comes of it."""

    purpose: str
    lines: list[str]


def run_commands(entry: ReportRun, by_commit: dict[str, ReportRun]) -> list[Command]:
    """What gives a run's results, and what cooks it again.

    An experiment is said as the `dvc exp run` on the commit that it was tried on, if it changed
    nothing but params.yaml.
    """
    where = docker_prefix(entry)
    again = Command("Cook it again and judge every output", [f"make verify REV={entry.commit}"])
    base = by_commit.get(entry.parent)
    if entry.kind == "commit":
        return [Command("Get its results", [f"git checkout {entry.commit}", "dvc checkout"]), again]
    said = None
    if base is not None and base.result.code == entry.result.code:
        words = experiment_command(entry.params, base.params)
        said = None if words is None else [f"git checkout {base.commit}", f"{where}{shlex.join(words)}"]
    if entry.kind == "workspace":
        return [Command("Cook it again", said or [f"{where}dvc repro"])]
    return [
        Command("Get its results", [f"dvc exp apply {shlex.join([entry.name])}"]),
        Command("Cook it anew", said or [f"git checkout {entry.commit}", f"{where}dvc repro"]),
        again,
    ]


def docker_prefix(entry: ReportRun) -> str:
    """What stands before a command so that it runs in the image of the hardware that the run was cooked on."""
    told = entry.result.provenance
    kind = told.get("environment.hardware", "cpu")
    return f"docker/run {kind} " if told.get("image") or kind != "cpu" else ""


def experiment_command(recipe: Recipe, base: Recipe) -> list[str] | None:
    """The words of the `dvc exp run` that cooks `recipe` where `base` is the params.yaml that lies there.

    Both are nested, as the file is. None where `-S` cannot say it: keys come or go, or are no names.
    """
    try:
        settings = [f"{key}={to_hydra(value)}" for key, value in changes(recipe, base)]
    except LookupError:
        return None
    return ["dvc", "exp", "run", *(word for setting in settings for word in ("-S", setting))]


def changes(recipe: Recipe, base: Recipe, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys whose values are not the same, with the value of `recipe`.

    Raises:
        LookupError: a mapping has other keys, or what was one is a list.
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
    """A value in Hydra's override grammar, which `-S` speaks.

    Raises:
        LookupError: a key in it is no name.
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
    # Within quotes a backslash stands for itself, unless a quote comes after it.
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def require_identifiers(mapping: Mapping[str, Any]) -> None:
    """Raise LookupError where a key could not stand in a dotted key."""
    for key in mapping:
        if not str(key).isidentifier():
            raise LookupError(key)
