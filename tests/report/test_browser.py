"""The report in chromium without a network, with axe-core for accessibility.

`REPRISE_PICTURES=DIR` sets the folder for the screenshots.
"""

import dataclasses
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dvc_render.html import render_html
from dvc_render.image import ImageRenderer
from dvc_render.vega import VegaRenderer
from playwright.sync_api import Browser, Page, expect

from factories import STATS, make_record, make_run
from reprise.report.context import build_context
from reprise.report.dvc_plots import offline_template
from reprise.report.errors import find_errors
from reprise.report.page import render
from tiny import ROOT, Run

pytestmark = [pytest.mark.report, pytest.mark.timeout(900)]

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
NAMES = ["constructor", "__proto__", "toString", "valueOf", "hasOwnProperty", "</script><script>alert(3)</script>"]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
DRAWN = "html[data-drawn=all]"

Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Open a file offline and wait for its charts: `opened(file, DESKTOP, color_scheme="dark")`.

    Fails at the end if the page requested anything else or logged a message.
    """
    contexts, problems = [], []

    def opened(file: Path, size: Any = DESKTOP, *, wait: str = DRAWN, warnings: bool = False, **options: Any) -> Page:
        context = browser.new_context(viewport=size, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "request", lambda request: request.url == file.as_uri() or problems.append(f"requested {request.url[:200]}")
        )
        page.on(
            "console",
            lambda message: (
                problems.append(f"{message.type}: {message.text}")
                if message.type != "warning" or not warnings
                else None
            ),
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(file.as_uri())
        if wait:  # an element; a function would be evaluated again and again, which the page's policy forbids
            page.locator(wait).first.wait_for(state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for screenshots of the page."""
    folder = Path(os.environ.get("REPRISE_PICTURES") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a dozen synthetic runs: a sweep, seeds, a constant prediction, markup in names and texts."""
    labels = {"task.labels": ["rotten", "fresh", HOSTILE]}
    rates = [1e-4, 3e-5, 5e-5, 2e-4]
    runs = [
        make_run(**labels),
        *(
            make_run(f"rate-{n}", "experiment", **{"train.learning_rate": rate, **labels})
            for n, rate in enumerate(rates)
        ),
        *(make_run(f"seed-{seed}", "experiment", seed=seed, **labels) for seed in range(43, 48)),
        make_run(
            "flat", "experiment", how={"constant_prediction": True}, seed=1, **{"train.learning_rate": 1e-2, **labels}
        ),
        make_run(HOSTILE, "experiment", how={"steps": 700}, seed=2, **{"train.epochs": 3, **labels}),
    ]
    wrong = pd.DataFrame(
        {"text": [HOSTILE, "Two hours of noise in search of a plot. " * 20], "label": [HOSTILE, "rotten"],
         "prediction": ["fresh", "fresh"], "probabilities": [[0.1, 0.9, 0.0], [0.2, 0.8, 0.0]]}
    )  # fmt: skip
    stats = json.loads(json.dumps(STATS))
    stats["labels"] = labels["task.labels"]
    for split in stats["splits"].values():
        split["label_counts"][HOSTILE] = 7
    file = tmp_path_factory.mktemp("report") / "index.html"
    page = render(
        build_context(runs, stats=stats, errors_run="main", errors=find_errors(wrong, runs[0].result.task_kind))
    )
    file.write_text(page, encoding="utf-8")
    return file


def names(page: Page) -> list[str]:
    """Return the runs in the table, from the top."""
    return page.locator("#table tbody tr:visible th a").all_text_contents()


def numbers(page: Page, heading: str) -> list[float]:
    """Return a column of numbers, from the top."""
    place = page.locator("#table thead th").all_text_contents().index(heading)
    cells = page.locator(f"#table tbody tr:visible > :nth-child({place + 1})")
    return [float(key) for key in cells.evaluate_all("cells => cells.map((cell) => cell.dataset.key)")]


def lines(page: Page, chart: str) -> int:
    """Count the lines of a chart."""
    return page.locator(f"figure[data-chart='{chart}'] svg .mark-line path").count()


def select(page: Page, *wanted: str) -> None:
    """Select exactly these runs."""
    checked = page.locator("#table tbody input:checked")
    while checked.count():
        checked.first.uncheck()
    for name in wanted:
        page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()


def test_a_click_on_a_heading_sorts_and_a_second_reverses(opened: Open, report: Path) -> None:
    page = opened(report)
    head = page.locator("#table thead th", has=page.get_by_role("button", name="accuracy", exact=True))
    before = numbers(page, "accuracy")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert numbers(page, "accuracy") == sorted(before, reverse=True) != before
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert numbers(page, "accuracy") == sorted(before)
    page.get_by_role("button", name="run", exact=True).press("Space")
    assert head.get_attribute("aria-sort") == "none"
    assert names(page)[:4] == [HOSTILE, "flat", "main", "rate-0"]


def test_a_click_on_the_heading_of_a_loss_or_a_cost_sorts_the_lowest_first(opened: Open, report: Path) -> None:
    page = opened(report)
    for heading in ("training loss", "peak MiB"):
        before = numbers(page, heading)
        page.locator("#table thead").get_by_role("button", name=heading, exact=True).click()
        assert numbers(page, heading) == sorted(before)


@pytest.mark.parametrize(("count", "shown"), [(20, 20), (77, 77), (150, 81)])
def test_many_labels_are_readable_and_the_page_is_no_wider_than_the_screen(
    opened: Open, tmp_path: Path, screenshots: Path, count: int, shown: int
) -> None:
    labels = [f"label number {number}" for number in range(count)]
    run = make_run(how={"rows": 20 * count}, **{"task.labels": labels, "task.positive_label": None})
    stats = json.loads(json.dumps(STATS)) | {"labels": labels}
    for split in stats["splits"].values():
        split["label_counts"] = dict.fromkeys(labels, 20)
    file = tmp_path / "index.html"
    file.write_text(render(build_context([run], stats=stats)), encoding="utf-8")
    for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        page = opened(file, size)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        texts = page.locator("#confusions svg .role-axis-label text")
        assert texts.count() == 2 * shown  # none is left out for lack of space
        matrix = page.locator("#confusions svg").bounding_box()
        cell = page.locator("#confusions svg .mark-rect path").first.bounding_box()
        assert matrix
        assert cell
        assert cell["width"] >= 12
        assert 900 < matrix["width"] < DESKTOP["width"] - 60
        assert page.locator("#classes tbody").first.locator("tr").count() == count
        assert page.locator("#data table").nth(1).locator("tbody tr").count() == count
        page.screenshot(path=screenshots / f"{count}-labels-{name}.png", full_page=True)


def test_a_regression_has_predicted_values_and_residuals(opened: Open, tmp_path: Path) -> None:
    def add(files: dict[Path, bytes]) -> None:
        files[Path("plots/residuals.csv")] = b"actual,predicted,residual\n1,2,1\n3,2.5,-0.5\n5,5,0\n"

    file = tmp_path / "index.html"
    file.write_text(render(build_context([make_run(change=add), make_run("b", "experiment", change=add, seed=1)])))
    page = opened(file)
    for chart in ("predicted", "residuals"):
        assert page.locator(f"figure[data-chart={chart}] svg .mark-symbol path").count() == 2 * 3
    figure = page.locator("figure[data-chart=residuals]")
    figure.locator("summary").click()
    assert figure.locator("tbody tr").first.locator("td").all_text_contents() == ["main", "1", "2", "1"]


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("SEED-4", {"seed-43", "seed-44", "seed-45", "seed-46", "seed-47"}),
        ("seed=42 learning_rate<1e-4", {"rate-1", "rate-2"}),
        ("train.learning_rate>=1e-4 rate-", {"rate-0", "rate-3"}),
        ("epochs!=2", {HOSTILE}),
        ("constant_prediction", {"flat"}),
        ("validation_accuracy>2", set()),
        ("<script>", {HOSTILE}),
    ],
)
def test_the_filter_takes_words_and_comparisons(opened: Open, report: Path, typed: str, left: set[str]) -> None:
    page = opened(report)
    page.get_by_label("Filter").fill(typed)
    assert set(names(page)) == left
    assert page.locator("#shown").text_content() == f"{len(left)} of 12 runs"
    assert page.locator("#none").is_visible() is not bool(left)
    page.get_by_label("Filter").fill("")
    assert len(names(page)) == 12


def test_the_curves_of_the_selected_runs_are_drawn(opened: Open, report: Path) -> None:
    page = opened(report)
    assert page.locator("#chosen li").all_text_contents() == ["main×", "rate-0×", "rate-1×", "rate-2×"]
    select(page)
    assert page.get_by_text("No run is selected").count() == 6
    select(page, "seed-43", HOSTILE)
    for chart in ("loss", "learning_rate", "grad_norm", "epochs", "pr"):
        page.wait_for_function(
            "chart => document.querySelectorAll(`figure[data-chart='${chart}'] svg .mark-line path`).length === 2",
            arg=chart,
        )
    assert lines(page, "calibration") == 3  # and the diagonal
    assert page.locator("#confusions figure strong").all_text_contents() == [
        "Confusion: seed-43", f"Confusion: {HOSTILE}",
    ]  # fmt: skip
    assert page.locator("#confusions svg .mark-rect path").count() == 2 * 9
    page.get_by_role("button", name="Remove seed-43").press("Enter")
    page.wait_for_function("document.querySelectorAll(\"figure[data-chart='loss'] svg .mark-line path\").length === 1")
    assert not page.get_by_role("checkbox", name="Select seed-43").is_checked()
    assert page.evaluate("document.activeElement.ariaLabel") == f"Remove {HOSTILE}"


def test_quick_selections_are_drawn_in_their_final_state(opened: Open, report: Path) -> None:
    page = opened(report)
    boxes = "[...document.querySelectorAll('#table tbody input')]"
    page.evaluate(f"() => {{ for (let n = 0; n < 3; n++) {boxes}.slice(0, 6).forEach((box) => box.click()); }}")
    # Four runs end up unselected, two selected.
    assert page.locator("#chosen li").count() == 2
    page.wait_for_function("document.querySelectorAll(\"figure[data-chart='loss'] svg .mark-line path\").length === 2")
    page.wait_for_function("document.querySelectorAll('#confusions svg').length === 2")
    page.evaluate(f"() => {boxes}.filter((box) => box.checked).forEach((box) => box.click())")
    expect(page.get_by_text("No run is selected")).to_have_count(6)
    expect(page.locator("#curves svg")).to_have_count(0)


def test_a_run_keeps_its_colour_while_others_change(opened: Open, report: Path) -> None:
    page = opened(report)

    def colors() -> dict[str, str]:
        items = page.locator("#chosen li").evaluate_all(
            "items => items.map((item) => [item.textContent, item.querySelector('.swatch').style.borderTopColor])"
        )
        return dict(items)

    before = colors()
    assert len(set(before.values())) == 4
    page.get_by_role("button", name="Remove main").click()
    assert colors() == {name: color for name, color in before.items() if name != "main×"}
    page.get_by_role("checkbox", name="Select flat").check()
    assert colors()["flat×"] == before["main×"]


def test_at_most_eight_runs_can_be_selected(opened: Open, report: Path) -> None:
    page = opened(report)
    for name in ("rate-3", "seed-43", "seed-44", "seed-45"):
        page.get_by_role("checkbox", name=f"Select {name}").check()
    ninth = page.get_by_role("checkbox", name="Select seed-46")
    ninth.click()
    assert not ninth.is_checked()
    expect(page.locator("#status")).to_contain_text("At most 8 runs can be selected")
    assert page.locator("#chosen li").count() == 8
    assert page.locator("#chosen .dashed").count() == 4


def test_a_chart_and_its_table_have_the_same_data(opened: Open, report: Path) -> None:
    page = opened(report)
    select(page, "main", "seed-43")
    for chart in page.locator("figure[data-chart]").all():
        chart.locator("summary").click()
        rows = chart.locator("table tbody tr")
        expect(rows).not_to_have_count(0)
        assert chart.locator("table thead th").count() == rows.first.locator("td").count()
    losses = page.locator("figure[data-chart='loss'] table tbody tr")
    assert losses.count() == 2 * 30
    data = json.loads(page.locator("#content").text_content() or "")
    first = [cell.strip() for cell in losses.first.locator("td").all_text_contents()]
    assert first == ["main", "1", str(data["runs"][0]["curve"]["loss"][0])]
    page.get_by_role("button", name="Remove main").click()
    assert losses.count() == 30


def test_selecting_another_metric_redraws_the_chart(opened: Open, report: Path) -> None:
    page = opened(report)
    charts = {"sweep-metric": "sweep 0", "seed-metric": "seeds", "epoch-metric": "epochs", "label": "pr"}
    for select, chart in charts.items():
        chart_data = page.locator(f"figure[data-chart='{chart}'] svg")
        before = chart_data.inner_html()
        options = page.locator(f"#{select} option")
        page.locator(f"#{select}").select_option(index=options.count() - 1)
        page.wait_for_function(
            "([chart, before]) => document.querySelector(`figure[data-chart='${chart}'] svg`).innerHTML !== before",
            arg=[chart, before],
        )


def test_a_link_opens_the_commands_of_a_run(opened: Open, report: Path) -> None:
    page = opened(report)
    page.locator("#table tbody th a", has_text="rate-1").click()
    details = page.locator(".run-details[open]")
    expect(details).to_have_count(1)
    assert "dvc exp run -S train.learning_rate=3e-05" in details.locator("pre").nth(1).inner_text()
    assert "7" * 64 in details.inner_text()


def test_markup_is_shown_as_text(opened: Open, report: Path) -> None:
    page = opened(report)
    select(page, HOSTILE, "flat")
    assert page.locator("blockquote").first.inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    page.locator("figure[data-chart='loss'] svg .mark-symbol path").last.hover(force=True)
    expect(page.locator("#vg-tooltip-element.visible")).to_contain_text("flat")
    page.locator("figure[data-chart='loss'] svg .mark-symbol path").first.hover(force=True)
    expect(page.locator("#vg-tooltip-element.visible")).to_contain_text(HOSTILE)
    page.locator("#label").select_option(HOSTILE)
    page.wait_for_timeout(300)
    assert page.locator("img").count() == 0


def test_page_and_charts_follow_light_and_dark_mode(opened: Open, report: Path) -> None:
    page = opened(report, color_scheme="light")

    def seen() -> list[str]:
        colors: list[str] = page.evaluate(
            """() => [
                getComputedStyle(document.body).backgroundColor,
                getComputedStyle(document.body).color,
                getComputedStyle(document.querySelector("figure[data-chart='loss'] svg .mark-line path")).stroke,
                getComputedStyle(document.querySelector("figure[data-chart='loss'] svg .role-axis-label text")).fill,
            ]"""
        )
        return colors

    light = seen()
    page.emulate_media(color_scheme="dark")
    dark = seen()
    assert light[:2] == ["rgb(251, 251, 250)", "rgb(28, 33, 39)"]
    assert all(before != after for before, after in zip(light, dark, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_is_accessible(
    opened: Open,
    report: Path,
    axe: str,
    screenshots: Path,
    size: dict[str, int],
    scheme: str,
    request: pytest.FixtureRequest,
) -> None:
    page = opened(report, size, color_scheme=scheme)
    name = request.node.callspec.id
    page.screenshot(path=screenshots / f"{name}.png", full_page=True)
    page.locator("#run-1 summary").click()
    page.locator("figure[data-chart='loss'] summary").click()
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 20
    violations = [(each["id"], [node["html"][:200] for node in each["nodes"]][:3]) for each in found["violations"]]
    assert violations == []
    # The page must not be wider than the screen; tables and commands scroll within it.
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_section_of_a_sweep_is_drawn_and_accessible(
    opened: Open, tmp_path: Path, axe: str, screenshots: Path, scheme: str
) -> None:
    record = make_record()
    runs = [make_run(), dataclasses.replace(make_run("sweep-003", "experiment"), commit=f"{3:040x}")]
    (tmp_path / "index.html").write_text(render(build_context(runs, searches={"sweep": record})), encoding="utf-8")
    page = opened(tmp_path / "index.html", PHONE if scheme == "dark" else DESKTOP, color_scheme=scheme)
    section = page.locator("#search-0")
    expect(section.locator("svg.marks")).to_have_count(6)
    history = section.locator("figure", has_text="History")
    assert history.locator("svg .mark-symbol path").count() == 11  # one of twelve trials failed
    parallel = section.locator("figure", has_text="Parallel coordinates")
    assert parallel.locator("svg .mark-line path").count() == 11
    history.locator("summary").click()
    assert history.locator("tbody tr").count() == 11
    page.evaluate(axe)
    found = page.evaluate("axe.run(document.querySelector('#search-0'))")
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]][:3]) for each in found["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    section.screenshot(path=screenshots / f"sweep-{scheme}.png")
    section.get_by_role("link", name="sweep-003", exact=True).click()
    expect(page.locator("#run-1[open]")).to_have_count(1)


def test_every_control_has_keyboard_focus(opened: Open, report: Path) -> None:
    page = opened(report)
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => {
                const { outlineStyle } = getComputedStyle(document.activeElement);
                const { tagName, id, className } = document.activeElement;
                return [`${tagName}#${id}`, outlineStyle];
            }"""
        )
        assert focused[1] != "none", focused
        reached.add(focused[0].split("#")[0] if focused[0].endswith("#") else focused[0])
    assert {"A", "INPUT#filter", "BUTTON", "INPUT", "DIV"} <= reached
    page.get_by_label("Select flat").press("Space")
    assert page.get_by_label("Select flat").is_checked()


