"""The model card of an exported folder: written from measured results, and compared with them later."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from reprise.commands.classes import CLASS_HEADINGS, ERROR_HEADINGS, class_rows, error_rows
from reprise.commands.markdown import code_span, escape_markdown, markdown_table
from reprise.core.config import HubDataset, HubModel, Recipe, WheelSource
from reprise.core.errors import UserError
from reprise.data.checks import describe_baseline
from reprise.hardware import read_facts
from reprise.results.reference import Reference
from reprise.results.run import EVALUATION
from reprise.tasks.metrics.registry import display_name

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
MAX_ERRORS = 10  # kinds of errors on the card
PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "datasets")


def model_card(
    recipe: Recipe,
    evaluated: dict[str, Any],
    prepared: dict[str, Any],
    provenance: dict[str, Any],
    reference: Reference | None,
    origin: str,
    classes: pd.DataFrame,
    confusions: pd.DataFrame,
    checks: dict[str, Any] | None = None,
    onnx_table: Sequence[str] = (),
) -> ModelCard:
    """Build the model card: metadata for the Hub (huggingface.co/docs/hub/model-cards) and text.

    Args:
        recipe: recipe of the model.
        evaluated: content of metrics/evaluate.json.
        prepared: content of data/prepared/stats.json.
        provenance: content of metrics/provenance.json.
        reference: metrics over seeds, None if not measured.
        origin: URL to clone the repository from, empty if it is not public.
        classes: scores of each label, as `read_classes` returns them.
        confusions: kinds of errors, as `read_confusions` returns them.
        checks: content of data/checks/checks.json, None if missing.
        onnx_table: lines of the table of the files in ONNX.
    """
    data, model = recipe.task.source, recipe.model.source
    dataset = data.repo if isinstance(data, HubDataset) else recipe.task.name
    names = (data.splits if isinstance(data, HubDataset) else None) or {}
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=recipe.task.kind.pipeline,
        tags=["reprise"],
        model_name=f"{recipe.model.name}-{recipe.task.name}",
        base_model=model.repo if isinstance(model, HubModel) else None,
        datasets=[dataset] if isinstance(data, HubDataset) else None,
        metrics=list(recipe.task.metrics),
        eval_results=[
            EvalResult(
                task_type=recipe.task.kind.pipeline,
                dataset_type=dataset,
                dataset_name=recipe.task.name,
                dataset_config=data.config if isinstance(data, HubDataset) else None,
                dataset_revision=data.revision if isinstance(data, HubDataset) else None,
                dataset_split=names.get(evaluated["split"], evaluated["split"]),  # the Hub's name of the split
                metric_type=name,
                metric_name=display_name(name, recipe.task.positive_label, len(recipe.task.labels)),
                metric_value=evaluated[name],
            )
            for name in evaluated["ci95"]
        ],
    )
    session, result = provenance["sessions"][-1], provenance["results"][-1]
    clone = f"git clone {origin or 'THE_REPOSITORY'} reprise && cd reprise"
    card: ModelCard = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        recipe=recipe,
        evaluated=evaluated,
        display_name=lambda name: display_name(name, recipe.task.positive_label, len(recipe.task.labels)),
        prepared=prepared,
        class_table="\n".join(markdown_table(CLASS_HEADINGS, class_rows(classes))) if len(classes) else "",
        error_table="\n".join(markdown_table(ERROR_HEADINGS, error_rows(confusions.head(MAX_ERRORS))))
        if len(confusions)
        else "",
        other_errors=max(0, len(confusions) - MAX_ERRORS),
        label_table=label_table(prepared),
        data_lines=data_lines(checks, evaluated["split"]) if checks else [],
        constant_prediction=evaluated["constant_prediction"],
        reference=asdict(reference) if reference else None,
        model_source=describe_source(model),
        data_source=f"{describe_source(data)}.",
        command="\n".join((clone, f"git checkout {session['commit'] or 'THE_COMMIT'}", reproduce_command(session))),
        dirty=any(each["dirty"] for each in provenance["sessions"]),
        weights=", ".join(result["weights"].values()),
        session=session,
        packages=PACKAGES,
        metric_row=lambda name: metric_row(name, recipe, evaluated),
        onnx_table="\n".join(onnx_table),
        escape=escape_markdown,  # names, labels and columns are the user's
        code=code_span,
    )
    return card


def data_lines(checks: dict[str, Any], split: str) -> list[str]:
    """Return what a reader must know of the data to judge the metrics: the linear baseline, and near duplicates."""
    found = [describe_baseline(checks, split)]
    if near := checks["checks"].get("near_duplicates", {}).get("splits", {}).get(split):
        found.append(f"{near['count']:,} of the {near['of']:,} texts are nearly equal to one of an earlier split.")
    return [escape_markdown(line) for line in found if line]


def label_table(prepared: dict[str, Any]) -> str:
    """Return a table of the examples of each label in each split; empty for a regression."""
    splits = prepared["splits"]
    rows = [[label, *(f"{split['label_counts'][label]}" for split in splits.values())] for label in prepared["labels"]]
    return "\n".join(markdown_table(("label", *splits), rows)) if rows else ""


def reproduce_command(session: dict[str, Any]) -> str:
    """Return the command that reproduces a session on its hardware, in its image or in the virtual environment."""
    hardware = session["environment"]["hardware"]
    if hardware == "cpu" and not session["image"]:
        return "make train"
    return f"make train-{read_facts(hardware)['target']}"


def describe_source(source: Any) -> str:
    """Describe a source of data or weights with the revision or digest that pins it."""
    match source:
        case HubDataset() | HubModel():
            config = f", {code_span(source.config)}" if isinstance(source, HubDataset) else ""
            return f"{code_span(source.repo)}{config} of the Hub at revision {code_span(source.revision)}"
        case WheelSource():
            package = escape_markdown(f"{source.distribution} {source.version}")
            return f"{code_span(source.path)} of the package {package}, SHA-256 {code_span(source.sha256)}"
    return "local files"


def metric_row(name: str, recipe: Recipe, evaluated: dict[str, Any]) -> str:
    """Return the line of the card's table for a metric: value, 95 % interval and baseline."""
    low, high = evaluated["ci95"][name]["low"], evaluated["ci95"][name]["high"]
    interval = "–" if low is None or high is None else f"{low:.4f} – {high:.4f}"
    shown = escape_markdown(display_name(name, recipe.task.positive_label, len(recipe.task.labels)))
    return f"| {shown} | {evaluated[name]:.4f} | {interval} | {evaluated['baseline'][name]:.4f} |"


