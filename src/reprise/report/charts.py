"""Vega-Lite specifications of the charts, built with altair. The page supplies the rows of the selected runs.

Each chart draws the rows of the data set `rows`; its function documents their fields. Colours are variables of
report.css, so that light and dark mode need no redraw. `color` and `dash` are the style of a selected run.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

import altair as alt

from reprise.report.confusion import FEW_LABELS

ROWS = alt.NamedData("rows")
INK, MUTED, ACCENT, OTHER = "var(--ink)", "var(--muted)", "var(--accent)", "var(--other)"
COLOR = alt.Color("color:N").scale(None)
DASH = alt.StrokeDash("dash:N").scale(None)
MAX_TICKS = 8  # of a logarithmic axis with numbers between the powers of ten
Spec = dict[str, Any]


def to_spec(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: int = 240) -> Spec:
    """Convert a chart to a specification as wide as its container."""
    spec: Spec = chart.properties(width="container", height=height).to_dict()
    spec.pop("config")  # set by the page
    return spec


def curve(y: str, title: str, *, axis_format: str) -> Spec:
    """Draw one line per run over the steps. Rows: run, color, dash, step, and the field `y`."""
    # Not `nearest`: Vega-Lite 6.4 then shows no tooltip.
    hovered = alt.selection_point(on="pointerover", clear="pointerout", fields=["step"], empty=False)
    base = alt.Chart(ROWS).encode(
        x=alt.X("step:Q", title="optimizer step").scale(nice=False),
        y=alt.Y(f"{y}:Q", title=title).scale(zero=False).axis(format=axis_format),
        color=COLOR,
        detail="run:N",
    )
    points = base.mark_point(filled=True, size=100).encode(
        opacity=alt.when(hovered).then(alt.value(1)).otherwise(alt.value(0)),
        tooltip=["run:N", alt.Tooltip("step:Q", format=",.0f"), alt.Tooltip(f"{y}:Q", format=".4~g", title=title)],
    )
    return to_spec(base.mark_line(strokeWidth=1.8).encode(strokeDash=DASH) + points.add_params(hovered))


def epochs() -> Spec:
    """Draw a validation metric after each epoch. Rows: run, color, dash, epoch, value."""
    base = alt.Chart(ROWS).encode(
        x=alt.X("epoch:O", title="epoch").axis(labelAngle=0, labelOverlap=True),
        y=alt.Y("value:Q", title=None).scale(zero=False),
        color=COLOR,
        detail="run:N",
        tooltip=["run:N", "epoch:O", alt.Tooltip("value:Q", format=".4f")],
    )
    return to_spec(
        base.mark_line(strokeWidth=1.8).encode(strokeDash=DASH) + base.mark_point(filled=True, opacity=1, size=45)
    )


def confusion(labels: Sequence[str], size: int) -> Spec:
    """Draw a confusion matrix. Rows: actual, predicted, from, to, count, fraction (of the actual label).

    Up to FEW_LABELS labels fill the container. More of them have cells of a fixed size across the page.

    Args:
        labels: their names.
        size: rows and columns of the matrix.
    """
    names, few = list(labels), size <= FEW_LABELS
    flat = max(map(len, names), default=0) * len(names) < 24
    angle, limit = (0 if flat else -40, 80) if few else (-90, 130)
    base = alt.Chart(ROWS).encode(
        x=alt.X("predicted:N", title="predicted", sort=alt.EncodingSortField("to", op="min")).axis(
            labelAngle=angle, labelLimit=limit, labelOverlap=False
        ),
        y=alt.Y("actual:N", title="actual", sort=alt.EncodingSortField("from", op="min")).axis(
            labelLimit=limit, labelOverlap=False
        ),
        tooltip=[
            "actual:N",
            "predicted:N",
            "count:Q",
            alt.Tooltip("fraction:Q", format=".1%", title="of the actual label"),
        ],
    )
    cells = base.mark_rect(fill="var(--heat)").encode(
        # The square root makes errors visible, as most are a few percent of a label.
        fillOpacity=alt.FillOpacity("fraction:Q", legend=None).scale(type="sqrt", domain=[0, 1], range=[0.04, 1])
    )
    if not few:
        step = min(max(1000 // size, 12), 48)
        numbers = base.transform_filter("datum.count > 0").mark_text(fontSize=11, fill=INK).encode(text="count:Q")
        spec = to_spec(cells + numbers if step >= 24 else cells)  # else too small for numbers
        font = {"labelFontSize": 12 if step >= 16 else 10}
        return spec | {
            "width": {"step": step}, "height": {"step": step},
            "config": {"axisX": font, "axisY": font, "view": {"stroke": "var(--line)"}},
        }  # fmt: skip
    counts = base.mark_text(fontSize=14, dy=-7, fill=INK).encode(text=alt.Text("count:Q", format=","))
    fractions = base.mark_text(fontSize=11, dy=10, fill=INK).encode(text=alt.Text("fraction:Q", format=".1%"))
    return to_spec(cells + counts + fractions, height=max(60 * len(names), 170))


def precision_recall() -> Spec:
    """Draw precision against recall over all thresholds. Rows: run, color, dash, recall, precision, order."""
    chart = (
        alt.Chart(ROWS)
        .mark_line(strokeWidth=1.8)
        .encode(
            x=alt.X("recall:Q", title="recall").scale(domain=[0, 1]),
            y=alt.Y("precision:Q", title="precision").scale(domainMax=1, zero=False),
            color=COLOR,
            strokeDash=DASH,
            detail="run:N",
            order="order:Q",
            tooltip="run:N",
        )
    )
    return to_spec(chart, height=300)


def calibration() -> Spec:
    """Draw a calibration curve: accuracy against confidence. Rows: run, color, dash, confidence, accuracy, rows."""
    base = alt.Chart(ROWS).encode(
        x=alt.X("confidence:Q", title="confidence").scale(domain=[0, 1]),
        y=alt.Y("accuracy:Q", title="accuracy").scale(domain=[0, 1]),
        color=COLOR,
        detail="run:N",
    )
    perfect = (
        alt.Chart(alt.InlineData([{"at": 0}, {"at": 1}]))
        .mark_line(color=MUTED, strokeDash=[4, 4], strokeWidth=1)
        .encode(x="at:Q", y="at:Q")
    )
    points = base.mark_point(filled=True, opacity=1).encode(
        size=alt.Size("rows:Q", legend=None).scale(range=[20, 220]),
        tooltip=[
            "run:N",
            alt.Tooltip("confidence:Q", format=".3f"),
            alt.Tooltip("accuracy:Q", format=".3f"),
            alt.Tooltip("rows:Q", format=",", title="examples"),
        ],
    )
    return to_spec(perfect + base.mark_line(strokeWidth=1.8).encode(strokeDash=DASH) + points, height=300)


def predicted() -> Spec:
    """Draw predicted against actual values of a regression. Rows: run, color, actual, predicted."""
    base = alt.Chart(ROWS).encode(x=alt.X("actual:Q", title="actual").scale(zero=False))
    perfect = base.mark_line(color=MUTED, strokeDash=[4, 4], strokeWidth=1).encode(
        y=alt.Y("actual:Q", title="predicted").scale(zero=False)
    )
    points = base.mark_point(filled=True, opacity=0.6, size=26).encode(
        y="predicted:Q", color=COLOR, tooltip=VALUES_TOOLTIP
    )
    return to_spec(perfect + points, height=300)


def residuals() -> Spec:
    """Draw the residuals of a regression over its predictions. Rows: run, color, actual, predicted, residual."""
    zero = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=MUTED, strokeDash=[4, 4]).encode(y="at:Q")
    points = (
        alt.Chart(ROWS)
        .mark_point(filled=True, opacity=0.6, size=26)
        .encode(
            x=alt.X("predicted:Q", title="predicted").scale(zero=False),
            y=alt.Y("residual:Q", title="predicted minus actual"),
            color=COLOR,
            tooltip=VALUES_TOOLTIP,
        )
    )
    return to_spec(zero + points, height=300)


VALUES_TOOLTIP = ["run:N", *(alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("actual", "predicted", "residual"))]


def sweep(param: str, values: Collection[float]) -> Spec:
    """Draw a metric against a parameter, one point per run. Rows: run, color, chosen, param, value, from, to.

    Args:
        param: dotted key of the parameter.
        values: its values; the axis is logarithmic if they are positive and span a factor of ten.
    """
    smallest, largest = min(values), max(values)
    log = smallest > 0 and largest / smallest >= 10
    ticks = sorted(values) if len(values) <= 8 else alt.Undefined
    number_format = "format(datum.value, datum.value != 0 && abs(datum.value) < 0.001 ? '~e' : '~g')"
    x = alt.X("param:Q", title=param).axis(labelExpr=number_format, labelOverlap=True, values=ticks)
    base = alt.Chart(ROWS).encode(
        x=x.scale(type="log", nice=False, padding=14) if log else x.scale(zero=False, nice=False, padding=14),
        color=COLOR,
        opacity=alt.when("datum.chosen").then(alt.value(1)).otherwise(alt.value(0.7)),
        order="chosen:O",
        tooltip=["run:N", alt.Tooltip("param:Q", title=param), alt.Tooltip("value:Q", format=".4~f")],
    )
    y = alt.Y("value:Q", title=None).scale(zero=False)
    intervals = base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("from:Q", title=None).scale(zero=False), y2="to:Q")
    return to_spec(intervals + base.mark_point(filled=True, size=50).encode(y=y))


def sweep_history(metric: str) -> Spec:
    """Draw the metric of each trial and the best so far. Rows: trial, value, best.

    Args:
        metric: name of the metric.
    """
    base = alt.Chart(ROWS).encode(
        x=alt.X("trial:Q", title="trial").scale(nice=False, zero=False, padding=14).axis(format="d", tickMinStep=1),
        tooltip=[
            alt.Tooltip("trial:Q"),
            alt.Tooltip("value:Q", format=".4~f", title=metric),
            alt.Tooltip("best:Q", format=".4~f", title="best so far"),
        ],
    )
    best = base.mark_line(strokeWidth=1.8, color=ACCENT, interpolate="step-after").encode(
        y=alt.Y("best:Q", title=f"{metric} on validation").scale(zero=False)
    )
    trials = base.mark_point(filled=True, opacity=1, size=50, color=OTHER).encode(y="value:Q")
    return to_spec(best + trials)


def sweep_slice(metric: str, key: str, scale: str, values: Sequence[str]) -> Spec:
    """Draw the metric of the trials against a parameter. Rows: trial, param, value, best.

    Args:
        metric: name of the metric.
        key: dotted key of the parameter.
        scale: log, uniform, int or choice.
        values: both ends, or all values of a choice.
    """
    if scale == "choice":
        x = alt.X("param:N", title=key, sort=list(values)).axis(labelAngle=0, labelOverlap=True, labelLimit=120)
    else:
        low, high = map(float, values)
        ticks: dict[str, Any] = {"values": log_ticks(low, high)} if scale == "log" else {}
        ticks |= {"tickMinStep": 1} if scale == "int" else {}
        number_format = "format(datum.value, datum.value != 0 && abs(datum.value) < 0.001 ? '~e' : '~g')"
        x = alt.X("param:Q", title=key).axis(labelExpr=number_format, labelOverlap=True, tickCount=5, **ticks)
        x = x.scale(type="log" if scale == "log" else "linear", domain=[low, high], nice=False, padding=10)
    points = (
        alt.Chart(ROWS)
        .mark_point(filled=True, opacity=0.85)
        .encode(
            x=x,
            y=alt.Y("value:Q", title=f"{metric} on validation").scale(zero=False),
            color=alt.when("datum.best").then(alt.value(ACCENT)).otherwise(alt.value(OTHER)),
            shape=alt.when("datum.best").then(alt.value("diamond")).otherwise(alt.value("circle")),
            size=alt.when("datum.best").then(alt.value(140)).otherwise(alt.value(50)),
            tooltip=[
                alt.Tooltip("trial:Q"),
                alt.Tooltip("param:N" if scale == "choice" else "param:Q", title=key),
                alt.Tooltip("value:Q", format=".4~f", title=metric),
            ],
        )
    )
    return to_spec(points)


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between two numbers, or the powers alone if these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    within = [tick for tick in ticks if low <= tick <= high]
    return within if len(within) <= MAX_TICKS else [tick for tick in within if f"{tick:e}".startswith("1.000000e")]


def sweep_front(metric: str, unit: str) -> Spec:
    """Draw the metric of the trials against training time, with the Pareto front. Rows: trial, time, value, front.

    Args:
        metric: name of the metric.
        unit: of the time.
    """
    title = f"training time ({unit})"
    base = alt.Chart(ROWS).encode(
        x=alt.X("time:Q", title=title).scale(zero=False, padding=14),
        y=alt.Y("value:Q", title=f"{metric} on validation").scale(zero=False),
        tooltip=[
            alt.Tooltip("trial:Q"),
            alt.Tooltip("time:Q", format=".4~g", title=title),
            alt.Tooltip("value:Q", format=".4~f", title=metric),
        ],
    )
    line = base.transform_filter("datum.front").mark_line(strokeWidth=1.8, color=ACCENT, interpolate="step-after")
    points = base.mark_point(filled=True, opacity=1).encode(
        color=alt.when("datum.front").then(alt.value(ACCENT)).otherwise(alt.value(OTHER)),
        shape=alt.when("datum.front").then(alt.value("diamond")).otherwise(alt.value("circle")),
        size=alt.when("datum.front").then(alt.value(100)).otherwise(alt.value(50)),
    )
    return to_spec(line + points)


def sweep_parallel(axes: Sequence[str], ends: Sequence[dict[str, Any]]) -> Spec:
    """Draw a line for each trial through its place on each axis. Rows: trial, axis, text, at, quality, color, value.

    Args:
        axes: their names; the last is the metric.
        ends: values that are written at the axes: axis, text, at (from 0 to 1).
    """
    x = alt.X("axis:N", title=None, sort=list(axes)).scale(type="point", padding=0.4)
    # A line for each part of a dotted key, so that neighbours do not overlap.
    x = x.axis(
        labelAngle=0, labelExpr="split(datum.label, '.')", labelOverlap=False, ticks=False, domain=False, offset=9
    )
    y = alt.Y("at:Q", title=None).scale(domain=[0, 1]).axis(None)
    lines = (
        alt.Chart(ROWS)
        .mark_line(opacity=0.9)
        .encode(
            x=x,
            y=y,
            color=COLOR,
            detail="trial:N",
            strokeWidth=alt.StrokeWidth("quality:Q", legend=None).scale(domain=[0, 1], range=[1, 3]),
            tooltip=[alt.Tooltip("trial:Q"), alt.Tooltip("value:Q", format=".4~f", title=axes[-1])],
        )
    )
    rules = (
        alt.Chart(alt.InlineData([{"axis": axis, "from": 0, "to": 1} for axis in axes]))
        .mark_rule(color=MUTED)
        .encode(x=x, y=alt.Y("from:Q", title=None), y2="to:Q")
    )
    named = alt.Chart(alt.InlineData(list(ends))).encode(x=x, y=y, text="text:N")
    text: dict[str, Any] = {"align": "left", "dx": 5, "fontSize": 11}
    # The outline keeps the numbers readable where lines cross them.
    outline = named.mark_text(**text, fill="none", stroke="var(--raised)", strokeWidth=4, strokeJoin="round")
    return to_spec(rules + lines + outline + named.mark_text(**text, fill=INK), height=300)


def sweep_importance(keys: int) -> Spec:
    """Draw the importance of the parameters. Rows: key, value.

    Args:
        keys: number of parameters.
    """
    base = alt.Chart(ROWS).encode(
        x=alt.X("value:Q", title="fraction of the variance").scale(domain=[0, 1]).axis(format="%"),
        y=alt.Y("key:N", title=None, sort=None).axis(labelLimit=200),
        tooltip=[alt.Tooltip("key:N", title="parameter"), alt.Tooltip("value:Q", format=".1%", title="importance")],
    )
    bars = base.mark_bar(height=18, color=ACCENT, opacity=0.55)
    numbers = base.mark_text(align="left", dx=4, fill=INK, fontSize=12).encode(text=alt.Text("value:Q", format=".0%"))
    return to_spec(bars + numbers, height=max(40 * keys, 90))


def seeds(groups: int) -> Spec:
    """Draw one strip per group with one tick per seed.

    Rows: group, seed, run, color, value; the first row of a group (`first`) also has mean, sd, and low and high, the
    mean minus and plus one sd.

    Args:
        groups: number of groups.
    """
    base = alt.Chart(ROWS).encode(
        x=alt.X("value:Q", title=None).scale(zero=False, padding=14).axis(orient="top"),
        y=alt.Y("group:N", title=None, sort=None).axis(
            labelAlign="left", labelBaseline="bottom", labelColor=INK, labelPadding=-2, labelOffset=-14, labelLimit=0,
            ticks=False, domain=False, offset=0,
        ),
    )  # fmt: skip
    group_rows = base.transform_filter("datum.first")
    spread = group_rows.mark_rule(strokeWidth=1.5, color=MUTED).encode(x=alt.X("low:Q", title=None), x2="high:Q")
    mean = group_rows.mark_point(shape="diamond", filled=True, size=70, opacity=1, color=MUTED).encode(
        x="mean:Q", tooltip=["group:N", alt.Tooltip("mean:Q", format=".4~f"), alt.Tooltip("sd:Q", format=".2~g")]
    )
    ticks = base.mark_tick(thickness=2.5, size=18, opacity=1).encode(
        color=COLOR, tooltip=["seed:Q", "run:N", alt.Tooltip("value:Q", format=".4~f")]
    )
    return to_spec(spread + ticks + mean, height=58 * groups)


def lengths(splits: int) -> Spec:
    """Draw the quantiles of text lengths per split. Rows: split, min, q25, q50, q75, q95, q99, max.

    Args:
        splits: number of splits.
    """
    base = alt.Chart(ROWS).encode(y=alt.Y("split:N", title=None, sort=None))
    tooltip = [alt.Tooltip(f"{name}:Q", title=title) for name, title in QUANTILES.items()]
    range_ = base.mark_rule(color=MUTED).encode(x=alt.X("min:Q", title="tokens"), x2="max:Q", tooltip=tooltip)
    half = base.mark_bar(height=16, color=ACCENT, opacity=0.55).encode(x="q25:Q", x2="q75:Q", tooltip=tooltip)
    median = base.mark_tick(color=INK, thickness=2, size=22).encode(x="q50:Q", tooltip=tooltip)
    tails = [
        base.mark_tick(color=MUTED, thickness=2, size=12).encode(x=f"{name}:Q", tooltip=tooltip)
        for name in ("q95", "q99")
    ]
    return to_spec(alt.layer(range_, half, median, *tails), height=40 * splits)


# Quantiles in the chart, and their display names.
QUANTILES = {
    "min": "shortest",
    "q25": "25 %",
    "q50": "median",
    "q75": "75 %",
    "q95": "95 %",
    "q99": "99 %",
    "max": "longest",
}


def balance(labels: Sequence[str], splits: int) -> Spec:
    """Draw the fraction of each label per split. Rows: split, label, count, fraction, order.

    Args:
        labels: names of the labels, in order.
        splits: number of splits.
    """
    chart = (
        alt.Chart(ROWS)
        .mark_bar(height=22)
        .encode(
            x=alt.X("fraction:Q", title="fraction of the examples").stack("zero").axis(format="%").scale(domain=[0, 1]),
            y=alt.Y("split:N", title=None, sort=None),
            color=alt.Color("label:N", title=None, sort=list(labels)).legend(
                orient="top", columns=4, labelLimit=160, symbolType="square"
            ),
            order="order:Q",
            tooltip=["split:N", "label:N", alt.Tooltip("count:Q", format=","), alt.Tooltip("fraction:Q", format=".1%")],
        )
    )
    return to_spec(chart, height=40 * splits)
