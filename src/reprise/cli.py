"""`reprise VERB`: one verb a stage or tool. Nothing heavy is imported before a verb needs it."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from reprise.core.errors import UserError
from reprise.train.distributed.launch_config import LaunchConfig


class ErrorHandlingGroup(TyperGroup):
    """The verbs, with one way to fail: bad input is one line and exit code 2, Ctrl-C one line and 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"reprise: error: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo(f"reprise {ctx.invoked_subcommand}: interrupted; earlier results are kept", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=ErrorHandlingGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Fine-tune a pretrained encoder so that anyone can do it again and get the same model.

The recipe is params.yaml. `dvc repro` cooks it, stage by stage, and runs only what changed; the first five verbs are
those stages and seldom typed by hand. `reprise compose` makes params.yaml from the shelf in recipes/.""",
)


@app.command()
def environment() -> None:
    """Stage 1: check the installed software against the lock and write environment.json."""
    from reprise.core.files import write_json
    from reprise.core.validation import read_recipe
    from reprise.hardware import ENVIRONMENT, current_hardware, locked_environment

    read_recipe()  # This stage runs on every `dvc repro`: a mistake anywhere in params.yaml is found before any work.
    kind = current_hardware()
    described = locked_environment(kind)
    write_json(ENVIRONMENT, described)
    typer.echo(f"environment: {kind}, {len(described['packages'])} packages as locked")


@app.command()
def fetch() -> None:
    """Stage 2: bring the raw data and the pretrained model, hash-checked. The only stage that uses the network."""
    from reprise.core.validation import read_recipe
    from reprise.fetch.stage import fetch

    recipe = read_recipe()
    fetch(recipe.task.source, recipe.model.source)


@app.command()
def prepare() -> None:
    """Stage 3: split, label and tokenize the raw data."""
    _go_offline()
    from reprise.core.validation import read_recipe
    from reprise.prepare.stage import prepare

    recipe = read_recipe()
    prepare(recipe.task, max_length=recipe.train.max_length)


@app.command()
def train(
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="REPRISE_PROCESSES",
            help="How many on this host, else as docker/<hardware>/accelerate.yaml says.",
        ),
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, envvar="REPRISE_NODES", help="How many hosts train together.")] = 1,
    node_rank: Annotated[
        int, typer.Option(min=0, envvar="REPRISE_NODE_RANK", help="Which of them this is; only 0 writes.")
    ] = 0,
    rendezvous: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", envvar="REPRISE_RENDEZVOUS", help="Where they meet: an address of host 0."),
    ] = None,
    max_restarts: Annotated[
        int,
        typer.Option(
            min=0, envvar="REPRISE_MAX_RESTARTS", help="How often to go on from the checkpoint when a process is lost."
        ),
    ] = 0,
    profile: Annotated[
        str,
        typer.Option(
            metavar="NAME", envvar="REPRISE_PROFILE", help="Of docker/<hardware>/NAME.yaml; fsdp divides the model."
        ),
    ] = LaunchConfig.profile,
    timeout: Annotated[
        int,
        typer.Option(min=1, metavar="SECONDS", envvar="REPRISE_TIMEOUT", help="How long to wait for the others."),
    ] = LaunchConfig.timeout,
) -> None:
    """Stage 4: fine-tune the pretrained model, in one process or several, on one host or several.

    Each option has a variable, so that `dvc repro` takes it up. Of several hosts, host 0 runs `dvc repro` and the
    others `reprise train`, at the same commit and with the same prepared data.
    """
    _go_offline()
    from reprise.core.validation import read_recipe
    from reprise.hardware import current_hardware
    from reprise.train.stage import launch

    launch(
        read_recipe(),
        current_hardware(),
        LaunchConfig(processes, nodes, node_rank, rendezvous, max_restarts, profile, timeout),
    )


@app.command()
def evaluate() -> None:
    """Stage 5: judge the final model on the evaluation split: metrics with intervals, plots, predictions."""
    _go_offline()
    from reprise.core.validation import read_recipe
    from reprise.evaluate.stage import evaluate
    from reprise.hardware import current_hardware, require_device

    recipe, kind = read_recipe(), current_hardware()
    require_device(kind)
    evaluate(recipe, cpu=kind == "cpu")


@app.command()
@app.command("recipe", hidden=True)  # its earlier name
def compose(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GROUP=CHOICE | KEY=VALUE]...", help="What differs from the defaults of the shelf."),
    ] = None,
) -> None:
    """Compose params.yaml from the shelf; without arguments, list the shelf.

    For example: reprise compose task=mrpc model=bert-base-uncased train.learning_rate=3e-5
    """
    from reprise.commands.compose import compose_recipe, list_recipes, write_recipe
    from reprise.core.config import PARAMS

    if not overrides:
        from reprise.commands.summary import print_recipes

        print_recipes(list_recipes())
        return
    for difference in write_recipe(compose_recipe(overrides), overrides, PARAMS) or ["nothing changed"]:
        typer.echo(f"{PARAMS}: {difference}")


@app.command()
def summary() -> None:
    """Show what the last cooking gave: metrics with intervals, the baseline, where the model lies."""
    from reprise.commands.summary import print_summary

    print_summary()


@app.command()
def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT [TEXT]]", help="A text, or the two of a sentence pair.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A table (CSV, TSV, JSON lines, Parquet) with the recipe's columns of text.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A .jsonl file for the answers to --file.")] = None,
    submission: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the files that a benchmark such as GLUE wants handed in.")
    ] = None,
) -> None:
    """Say what the final model makes of texts: a JSON line each, with the label and each label's probability.

    Without arguments it reads standard input: a text a line, a tab between the two of a pair. For example:

    reprise predict "a moving story"; reprise predict --file reviews.csv --out labels.jsonl
    """
    _go_offline()
    from reprise.commands.predict import parse_row, predict_file, predict_lines, predict_texts, write_submission
    from reprise.core.validation import read_recipe
    from reprise.hardware import current_hardware, require_device

    if sum((bool(texts), file is not None, submission is not None)) > 1 or (out and not file):
        raise UserError("predict: expected texts, --file (with --out or without) or --submission, and not two of them")
    recipe, kind = read_recipe(), current_hardware()
    require_device(kind)
    cpu = kind == "cpu"
    if submission:
        write_submission(recipe, submission, cpu=cpu)
    elif file:
        predict_file(recipe, file, out, cpu=cpu)
    elif texts:
        predict_texts(recipe, [parse_row(texts, recipe.task.text_columns)], sys.stdout, cpu=cpu)
    else:
        predict_lines(recipe, sys.stdin, cpu=cpu)


@app.command()
def verify(
    revision: Annotated[str, typer.Argument(help="The commit whose results are verified.")] = "HEAD",
    strict: Annotated[bool, typer.Option("--strict", help="Let nothing but identical bits pass.")] = False,
) -> None:
    """Cook a commit again, from scratch in a place of its own, and judge every output.

    Identical: the same bits. Equivalent: the same but for rounding, as on another processor. Within seed noise: what
    another seed may give, by the reference in reference/. Different: none of these; the exit code is 1.
    """
    from reprise.commands.verify import verify
    from reprise.results.verdict import Verdict

    verdict = verify(revision)
    if verdict > (Verdict.IDENTICAL if strict else Verdict.WITHIN_SEED_NOISE):
        raise typer.Exit(1)


@app.command()
@app.command("reference", hidden=True)  # its earlier name
def seed_noise(
    seeds: Annotated[int, typer.Option(min=5, help="How many seeds, from the recipe's own on.")] = 5,
) -> None:
    """Cook several seeds of the recipe and write their figures to reference/, for `reprise verify` to judge by."""
    from reprise.commands.seed_noise import measure_seed_noise

    measure_seed_noise(seeds)


@app.command()
def parity(
    steps: Annotated[int, typer.Option(min=1, help="How many optimizer steps each trains.")] = 20,
    engines: Annotated[bool, typer.Option("--engines", help="Every engine on this backend instead.")] = False,
) -> None:
    """Train the first steps on every backend that is here (CPU, CUDA, XLA) and show the losses side by side.

    XLA has an environment of its own: make setup VENV=.venv-xla LOCKS=docker/tpu. The exit code is 1 where the losses
    in fp32 do not agree; with --engines (accelerate, trainer, pytorch), where any bit differs.
    """
    _go_offline()
    from reprise.commands.parity import engine_parity, parity

    if not (engine_parity if engines else parity)(steps):
        raise typer.Exit(1)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is empty or not there yet.")],
) -> None:
    """Write the final model with its model card, in the Hub's format, to a folder that can be uploaded as it is."""
    _go_offline()
    from reprise.commands.export import export

    export(folder)


