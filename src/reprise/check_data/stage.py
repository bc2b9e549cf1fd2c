"""From data/prepared/ and data/raw/ to data/checks/: shares, near duplicates, likely label errors, a baseline."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from reprise.check_data import baseline as linear
from reprise.check_data.columns import give_aways, raw_columns, shared_groups
from reprise.check_data.duplicates import NearDuplicates, near_duplicates, repeated, shared_with_earlier
from reprise.check_data.examples import TEXT_COLUMNS, Examples, Scripts, iter_texts, read_examples, read_rows
from reprise.core.config import PARAMS, SPLITS, Checks, Recipe, Task, to_dict
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir, read_json, scratch_dir, write_json
from reprise.core.paths import DATA_CHECKS, RAW
from reprise.data.checks import CHECKS_FILE, LABEL_ERRORS, NEAR_DUPLICATES, data_digests, describe_check
from reprise.data.format import stats_path
from reprise.tasks.kind import LinearTaskKind, TaskKind
from reprise.tasks.labels import equal_labels
from reprise.tasks.metrics.compute import compute

# Decimals: more differ between processors, whose libraries add in another order.
DIGITS, METRIC_DIGITS, SIMILARITY_DIGITS = 6, 4, 3
MAX_LISTED = 100  # near duplicates in their table
MAX_ERRORS = 20  # likely label errors in theirs
# What prepare has warned of already, by check.
WARNED_BY_PREPARE = {
    "empty_texts": "empty_texts",
    "shared_texts": "shared_texts",
    "contradictory_labels": "conflicting_labels",
    "truncated": "truncated",
    "unknown_tokens": "unknown_tokens",
}
Found = dict[str, dict[str, Any]]  # by split: count and of


def check_data(recipe: Recipe, check: Callable[[], None] = lambda: None, folder: Path = DATA_CHECKS) -> None:
    """Check the prepared data, and write what was found.

    Args:
        recipe: names the task, the evaluation split and the thresholds.
        check: called before the folder is replaced; raises if it may not be.
        folder: replaced as a whole, also if a check fails: it shows why.

    Raises:
        UserError: a check fails, or the data is missing.
    """
    task, stats = recipe.task, read_json(stats_path())
    if not RAW.is_dir():
        raise UserError("not found", file=RAW, expected="the output of `reprise fetch`: run `dvc repro`")
    splits, scripts = [split for split in SPLITS if split in stats["splits"]], Scripts()
    splits += [split for split in stats["splits"] if split not in splits]
    with step("read the texts"):
        examples = {split: read_examples(split, scripts) for split in splits}
    notes: list[str] = []
    with step("look for near duplicates"):
        near = near_duplicates(examples, MAX_LISTED)
    notes += near_notes(near)
    with scratch_dir("check-data") as cache, step("read the other columns"):
        grouped = task.split is not None and task.split.group_by is not None
        columns = raw_columns(task, examples if grouped else {"train": examples["train"]}, cache)
        shares, position = give_aways(task.kind, examples["train"], columns["train"])
    judged, suspects = judge_labels(task, examples, notes=notes)

    found = text_checks(task, stats, examples, scripts)
    found["near_duplicates"] = {split: counted(flags) for split, flags in near.across.items()}
    found["train_near_duplicates"] = {"train": counted(near.train)}
    if task.split and task.split.group_by and task.split.group_by in columns["train"]:
        found["shared_groups"] = shared_groups({split: each[task.split.group_by] for split, each in columns.items()})
    found["give_away"] = {"train": shares[0]}
    if suspects is not None:
        found["label_errors"] = {"train": {"count": len(suspects), "of": judged["cross_validated"]}}
    report = {
        "task": task.name,
        "labels": list(task.kind.labels),
        "positive_label": task.positive_label,
        "data": data_digests(stats),
        "checks": judge(found, recipe.data.checks),
        "splits": {
            split: describe_split(stats["splits"][split], each, scripts, stats["max_length"])
            for split, each in examples.items()
        },
        "columns": [{**each, "share": round(each["share"], DIGITS)} for each in shares],
        "position": round(position, DIGITS),
        "baseline": judged.get("baseline"),
        "notes": notes,
    }
    check()
    with atomic_dir(folder) as partial:
        write_json(partial / CHECKS_FILE, report)
        near_table(near, examples, task).to_csv(partial / NEAR_DUPLICATES, index=False)
        error_table(suspects or [], examples["train"], task).to_csv(partial / LABEL_ERRORS, index=False)
    announce(report, stats)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print what is done now, and its seconds if these were more than two."""
    echo(f"check-data: {name}")
    start = time.perf_counter()
    yield
    if (seconds := time.perf_counter() - start) > 2:
        echo(f"check-data: {name}: {seconds:.0f} s")