def test_all_tables_are_shown_without_javascript(opened: Open, report: Path) -> None:
    page = opened(report, wait="", java_script_enabled=False)
    assert len(names(page)) == 12
    assert page.get_by_text("Without JavaScript there are no charts").is_visible()
    assert page.locator("#data table tbody tr").count() == 3


def test_a_single_run_makes_a_page(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(render(build_context([make_run()])), encoding="utf-8")
    page = opened(tmp_path / "index.html")
    assert lines(page, "loss") == 1
    assert page.locator("#seeds svg, #sweeps svg").count() == 0


def test_the_table_shows_a_hundred_runs_until_asked_for_all(opened: Open, tmp_path: Path) -> None:
    one = make_run("run", "experiment")
    runs = [
        dataclasses.replace(one, name=f"run-{n:03}", evaluated={**one.evaluated, "accuracy": n / 150})
        for n in range(150)
    ]
    (tmp_path / "index.html").write_text(render(build_context(runs)), encoding="utf-8")
    page = opened(tmp_path / "index.html")
    assert names(page) == [f"run-{n:03}" for n in range(100)]
    page.get_by_role("button", name="accuracy", exact=True).click()
    assert names(page) == [f"run-{n:03}" for n in reversed(range(50, 150))]
    page.get_by_label("Filter").fill("run-00")
    assert names(page) == [f"run-{n:03}" for n in reversed(range(10))]
    expect(page.locator("#more")).to_be_hidden()
    page.get_by_label("Filter").fill("")
    page.get_by_role("button", name="Show all 150").press("Enter")
    assert names(page) == [f"run-{n:03}" for n in reversed(range(150))]
    assert page.evaluate("document.activeElement.ariaLabel") == "Select run-049"
    expect(page.locator("#more")).to_be_hidden()


@pytest.mark.timeout(900)  # four runs are trained, one after another
def test_the_report_of_real_runs_opens(opened: Open, with_experiments: Path, run: Run, screenshots: Path) -> None:
    run(with_experiments, "reprise", "report")
    page = opened(with_experiments / "report/index.html")
    assert set(names(page)) == {"HEAD", "second", "gentler"}
    assert lines(page, "loss") == 3
    assert page.locator("figure[data-chart='seeds'] svg .mark-rect path").count() == 2
    evaluated = json.loads((with_experiments / "metrics/evaluate.json").read_text())
    assert page.locator("#errors li").count() == min(round((1 - evaluated["accuracy"]) * evaluated["num_examples"]), 25)
    assert page.locator("figure[data-chart='lengths'] svg").count() == 1
    page.screenshot(path=screenshots / "report.png", full_page=True)


def test_dvc_plots_open_offline(opened: Open, repo_copy: Path, run: Run, screenshots: Path) -> None:
    run(repo_copy, "reprise", "report")
    run(repo_copy, "dvc", "plots", "show")
    # DVC's templates are for an earlier version of Vega-Lite, which logs a warning.
    page = opened(repo_copy / "dvc_plots/index.html", warnings=True)
    expect(page.locator(".vega-embed svg.marks")).to_have_count(6)  # the residuals of a regression are left out
    assert "cannot be drawn" not in (page.locator("#plots").text_content() or "")
    page.screenshot(path=screenshots / "dvc-plots.png", full_page=True)


def test_charts_of_labels_and_runs_named_like_properties_of_objects_are_drawn(opened: Open, tmp_path: Path) -> None:
    labels = {"task.labels": NAMES, "task.positive_label": None}
    runs = [make_run(**labels), *(make_run(name, "experiment", seed=at, **labels) for at, name in enumerate(NAMES, 50))]
    stats = json.loads(json.dumps(STATS))
    stats["labels"] = NAMES
    for split in stats["splits"].values():
        split["label_counts"] = {name: 5 + at for at, name in enumerate(NAMES)}
    page_text = render(build_context(runs, stats=stats))
    (tmp_path / "index.html").write_text(page_text, encoding="utf-8")
    page = opened(tmp_path / "index.html")
    select(page, *NAMES)
    for chart in ("loss", "epochs", "pr"):
        expect(page.locator(f"figure[data-chart='{chart}'] svg .mark-line path")).to_have_count(6)
    for name in NAMES:
        page.locator("#label").select_option(name)
        page.wait_for_timeout(100)
        assert lines(page, "pr") == 6
    expect(page.locator("#confusions svg")).to_have_count(6)
    assert page.locator("#confusions svg .mark-rect path").count() == 6 * len(NAMES) ** 2
    assert page.locator("figure[data-chart='balance'] svg .mark-rect path").count() == 3 * len(NAMES)
    assert page.locator("figure[data-chart='seeds'] svg .mark-rect path").count() == 1 + len(NAMES)
    texts = "texts => texts.map((text) => text.textContent.replace('\u200b', ''))"
    legend = page.locator("figure[data-chart='balance'] svg .role-legend-label text").evaluate_all(texts)
    assert legend[:5] == NAMES[:5]
    axis = page.locator("#confusions figure").first.locator("svg .role-axis-label text").evaluate_all(texts)
    assert {*NAMES[:4]} <= {*axis}  # others are too long for the axis
    first = page.locator("#confusions figure").first
    first.locator("summary").click()
    assert first.locator("tbody td:first-child").first.text_content() == "constructor"
    assert page.locator("#chosen li").all_text_contents() == [f"{name}×" for name in NAMES]


def dvc_page(folder: Path, renderers: list[Any]) -> Path:
    """Write the page of `dvc plots show` with our template."""
    (folder / "template.html").write_text(offline_template(""), encoding="utf-8")
    return Path(render_html(renderers, folder / "index.html", folder / "template.html"))


def test_labels_and_experiments_of_any_name_are_drawn_as_text_in_dvc_plots(opened: Open, tmp_path: Path) -> None:
    names = [*NAMES, "</plaintext><img src=x onerror=alert(4)>", '";\n vegaEmbed(', "`${alert(5)}`"]
    cells = [{"actual": actual, "predicted": name, "rev": name} for name in names for actual in names]
    steps = [{"step": step, "loss": 1 / step, "rev": name} for name in names for step in range(1, 5)]
    common = {"template_dir": ROOT / ".dvc/plots", "title": "</script><script>alert(6)</script>"}
    page = opened(
        dvc_page(
            tmp_path,
            [
                VegaRenderer(cells, "confusion.csv", template="confusion", x="actual", y="predicted", **common),
                VegaRenderer(steps, "</div>.csv", template="epochs", x="step", y="loss", **common),
            ],
        ),
        warnings=True,
    )
    expect(page.locator("#plots svg.marks")).to_have_count(2)
    assert page.locator("#plots svg.marks").first.locator(".role-mark.mark-rect path").count() == len(names) ** 2
    assert page.locator("#plots svg.marks").last.locator(".mark-line path").count() == len(names)
    shown = page.locator("#plots svg.marks").last.locator(".role-legend-label text").all_text_contents()
    assert [text.replace("\u200b", "") for text in shown][:5] == names[:5]
    assert page.locator("img").count() == 0
    assert page.locator("#plots svg.marks").last.locator(".role-title-text text").text_content() == common["title"]


def test_images_of_a_users_plots_are_shown_beside_the_page_and_no_others(
    browser: Browser, tmp_path: Path, screenshots: Path
) -> None:
    header, data = struct.pack(">IIBBBBB", 7, 1, 8, 0, 0, 0, 0), zlib.compress(bytes(8))
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    png = [
        struct.pack(">I", len(each)) + kind + each + struct.pack(">I", zlib.crc32(kind + each)) for kind, each in chunks
    ]
    (tmp_path / "mine.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png))
    images = [{"rev": HOSTILE, "src": "mine.png"}, {"rev": "far", "src": "https://example.org/a.png"}]
    page = browser.new_page()
    refused: dict[str, str] = {}
    page.on("requestfailed", lambda request: refused.update({request.url: request.failure or ""}))
    page.goto(dvc_page(tmp_path, [ImageRenderer(images, "mine.png")]).as_uri())
    page.locator(DRAWN).wait_for(state="attached")
    assert page.locator("#plots img").count() == 2
    expect(page.locator("#plots img").first).to_have_js_property("naturalWidth", 7)
    assert page.locator("#plots p").first.text_content() == "alert(1)"  # DVC writes the name as markup
    assert page.locator("script").count() == 3
    assert refused == {"https://example.org/a.png": "csp"}
    page.close()
