"""The reference pages of the documentation, generated from the source at every build of the site."""

import csv
import json
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import TypeAdapter
from typer.core import TyperGroup

from reprise.cli import COMMAND_GROUPS, app
from reprise.commands.attestations import read_attestation
from reprise.commands.compose import compose_recipe
from reprise.commands.markdown import markdown_table
from reprise.core.config import Recipe
from reprise.core.errors import UserError
from reprise.tasks.metrics.registry import METRICS as REGISTRY

Rows = Iterable[Sequence[str]]

# Of the files that DVC does not know.
OF_ITS_RUN = {
    "run": "the MD5 of model, environment and code in `dvc.lock`: the file is shown for no other run",
    "sha256": "the SHA-256 of the other keys, so that an edit is found",
}
# The meaning of each key of the metrics files: a build fails if a file has another key.
METRICS = {
    "evaluate.json": {
        "split": "the split that was evaluated, `evaluate.split`",
        "num_examples": "its number of examples",
        "positive_label": "of two labels the one that F1 is of; null for more labels",
        "accuracy": "a metric of `task.metrics`",
        "f1": "a metric of `task.metrics`",
        "ci95": "per metric the bounds of its 95 % confidence interval over the choice of examples",
        "ci95_method": "per metric how the interval was computed",
        "baseline": "the metrics of always predicting the majority class of the training split",
        "constant_prediction": "true if every example got the same prediction, or numbers that hardly vary",
        "ece": "expected calibration error",
        "ece_uncalibrated": "what `ece` would be without `train.calibration`; only with it",
    },
    "train.json": {
        "best_epoch": "the epoch whose weights were kept, counted from 1",
        "steps": "optimizer steps",
        "train_loss": "mean loss over the examples of that epoch",
        "validation": "its metrics on the validation split",
    },
    "preflight.json": {
        "new_parameters": "weights that start from random numbers",
        "batch_invariant": "whether the rest of a batch leaves an example's result alone",
        "notes": "what was decided",
        "warnings": "what may be a mistake",
    },
    "speed.json": {
        **OF_ITS_RUN,
        "train_seconds": "seconds of training, with validation",
        "median_step_seconds": "seconds of a step",
        "examples_per_second": "examples per second of training",
        "tokens_per_second": "tokens per second, without padding",
        "padding_fraction": "padding among all tokens that were computed",
        "peak_memory_mib": "peak memory in MiB",
        "processes": "processes on all hosts",
        "threads": "threads of each process",
    },
    "provenance.json": {
        **OF_ITS_RUN,
        "sessions": "per session of a run that was interrupted: start, commit, image, versions, devices, threads",
        "results": "digests of data, pretrained weights, sample order and final weights",
    },
}
# Variables that are no option of `reprise train`, and where they are read.
VARIABLES = {
    "REPRISE_HARDWARE": ("the folder in docker/ whose locks are checked (default: `cpu`); an image sets it", "src"),
    "HF_TOKEN": ("a token of the Hugging Face Hub, for `fetch` and `export --push`", "deploy"),
    "PJRT_DEVICE": ("`CPU` runs the TPU code path on XLA's CPU device", "src"),
    "OMP_WAIT_POLICY": ("`PASSIVE` lets threads that wait for work sleep at once, `ACTIVE` lets them spin", "src"),
    "OMP_NUM_THREADS": ("threads of a training process on a CPU", "src"),
    "ENGINE": ("`docker` or `podman` (default: the first one that is installed)", "docker"),
    "GPUS": ("the GPUs of an image: `0,1` or `all` (default: the first one)", "docker"),
    "BASE_IMAGE": ("another base image with the same Python", "docker"),
    "BUILD_ARGS": ("further options for building an image", "docker"),
    "RUN_ARGS": ("further options for running an image", "docker"),
}


def reference_pages(root: Path) -> dict[str, str]:
    """Return the Markdown of the reference pages by name."""
    return {
        "params": params_page(root),
        "cli": cli_page(),
        "metrics": metrics_page(root),
        "environment": environment_page(root),
        "make": make_page(root),
        "processors": processors_page(root / "reference"),
    }


