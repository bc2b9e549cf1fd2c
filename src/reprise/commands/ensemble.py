"""`reprise ensemble`: average the answers or the weights of runs, judge the result, and write it to a folder."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from reprise.commands.compare import as_table
from reprise.commands.empty_folder import empty_folder
from reprise.commands.terminal import Terminal
from reprise.commands.text_models import prepare_torch
from reprise.core.config import to_dict
from reprise.core.display import echo
from reprise.core.dvc_lock import check_content, output_md5
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, scratch_dir, write_json
from reprise.core.paths import FINAL_MODEL, PREDICTIONS, PREPARED, PRETRAINED
from reprise.ensemble.average import averaged_logits, stored_scores
from reprise.ensemble.folder import ENSEMBLE, MEMBERS, SOUP, write_combination
from reprise.ensemble.judgement import Judgement, answers_of_logits, as_evaluation, judge, stored_answers, verdict
from reprise.ensemble.members import (
    check_examples,
    check_process,
    check_reading,
    check_runs,
    describe_member,
    in_order,
)
from reprise.ensemble.model import joined_recipe
from reprise.modeling.recipe import RECIPE_FILE, ModelRecipe, read_model_recipe
from reprise.results.run import describe_edited
from reprise.results.runs import Run, resolve_runs
from reprise.tasks.kind import Logits, TaskKind
from reprise.tasks.metrics.registry import display_name
from reprise.tasks.multi_label import MultiLabel

HEADINGS = ("metric", "model", "value", "95 % interval")


def ensemble(selectors: Sequence[str], output: Path | None, *, soup: bool) -> None:
    """Combine the runs of some selectors, and print how the result compares with the first of them.

    Args:
        selectors: as for `resolve_runs`.
        output: folder that is empty or does not exist; None to write nothing.
        soup: average the weights instead of the answers.

    Raises:
        UserError: a selector names no run, the runs cannot be combined, or `output` is not free.
    """
    target = empty_folder(output) if output else None
    runs = [run for selector in selectors for run in resolve_runs(selector)]
    check_runs(runs)
    if soup:
        check_soup(runs)
    tables = read_predictions(runs)
    check_examples(runs, tables)
    single, members = runs[0], in_order(runs)
    with scratch_dir("ensemble") as scratch:
        folders: list[Path] = []
        kind = single.result.task_kind
        tuned = isinstance(kind, MultiLabel) and kind.thresholds is None  # they are beside the weights
        if soup or target or tuned:
            folders = copy_models(members, scratch / MEMBERS)
            recipes = [read_model_recipe(folder) for folder in folders]
            recipe = joined_recipe(recipes)
            kind = recipe.kind
            names = [run.name for run in members]
            if soup:
                check_reading(names, recipes)
            elif target:
                check_process(names, recipes)
        if soup:
            make_soup(names, folders, recipe, scratch / "soup")
            recipe_of_run = single.result.recipe
            logits = evaluate(scratch / "soup", recipe_of_run["evaluate.split"], recipe_of_run.get("train.fold"))
        else:
            logits = averaged_logits([stored_scores(table, kind) for table in tables], kind)
        judgement = judge_logits(logits, single, tables, kind)
        print_judgement(judgement, runs, kind, "soup" if soup else "ensemble")
        if output and target:
            evaluation = as_evaluation(judgement, str(single.result.recipe["evaluate.split"]))
            described = [describe_member(run, folder) for run, folder in zip(members, folders, strict=True)]
            with atomic_dir(target) as partial:
                if soup:
                    shutil.copytree(scratch / "soup", partial, dirs_exist_ok=True)
                    write_combination(partial / SOUP, "the weights", described, evaluation)
                else:
                    shutil.copytree(scratch / MEMBERS, partial / MEMBERS)
                    combined = "the probabilities" if kind.labels else "the values"
                    write_combination(partial / ENSEMBLE, combined, described, evaluation)
            echo(f"ensemble: ask it with `reprise predict --model {output}`")


def check_soup(runs: Sequence[Run]) -> None:
    """Check that the runs of a soup started from one pretrained model, and that its evaluation split is here.

    Raises:
        UserError: they did not, or data/prepared/ is not that of the first run.
    """
    pretrained = [run.result.outputs.get(str(PRETRAINED)) for run in runs]
    for run, each in zip(runs, pretrained, strict=True):
        if each is None or pretrained[0] is None or each.md5 != pretrained[0].md5:
            raise UserError(
                "has another pretrained model", key=run.name, expected=f"that of {runs[0].name}, for a soup"
            )
    if output_md5(PREPARED) != runs[0].result.outputs[str(PREPARED)].md5:
        expected = "that data, on which a soup is evaluated: check out the run's commit and `dvc checkout`"
        raise UserError(f"not the data that {runs[0].name} was evaluated on", file=PREPARED, expected=expected)


def read_predictions(runs: Sequence[Run]) -> list[pd.DataFrame]:
    """Read the predictions of runs.

    Raises:
        UserError: those of one are not on this machine, or not as dvc.lock records them.
    """
    tables = []
    for run in runs:
        if run.commit is None:
            check_content(PREDICTIONS)
        table = run.predictions()
        if table is None:
            raise missing(run, PREDICTIONS)
        tables.append(table)
    return tables


def copy_models(runs: Sequence[Run], target: Path) -> list[Path]:
    """Copy the final models of runs to numbered folders.

    Raises:
        UserError: one is not on this machine, or damaged.
    """
    target.mkdir()
    folders = [target / str(number) for number in range(len(runs))]
    for run, folder in zip(runs, folders, strict=True):
        if not run.copy_output(FINAL_MODEL, folder):
            raise missing(run, FINAL_MODEL)
    return folders


def missing(run: Run, output: Path) -> UserError:
    """Return the error of an output that neither the workspace nor DVC's cache has."""
    expected = "it in DVC's cache: `dvc pull` gets that of a commit, `dvc exp pull` that of an experiment"
    return UserError("not on this machine", file=f"{run.name}: {output}", expected=expected)


