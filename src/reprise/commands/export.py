"""`reprise export`: the final model as a folder for the Hub, with a model card that is all measured."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from reprise.core.config import PARAMS, HubDataset, HubModel, Recipe, WheelSource
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, read_json
from reprise.core.paths import FINAL_MODEL, METRICS, PREPARED
from reprise.core.validation import read_recipe
from reprise.data.format import stats_path
from reprise.results.reference import Reference, find_reference
from reprise.results.run import PROVENANCE, folder_reader, read_result
from reprise.results.vcs import check_output, try_output

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "datasets")


def export(folder: Path) -> None:
    """Write the model, its tokenizer, its card, its recipe and its provenance to a new folder.

    Raises:
        UserError: the folder has something in it, or what lies here is not what the recipe cooks.
    """
    place = folder.resolve()  # of what a link points to
    if any(above.is_file() for above in place.parents) or place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise UserError(f"{folder}: expected a folder that is empty or not there yet")
    stale = stale_stages()
    if stale:
        raise UserError(f"{PARAMS}: {', '.join(stale)} did not cook what lies here; expected `dvc repro` first")
    result = read_result(folder_reader(Path()), where="here")
    reference = find_reference(result, result.provenance["environment.hardware"])
    text = model_card(
        read_recipe(),
        read_json(METRICS / "evaluate.json"),
        read_json(stats_path(PREPARED)),
        read_json(PROVENANCE),
        reference,
        origin=redact_url(try_output("git", "remote", "get-url", "origin") or ""),
    )
    with atomic_dir(place) as partial:
        for file in sorted(FINAL_MODEL.iterdir()):
            shutil.copyfile(file, partial / file.name)
        shutil.copyfile(PARAMS, partial / PARAMS.name)
        shutil.copyfile(PROVENANCE, partial / PROVENANCE.name)
        (partial / "README.md").write_text(f"{text}\n", encoding="utf-8")
    for file in sorted(place.iterdir()):
        print(f"export: {folder / file.name}, {file.stat().st_size:,} bytes")
    print(f"export: to upload it, `hf upload YOUR_NAME/{place.name} {folder}`")


def stale_stages() -> list[str]:
    """The stages that DVC would run, but for the one that always runs."""
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
    """The model card: metadata as the Hub reads it (huggingface.co/docs/hub/model-cards), and the text.

    Args:
        recipe: what was cooked.
        evaluated: metrics/evaluate.json.
        prepared: data/prepared/stats.json.
        provenance: metrics/provenance.json.
        reference: the seeds' figures, where they were measured.
        origin: where the repository is cloned from, empty where nobody else could.
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
                dataset_split=names.get(evaluated["split"], evaluated["split"]),  # as the Hub calls it
                metric_type=name,
                metric_value=evaluated[name],
            )
            for name in evaluated["ci95"]
        ],
    )
    session, result = provenance["sessions"][-1], provenance["results"][-1]
    clone = f"git clone {origin or 'THE_REPOSITORY'} reprise && cd reprise"
    made: ModelCard = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATE),
        recipe=recipe,
        evaluated=evaluated,
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
    )
    return made


def reproduce_command(session: dict[str, Any]) -> str:
    """What cooks on the hardware that a session ran on: in the image, or in the environment of the checkout."""
    kind = session["environment"]["hardware"]
    if kind == "cpu" and not session["image"]:
        return "make train"
    return f"make train-{'gpu' if kind == 'cuda' else kind}"


def describe_source(source: Any) -> str:
    """Where something was fetched from, with what pins it."""
    match source:
        case HubDataset() | HubModel():
            config = f", `{source.config}`" if isinstance(source, HubDataset) else ""
            return f"`{source.repo}`{config} of the Hub at revision `{source.revision}`"
        case WheelSource():
            return f"`{source.path}` of the package {source.distribution} {source.version}, SHA-256 `{source.sha256}`"
    return "files of its own"


def redact_url(url: str) -> str:
    """A clone's URL without password or token; empty where it names a place of this machine."""
    if url.startswith("git@"):
        return url
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http", "ssh") or not parts.hostname:
        return ""
    user = f"{parts.username}@" if parts.scheme == "ssh" and parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, user + parts.hostname + port, parts.path, "", ""))
