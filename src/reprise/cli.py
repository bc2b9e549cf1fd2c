"""`reprise COMMAND`: one command per stage or tool. Heavy imports are deferred to the command that needs them."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from reprise.core.crash import report_exception
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.paths import EXPERIMENTS_LOCK, WORKSPACE_LOCK
from reprise.train.distributed.launch_config import LaunchConfig

# The groups of `reprise --help`.
COMMAND_GROUPS = {
    "Recipe and results": ("new", "init", "compose", "data", "summary", "report"),
    "Experiments": ("runs", "compare", "seeds", "cv", "sweep", "ensemble", "seed-noise", "prune"),
    "Model": ("predict", "export", "serve"),
    "Reproducibility": ("verify", "attestations", "fsck", "parity"),
    "Stages, which `dvc repro` runs": (
        "environment", "sources", "fetch", "prepare", "check-data", "teacher", "preflight", "train",
        "evaluate",
    ),
}  # fmt: skip


class ErrorHandlingGroup(TyperGroup):
    """Command group that reports bad input in one line with exit code 2, and Ctrl-C with exit code 130."""

    def format_commands(self, _: Any, formatter: Any) -> None:
        """List the commands in their groups, each with the whole first sentence of its help."""
        for heading, names in COMMAND_GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])

    def invoke(self, ctx: Any) -> Any:
        """Run a command and convert its errors to exit codes."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            echo(f"reprise: error: {error}", err=True)
            raise typer.Exit(2) from None
        except (typer.Exit, typer.Abort, TyperException, BrokenPipeError):
            raise  # typer reports them
        except Exception as error:
            raise typer.Exit(report_exception(error)) from None
        except KeyboardInterrupt:
            echo(f"reprise {ctx.invoked_subcommand}: interrupted; earlier results are kept", err=True)
            raise typer.Exit(130) from None


Command = TypeVar("Command", bound=Callable[..., None])


def _one_at_a_time(lock: Path = WORKSPACE_LOCK) -> Callable[[Command], Command]:
    """Let a command that writes wait for others that hold the same lock."""

    def locked(command: Command) -> Command:
        @wraps(command)
        def run(**options: Any) -> None:
            from reprise.core.lock import write_lock

            with write_lock(lock, command.__name__.replace("_", "-")):
                command(**options)

        return cast(Command, run)

    return locked