def text_checks(
    task: Task, stats: Mapping[str, Any], examples: Mapping[str, Examples], scripts: Scripts
) -> dict[str, Found]:
    """Count what the texts and labels of each split show by themselves."""
    kind, prepared = task.kind, stats["splits"]
    commonest = main_script(examples["train"], scripts)
    labelled = {split: each for split, each in examples.items() if not kind.is_unlabeled(each.labels)}
    empty: Found = {split: counted(each.empty) for split, each in examples.items()}
    for warning in stats["warnings"]:
        if warning["id"] == "empty_texts":  # prepare left them out
            rows = sum(len(each) for split, each in examples.items() if warning["table"] in (split, "all"))
            empty[warning["table"]] = {"count": warning["examples"], "of": rows + warning["examples"]}
    found: dict[str, Found] = {
        "empty_texts": empty,
        "truncated": {
            split: {"count": each["truncated_rows"], "of": each["num_examples"]} for split, each in prepared.items()
        },
        "unknown_tokens": {
            split: {"count": each["unknown_tokens"], "of": each["tokens"]} for split, each in prepared.items()
        },
        "other_scripts": {split: counted((each.scripts & ~commonest) != 0) for split, each in examples.items()},
        "label_imbalance": {
            split: {"count": int(np.bincount(equal_labels(each.labels)).max()), "of": len(each)}
            for split, each in labelled.items()
        },
        "duplicates": {split: {"count": repeated(each.texts), "of": len(each)} for split, each in examples.items()},
        "shared_texts": {split: counted(flags) for split, flags in shared_with_earlier(examples).items()},
    }
    if kind.named_labels:  # numbers may well differ for one text: ratings of "good", say
        rows = sum(map(len, labelled.values()))
        found["contradictory_labels"] = {"all": {"count": stats["conflicting_labels"]["examples"], "of": rows}}
    return found


def counted(flags: npt.NDArray[np.bool_]) -> dict[str, int]:
    """Return how many of how many flags are set."""
    return {"count": int(flags.sum()), "of": len(flags)}


def main_script(train: Examples, scripts: Scripts) -> np.uint64:
    """Return the bit of the script that most training texts have letters of."""
    bits = [np.uint64(1) << np.uint64(number) for number in range(len(scripts.names))]
    counts = [int(((train.scripts & bit) != 0).sum()) for bit in bits]
    ranked = sorted(zip(counts, scripts.names, bits, strict=True), key=lambda each: (-each[0], each[1]))
    return ranked[0][2] if ranked else np.uint64(0)


def describe_split(stats: Mapping[str, Any], examples: Examples, scripts: Scripts, max_length: int) -> dict[str, Any]:
    """Return what a table shows of a split: rows, scripts, and what truncation costs at several lengths."""
    rows = len(examples)
    of_script = {
        name: float(((examples.scripts >> np.uint64(number)) & np.uint64(1)).sum()) / rows
        for number, name in enumerate(scripts.names)
    }
    return {
        "examples": rows,
        "scripts": {
            name: round(share, DIGITS)
            for name, share in sorted(of_script.items(), key=lambda each: (-each[1], each[0]))
            if share
        },
        "max_length": max_length,
        "truncation": {
            length: {
                "rows": round(cost["rows"] / rows, DIGITS),
                "tokens": round(cost["tokens"] / max(stats["full_tokens"], 1), DIGITS),
            }
            for length, cost in stats["truncation"].items()
        },
    }


