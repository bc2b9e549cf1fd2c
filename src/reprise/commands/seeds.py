"""`reprise seeds`: the recipe with several seeds, each an experiment, and how far its figures spread."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from reprise.core.config import PARAMS, to_dict
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.hardware import current_hardware, locked_environment
from reprise.results.diff import replicate_key_of
from reprise.results.run import flatten
from reprise.results.runs import Run, all_runs, first_per_seed, resolve_run, seed_replicates
from reprise.results.statistics import summarize
from reprise.results.vcs import dvc, resolve_commit

PIPELINE = Path("dvc.yaml")


def run_seeds(count: int, overrides: Sequence[str]) -> None:
    """Cook the recipe with its own seed and those after it, and print how its figures spread.

    Each is a DVC experiment in a copy of the checkout, so the workspace stays as it is. A seed that was cooked already
    with the same recipe, code and environment is taken as it is, wherever it lies: so what was interrupted goes on.

    Args:
        count: how many seeds.
        overrides: of params.yaml, as `dvc exp run -S` takes them.

    Raises:
        UserError: an override means nothing, there is no commit to cook from, or the pipeline fails.
    """
    resolve_commit("HEAD")
    params = apply_overrides(overrides)
    group = planned_replicate_key(params)
    wanted = range(params["seed"], params["seed"] + count)
    there = {run.seed: run for run in reversed(seed_replicates(group, all_runs()))}
    name = f"seed-{{}}-{hashlib.sha256(group.encode()).hexdigest()[:7]}"
    runs = []
    for number, seed in enumerate(wanted, start=1):
        known = there.get(seed)
        print(f"seeds: seed {seed}, {number} of {count}{f': {known.name} has it' if known else ''}", flush=True)
        if known is None:
            run_experiment(name.format(seed), seed, overrides)
            known = resolve_run(name.format(seed))
        runs.append(known)
    print_spread(first_per_seed(runs))


def run_experiment(name: str, seed: int, overrides: Iterable[str] = ()) -> None:
    """Cook the recipe with a seed as an experiment of that name, in a copy of the checkout.

    Raises:
        UserError: the pipeline fails.
    """
    settings = [word for setting in (*overrides, f"seed={seed}") for word in ("--set-param", setting)]
    if dvc("exp", "run", "--temp", "--name", name, *settings):
        raise UserError(f"params.yaml: seed {seed}: the pipeline failed, see above; expected it to cook")


def apply_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """params.yaml as `dvc exp run -S` would cook it, checked; both speak Hydra's grammar.

    Raises:
        UserError: an override is malformed, names an unknown key, or gives several values.
    """
    own = [override.removeprefix(f"{PARAMS}:") for override in overrides]
    if not PARAMS.is_file():
        raise UserError(f"{PARAMS}: not found; run from the repository's root, or make it with `reprise compose`")
    try:
        with initialize_config_dir(str(PARAMS.parent.resolve()), version_base="1.3"):
            changed = OmegaConf.to_container(compose(PARAMS.stem, own), resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        said = next(iter(str(error).splitlines()), "")
        raise UserError(f"-S {' -S '.join(overrides)}: expected KEY=VALUE of a key in {PARAMS}: {said}") from None
    return dict(to_dict(check_recipe(changed, str(PARAMS))))


def planned_replicate_key(params: Mapping[str, Any]) -> str:
    """The `identity` of what `dvc repro` would cook here with these parameters.

    Raises:
        UserError: the software is not the locked one, or what the pipeline reads is not there.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo  # slow; it hashes the code exactly as it will for dvc.lock

    try:
        with Repo() as repo:
            stages = list(repo.index.stages)
            made = [Path(out.fs_path) for stage in stages for out in stage.outs]
            code = {}
            for dep in (dep for stage in stages for dep in stage.deps if dep.hash_name != "params"):
                place = Path(dep.fs_path)
                if not any(place.is_relative_to(out) for out in made):
                    code[place.relative_to(repo.root_dir).as_posix()] = dep.get_hash().value
    except DvcException as error:
        raise UserError(f"{PIPELINE}: expected a pipeline that DVC can cook here: {error}") from None
    told = YAML(typ="safe").load(PIPELINE.read_text(encoding="utf-8"))["stages"].values()
    keys = [key for stage in told for key in stage.get("params", [])]
    return replicate_key_of(
        stage_params(params, keys), code, flatten({"environment": locked_environment(current_hardware())})
    )


def stage_params(params: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """What the stages read of params.yaml, by dotted key, given the keys that dvc.yaml names."""
    found: dict[str, Any] = {}
    for key in keys:
        value: Any = params
        for part in key.split("."):
            value = value[part]
        found |= flatten({key: value})
    return found


def print_spread(runs: Sequence[Run]) -> None:
    """Print mean, standard deviation and ends of each figure over the seeds, and what to type next."""
    console = Console(highlight=False, markup=False)
    table = Table()
    for heading in ("stage", "figure", "mean", "standard deviation", "min", "max"):
        table.add_column(heading, justify="left" if heading in ("stage", "figure") else "right")
    for stage in ("evaluate", "train"):
        for name in runs[0].result.metrics[stage]:
            told = summarize([run.result.metrics[stage][name] for run in runs])
            spread = "–" if told.sd is None else f"{told.sd:.4f}"
            table.add_row(stage, name, f"{told.mean:.4f}", spread, f"{told.low:.4f}", f"{told.high:.4f}")
    console.print(table)
    console.print(f"{len(runs)} seed{'s' * (len(runs) > 1)}: {', '.join(run.name for run in runs)}", soft_wrap=True)
    for run in runs:
        if run.constant_prediction:
            console.print(
                f"Warning: {run.name} is a constant prediction: one label for every example",
                style="bold",
                soft_wrap=True,
            )
    if any(run.kind == "commit" for run in runs):
        console.print("Try something else as often: reprise seeds -n N -S KEY=VALUE", soft_wrap=True)
    else:
        console.print(f"Is it better? reprise compare seeds:HEAD seeds:{runs[-1].name}", soft_wrap=True)
