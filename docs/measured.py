"""Check that the numbers in README.md and the documentation are those of the files that they come from.

    python docs/measured.py            # compare; `make lint` runs it
    python docs/measured.py --write    # put the numbers of the files into the pages

The files are metrics/, reference/ and benchmarks/results.json as git has them staged: experiments in the working tree
do not matter. A template is a line of a page, or a part of one, with a field in place of each number.
"""

import argparse
import json
import re
import statistics
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

from reprise.core.paths import PROVENANCE, SPEED
from reprise.results.reference import read_reference
from reprise.results.run import read_recorded

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = "reference/rotten-tomatoes-minilm-cpu.json"
FIELD = r"[\w+−-]+(?:[.,]\w+)*"
BASELINES = {
    "the course's loop, fp32": "course",
    "the same in bf16": "course-bf16",
    "`Trainer` with its defaults": "trainer",
    "`Trainer`, grouped by length, bf16": "trainer-grouped",
    "Reprise in fp32": "reprise-fp32",
    "**Reprise**": "reprise",
}
DATA = {"reviews": "rotten-tomatoes", "pairs": "pairs"}
SPREADS = {
    "training loss, all steps": "train loss",
    "validation accuracy": "train accuracy",
    "validation f1": "train f1",
    "test accuracy": "evaluate accuracy",
    "test f1": "evaluate f1",
}

# Of the other kinds of tasks: their names in benchmarks/results.json, and a metric.
KINDS = {
    "which of six subjects a review has": ("subjects", "f1_micro", "micro F1"),
    "where a review names its film": ("titles", "entity_f1", "entity F1"),
    "do most critics like a film, first 128 tokens": ("films, truncated", "accuracy", "accuracy"),
    "the same, all windows": ("films, in windows", "accuracy", "accuracy"),
}
TIMED_KINDS = {"subjects": "several labels", "titles": "labels of words"}
TIMED_BASELINES = {"trainer": "fp32", "trainer-bf16": "bf16", "trainer-grouped": "bf16 grouped"}

# The servers of `make bench-serve` and the files of `make bench-formats`.
SERVERS = {"`reprise serve`": "reprise", "`reprise serve`, int8": "reprise int8", "FastAPI and `pipeline`": "naive"}
CLIENTS = ("1", "8", "32")
FORMATS = {
    "PyTorch": "reprise predict, PyTorch",
    "`model.onnx`": "model.onnx",
    "`model_fp16.onnx`": "model_fp16.onnx",
    "`model_quantized.onnx`": "model_quantized.onnx",
}
MODELS = {"rotten-tomatoes": "", "subjects": "subjects: "}

SUMMARY = """
minilm on rotten-tomatoes: {test[num_examples]} examples of the test split
│ accuracy   │ {test[accuracy]:.4f} │ {low[accuracy]:.4f} – {high[accuracy]:.4f} │   {base[accuracy]:.4f} │
│ f1 (fresh) │ {test[f1]:.4f} │ {low[f1]:.4f} – {high[f1]:.4f} │   {base[f1]:.4f} │
Epoch {train[best_epoch]} of 2 was kept; {speed[examples_per_second]:.0f} examples/s in training.
"""
TRAINING = """
({tflops:.2f} TFLOP/s in bf16)
{speed[examples_per_second]:.0f} examples/s with checkpoints, padding {padding:.1f} % of all tokens, {gib:.1f} GiB
`{weights[0]}…{weights[1]}`
"""
COMPARED = """
│ evaluate │ accuracy │ {mean[evaluate accuracy]:.4f} ± {sd[evaluate accuracy]:.4f} │
│ train    │ loss     │ {mean[train loss]:.4f} ± {sd[train loss]:.4f} │
"""
README = """
has a test accuracy of 0.8445 instead of {test[accuracy]:.4f}. But another seed alone changes
by about ±{sd[evaluate accuracy]:.3f}
{ratio[reviews reprise]} × as many examples/s ({rate[reviews reprise]} instead of {rate[reviews course]})
{faster:.1f} × as many rows/s ({predict[predict]:.0f} instead of {predict[pipeline]:.0f})
| `dvc repro` with nothing to do | {overhead[repro_seconds]:.1f} s |
"""
PERFORMANCE = """
| majority class (always "fresh") | {base[accuracy]:.3f} |
| the default recipe, seed 42 | **{test[accuracy]:.3f}** ({low[accuracy]:.3f} – {high[accuracy]:.3f}) |
| the same, seeds 42 to 46 | {mean[evaluate accuracy]:.3f} ± {sd[evaluate accuracy]:.3f} (standard deviation) |
epoch is {validation[course]:.4f} ± {validation_sd[course]:.4f} with the course's
loop and {validation[reprise]:.4f} ± {validation_sd[reprise]:.4f} with Reprise
| `reprise --help` | {overhead[help_seconds]:.2f} s |
| `dvc repro` with nothing to do | {overhead[repro_seconds]:.1f} s |
| planning an epoch of ten million rows | {overhead[plan_seconds]:.1f} s |
| {predict[predict]:.0f} and {predict[evaluate]:.0f} rows/s; {predict[pipeline]:.0f}: {faster:.1f} × |
"""
PIPELINE = """
`pipeline` of transformers, in batches of 32, answers {pipeline[rotten-tomatoes]:.0f}
"""
ENVIRONMENT = "environment: {environment[hardware]}, {packages} packages as locked"