def params_page(root: Path) -> str:
    """Describe every key of params.yaml: type from core/config.py, default and meaning from recipes/."""
    schema = TypeAdapter(Recipe).json_schema()
    defaults, meanings = compose_recipe([], root / "recipes"), catalog_comments(root / "recipes")
    definitions, page = schema["$defs"], ["# params.yaml"]
    page += [
        "`params.yaml` is the recipe. `reprise compose` writes it; edit it by hand as you like. An unknown key or a "
        "wrong type is an error. The defaults are those of `reprise compose` without arguments."
    ]
    plain = {key: value for key, value in schema["properties"].items() if "$ref" not in value}
    page += [table(("key", "type", "default", "meaning"), key_rows(plain, "", defaults, meanings))]
    for name, value in schema["properties"].items():
        if "$ref" in value:
            section = definitions[value["$ref"].rsplit("/", 1)[1]]
            page += [f"## {name}", section["description"]]
            rows = key_rows(section["properties"], f"{name}.", defaults[name], meanings)
            page += [table(("key", "type", "default", "meaning"), rows)]
    page += ["## Values that are sections"]
    top = {value["$ref"].rsplit("/", 1)[1] for value in schema["properties"].values() if "$ref" in value}
    for name in sorted(definitions.keys() - top):
        section = definitions[name]
        page += [f"### {name}", section["description"]]
        prefix = {"Checks": "data.checks."}.get(name, "")  # the others have several places in a recipe
        rows = [
            (f"`{key}`", kind(value), meanings.get(prefix + key, "") if prefix else "")
            for key, value in section["properties"].items()
        ]
        page += [table(("key", "type", "meaning"), rows)]
    return "\n\n".join(page) + "\n"


def key_rows(properties: dict[str, Any], prefix: str, defaults: Any, meanings: dict[str, str]) -> Rows:
    """Return a row per key of a section: its name without `prefix`, type, default and meaning."""
    rows: list[Sequence[str]] = []
    for key, value in properties.items():
        default = defaults.get(key)
        shown = "a section" if isinstance(default, dict) else f"`{json.dumps(default)}`"
        rows.append((f"`{key}`", kind(value), shown, meanings.get(prefix + key, "")))
    return rows


def kind(value: dict[str, Any]) -> str:
    """Describe a JSON schema in a few words."""
    if options := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(kind(option) for option in options)
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if choices := value.get("enum") or ([value["const"]] if "const" in value else None):
        return ", ".join(f"`{choice}`" for choice in choices)
    if value.get("type") == "array":
        return f"list of {kind(value['items'])}"
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    limits = [f"{sign} {value[bound]:g}" for bound, sign in bounds.items() if value.get(bound, 2**63) < 2**63]
    names = {"string": "text", "object": "mapping", "boolean": "`true`, `false`", "null": "null"}
    return ", ".join([names.get(value.get("type", ""), value.get("type", "any")), *limits])


def catalog_comments(recipes: Path) -> dict[str, str]:
    """Return the comment after each key of the catalog's files, or above it, by dotted key."""
    meanings: dict[str, str] = {}
    for name, prefix in {"config.yaml": "", "train/default.yaml": "train.", "task/custom.yaml": ""}.items():
        parents: list[tuple[int, str]] = []
        above: list[str] = []
        for line in (recipes / name).read_text(encoding="utf-8").splitlines():
            if match := re.match(r"( *)(\w+):(?:[^#]*?# (.*))?", line):
                indent = len(match[1])
                parents = [(i, key) for i, key in parents if i < indent] + [(indent, match[2])]
                if comment := match[3] or " ".join(above):
                    meanings.setdefault(prefix + ".".join(key for _, key in parents), comment.replace("|", "\\|"))
            above = [*above, line.strip("# ")] if line.startswith("#") else []
    return meanings


def cli_page() -> str:
    """Describe every command of `reprise` with its options."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    page = ["# Command line", paragraphs(group.help)]
    for heading, names in COMMAND_GROUPS.items():
        page += [f"## {heading}"]
        for name in names:
            command = group.commands[name]
            arguments = [argument_name(one) for one in command.params if one.param_type_name == "argument"]
            options = ["[OPTIONS]"] if len(arguments) < len(command.params) else []
            usage = " ".join([f"reprise {name}", *options, *arguments])
            page += [f"### {name}", f"```text\n{usage}\n```", paragraphs(command.help)]
            if command.params:
                page += [
                    table(("argument or option", "meaning", "default", "variable"), map(option_row, command.params))
                ]
    return "\n\n".join(page) + "\n"


def argument_name(parameter: Any) -> str:
    """Return the name of an argument in the usage of its command."""
    name: str = parameter.metavar or parameter.name.upper()
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def option_row(parameter: Any) -> Sequence[str]:
    """Return the row of a command's argument or option."""
    shown = [argument_name(parameter)] if parameter.param_type_name == "argument" else parameter.opts
    default = "" if parameter.default in (None, False, ()) else f"`{parameter.default}`"
    variable = f"`{parameter.envvar}`" if parameter.envvar else ""
    return ", ".join(f"`{option}`" for option in shown), escaped(parameter.help), default, variable