app = typer.Typer(
    cls=ErrorHandlingGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Fine-tune a pretrained encoder reproducibly: the same recipe gives the same model.

The recipe is params.yaml; `reprise compose` writes it from the recipe catalog in recipes/. `dvc repro` runs the recipe,
and of its stages only what changed. The commands work in any folder of the repository.""",
)


def _from_user_folder(context: typer.Context, path: Path | None) -> Path | None:
    """Return a path that the user typed in a folder below the root, from the root."""
    return path and Path(os.path.normpath((context.obj or Path()) / path))


def _exported_folder(context: typer.Context, target: str) -> Path:
    """Return an exported folder that the user named; one on the Hub is downloaded."""
    from reprise.sharing.download import PREFIX, download_export

    if target.startswith(PREFIX):
        return download_export(target)
    return cast(Path, _from_user_folder(context, Path(target)))


def _complete_run(incomplete: str) -> list[str]:
    """Complete the name of a run, with or without `seeds:` or `folds:`."""
    from reprise.results.runs import FOLDS_PREFIX, SEEDS_PREFIX, WORKSPACE, experiments

    prefix = next((each for each in (SEEDS_PREFIX, FOLDS_PREFIX) if incomplete.startswith(each)), "")
    names = [WORKSPACE, "HEAD", *(experiment.name for experiment in experiments())]
    return [f"{prefix}{name}" for name in names if f"{prefix}{name}".startswith(incomplete)]


def _complete_choice(incomplete: str) -> list[str]:
    """Complete a choice of the recipe catalog, such as `task=mrpc`."""
    from reprise.commands.compose import list_recipes

    choices = [f"{group}={name}" for group, names in list_recipes().items() for name, _ in names]
    return [choice for choice in choices if choice.startswith(incomplete)]


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        from reprise.results.vcs import try_output

        commit = try_output("git", "describe", "--always", "--dirty", "--abbrev=12")
        echo(f"reprise {version('reprise')}" + (f", commit {commit}" if commit else ""))
        raise typer.Exit


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-S",
        "--set-param",
        metavar="KEY=VALUE",
        help="Override a value of params.yaml, as in `dvc exp run`; repeatable.",
    ),
]


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and the commit."),
    ] = False,
) -> None:
    """Options of `reprise` itself."""


@app.command()
@_one_at_a_time()
def environment(context: typer.Context) -> None:
    """Stage 1: check packages, recipe and device.

    The packages must have the versions of the lock files; environment.json lists them. What training needs is checked
    here, before DVC removes any earlier result: params.yaml, the device, the launch profile, trackers, and the
    environment variables of `train`.
    """
    from reprise.core.files import write_json
    from reprise.core.paths import experiment_root
    from reprise.core.validation import check_sections, read_recipe
    from reprise.hardware import ENVIRONMENT, current_hardware, locked_environment
    from reprise.results.vcs import check_experiments
    from reprise.train.stage import check_launch

    if root := experiment_root(Path.cwd()):
        check_experiments(root)
    recipe = read_recipe()
    check_sections()
    hardware = current_hardware()
    content = locked_environment(hardware)
    check_launch(recipe, hardware, _launch_config(context))
    write_json(ENVIRONMENT, content)
    echo(f"environment: {hardware}, {len(content['packages'])} packages as locked")


def _launch_config(context: typer.Context) -> LaunchConfig:
    """Return the options of `reprise train` as a stage of `dvc repro`: their environment variables and defaults."""
    options = cast(TyperGroup, context.find_root().command).commands["train"].make_context("train", []).params
    return LaunchConfig(**options)


@app.command()
@_one_at_a_time()
def sources() -> None:
    """Stage 2: check the recipe's own files in data/own/.

    The next stages depend on their digests in data/sources.json, so other files in data/own/ do not matter.
    """
    from reprise.core.config import LocalDataset, LocalModel
    from reprise.core.files import write_json
    from reprise.core.paths import SOURCES
    from reprise.core.unchanged import check_unchanged
    from reprise.core.validation import read_recipe
    from reprise.data.sources import source_digests
    from reprise.fetch.local import find_dataset, find_model, find_teacher

    recipe = read_recipe()
    if isinstance(recipe.task.source, LocalDataset):
        find_dataset(recipe.task.source)
    if isinstance(recipe.model.source, LocalModel):
        find_model(recipe.model.source)
    if recipe.train.distill:
        find_teacher(recipe.train.distill)
    digests = source_digests(recipe)
    check_unchanged(recipe, "sources")
    write_json(SOURCES, digests)


@app.command()
@_one_at_a_time()
def fetch(
    part: Annotated[
        Literal["data", "model"] | None, typer.Argument(help="The one to download (default: both).")
    ] = None,
) -> None:
    """Stages 3 and 4: download data and model, check digests.

    These are the only stages that use the network.
    """
    from reprise.core.unchanged import check_unchanged
    from reprise.core.validation import read_recipe
    from reprise.fetch.stage import fetch

    recipe = read_recipe()
    data, model = recipe.task.source, recipe.model.source

    def check() -> None:
        for each in (part,) if part else ("data", "model"):
            check_unchanged(recipe, f"fetch-{each}")

    fetch(None if part == "model" else data, None if part == "data" else model, check=check)


@app.command()
@_one_at_a_time()
def prepare() -> None:
    """Stage 5: split, label and tokenize the raw data."""
    _go_offline()
    from reprise.core.unchanged import check_unchanged
    from reprise.core.validation import read_recipe
    from reprise.prepare.stage import prepare

    recipe = read_recipe()
    check = partial(check_unchanged, recipe, "prepare")
    prepare(recipe.task, max_length=recipe.train.max_length, windows=recipe.data.windows, check=check)


@app.command()
@_one_at_a_time()
def check_data() -> None:
    """Stage 6: check the prepared data.

    It looks for duplicates, near duplicates, leaks and likely label errors, and trains a linear model as a baseline. A
    share beyond its `fail` in data.checks stops the pipeline before training. `reprise data` shows what was found.
    """
    _go_offline()
    from reprise.core.unchanged import check_unchanged
    from reprise.core.validation import read_recipe
    from reprise.modeling.portable import restart_with_caps

    recipe = read_recipe()
    restart_with_caps(recipe.train)
    from reprise.check_data.stage import check_data

    check_data(recipe, partial(check_unchanged, recipe, "check-data"))


@app.command()
@_one_at_a_time()
def teacher() -> None:
    """Stage 7: ask the teacher of train.distill.

    Its outputs for every example of the training and validation splits are what the student is trained on. Without
    train.distill there is nothing to do.
    """
    _go_offline()
    from reprise.core.unchanged import check_unchanged
    from reprise.core.validation import read_recipe
    from reprise.hardware import current_hardware
    from reprise.modeling.portable import restart_with_caps

    recipe = read_recipe()
    if recipe.train.distill:
        restart_with_caps(recipe.train)
    from reprise.teacher.stage import write_teacher

    write_teacher(recipe, current_hardware(), partial(check_unchanged, recipe, "teacher"))


@app.command()
@_one_at_a_time()
def preflight(context: typer.Context) -> None:
    """Stage 8: check that model, tokenizer and data fit.

    It runs before training replaces earlier results. On a GPU, it also predicts the memory that training needs.
    """
    _go_offline()
    from dataclasses import asdict

    from reprise.core.files import write_json
    from reprise.core.paths import PREFLIGHT
    from reprise.core.unchanged import check_unchanged
    from reprise.core.validation import read_recipe
    from reprise.hardware import current_hardware
    from reprise.modeling.portable import restart_with_caps
    from reprise.train.preflight import preflight
    from reprise.train.stage import find_placement

    recipe = read_recipe()
    restart_with_caps(recipe.train)
    result = preflight(recipe, find_placement(recipe, current_hardware(), _launch_config(context)))
    for note in result.notes:
        echo(f"preflight: {note}")
    for warning in result.warnings:
        echo(f"preflight: warning: {warning}")
    check_unchanged(recipe, "preflight")
    write_json(PREFLIGHT, asdict(result))
    echo(f"preflight: the model fits the data; {len(result.new_parameters)} parameters are new")


@app.command()
def train(
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="REPRISE_PROCESSES",
            help="Processes on this host (default: set by the launch profile).",
        ),
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, envvar="REPRISE_NODES", help="Number of hosts.")] = 1,
    node_rank: Annotated[
        int, typer.Option(min=0, envvar="REPRISE_NODE_RANK", help="Rank of this host; rank 0 writes the outputs.")
    ] = 0,
    rendezvous: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", envvar="REPRISE_RENDEZVOUS", help="Rendezvous endpoint: an address of host 0."
        ),
    ] = None,
    max_restarts: Annotated[
        int,
        typer.Option(
            min=0, envvar="REPRISE_MAX_RESTARTS", help="Restarts from the last checkpoint after a worker failure."
        ),
    ] = 0,
    profile: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            envvar="REPRISE_PROFILE",
            help="Launch profile docker/<hardware>/NAME.yaml; `fsdp` shards the model.",
        ),
    ] = LaunchConfig.profile,
    timeout: Annotated[
        int,
        typer.Option(
            min=1, metavar="SECONDS", envvar="REPRISE_TIMEOUT", help="Time to wait for the other hosts and processes."
        ),
    ] = LaunchConfig.timeout,
) -> None:
    """Stage 9: fine-tune the pretrained model.

    Training runs in one or several processes on one or several hosts. Set the environment variable of an option to use
    it with `dvc repro`. On several hosts, run `dvc repro` on host 0 and `reprise train` on the others, all at the same
    commit and with the same prepared data.
    """
    _go_offline()
    from reprise.core.unchanged import check_unchanged
    from reprise.core.validation import read_recipe
    from reprise.hardware import current_hardware
    from reprise.modeling.portable import restart_with_caps
    from reprise.train.stage import launch

    recipe = read_recipe()
    restart_with_caps(recipe.train)
    config = LaunchConfig(processes, nodes, node_rank, rendezvous, max_restarts, profile, timeout)
    launch(recipe, current_hardware(), config, check=partial(check_unchanged, recipe, "train"))


@app.command()
@_one_at_a_time()
def evaluate(
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of `reprise export --format onnx`: evaluate its files beside the final model; write nothing.",
            callback=_from_user_folder,
        ),
    ] = None,
) -> None:
    """Stage 10: evaluate the final model.

    The results are metrics with confidence intervals, plots and predictions.
    """
    _go_offline()
    if model:
        _evaluate_exported(model)
        return
    from reprise.core.unchanged import check_unchanged
    from reprise.core.validation import read_recipe
    from reprise.evaluate.stage import evaluate
    from reprise.hardware import current_hardware, require_device
    from reprise.modeling.portable import restart_with_caps

    recipe = read_recipe()
    restart_with_caps(recipe.train)
    device = require_device(current_hardware())
    evaluate(recipe, cpu=device == "cpu", check=partial(check_unchanged, recipe, "evaluate"))


@app.command()
@app.command("recipe", hidden=True)  # earlier name
def compose(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GROUP=CHOICE | KEY=VALUE]...",
            help="Choices and values that differ from the defaults.",
            autocompletion=_complete_choice,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Discard edits of params.yaml by hand.")] = False,
) -> None:
    """Compose params.yaml from the recipe catalog.

    Without arguments, list the catalog. What is not given has its default value. If an edit of params.yaml by hand
    would be lost, nothing is written, and the command that keeps it is shown.

    For example: reprise compose task=mrpc model=bert-base-uncased train.learning_rate=3e-5
    """
    from reprise.commands.compose import check_edits, compose_recipe, list_recipes, write_recipe
    from reprise.core.config import PARAMS
    from reprise.core.lock import write_lock

    if not overrides:
        from reprise.commands.summary import print_recipes

        print_recipes(list_recipes())
        return
    recipe = compose_recipe(overrides)
    with write_lock(WORKSPACE_LOCK, "compose"):  # else the stage that runs by the recipe would fail at its end
        if not force:
            check_edits(recipe, overrides, PARAMS)
        differences = write_recipe(recipe, overrides, PARAMS)
    for difference in differences or ["nothing changed"]:
        echo(f"{PARAMS}: {difference}")


@app.command()
def init(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Table, archive or folder; or one for each of train, dev and test."),
    ],
    context: typer.Context,
    text: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Column to read; twice for pairs of texts.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Column to predict; repeated for columns of 0 and 1.")
    ] = None,
    task: Annotated[
        Literal["classification", "regression", "multi-label", "entities"] | None,
        typer.Option(help="Predict a label, a number, several labels, or entities."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the recipe (default: that of the first file).")] = None,
    positive: Annotated[str | None, typer.Option(metavar="LABEL", help="Of two labels, the one that F1 is of.")] = None,
    names: Annotated[
        str | None, typer.Option(metavar="LABEL=NAME,...", help="Names for labels that are numbers, as 0=hate,1=none.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column that says train, dev or test of each row.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text files, such as cp1252.")] = None,
    delimiter: Annotated[str | None, typer.Option(metavar="CHAR", help="What separates the columns.")] = None,
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first row names the columns.")
    ] = None,
    sheet: Annotated[str | None, typer.Option(metavar="NAME", help="Sheet of an Excel file.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("-S", "--set-param", metavar="KEY=VALUE", help="As for `reprise compose`; repeatable."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace edits of the recipe and of params.yaml.")] = False,
) -> None:
    """Make a recipe for your own data.

    Read a table as it is (CSV of any kind, JSON, Parquet, Arrow, Excel, fastText, CoNLL, a folder of texts for each
    label, a saved dataset, packed or not), and guess its columns, labels and settings. Write it to data/own/NAME/, the
    recipe to recipes/task/NAME.yaml, and compose params.yaml. What was decided is printed first; an option changes each
    guess. A file that is known already is compared with the last time.

    For example: reprise init reviews.csv; reprise init train.tsv dev.tsv test.tsv --label stars --task regression
    """
    _go_offline()
    from reprise.commands.init import init, parse_names
    from reprise.own_data.arrange import Choices
    from reprise.own_data.formats import Options

    asks = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    name = init(
        [cast(Path, _from_user_folder(context, file)) for file in files],
        Choices(text or (), label or (), task, split, parse_names(names) if names else {}),
        Options(encoding, delimiter.replace("\\t", "\t") if delimiter else None, header, sheet),
        name=name,
        positive=positive,
        overrides=overrides or (),
        force=force,
        confirm=(lambda question: typer.confirm(question, default=True)) if asks else lambda _: True,
        ask=(lambda question, default: typer.prompt(question, default=default)) if asks else lambda _, default: default,
    )
    if name is None:
        raise typer.Exit(1)  # `make train DATA=…` would train another recipe


@app.command()
def new(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder that is empty or does not exist, outside this one.", callback=_from_user_folder
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GROUP=CHOICE | KEY=VALUE]...",
            help="Its first recipe, as for `reprise compose`.",
            autocompletion=_complete_choice,
        ),
    ] = None,
) -> None:
    """Create a project of your own from this repository.

    It has the code, the images and the recipe catalog of this repository, but not its history, results, tests and
    documentation. git and DVC are initialised, and all is committed.

    For example: reprise new ../reviews task=custom model=minilm
    """
    from reprise.commands.new import create_project

    create_project(folder, overrides or ())


@app.command()
def data(
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with the numbers of each split.")] = False,
) -> None:
    """Show what the checks found in the data.

    Print each check with its worst split, the linear baseline, and the files that list near duplicates and likely label
    errors. The thresholds are data.checks in params.yaml.
    """
    from reprise.commands.data import print_data

    print_data(as_json=json)


@app.command()
def summary() -> None:
    """Print metrics and baseline of the last run.

    Also print the confidence intervals, the folder of the model, and commands to try next.
    """
    from reprise.commands.summary import print_summary

    print_summary()


@app.command()
def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT [TEXT]]", help="A text, or the two texts of a sentence pair.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Table (CSV, TSV, JSON lines, Parquet) with the model's text columns.", callback=_from_user_folder
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output file for --file, ending in .jsonl, .csv or .parquet (default: standard output).",
            callback=_from_user_folder,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="List this many labels, the most probable first (default: the probability of each)."),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write the submission files of a benchmark such as GLUE.", callback=_from_user_folder
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of `reprise export` or `reprise ensemble`, or a file of ONNX (default: the final model).",
            callback=_from_user_folder,
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of a model in ONNX (default: one per processor).")
    ] = None,
) -> None:
    """Predict labels of texts with the final model, or with an exported one.

    Print one JSON line per text, with its label and the probability of each label. The predictions of a table have all
    of its columns. Without arguments, read standard input: one text per line, or two texts of a pair separated by a
    tab. For example:

    reprise predict "a moving story"; reprise predict --file reviews.csv --out labels.csv
    """
    _go_offline()
    if sum((bool(texts), file is not None, submission is not None)) > 1 or (out and not file):
        raise UserError(key="predict", expected="only one of texts, --file (optionally with --out) and --submission")
    if submission and model:
        raise UserError(key="predict --submission", expected="the final model, without --model")
    with _paused_gc():
        from reprise.commands.predict import parse_row, predict_lines, predict_texts
        from reprise.commands.text_models import open_final_model, open_model

    if submission:
        from reprise.commands.submission import write_submission

        recipe, cpu = open_final_model()
        write_submission(recipe, submission, cpu=cpu)
        return
    with _paused_gc():
        recipe, answer = open_model(model, threads)
    if file:
        from reprise.commands.predict_table import predict_file

        predict_file(recipe, answer, file, out, top_k)
    elif texts:
        predict_texts(recipe, answer, [parse_row(texts, recipe.task.text_columns)], sys.stdout, top_k)
    else:
        predict_lines(recipe, answer, sys.stdin, top_k)


@app.command()
def verify(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="[REVISION | DIR | hub:OWNER/NAME@COMMIT]",
            help="Commit, or folder of `reprise export`, here or on the Hub, that is verified.",
        ),
    ] = "HEAD",
    strict: Annotated[bool, typer.Option("--strict", help="Fail unless every output is bit-identical.")] = False,
    attest: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY",
            help="Private key (PEM): sign the verdict of DIR, and write it to DIR/attestations/.",
            callback=_from_user_folder,
        ),
    ] = None,
) -> None:
    """Reproduce a commit, or an exported folder, from scratch and grade each output.

    The pipeline runs in a temporary worktree, which leaves the checkout untouched.

    Identical: the same bits. Equivalent: equal up to rounding, for example on another processor. Within seed noise: no
    further off than another seed, as measured by `reprise seed-noise`. Different: none of these; the exit code is 1.

    Of a folder, every file, the recipe, dvc.lock and the model card are compared with its commit first. The commit is
    fetched if needed. Its code runs here, so it is fetched from a remote of this repository alone. A folder on the Hub
    is downloaded to .dvc/tmp/hub/ first.

    Make a key for --attest: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out mine.key

    Its public part, for others: openssl pkey -in mine.key -pubout -out mine.pub
    """
    from reprise.results.verdict import Verdict
    from reprise.sharing.record import RECORD

    folder = _exported_folder(context, target)
    if (folder / RECORD).is_file():
        from reprise.commands.verify_folder import verify_folder

        verdict = verify_folder(folder, attest)
    elif attest:
        raise UserError(file=target, expected="a folder of `reprise export`, in which the signed verdict is stored")
    else:
        from reprise.commands.verify import verify

        verdict = verify(target)
    if verdict > (Verdict.IDENTICAL if strict else Verdict.WITHIN_SEED_NOISE):
        raise typer.Exit(1)


@app.command()
def attestations(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(metavar="DIR | hub:OWNER/NAME@COMMIT", help="Folder of `reprise export`, here or on the Hub."),
    ],
    trusted: Annotated[
        Path | None,
        typer.Option(
            metavar="KEYS", help="Folder with the public keys (PEM) that you trust.", callback=_from_user_folder
        ),
    ] = None,
) -> None:
    """List who rebuilt an exported model, on what, and with which verdict.

    Of each signed verdict it says whether the signature holds, whether it is about the weights that are in the folder
    now, and whether you trust the key. `reprise verify DIR --attest KEY` adds one.

    The exit code is 1 unless one counts: its signature holds, it is about these weights, and with --trusted its key is
    among them.
    """
    from reprise.commands.attestations import list_attestations

    if not list_attestations(_exported_folder(context, target), trusted):
        raise typer.Exit(1)


@app.command()
@app.command("reference", hidden=True)  # earlier name
@_one_at_a_time(EXPERIMENTS_LOCK)
def seed_noise(
    seeds: Annotated[int, typer.Option(min=5, help="Number of seeds, starting at the recipe's seed.")] = 5,
) -> None:
    """Measure how the metrics vary with the seed.

    Run the recipe with several seeds, and save mean and standard deviation of its metrics to reference/. There
    `reprise verify` and `reprise compare` find them.
    """
    from reprise.commands.seed_noise import measure_seed_noise

    measure_seed_noise(seeds)


@app.command()
def parity(
    steps: Annotated[int, typer.Option(min=1, help="Number of optimizer steps.")] = 20,
    engines: Annotated[
        bool, typer.Option("--engines", help="Compare the training engines on this backend instead.")
    ] = False,
) -> None:
    """Compare the losses of every backend (CPU, CUDA, XLA).

    Train the first steps on every available backend. XLA needs a separate environment: make setup VENV=.venv-xla
    LOCKS=docker/tpu. The exit code is 1 if the losses in fp32 do not agree. With --engines, compare the engines
    accelerate, trainer and pytorch; the exit code is 1 if a bit differs.
    """
    _go_offline()
    from reprise.commands.parity import engine_parity, parity

    if not (engine_parity if engines else parity)(steps):
        raise typer.Exit(1)


@app.command()
@_one_at_a_time()
def export(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder that is empty or does not exist.", callback=_from_user_folder),
    ],
    form: Annotated[
        Literal["safetensors", "onnx"], typer.Option("--format", help="onnx: the model in ONNX, too, in DIR/onnx/.")
    ] = "safetensors",
    fp16: Annotated[bool, typer.Option("--fp16", help="In ONNX, also in fp16: half the size.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="In ONNX, also in int8: a quarter of the size.")] = False,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="How much worse a file of ONNX may be, in the recipe's first metric, or is refused."),
    ] = 0.01,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME", help="Upload DIR to this repository of the Hub, which is private if it is new."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without asking.")] = False,
) -> None:
    """Export the final model with a model card for the Hub.

    The folder is ready for upload. Each file of ONNX is evaluated on the evaluation split and compared with the trained
    model: metrics with intervals, predictions that differ, size and speed.

    Only --push uses the network, with the token in HF_TOKEN or of `hf auth login`. If DIR is exported already, it is
    uploaded as it is, so the same command repeats an interrupted upload.

    For example: reprise export my-model --format onnx --int8
    """
    if form != "onnx" and (fp16 or int8):
        raise UserError(key="export --int8" if int8 else "export --fp16", expected="--format onnx beside it")
    _go_offline()
    from reprise.commands.export import export
    from reprise.onnx.files import Precision

    smaller: dict[Precision, bool] = {"fp16": fp16, "int8": int8}
    precisions: list[Precision] = ["fp32", *(name for name, wanted in smaller.items() if wanted)]
    write = partial(export, folder, precisions if form == "onnx" else (), tolerance)
    if push is None:
        write()
        echo(f"export: upload it with `reprise export {folder} --push YOUR_NAME/{folder.resolve().name}`")
        return
    from reprise.commands.push import push as push_folder

    asks = not yes and sys.stdin.isatty()
    push_folder(folder, push, write, typer.confirm if asks else lambda _: True)


@app.command()
def serve(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of `reprise export --format onnx`, or a file of ONNX in it.",
            callback=_from_user_folder,
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines too.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8080,
    threads: Annotated[int | None, typer.Option(min=1, help="Batches at a time (default: one per processor).")] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of a request.")] = 32,
    max_chars: Annotated[int, typer.Option(min=1, help="Characters of a text.")] = 100_000,
    max_body: Annotated[int, typer.Option(min=1, metavar="BYTES", help="Bytes of a request.")] = 1_000_000,
    queue: Annotated[
        int, typer.Option(min=1, help="Rows of all requests that are not yet answered; a further one gets 429.")
    ] = 512,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="Time for a request; then it gets 504.")
    ] = 30,
) -> None:
    """Serve an exported model over HTTP.

    POST /predict takes the requests of the Hub's Inference API and of Text Embeddings Inference. / is a page to try the
    model, /docs the reference of the API. /info describes the model, /health and /ready are for probes, and /metrics
    for Prometheus. Log lines are JSON and have no texts. SIGTERM or Ctrl-C answers the accepted requests and exits 0.
    For example:

    reprise serve exported; curl localhost:8080/predict --json '{"inputs": "a moving story"}'
    """
    _go_offline()
    from reprise.commands.packages import SERVE_LOCK, require_packages

    require_packages("onnxruntime", "fastapi", "prometheus_client", "uvicorn", lock=SERVE_LOCK, key="serve")
    with _paused_gc():
        from reprise.commands.serve import serve
        from reprise.serve.app import Limits

    serve(path, host, port, threads, Limits(max_rows, max_chars, max_body, queue, timeout))


@app.command()
def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Runs to show (default: the workspace, HEAD, all experiments and all sweeps).",
            autocompletion=_complete_run,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Output file (default: report/index.html).", callback=_from_user_folder),
    ] = None,
) -> None:
    """Write an HTML report of all runs.

    It shows tables, curves, errors and provenance, in one file that works offline. A run is `workspace`, a commit or an
    experiment's name. The command also sets up `dvc plots show` to work offline.
    """
    _go_offline()
    from reprise.report.build import report

    report(runs or (), out or Path("report/index.html"))


@app.command()
def runs(
    sort: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Sort by a metric, best first, or by a key such as train.learning_rate."),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only the runs of this sweep: trials by number, then finalists and committed recipe with fresh seeds.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with all metrics and intervals.")] = False,
) -> None:
    """List all runs with changed parameters and metrics.

    The runs are the workspace, HEAD and all experiments that have results. Changed parameters are those that differ
    from the first of them.

    For example: reprise runs --sort accuracy, or reprise runs --sweep sweep --sort accuracy
    """
    from reprise.commands.runs import list_runs

    list_runs(sort, sweep, as_json=json)


@app.command()
def compare(
    before: Annotated[
        str,
        typer.Argument(
            metavar="FIRST", help="Run or group to compare with, the baseline.", autocompletion=_complete_run
        ),
    ],
    after: Annotated[
        str, typer.Argument(metavar="SECOND", help="Run or group that may be better.", autocompletion=_complete_run)
    ],
    rows: Annotated[
        int, typer.Option(min=0, help="Number of differently predicted examples to print, for two single runs.")
    ] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
) -> None:
    """Compare two runs or two groups of seeds or folds.

    Test which differences are significant. FIRST and SECOND are each a run: `workspace`, an experiment's name or a
    commit. With the prefix `seeds:`, as in seeds:HEAD, they are a group: that run and every experiment, HEAD and the
    workspace that differ from it only in the seed. One seed per group cannot distinguish a better recipe from a lucky
    seed; `reprise seeds` runs more. With the prefix `folds:`, they are the folds of two cross-validations, which are
    compared fold by fold; `reprise cv` runs them.

    For example: reprise compare seeds:HEAD seeds:gentler
    """
    from reprise.commands.compare import compare

    if json and markdown:
        raise UserError(key="compare", expected="only one of --json and --markdown")
    compare(before, after, rows, "json" if json else "markdown" if markdown else "text")


@app.command()
@_one_at_a_time(EXPERIMENTS_LOCK)
def seeds(
    number: Annotated[
        int, typer.Option("-n", "--number", min=1, help="Number of seeds, starting at the recipe's seed.")
    ] = 5,
    overrides: Overrides = None,
) -> None:
    """Run the recipe with several seeds.

    Each seed is an experiment. Print mean, standard deviation and range of each metric over the seeds.

    For example: reprise seeds -n 5 -S train.learning_rate=5e-5. Seeds that already ran are reused.
    """
    from reprise.commands.seeds import run_seeds

    run_seeds(number, overrides or ())


@app.command()
@_one_at_a_time(EXPERIMENTS_LOCK)
def cv(
    folds: Annotated[
        int | None,
        typer.Option(min=2, max=100, help="Number of folds (default: task.split.folds, or 5 if that is null)."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="How often the data are divided anew, each time with the next task.split.seed.")
    ] = 1,
    overrides: Overrides = None,
) -> None:
    """Run the recipe once for each fold of a cross-validation.

    All examples but those of the test split are divided into folds. For each fold, an experiment trains on the others
    and evaluates on it. Print the metrics of the folds, their mean and its 95 % interval, and write the predictions of
    all examples to cv/. The test split is not read. Folds that already ran are reused.

    For example: reprise cv --folds 5 -S train.learning_rate=5e-5
    """
    from reprise.commands.cv import cross_validate

    cross_validate(folds, repeats, overrides or ())


@app.command()
@_one_at_a_time(EXPERIMENTS_LOCK)
def sweep(
    space: Annotated[
        Path | None,
        typer.Argument(metavar="SPACE.yaml", help="File with keys and values as for -S.", callback=_from_user_folder),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "-S",
            "--set-param",
            metavar="KEY=VALUES",
            help="What is searched: log(low,high), uniform(low,high), int(low,high), choice(a,b), range(a,b) or a,b. "
            "A single value is fixed for all trials; repeatable.",
        ),
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Number of trials.")] = 20,
    sampler: Annotated[
        Literal["tpe", "random", "grid"],
        typer.Option(help="tpe: from the earlier results; grid: every combination, without log and uniform."),
    ] = "tpe",
    sweep_seed: Annotated[int, typer.Option(help="Seed of the sampler; trials have the recipe's seed.")] = 0,
    max_seeds: Annotated[
        int, typer.Option(min=3, help="Fresh seeds, at most, of each finalist and of the committed recipe.")
    ] = 8,
    name: Annotated[
        str, typer.Option(help="Name of the sweep; its trials are the experiments NAME-001 etc.")
    ] = "sweep",
    adopt: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write the winner of this finished sweep to params.yaml, and end."),
    ] = None,
    trial: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="With --adopt: this trial, even if it is no winner.")
    ] = None,
) -> None:
    """Search for better hyperparameters, and test the winner.

    Each trial is an experiment that is evaluated on the validation split; the test split is not evaluated. Then the
    three best trials and the committed recipe run with fresh seeds, one more at a time, until one is better or
    --max-seeds are spent. The answer is one sentence. A claim is wrong in at most one of 20 sweeps.

    The same command resumes an interrupted sweep. For example:

    reprise sweep -S 'train.learning_rate=log(1e-5,3e-4)' -S 'train.batch_size=choice(16,32)' -n 20
    """
    if adopt is not None:
        if space or overrides:
            raise UserError(key="--adopt", expected="no space beside it")
        from reprise.commands.adopt import adopt as adopt_winner

        adopt_winner(adopt, trial)
        return
    if trial is not None:
        raise UserError(key="--trial", expected="--adopt NAME beside it")
    from reprise.commands.packages import SWEEP_LOCK, require_packages

    require_packages("optuna", lock=SWEEP_LOCK, key="sweep")
    from reprise.commands.sweep import Settings, run_sweep

    run_sweep(overrides or (), space, Settings(number, sampler, sweep_seed, max_seeds, name))


@app.command()
def ensemble(
    selectors: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs or groups, as for `reprise compare`; the first run is the one to compare with.",
            autocompletion=_complete_run,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the ensemble or the soup to this folder, for `reprise predict --model DIR`.",
            callback=_from_user_folder,
        ),
    ] = None,
    soup: Annotated[
        bool,
        typer.Option("--soup", help="Average the weights, into one model, instead of the predictions."),
    ] = False,
) -> None:
    """Average several runs into one model, and judge it.

    The ensemble's probabilities are the means of its members', in regression its values. It is evaluated on the stored
    predictions of the runs, so no model is run, and it is compared with the first run: do several seeds together answer
    better than one? It takes as long to answer as all its members. A soup averages the weights of runs of one
    pretrained model instead: it takes the time of one model, and is evaluated on the evaluation split.

    The runs must predict the same labels of the same examples. Their predictions and models are read from DVC's cache
    on this machine (`dvc pull`, `dvc exp pull`).

    For example: reprise seeds -n 5; reprise ensemble seeds:HEAD --output five
    """
    _go_offline()
    from reprise.commands.ensemble import ensemble

    ensemble(selectors, output, soup=soup)


@app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Remove the experiments of other commits than HEAD.

    List the experiments that did not start from HEAD, and remove them after confirmation.
    """
    from reprise.commands.prune import prune

    prune(lambda question: yes or typer.confirm(question))


@app.command()
def fsck() -> None:
    """Check results, DVC's cache and packages for damage.

    Hash every output in dvc.lock again, in the workspace and in DVC's cache, load the final model, and hash the
    installed packages. Print one line per item: ok, damaged, missing, or leftover (of a killed run), and the command
    that restores it. DVC itself hashes a file again only if its size or time has changed, so `dvc status` and
    `dvc checkout` do not see a rotten disk. Nothing is changed. The exit code is 1 if anything is damaged or missing.

    For example: reprise fsck | grep -v ^ok
    """
    _go_offline()
    from reprise.commands.fsck import fsck

    if not fsck():
        raise typer.Exit(1)


@contextmanager
def _paused_gc() -> Iterator[None]:
    """Import without garbage collection, and exempt the imported objects from it: they live until the process ends."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _evaluate_exported(folder: Path) -> None:
    """Evaluate the files of ONNX of an export; not a part of the stage `evaluate`."""
    from reprise.commands.export_onnx import evaluate_files

    evaluate_files(folder)


def _go_offline() -> None:
    """Forbid network access, which only `fetch` may use. The libraries read the variables when first imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"