def card_problems(file: Path, recipe: Recipe, evaluated: dict[str, Any], weights: Iterable[str]) -> Iterator[UserError]:
    """Compare what a card measures, in its metadata and in its table, with a recipe, its evaluation and its weights.

    Its other text is the owner's: a licence, or a description.

    Args:
        file: the card.
        recipe: recipe of the model.
        evaluated: content of metrics/evaluate.json.
        weights: SHA-256 of each file of weights.
    """
    name, expected = f"{recipe.model.name}-{recipe.task.name}", "the card that `reprise export` wrote"
    try:
        text = file.read_text(encoding="utf-8")
        data: Any = ModelCard(text).data
        claimed = {each.metric_type: each.metric_value for each in data.eval_results or ()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        yield UserError("not a model card", file=file, expected=expected)
        return
    if data.model_name != name:
        yield UserError(f"{data.model_name} is another recipe", file=file, key="model-index.name", expected=name)
    for metric in evaluated["ci95"]:
        value, row = evaluated[metric], metric_row(metric, recipe, evaluated)
        if claimed.pop(metric, None) != value:
            yield UserError(file=file, key=f"model-index: {metric}", expected=f"{value}, as in {EVALUATION}")
        if row not in text.splitlines():
            yield UserError(file=file, key=f"Evaluation: {metric}", expected=f"the line {row}")
    for digest in weights:
        if digest not in text:
            yield UserError("the weights of another run", file=file, key="Reproduce it", expected=f"SHA-256 {digest}")
    for metric in claimed:
        yield UserError("no metric of this run", file=file, key=f"model-index: {metric}", expected=expected)
