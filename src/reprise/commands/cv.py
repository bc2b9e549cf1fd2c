"""`reprise cv`: train and evaluate on each fold of a cross-validation, and summarize the metrics."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from reprise.commands.compare import judged
from reprise.commands.seeds import apply_overrides, check_copyable, planned_replicate_key, run_experiment
from reprise.commands.terminal import Terminal
from reprise.core.config import PARAMS, Recipe
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_file
from reprise.core.validation import check_recipe
from reprise.results.diff import FOLD_KEYS
from reprise.results.folds import folds_of, mean_interval
from reprise.results.runs import FOLDS_PREFIX, Fold, Run, all_runs, replicates, resolve_run
from reprise.results.statistics import summarize
from reprise.results.vcs import resolve_commit
from reprise.tasks.kind import TaskKind
from reprise.tasks.metrics.registry import confidence_interval, metric_function

DEFAULT_FOLDS = 5
OUTPUT = Path("cv")  # git ignores it
OWN_KEYS = ("train.fold", "evaluate.split")  # which every fold sets


def cross_validate(folds: int | None, repeats: int, overrides: Sequence[str]) -> None:
    """Train and evaluate on each fold, and print the metrics of the folds, their mean and its interval.

    Each fold is a DVC experiment in a copy of the checkout, so the workspace is untouched. Data are prepared once for
    all folds of a division. A fold that the workspace, HEAD or an experiment already has, with the same recipe, code
    and environment, is not run again. The test split is not read.

    Args:
        folds: number of folds; None for `task.split.folds`, or DEFAULT_FOLDS if that is null.
        repeats: how often the data are divided, each time with the next `task.split.seed`.
        overrides: overrides of params.yaml, as for `dvc exp run -S`.

    Raises:
        UserError: an override is invalid, the data cannot be divided, the repository has no commit or cannot be copied,
            or the pipeline fails.
    """
    resolve_commit("HEAD")
    check_overrides(overrides)
    given = check_recipe(apply_overrides(overrides), str(PARAMS))
    common = [*overrides, *division(given, folds), "evaluate.split=validation"]
    params = apply_overrides([*common, "train.fold=0"])
    recipe = check_recipe(params, str(PARAMS))
    check_copyable(recipe)
    key = planned_replicate_key(params, FOLD_KEYS)
    existing = {run.fold: run for run in reversed(replicates(key, all_runs(), FOLD_KEYS))}
    split = params["task"]["split"]
    digest = hashlib.sha256(f"{key}{split['seed']}".encode()).hexdigest()[:7]
    runs: list[Run] = []
    for fold in planned_folds(split["seed"], split["folds"], repeats):
        name = experiment_name(fold, split["seed"], repeats, digest)
        run = existing.get(fold)
        done = f"cv: fold {fold.number}, {len(runs) + 1} of {split['folds'] * repeats}"
        echo(f"{done}{f': reusing {run.name}' if run else ''}")
        if run is None:
            changes = [*common, f"task.split.seed={fold.split_seed}", f"train.fold={fold.number}"]
            run_experiment(name, params["seed"], changes)
            run = resolve_run(name)
        runs.append(run)
    print_folds(runs, recipe, split["folds"])
    write_predictions(runs, recipe, OUTPUT / f"cv-{digest}/predictions.parquet")


def check_overrides(overrides: Sequence[str]) -> None:
    """Check that no override is of a key that every fold sets.

    Raises:
        UserError: one is.
    """
    for override in overrides:
        key = override.removeprefix(f"{PARAMS}:").partition("=")[0].lstrip("+~")
        if key in OWN_KEYS:
            raise UserError("set for each fold", key=f"-S {override}", expected=f"no {key}")


def division(recipe: Recipe, folds: int | None) -> list[str]:
    """Return the overrides with which the recipe's data are divided into folds; none if the recipe has as many.

    Raises:
        UserError: the recipe cuts no splits, or its source has a validation split.
    """
    split = recipe.task.split
    if split is None or (split.folds is None and "validation" in recipe.task.source_splits):
        problem = "null" if split is None else "the source may have a validation split"
        expected = "a section, and a source without a validation split: its training rows are divided into folds"
        raise UserError(problem, file=PARAMS, key="task.split", expected=expected)
    if folds in (None, split.folds) and split.folds is not None:
        return []
    return [f"task.split.folds={folds or DEFAULT_FOLDS}", "task.split.validation=null"]


def planned_folds(split_seed: int, folds: int, repeats: int) -> list[Fold]:
    """Return all folds, division by division."""
    return [Fold(split_seed + repeat, number) for repeat in range(repeats) for number in range(folds)]


def experiment_name(fold: Fold, split_seed: int, repeats: int, digest: str) -> str:
    """Return the name of a fold's experiment: `cv-FOLD-HASH`, or `cv-REPEAT-FOLD-HASH` with several divisions."""
    repeat = f"{fold.split_seed - split_seed}-" if repeats > 1 else ""
    return f"cv-{repeat}{fold.number}-{digest}"