def make_soup(names: Sequence[str], folders: Sequence[Path], recipe: ModelRecipe, target: Path) -> None:
    """Write a soup and its recipe.

    Raises:
        UserError: the models have not the same parts.
    """
    from reprise.ensemble.soup import check_parts, write_soup  # torch

    check_parts(names, folders)
    write_soup(folders, target)
    write_json(target / RECIPE_FILE, to_dict(recipe))


def evaluate(folder: Path, split: str, fold: int | None) -> Logits:
    """Compute the logits of a model for a prepared split, of the division of a fold."""
    recipe, cpu = prepare_torch(folder)
    from reprise.modeling.inference import load_predictor
    from reprise.modeling.splits import load_inputs

    rows = load_inputs(split, fold)
    echo(f"ensemble: predict {len(rows)} rows of the {split} split")
    return load_predictor(recipe, cpu=cpu, folder=folder)(rows)


def judge_logits(logits: Logits, single: Run, tables: Sequence[pd.DataFrame], kind: TaskKind) -> Judgement:
    """Judge logits by the metrics of the first run.

    Args:
        logits: of the combined model.
        single: the first run.
        tables: predictions of all runs, those of `single` first.
        kind: of the task, which decodes the logits.
    """
    recipe = single.result.recipe
    return judge(
        answers_of_logits(logits, kind),
        [stored_answers(table, kind) for table in tables],
        kind.label_values(list(tables[0]["label"])),
        kind,
        recipe["task.metrics"],
        recipe["evaluate.bootstrap_resamples"],
    )


def print_judgement(judgement: Judgement, runs: Sequence[Run], kind: TaskKind, what: str) -> None:
    """Print the members, a table of the metrics, and whether the combined model is better than the first run.

    Args:
        judgement: of the combined model.
        runs: its members, first the one that it is compared with.
        kind: of the task.
        what: ensemble or soup.
    """
    console, single = Terminal(), f"{runs[0].name} (seed {runs[0].seed})"
    listed = ", ".join(f"{run.name} (seed {run.seed})" for run in runs)
    split = runs[0].result.recipe["evaluate.split"]
    console.print(f"{what} of {len(runs)}: {listed}", soft_wrap=True)
    warnings = [f"{run.name}: {describe_edited(path)}" for run in runs for path in run.result.edited]
    constant = [run.name for run in runs if run.constant_prediction] + [f"the {what}"] * judgement.constant
    warnings += [f"{name} is a constant prediction: {kind.constant_meaning}" for name in constant]
    for line in warnings:
        console.print(f"Warning: {line}", style="bold", soft_wrap=True)
    console.print(as_table(HEADINGS, table_rows(judgement, single, kind, what)))
    subject = f"The {what} of {len(runs)} runs"
    console.print(verdict(judgement, subject, single, kind), soft_wrap=True)
    console.print(
        f"{judgement.num_examples} examples of the {split} split. The difference is to {runs[0].name}, the first run "
        "named, whatever its metrics. The intervals are over other examples, not over other seeds.",
        soft_wrap=True,
    )


def table_rows(judgement: Judgement, single: str, kind: TaskKind, what: str) -> Iterator[list[str]]:
    """Yield the rows of the table: for each metric the single run, the members, the combined model, the difference."""
    for each in judgement.metrics:
        members, gain = each.members, each.gain
        yield [display_name(each.name, kind.positive_label, len(kind.labels)), single, f"{each.single:.4f}", ""]
        spread = f"{members.low:.4f} to {members.high:.4f} (range)"
        yield ["", f"mean of the {members.n} members", f"{members.mean:.4f}", spread]
        yield ["", what, f"{each.value:.4f}", bounds(each.interval.low, each.interval.high, ".4f")]
        difference = f"{each.value - each.single:+.4f}"
        yield ["", f"{what} minus {single}", difference, bounds(*gain, "+.4f") if gain else "–"]


def bounds(low: float | None, high: float | None, form: str) -> str:
    """Format the bounds of an interval."""
    return "–" if low is None or high is None else f"{low:{form}} to {high:{form}}"
