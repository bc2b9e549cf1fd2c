"""The file of the catalog for a table, as text: every choice stated, every name quoted."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Proposal:
    """What a recipe for the user's own table says.

    Attributes:
        name: of the recipe.
        files: the table of each split, as a path from the root.
        text_columns: one or two.
        label_column: the column to predict.
        labels: in the order of their ids; empty for regression.
        positive_label: of two labels; else None.
        metrics: the first selects the epoch.
        id_column: identifies a row; None for the row number.
        split: the keys of `task.split`; None if there are none.
        train: keys of the section `train` that differ from the defaults.
        evaluate_split: the split that is reported.
        comments: the lines at the top, the title first.
        separator: between the labels of a row that may have several; None if each row has one.
        stride: tokens that neighbouring windows share, of token classification; None for the other kinds.
    """

    name: str
    files: Mapping[str, str]
    text_columns: Sequence[str]
    label_column: str
    labels: Sequence[str]
    positive_label: str | None
    metrics: Sequence[str]
    id_column: str | None
    split: Mapping[str, Any] | None
    train: Mapping[str, Any]
    evaluate_split: str
    comments: Sequence[str]
    separator: str | None = None
    stride: int | None = None


def render_recipe(proposal: Proposal) -> str:
    """Write a proposal as YAML of the catalog."""
    lines = ["# @package _global_", *(f"# {line}".rstrip() for line in proposal.comments), "task:"]
    lines += [f"  name: {proposal.name}", "  source:", "    kind: local"]
    lines += [f"    {split}: {_quote(proposal.files.get(split))}" for split in ("train", "validation", "test")]
    lines += [
        f"  text_columns: [{', '.join(map(_quote, proposal.text_columns))}]",
        f"  label_column: {_quote(proposal.label_column)}",
        *(
            ["  labels:", *(f"    - {_quote(label)}" for label in proposal.labels)]
            if proposal.labels
            else ["  labels: []   # regression"]
        ),
        f"  positive_label: {_quote(proposal.positive_label)}",
        f"  metrics: [{', '.join(proposal.metrics)}]   # the first selects the epoch",
        f"  id_column: {_quote(proposal.id_column)}",
        "  filter: null",
    ]
    if proposal.split is None:
        lines += ["  split: null"]
    else:
        lines += [
            "  split:   # cut from train",
            *(f"    {key}: {_quote(value)}" for key, value in proposal.split.items()),
        ]
    lines += ["  max_examples: null", "  submission: null"]
    if proposal.separator is not None:
        lines += [f"  multi_label: {{separator: {_quote(proposal.separator)}, thresholds: tuned}}"]
    if proposal.stride is not None:
        lines += [
            "  token_classification:",
            "    subwords: first   # the tokens of a word that are trained; all: each of them",
            "data:",
            "  windows:",
            f"    stride: {proposal.stride}   # tokens that neighbouring windows of a text share",
            "    pooling: null",
        ]
    lines += ["train:"]
    lines += [f"  {key}: {_quote(value)}" for key, value in proposal.train.items()]
    lines += ["evaluate:", f"  split: {proposal.evaluate_split}"]
    return "\n".join(lines) + "\n"


def _quote(value: Any) -> str:
    """Quote a name for YAML and OmegaConf, which would replace `${…}`."""
    if not isinstance(value, str):
        return json.dumps(value)
    return json.dumps(value.replace("${", "\\${"), ensure_ascii=not value.isprintable())