def metrics_page(root: Path) -> str:
    """Describe every key of the metrics files, with its value in the committed result."""
    page = ["# Metrics files", "The stages write these files. The values are those of the committed result."]
    for name, meanings in METRICS.items():
        content = json.loads((root / "metrics" / name).read_text(encoding="utf-8"))
        if unknown := content.keys() - meanings.keys() - REGISTRY.keys():
            raise ValueError(f"docs/reference.py: METRICS[{name!r}]: {', '.join(sorted(unknown))}")
        values = {key: f"`{json.dumps(value)}`" for key, value in content.items() if not isinstance(value, dict | list)}
        rows = [(f"`{key}`", meaning, values.get(key, "")) for key, meaning in meanings.items()]
        page += [f"## metrics/{name}", table(("key", "meaning", "value"), rows)]
    return "\n\n".join(page) + "\n"


def environment_page(root: Path) -> str:
    """Describe the environment variables: those of options, and those that other programs read."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    options: Rows = [
        (
            f"`{parameter.envvar}`",
            f"`{parameter.opts[0]}` of `reprise {name}`: {escaped(getattr(parameter, 'help', ''))}",
        )
        for name, command in group.commands.items()
        for parameter in command.params
        if parameter.envvar and not command.hidden
    ]
    for name, (_, folder) in VARIABLES.items():
        if subprocess.run(["git", "grep", "-qw", name, "--", folder], cwd=root, check=False).returncode:
            raise ValueError(f"docs/reference.py: VARIABLES: {name} is not in {folder}/")
    others: Rows = [(f"`{name}`", meaning) for name, (meaning, _) in VARIABLES.items()]
    return (
        "# Environment variables\n\nThe variables of options work with `dvc repro` too. Variables of `make` are in "
        f"[Make targets](make.md).\n\n{table(('variable', 'meaning'), [*options, *others])}\n"
    )


def make_page(root: Path) -> str:
    """List the targets of the Makefile with their help."""
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"^  make (\S+) +(.*)$", listed, flags=re.MULTILINE)
    rows: Rows = [(f"`make {name}`", meaning) for name, meaning in found]
    return f"# Make targets\n\n`make help` prints this list.\n\n{table(('target', 'what it does'), rows)}\n"


def processors_page(references: Path) -> str:
    """List the processors on which the weights of a recipe were rebuilt: by the authors, and in signed verdicts.

    Raises:
        UserError: a file is no signed verdict, its signature does not hold, or it is about other weights.
    """
    listed = references / "processors.csv"
    with listed.open(encoding="utf-8", newline="") as lines:
        authors = list(csv.DictReader(lines))
    recipes = {row["weights_sha256"]: row["recipe"] for row in authors}
    rows = [
        (row["recipe"], row["weights_sha256"][:16], row["processor"], "identical", f"the authors, {row['how']}")
        for row in authors
    ]
    for file in sorted((references / "attestations").glob("*.json")):
        found = read_attestation(file)
        weights = [digest for digest in found.subjects.values() if digest in recipes]
        if not weights:
            raise UserError("about other weights", file=file, expected=f"weights that {listed.name} names")
        if not found.holds:
            raise UserError("its signature does not hold", file=file, expected="the file as it was signed")
        evidence = f"key {found.fingerprint[:16]}, {found.when[:10]}"
        rows += [(recipes[digest], digest[:16], found.devices, found.verdict, evidence) for digest in weights]
    table_lines = markdown_table(("recipe", "weights, SHA-256", "processor", "verdict", "by"), rows)
    intro = (
        "Where the weights of a recipe were rebuilt. The authors' lines are in [processors.csv]"
        "(../../reference/processors.csv); the others are signed verdicts in `reference/attestations/`, "
        "whose signatures this build checked. [Add yours](../concepts/portable.md#the-table-of-processors)."
    )
    return "\n\n".join(["# Processors", intro, "\n".join(table_lines)]) + "\n"


def table(head: Sequence[str], rows: Rows) -> str:
    """Format a Markdown table, without the columns that are empty."""
    rows = list(rows)
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    lines = [[row[column] for column in kept] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def paragraphs(help_text: str | None) -> str:
    """Return a command's help as Markdown: each paragraph on one line."""
    return "\n\n".join(" ".join(escaped(paragraph).split()) for paragraph in (help_text or "").split("\n\n"))


def escaped(help_text: str | None) -> str:
    """Return a help text in which `docker/<hardware>/` is no HTML."""
    return (help_text or "").replace("<", "&lt;")