@app.command()
def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Which runs; without any, all experiments too.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the page.")] = Path("report/index.html"),
) -> None:
    """Write all runs on one HTML page that needs nothing but a browser: tables, curves, mistakes, where they come from.

    A run is the workspace, a commit or an experiment. From then on `dvc plots show` needs no network either.
    """
    _go_offline()
    from reprise.report.build import report

    report(runs or (), out)


@app.command()
def compare(
    before: Annotated[str, typer.Argument(metavar="FIRST", help="What is compared with.")],
    after: Annotated[str, typer.Argument(metavar="SECOND", help="What may be better.")],
    rows: Annotated[int, typer.Option(min=0, help="Of two runs, how many rows that changed to show.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
) -> None:
    """Compare two runs, or two groups of seeds, and say what is more than chance.

    FIRST and SECOND are `workspace`, an experiment's name or a commit, which is one run each. With `seeds:` before it
    (seeds:HEAD, seeds:gentler), it is that run and every experiment, HEAD and the workspace that differ from it in the
    seed alone. One seed a side cannot tell a better recipe from a lucky seed; `reprise seeds` cooks more.

    For example: reprise compare seeds:HEAD seeds:gentler
    """
    from reprise.commands.compare import compare

    if json and markdown:
        raise UserError("--markdown: expected it, or --json, not both")
    compare(before, after, rows, "json" if json else "markdown" if markdown else "text")


@app.command()
def seeds(
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many, from the recipe's own on.")] = 5,
    overrides: Annotated[
        list[str] | None,
        typer.Option("-S", "--set-param", metavar="KEY=VALUE", help="Of params.yaml, as `dvc exp run` takes it."),
    ] = None,
) -> None:
    """Cook the recipe with several seeds, each as an experiment, and show how far the figures spread.

    For example: reprise seeds -n 5 -S train.learning_rate=5e-5. What was cooked already is not cooked again.
    """
    from reprise.commands.seeds import run_seeds

    run_seeds(number, overrides or ())


@app.command()
def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Show the experiments that were tried on other commits than HEAD, and remove them after asking."""
    from reprise.commands.prune import prune

    prune(lambda question: yes or typer.confirm(question))


def _go_offline() -> None:
    """Only fetch may use the network; the libraries read these when they are first imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"