PREDICTED_CARDS = ("H100 SXM", "A100 SXM", "L4")
PREDICTED = {
    "`Trainer`, bf16": "trainer",
    "Reprise": "reprise",
    "Reprise, attention written out": "reprise, attention written out",
    "… and masks by a dozen operations instead of a kernel": "reprise, masks by operations",
    "… and each layer's mask on its own, as on a CPU": "reprise, mask by mask",
}
LAUNCHES = """
kernels alone would take {step[reprise][alone H100 SXM]:.1f} ms
- **Clipping and AdamW** take {step[reprise][update]} launches together
a CPU, steps took {checked[0]:.1f} to {checked[1]:.1f} times what the same sum predicts
takes {step[reprise][slower H100 SXM]:.1f} times as long as with `Trainer` on an H100
on an H100, {step[reprise][slower L4]:.1f} times on an L4
would take {step[reprise][fast H100 SXM]:.1f} or {step[reprise][slow H100 SXM]:.1f} ms on
"""


def predicted_row(name: str, key: str) -> str:
    """Return the template of a step's row in the table of docs/guides/gpus.md."""
    cards = (f"{{step[{key}][{card}]:.1f}} ms, {{step[{key}][rate {card}]}}/s" for card in PREDICTED_CARDS)
    counts = f"{{step[{key}][launches]}} | {{step[{key}][dropout]}} | {{step[{key}][gigabytes]:.1f}}"
    return f"| {name} | {counts} | {' | '.join(cards)} |\n"


def benchmark_row(name: str, key: str) -> str:
    """Return the template of a baseline's row in the table of docs/benchmarks/performance.md."""
    bold = "**" if key == "reprise" else ""
    cells = [
        f"{bold}{{{field}[{data} {key}]}}{unit}{bold}"
        for data in DATA
        for field, unit in (("rate", ""), ("ratio", " ×"))
    ]
    percents = ", ".join(f"{{percent[{data} {key}]}} %" for data in DATA)
    return f"| {name} | {' | '.join(cells)} | {percents} | {{memory[{key}]}} GiB |\n"


def seed_row(head: str, field: str) -> str:
    """Return the template of a row in the table of `reprise seed-noise`."""
    cells = [f"{{{field}[{spread}]:.4f}} │" for spread in SPREADS.values()]
    return f"│ {head:<18} │ {cells[0]}   {cells[1]} {cells[2]}   {cells[3]}   {cells[4]}\n"


def spread_row(name: str, key: str) -> str:
    """Return the template of a row in the table of prediction intervals."""
    ends = f"{{interval[{key}][0]:.4f}} – {{interval[{key}][1]:.4f}}"
    return f"| {name} | {{seed42[{key}]:.4f}} | {{mean[{key}]:.4f}} | {{sd[{key}]:.4f}} | {ends} |\n"


def kind_row(name: str, key: str, metric: str, shown: str) -> str:
    """Return the template of a row in the table of the other kinds of tasks."""
    spread = f"{{kind_mean[{key} {metric}]:.3f}} ± {{kind_sd[{key} {metric}]:.3f}}"
    return f"| {name} | {shown} | {spread} | {{kind_linear[{key}]}} | {{kind_base[{key} {metric}]:.3f}} |\n"


def timed_row(key: str, name: str) -> str:
    """Return the template of a row in the table of their speed."""
    others = " | ".join(f"{{kind_rate[{key} {baseline}]}}" for baseline in TIMED_BASELINES)
    ratio = f"{{kind_ratio[{key}]:.1f}} ×"
    return f"| {name} | {others} | **{{kind_rate[{key} reprise]}}** | **{ratio}** |\n"


def format_row(model: str, name: str, key: str) -> str:
    """Return the template of a row in the tables of the files in ONNX."""
    fields = (
        "{0}[bytes]:.1f}} MB", "{0}[metric]:.4f}} ({0}[low]:.4f}} – {0}[high]:.4f}})", "{0}[changed]}}",
        "{0}[max_logit_difference]:.6f}}", "{0}[per_second]:.0f}}", "{0}[cold_start_seconds]:.1f}} s",
    )  # fmt: skip
    cells = " | ".join(field.format(f"{{file[{model} {key}]") for field in fields)
    return f"| {MODELS[model]}{name} | {cells} |\n"