def judge_labels(
    task: Task, examples: Mapping[str, Examples], *, notes: list[str]
) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
    """Train the linear baseline, evaluate it, and look for labels that it doubts.

    Args:
        task: names kind and metrics.
        examples: by split.
        notes: gets a sentence for each limit that applied.

    Returns:
        The baseline, and how many examples were cross-validated; and the likely errors, None if there is no baseline.
    """
    kind, train, labels = task.kind, examples["train"], max(len(task.labels), 1)
    if not isinstance(kind, LinearTaskKind):
        notes.append(f"There is no linear baseline of {kind.name}.")
        return {}, None
    others = [split for split, each in examples.items() if split != "train" and not kind.is_unlabeled(each.labels)]
    used = np.zeros(len(train), dtype=bool)
    used[linear.limited(train.texts, labels, linear.MAX_TRAINED)] = True
    name = f"TF-IDF and {kind.linear_model}"
    if not used.all():
        notes.append(f"The baseline is trained on {used.sum():,} of {len(train):,} training examples.")
    with step(f"weigh the words of {used.sum():,} texts"):
        matrix, judged = linear.features(
            compress(iter_texts("train"), used), [iter_texts(split) for split in others], labels
        )
    if matrix is None:
        notes.append("There is no baseline, as no training text has a word.")
        return {}, None
    with step(f"train the baseline, {name}, on {used.sum():,} examples"):
        outputs = linear.predict(kind, matrix, train.labels[used], judged)
    by_split = dict(zip(others, outputs, strict=True))
    decided: TaskKind = kind  # with thresholds from the validation split, as the trained model has them
    if "validation" in by_split:
        decided = kind.tune(by_split["validation"], examples["validation"].labels)
    metrics = {
        split: {
            metric: round(value, METRIC_DIGITS)
            for metric, value in compute(
                task.metrics,
                decided.decode(output),
                examples[split].labels,
                positive=kind.positive,
                probabilities=kind.probabilities(output),
            ).items()
        }
        for split, output in by_split.items()
    }
    rows = np.flatnonzero(used)
    chosen = linear.limited(train.texts[rows], labels, linear.MAX_CROSS_VALIDATED)
    chosen = chosen[np.argsort(train.texts[rows[chosen]], kind="stable")]
    if len(chosen) < len(train):
        notes.append(f"Label errors were looked for in {len(chosen):,} of {len(train):,} training examples.")
    with step(f"look for label errors in {len(chosen):,} examples"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about labels of few examples
        found = linear.out_of_fold(kind, matrix[chosen], train.labels[rows[chosen]], train.texts[rows[chosen]])
        doubted = kind.suspect_labels(train.labels[rows[chosen]], found)
        suggested = kind.decode(found[doubted]) if len(doubted) else np.empty(0)
    errors = [
        {"row": int(rows[chosen[index]]), "suggested": suggestion}
        for index, suggestion in zip(doubted, suggested, strict=True)
    ]
    described = {"name": name, "examples": int(used.sum()), "words": matrix.shape[1], "metrics": metrics}
    return {"baseline": described, "cross_validated": len(chosen)}, errors


def near_notes(near: NearDuplicates) -> list[str]:
    """Say what the search for near duplicates left out."""
    compared, texts = near.compared
    notes = (
        [] if compared == texts else [f"Near duplicates were looked for in {compared:,} of {texts:,} distinct texts."]
    )
    return notes + ([] if near.complete else ["Not all near duplicates were counted: too many texts are alike."])


def judge(found: Mapping[str, Found], thresholds: Checks) -> dict[str, Any]:
    """Compare the worst split of each check with its thresholds.

    Returns:
        By check, in the order of the recipe: status (ok, warn, fail), thresholds, share, split, count, of, and the
        numbers of each split.
    """
    judged = {}
    for name, threshold in to_dict(thresholds).items():
        if not found.get(name):
            continue
        splits = {
            split: each
            | {"share": round(each["share"] if "share" in each else each["count"] / max(each["of"], 1), DIGITS)}
            for split, each in found[name].items()
        }
        worst = max(splits, key=lambda split: splits[split]["share"])
        share = splits[worst]["share"]
        status = next((level for level in ("fail", "warn") if threshold[level] and share >= threshold[level]), "ok")
        judged[name] = {"status": status, **threshold, "split": worst, **splits[worst], "splits": splits}
    return judged


def near_table(near: NearDuplicates, examples: Mapping[str, Examples], task: Task) -> pd.DataFrame:
    """List the near duplicates, the most similar ones across splits first."""
    rows: dict[str, set[int]] = {split: set() for split in examples}
    for pair in near.pairs:
        rows[pair.split].add(pair.row)
        rows[pair.other].add(pair.other_row)
    texts = {split: read_rows(split, np.array(sorted(each), dtype=np.int64)) for split, each in rows.items()}
    names = list(TEXT_COLUMNS[: len(task.text_columns)])

    def described(prefix: str, split: str, row: int) -> dict[str, Any]:
        (label,) = task.kind.label_names(examples[split].labels[[row]])
        content = texts[split][row]
        return {f"{prefix}{key}": value for key, value in [("split", split), ("label", label), *content.items()]}

    columns = [
        "similarity",
        *(f"{prefix}{name}" for prefix in ("", "other_") for name in ("split", "label", "id", *names)),
    ]
    return pd.DataFrame(
        [
            {
                "similarity": round(pair.similarity, SIMILARITY_DIGITS),
                **described("", pair.split, pair.row),
                **described("other_", pair.other, pair.other_row),
            }
            for pair in near.pairs
        ],
        columns=columns,
    )


def error_table(errors: list[dict[str, Any]], train: Examples, task: Task) -> pd.DataFrame:
    """List the likeliest label errors with the given and the suggested label."""
    errors = errors[:MAX_ERRORS]
    texts = read_rows("train", np.array([each["row"] for each in errors], dtype=np.int64))
    names = list(TEXT_COLUMNS[: len(task.text_columns)])
    return pd.DataFrame(
        [
            {
                "label": task.kind.label_names(train.labels[[each["row"]]])[0],
                "suggested": task.kind.label_names(np.array([each["suggested"]]))[0],
                **texts[each["row"]],
            }
            for each in errors
        ],
        columns=["label", "suggested", "id", *names],
    ).round(METRIC_DIGITS)


def announce(report: Mapping[str, Any], stats: Mapping[str, Any]) -> None:
    """Print what was found, and stop the pipeline if a check failed.

    Raises:
        UserError: a check failed.
    """
    known = {warning["id"] for warning in stats["warnings"]}
    for name, check in report["checks"].items():
        if check["status"] == "warn" and WARNED_BY_PREPARE.get(name) not in known:
            echo(f"check-data: warning: {describe_check(name, check)}")
    failed = {name: check for name, check in report["checks"].items() if check["status"] == "fail"}
    for name, check in failed.items():
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        expected = f"less than {100 * check['fail']:g} %; `reprise data` shows why"
        raise UserError(
            f"{describe_check(name, check)}{more}", file=PARAMS, key=f"data.checks.{name}.fail", expected=expected
        )
    echo(f"check-data: {len(report['checks'])} checks; `reprise data` shows them")