def print_folds(runs: Sequence[Run], recipe: Recipe, folds: int) -> None:
    """Print the metrics of each fold, their mean and its interval, what to know of them, and a command to try next."""
    console = Terminal()
    values = {name: [run.result.metrics["evaluate"][name] for run in runs] for name in recipe.task.metrics}
    table = Table()
    for heading in ("fold", *values):
        table.add_column(heading, justify="left" if heading == "fold" else "right")
    for index, name in enumerate(folds_of(runs)):
        table.add_row(name, *(f"{of_folds[index]:.4f}" for of_folds in values.values()))
    table.add_section()
    table.add_row("mean", *(f"{summarize(of_folds).mean:.4f}" for of_folds in values.values()))
    table.add_row("95 % interval", *(format_interval(mean_interval(each, folds)) for each in values.values()))
    console.print(table)
    for line in notes(runs, recipe):
        console.print(line, soft_wrap=True)


def format_interval(interval: tuple[float, float] | None) -> str:
    """Format an interval; a dash if there is none."""
    return "–" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def notes(runs: Sequence[Run], recipe: Recipe) -> list[str]:
    """Return what to know of the table, one or two sentences each."""
    lines = [
        "The interval is that of the corrected resampled t-test (Nadeau & Bengio 2003): the training splits of the "
        "folds share most of their examples, so the plain standard error of the mean is too small."
    ]
    if fitted := fitted_on_validation(recipe):
        lines.append(f"Each fold also chose {' and '.join(fitted)} of its own model, so the metrics are optimistic.")
    lines += [
        f"Warning: {run.name} is a constant prediction: {run.result.task_kind.constant_meaning}"
        for run in runs
        if run.constant_prediction
    ]
    lines.append(f"{len(runs)} folds: {', '.join(run.name for run in runs)}")
    lines.append(
        f"Compare a variant: reprise cv -S KEY=VALUE, then reprise compare {FOLDS_PREFIX}{runs[0].name} "
        f"{FOLDS_PREFIX}VARIANT"
    )
    return lines


def fitted_on_validation(recipe: Recipe) -> list[str]:
    """Name what training chooses by the validation split, which is the fold that is evaluated."""
    train, multi_label = recipe.train, recipe.task.multi_label
    chosen = {
        "the epoch (train.keep_epoch)": train.keep_epoch == "best" and train.epochs > 1,
        "when to stop (train.early_stopping)": train.early_stopping is not None,
        "the temperature (train.calibration)": train.calibration is not None,
        "the thresholds (task.multi_label)": multi_label is not None and multi_label.thresholds == "tuned",
    }
    return [name for name, applies in chosen.items() if applies]


def write_predictions(runs: Sequence[Run], recipe: Recipe, file: Path) -> None:
    """Write the predictions of all folds, each example by the model that was not trained on it; print their metrics.

    Args:
        runs: the folds.
        recipe: of the runs, for the metrics and the resamples of their intervals.
        file: Parquet; replaced.
    """
    tables = [run.predictions() for run in runs]
    if missing := [run.name for run, table in zip(runs, tables, strict=True) if table is None]:
        echo(f"cv: the predictions of {', '.join(missing)} are not on this machine (dvc pull): {file} is not written")
        return
    joined = join_predictions([run.fold for run in runs], [table for table in tables if table is not None])
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as partial:
        pq.write_table(pa.Table.from_pandas(joined, preserve_index=False), partial)
    first = joined[joined["split_seed"] == joined["split_seed"].min()]
    divided = "" if len(first) == len(joined) else " of the first division"
    found = pooled_metrics(first, runs[0].result.task_kind, recipe)
    echo(f"cv: all {len(first)} out-of-fold predictions{divided} together: {'; '.join(found)}")
    echo(f"cv: {file}")


def join_predictions(folds: Sequence[Fold | None], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put the predictions of folds in one table, sorted by example, with the columns `split_seed` and `fold`.

    Args:
        folds: of the tables.
        tables: with the columns of `evaluate.stage.predictions_table`.
    """
    parts = [
        table.assign(split_seed=fold.split_seed, fold=fold.number)
        for fold, table in zip(folds, tables, strict=True)
        if fold is not None
    ]
    return pd.concat(parts, ignore_index=True).sort_values(["id", "split_seed"], kind="stable", ignore_index=True)


def pooled_metrics(table: pd.DataFrame, kind: TaskKind, recipe: Recipe) -> list[str]:
    """Return each metric over all predictions of a table, with its interval over the choice of examples."""
    truth, predictions = (kind.label_values(list(table[column])) for column in ("label", "prediction"))
    lines = []
    for name in recipe.task.metrics:
        values = judged(name, table, predictions)
        interval = confidence_interval(
            name, predictions, truth, positive=kind.positive, resamples=recipe.evaluate.bootstrap_resamples,
            probabilities=values,
        )  # fmt: skip
        score = metric_function(name, kind.positive)(values, truth)
        lines.append(f"{name} {score:.4f} ({format_interval(bounds(interval.low, interval.high))})")
    return lines


def bounds(low: float | None, high: float | None) -> tuple[float, float] | None:
    """Return the bounds of an interval; None if there is none."""
    return None if low is None or high is None else (low, high)