def server_row(name: str, key: str, clients: str) -> str:
    """Return the template of a row in the table of the load test."""
    times = " | ".join(f"{{served[{key} {clients}][p{percent}_ms]:.0f}}" for percent in (50, 95, 99))
    return f"| {name} | {clients} | {times} | {{served[{key} {clients}][rows_per_second]:.0f}} |\n"


SEED_ROWS = {f"{seed}": f"seed{seed}" for seed in range(42, 47)} | {"mean": "mean", "standard deviation": "sd"}
TEMPLATES = {
    "README.md": SUMMARY + TRAINING + COMPARED + README,
    "docs/benchmarks/performance.md": TRAINING
    + PERFORMANCE
    + "".join(benchmark_row(*row) for row in BASELINES.items())
    + "".join(kind_row(name, *row) for name, row in KINDS.items())
    + "".join(timed_row(*row) for row in TIMED_KINDS.items()),
    "docs/guides/gpus.md": LAUNCHES + "".join(predicted_row(*row) for row in PREDICTED.items()),
    "docs/guides/predict-and-export.md": PIPELINE
    + "".join(format_row(model, *row) for model in MODELS for row in FORMATS.items()),
    "docs/guides/serving.md": "".join(server_row(*row, clients) for row in SERVERS.items() for clients in CLIENTS),
    "docs/guides/seeds.md": COMPARED,
    "docs/guides/experiments.md": ENVIRONMENT,
    "docs/guides/sharing.md": ENVIRONMENT,
    "docs/concepts/pipeline.md": ENVIRONMENT,
    "docs/concepts/verdicts.md": "".join(
        [seed_row(*row) for row in SEED_ROWS.items()] + [spread_row(*row) for row in SPREADS.items()]
    ),
}


def main() -> int:
    """Compare or rewrite the numbers of every page; return the exit code."""
    parser = argparse.ArgumentParser(description="Check the numbers of the documentation.")
    parser.add_argument("--write", action="store_true", help="put the numbers of the files into the pages")
    write, values, wrong, count = parser.parse_args().write, collect(), [], 0
    for page, templates in TEMPLATES.items():
        old = (ROOT / page).read_text(encoding="utf-8")
        new = old
        for template in filter(None, templates.splitlines()):
            expected = template.format(**values)
            new, found = re.subn(pattern(template), expected.replace("\\", r"\\"), new)
            count += found
            if not found:
                wrong.append(f"{page}: no line like: {expected}")
        for before, after in zip(old.splitlines(), new.splitlines(), strict=True):
            if before != after:
                wrong.append(f"{page}: {before}\n  expected: {after}")
        if write and new != old:
            (ROOT / page).write_text(new, encoding="utf-8")
    print("\n".join(wrong) or f"measured: {count} lines have the numbers of their files")
    return 1 if wrong and not write else 0


def pattern(template: str) -> str:
    """Return the regular expression of a template: any number in place of a field."""
    return "".join(
        re.escape(literal) + (FIELD if field is not None else "")
        for literal, field, _, _ in string.Formatter().parse(template)
    )


