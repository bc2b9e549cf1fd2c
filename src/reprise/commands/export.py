"""`reprise export`: export the final model to a folder for the Hub, with a model card of measured results."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from reprise.commands.markdown import code_span, escape_markdown
from reprise.core.config import PARAMS, HubDataset, HubModel, Recipe, WheelSource
from reprise.core.display import echo
from reprise.core.dvc_lock import LOCK, check_content
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, read_json
from reprise.core.paths import FINAL_MODEL, METRICS, PREPARED
from reprise.data.format import stats_path
from reprise.hardware import read_facts
from reprise.results.reference import Reference, find_reference
from reprise.results.run import PROVENANCE, folder_reader, read_result
from reprise.results.vcs import check_output, try_output
from reprise.results.workspace import read_made
from reprise.tasks.metrics.registry import display_name

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "datasets")


def export(folder: Path) -> None:
    """Write model, tokenizer, model card, recipe and provenance to a folder.

    Args:
        folder: folder that is empty or does not exist.

    Raises:
        UserError: the folder is not empty, the results do not belong to the current recipe, or they are not as dvc.lock
            records them.
    """
    target = folder.resolve()  # of a link, the folder it points to
    blocked = any(parent.is_file() for parent in target.parents) or target.is_file()
    if blocked or (target.is_dir() and any(target.iterdir())):
        raise UserError(file=folder, expected="a folder that is empty or does not exist")
    stale = stale_stages()
    if stale:
        changes = "".join(f"; {change}" for change in read_made().changes) if LOCK.is_file() else ""
        raise UserError(f"out of date: {', '.join(stale)}{changes}", file=PARAMS, expected="`dvc repro` first")
    result = read_result(folder_reader(Path()), where="workspace")
    if result.edited:
        raise UserError(
            f"not as {LOCK} records it: edited or damaged",
            file=result.edited[0],
            expected="the results of one run; `reprise fsck` names what restores them",
        )
    check_content(PREPARED)
    reference = find_reference(result, result.provenance["environment.hardware"])
    text = model_card(
        read_made().recipe,
        read_json(METRICS / "evaluate.json"),
        read_json(stats_path(PREPARED)),
        read_json(PROVENANCE),
        reference,
        origin=redact_url(try_output("git", "remote", "get-url", "origin") or ""),
    )
    with atomic_dir(target) as partial:
        for file in sorted(FINAL_MODEL.iterdir()):
            shutil.copyfile(file, partial / file.name)
        check_content(FINAL_MODEL, partial)  # the copies, which are what is exported
        shutil.copyfile(PARAMS, partial / PARAMS.name)
        shutil.copyfile(PROVENANCE, partial / PROVENANCE.name)
        (partial / "README.md").write_text(f"{text}\n", encoding="utf-8")
    for file in sorted(target.iterdir()):
        echo(f"export: {folder / file.name}, {file.stat().st_size:,} bytes")
    echo(f"export: upload it with `hf upload YOUR_NAME/{target.name} {folder}`")


def stale_stages() -> list[str]:
    """List the stages that DVC would run, except the one that always runs."""
    status: dict[str, list[Any]] = json.loads(check_output("dvc", "status", "--json"))
    return [stage for stage, changes in status.items() if changes != ["always changed"]]


def model_card(
    recipe: Recipe,
    evaluated: dict[str, Any],
    prepared: dict[str, Any],
    provenance: dict[str, Any],
    reference: Reference | None,
    origin: str,
) -> ModelCard:
    """Build the model card: metadata for the Hub (huggingface.co/docs/hub/model-cards) and text.

    Args:
        recipe: recipe of the model.
        evaluated: content of metrics/evaluate.json.
        prepared: content of data/prepared/stats.json.
        provenance: content of metrics/provenance.json.
        reference: metrics over seeds, None if not measured.
        origin: URL to clone the repository from, empty if it is not public.
    """
    data, model = recipe.task.source, recipe.model.source
    dataset = data.repo if isinstance(data, HubDataset) else recipe.task.name
    names = (data.splits if isinstance(data, HubDataset) else None) or {}
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["reprise"],
        model_name=f"{recipe.model.name}-{recipe.task.name}",
        base_model=model.repo if isinstance(model, HubModel) else None,
        datasets=[dataset] if isinstance(data, HubDataset) else None,
        metrics=list(recipe.task.metrics),
        eval_results=[
            EvalResult(
                task_type="text-classification",
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
        constant_prediction=evaluated["constant_prediction"],
        reference=asdict(reference) if reference else None,
        model_source=describe_source(model),
        data_source=f"{describe_source(data)}.",
        command="\n".join((clone, f"git checkout {session['commit'] or 'THE_COMMIT'}", reproduce_command(session))),
        dirty=any(each["dirty"] for each in provenance["sessions"]),
        weights=", ".join(result["weights"].values()),
        session=session,
        packages=PACKAGES,
        escape=escape_markdown,  # names, labels and columns are the user's
        code=code_span,
    )
    return card


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


def redact_url(url: str) -> str:
    """Remove password and token from a clone URL; return an empty string for a path on this machine."""
    if url.startswith("git@"):
        return url
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http", "ssh") or not parts.hostname:
        return ""
    user = f"{parts.username}@" if parts.scheme == "ssh" and parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, user + parts.hostname + port, parts.path, "", ""))
