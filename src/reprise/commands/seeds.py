"""`reprise seeds`: run the recipe with several seeds, each as an experiment, and summarize its metrics."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.table import Table
from ruamel.yaml import YAML

from reprise.commands.terminal import Terminal
from reprise.core.config import LOCAL_DATA, PARAMS, Recipe, to_dict
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.validation import check_recipe
from reprise.data.sources import dvc_pointers, own_paths, source_digests, untracked
from reprise.hardware import current_hardware, locked_environment
from reprise.results.diff import SEED_KEYS, replicate_key_of
from reprise.results.run import flatten
from reprise.results.runs import Run, all_runs, first_per_seed, replicates, resolve_run
from reprise.results.statistics import summarize
from reprise.results.vcs import check_experiments, dvc, resolve_commit, try_output

PIPELINE = Path("dvc.yaml")


def run_seeds(count: int, overrides: Sequence[str]) -> None:
    """Run the recipe with consecutive seeds and print the spread of its metrics.

    Each run is a DVC experiment in a copy of the checkout, so the workspace is untouched. A seed that the workspace,
    HEAD or an experiment already has, with the same recipe, code and environment, is not run again. An interrupted
    command therefore resumes where it stopped.

    Args:
        count: number of seeds, starting at the recipe's seed.
        overrides: overrides of params.yaml, as for `dvc exp run -S`.

    Raises:
        UserError: an override is invalid, the repository has no commit or cannot be copied, or the pipeline fails.
    """
    resolve_commit("HEAD")
    params = apply_overrides(overrides)
    check_copyable(check_recipe(params, str(PARAMS)))
    key = planned_replicate_key(params)
    existing = {run.seed: run for run in reversed(replicates(key, all_runs()))}
    name = f"seed-{{}}-{hashlib.sha256(key.encode()).hexdigest()[:7]}"
    runs = []
    for index, seed in enumerate(range(params["seed"], params["seed"] + count), start=1):
        run = existing.get(seed)
        echo(f"seeds: seed {seed}, {index} of {count}{f': reusing {run.name}' if run else ''}")
        if run is None:
            run_experiment(name.format(seed), seed, overrides)
            run = resolve_run(name.format(seed))
        runs.append(run)
    print_spread(first_per_seed(runs))


def check_copyable(recipe: Recipe) -> None:
    """Check that an experiment can run in a copy of this repository, which has tracked files only.

    Raises:
        UserError: DVC cannot copy the repository, or neither git nor DVC tracks one of the user's own files.
    """
    check_experiments(Path.cwd())
    pointers = (try_output("git", "ls-files", "-z", f"{LOCAL_DATA}*.dvc") or "").split("\0")
    named = {key: path for paths in own_paths(recipe).values() for key, path in paths.items()}
    for key, path in named.items():
        for file in (try_output("git", "ls-files", "--others", "-z", "--", str(path)) or "").split("\0"):
            hidden = PurePosixPath(file).name.startswith(".")
            if file and not hidden and not any(str(pointer) in pointers for pointer in dvc_pointers(Path(file))):
                raise untracked(Path(file), key)


def run_experiment(name: str, seed: int, overrides: Iterable[str] = ()) -> None:
    """Run the recipe with a seed as an experiment of this name, in a copy of the checkout.

    Raises:
        UserError: the pipeline fails.
    """
    params = [argument for override in (*overrides, f"seed={seed}") for argument in ("--set-param", override)]
    if dvc("exp", "run", "--temp", "--name", name, *params):
        raise UserError("the pipeline failed, see above", file=PARAMS, key=f"seed {seed}", expected="it to finish")


def apply_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return params.yaml with overrides applied as `dvc exp run -S` does, validated.

    Raises:
        UserError: an override is malformed, names an unknown key, or gives several values.
    """
    unprefixed = [override.removeprefix(f"{PARAMS}:") for override in overrides]
    if not PARAMS.is_file():
        expected = "the repository's root as the current folder, or `reprise compose` first"
        raise UserError("not found", file=PARAMS, expected=expected)
    try:
        with initialize_config_dir(str(PARAMS.parent.resolve()), version_base="1.3"):
            changed = OmegaConf.to_container(compose(PARAMS.stem, unprefixed), resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "")
        given = f"-S {' -S '.join(overrides)}"
        raise UserError(reason, key=given, expected=f"KEY=VALUE of a key in {PARAMS}") from None
    return dict(to_dict(check_recipe(changed, str(PARAMS))))


def planned_replicate_key(params: Mapping[str, Any], varying: Sequence[str] = SEED_KEYS) -> str:
    """Return the `replicate_key` that a run of `dvc repro` would have here.

    Args:
        params: content of params.yaml.
        varying: keys of the recipe that it does not cover.

    Raises:
        UserError: the installed software differs from the lock files, or an input of the pipeline is missing.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo  # slow; hashes the code exactly as for dvc.lock

    try:
        with Repo() as repo:
            stages = list(repo.index.stages)
            outputs = [Path(out.fs_path) for stage in stages for out in stage.outs]
            code = {}
            for dep in (dep for stage in stages for dep in stage.deps if dep.hash_name != "params"):
                path = Path(dep.fs_path)
                name = path.relative_to(repo.root_dir).as_posix()
                if name != str(LOCAL_DATA) and not any(path.is_relative_to(out) for out in outputs):
                    code[name] = dep.get_hash().value
    except DvcException as error:
        raise UserError(str(error), file=PIPELINE, expected="a pipeline that DVC can run here") from None
    definitions = YAML(typ="safe").load(PIPELINE.read_text(encoding="utf-8"))["stages"].values()
    keys = [key for stage in definitions for key in stage.get("params", []) if isinstance(key, str)]
    for digests in source_digests(check_recipe(params, str(PARAMS))).values():
        code |= digests
    return replicate_key_of(
        stage_params(params, keys), code, flatten({"environment": locked_environment(current_hardware())}), varying
    )


def stage_params(params: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return the parameters that the stages read, flattened.

    Args:
        params: content of params.yaml.
        keys: dotted keys of values or sections, as in dvc.yaml.
    """
    selected: dict[str, Any] = {}
    for key in keys:
        value: Any = params
        for name in key.split("."):
            value = value[name]
        selected |= flatten({key: value})
    return selected


def print_spread(runs: Sequence[Run]) -> None:
    """Print mean, standard deviation, minimum and maximum of each metric, and a command to try next."""
    console = Terminal()
    table = Table()
    for heading in ("stage", "metric", "mean", "standard deviation", "min", "max"):
        table.add_column(heading, justify="left" if heading in ("stage", "metric") else "right")
    for stage in ("evaluate", "train"):
        for name in runs[0].result.metrics[stage]:
            summary = summarize([run.result.metrics[stage][name] for run in runs])
            sd = "–" if summary.sd is None else f"{summary.sd:.4f}"
            table.add_row(stage, name, f"{summary.mean:.4f}", sd, f"{summary.low:.4f}", f"{summary.high:.4f}")
    console.print(table)
    console.print(f"{len(runs)} seed{'s' * (len(runs) > 1)}: {', '.join(run.name for run in runs)}", soft_wrap=True)
    for run in runs:
        if run.constant_prediction:
            console.print(
                f"Warning: {run.name} is a constant prediction: {run.result.task_kind.constant_meaning}",
                style="bold",
                soft_wrap=True,
            )
    if any(run.kind == "commit" for run in runs):
        console.print("Run a variant with the same seeds: reprise seeds -n N -S KEY=VALUE", soft_wrap=True)
    else:
        console.print(f"Test the difference: reprise compare seeds:HEAD seeds:{runs[-1].name}", soft_wrap=True)