def collect() -> dict[str, Any]:
    """Return the values of the fields by name."""
    test, speed, provenance = staged("metrics/evaluate.json"), recorded(SPEED), recorded(PROVENANCE)
    results, reference = staged("benchmarks/results.json"), read_reference(ROOT / REFERENCE)
    environment = staged("environment.json")
    (weights,) = provenance["results"][-1]["weights"].values()
    baselines = {data: results["training"]["data"][name]["baselines"] for data, name in DATA.items()}
    measured = {f"{data} {key}": value for data, values in baselines.items() for key, value in values.items()}
    peaks = {key: max(values[key]["peak_memory_mib"] for values in baselines.values()) for key in BASELINES.values()}
    keys = {key: key.split() for key in SPREADS.values()}
    steps = results["launches"]["steps"]["BERT-base, 32 x 53 tokens"]
    checked = [step["measured_to_predicted"] for step in results["launches"]["cpu"]["steps"].values()]
    spreads = {key: reference.metrics[stage][name] for key, (stage, name) in keys.items()}
    seeds = {
        f"seed{seed}": {key: metrics[stage][name] for key, (stage, name) in keys.items()}
        for seed, metrics in reference.seeds.items()
    }
    return {
        **seeds,
        **kind_values(results["kinds"]["kinds"]),
        "test": test,
        "low": {name: ends["low"] for name, ends in test["ci95"].items()},
        "high": {name: ends["high"] for name, ends in test["ci95"].items()},
        "base": test["baseline"],
        "train": staged("metrics/train.json"),
        "speed": speed,
        "environment": environment,
        "packages": len(environment["packages"]),
        "padding": 100 * speed["padding_fraction"],
        "gib": speed["peak_memory_mib"] / 1024,
        "weights": (weights[:16], weights[-10:]),
        "mean": {key: spread.mean for key, spread in spreads.items()},
        "sd": {key: spread.sd for key, spread in spreads.items()},
        "interval": {key: reference.prediction_interval(*parts) for key, parts in keys.items()},
        "tflops": results["training"]["data"]["rotten-tomatoes"]["matrix_rate"]["bf16"] / 1e12,
        "rate": {key: f"{value['examples_per_second']:.1f}" for key, value in measured.items()},
        "ratio": {key: f"{value['ratio_to_course']:.1f}" for key, value in measured.items()},
        "percent": {key: f"{100 * value['matrix_rate_fraction']:.0f}" for key, value in measured.items()},
        "memory": {key: f"{peak / 1024:.1f}" for key, peak in peaks.items()},
        "step": {name: predicted_step(step, steps["trainer"]) for name, step in steps.items()},
        "checked": (min(checked), max(checked)),
        "overhead": results["overhead"]["metrics"],
        "predict": results["overhead"]["predict"],
        "faster": results["overhead"]["metrics"]["predict_to_pipeline"],
        **export_values(results["formats"]["models"]),
        "served": {
            f"{name} {clients}": load
            for name, server in results["serving"]["servers"].items()
            for clients, load in server["load"].items()
        },
        "validation": results["accuracy"]["mean"],
        "validation_sd": results["accuracy"]["standard_deviation"],
    }


def predicted_step(step: dict[str, Any], trainer: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of a step, and its predicted times by card."""
    values = {name: step[name] for name in ("launches", "gigabytes")} | {"dropout": step["launches_by_part"]["dropout"]}
    values["update"] = sum(step["launches_by_phase"][phase] for phase in ("clipping", "optimizer"))
    for card, predicted in step["cards"].items():
        fast, milliseconds, slow = predicted["milliseconds"]
        values |= {
            card: milliseconds,
            f"fast {card}": fast,
            f"slow {card}": slow,
            f"rate {card}": predicted["examples_per_second"][1],
            f"alone {card}": predicted["milliseconds_without_gaps"],
            f"slower {card}": milliseconds / trainer["cards"][card]["milliseconds"][1],
        }
    return values


def kind_values(kinds: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the fields of the other kinds of tasks."""
    metrics = {f"{key} {metric}": (kinds[key], metric) for key, metric, _ in KINDS.values()}
    seeds = {name: [seed[metric] for seed in found["seeds"]] for name, (found, metric) in metrics.items()}
    linear = {key: kinds[key]["linear"].get(metric) for key, metric, _ in KINDS.values()}
    return {
        "kind_mean": {name: statistics.mean(values) for name, values in seeds.items()},
        "kind_sd": {name: statistics.stdev(values) for name, values in seeds.items()},
        "kind_base": {name: found["seeds"][0]["baseline"][metric] for name, (found, metric) in metrics.items()},
        "kind_linear": {key: "none" if value is None else f"{value:.3f}" for key, value in linear.items()},
        "kind_rate": {
            f"{key} {name}": f"{rate:.1f}"
            for key in TIMED_KINDS
            for name, rate in kinds[key]["examples_per_second"].items()
        },
        "kind_ratio": {key: kinds[key]["ratio_to_trainer-bf16"] for key in TIMED_KINDS},
    }


def export_values(models: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the fields of the files in ONNX, and the texts per second of transformers' pipeline."""
    same = {"changed": 0, "max_logit_difference": 0.0}  # the trained model, and itself
    files = {
        f"{model} {name}": same | file | file["ci95"] | {"per_second": found["per_second"][name]}
        for model, found in models.items()
        for name, file in found["files"].items()
    }
    for file in files.values():
        file["bytes"] /= 1e6
    rates = {model: found["per_second"] for model, found in models.items()}
    return {"file": files, "pipeline": {model: next(iter(each.values())) for model, each in rates.items()}}


def staged(name: str) -> Any:
    """Return a JSON file as git has it staged."""
    return json.loads(read_staged(Path(name)))


def recorded(file: Path) -> dict[str, Any]:
    """Return speed.json or provenance.json as git has it staged."""
    content = read_recorded(read_staged, file)
    if content is None:
        sys.exit(f"measured: {file} is not of the run in dvc.lock: `dvc repro --force train` records it")
    return content


def read_staged(file: Path) -> bytes:
    """Return the content of a file as git has it staged."""
    return subprocess.run(["git", "show", f":{file}"], cwd=ROOT, capture_output=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
