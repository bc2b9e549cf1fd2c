"""The page as a file: content, no external resources, texts that stay texts. For the browser see test_browser."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from factories import CHECKS, STATS, make_record, make_run
from reprise.data.checks import MEANINGS
from reprise.report.context import ReportContext, build_context
from reprise.report.errors import find_errors
from reprise.report.page import render
from reprise.report.vega import vega
from reprise.sweep.record import RecordedRun

HOSTILE = "</script><script>alert('&amp;')</script><img src=x onerror=alert(1)>"


class Parsed(html.parser.HTMLParser):
    """The tags of a page with their attributes, the text outside of scripts and styles, the scripts by id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.within = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, _: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)
        elif self.within != "style":
            self.text.append(data)

    def data(self, name: str) -> Any:
        (text,) = [text for attributes, text in self.scripts if attributes.get("id") == name]
        return json.loads(text)


@pytest.fixture(scope="module")
def hostile() -> ReportContext:
    """Runs whose names, labels, recipes and texts are markup."""
    predictions = pd.DataFrame(
        {"text": [HOSTILE], "label": [HOSTILE], "prediction": ["fresh"], "probabilities": [[0.1, 0.9]], "id": [HOSTILE]}
    )
    changes = {"task.labels": [HOSTILE, "fresh"], "task.name": HOSTILE, "model.name": HOSTILE}
    stats = json.loads(json.dumps(STATS).replace("rotten", "ROTTEN").replace('"ROTTEN"', json.dumps(HOSTILE)))
    runs = [make_run(**changes), make_run(HOSTILE, "experiment", seed=1, **{**changes, "task.label_column": HOSTILE})]
    return build_context(
        runs, stats=stats, errors_run=HOSTILE, errors=find_errors(predictions, runs[0].result.task_kind)
    )


@pytest.fixture(scope="module")
def page(hostile: ReportContext) -> Parsed:
    return Parsed(render(hostile))


def test_markup_in_the_data_is_text_on_the_page(page: Parsed) -> None:
    assert [tag for tag, _ in page.tags if tag == "img"] == []
    assert len(page.scripts) == 5  # two of data, three that run
    assert sum(HOSTILE in text for text in page.text) == 13
    assert any(HOSTILE in (attributes.get("aria-label") or "") for _, attributes in page.tags)


def test_the_data_is_embedded_unchanged(page: Parsed, hostile: ReportContext) -> None:
    assert page.data("content") == json.loads(json.dumps(hostile.data))
    assert page.data("charts") == json.loads(json.dumps(hostile.charts))
    assert page.data("content")["runs"][1]["name"] == HOSTILE


def test_the_page_loads_nothing(page: Parsed) -> None:
    for _, attributes in page.tags:
        assert set(attributes) & {"src", "srcset", "data", "action", "poster", "background"} == set()
        assert not attributes.get("href") or attributes["href"].startswith("#")
    assert "url(" not in (Path(__file__).parents[2] / "src/reprise/report/report.css").read_text(encoding="utf-8")


def test_the_content_security_policy_allows_exactly_the_pages_scripts(page: Parsed) -> None:
    (policy,) = [attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    run = [text for attributes, text in page.scripts if "type" not in attributes]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert "unsafe-eval" not in policy
    assert re.search(r"script-src[^;]*unsafe", policy) is None


def test_ids_are_unique_and_labels_and_links_have_targets(page: Parsed) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert attributes.get(name, ids[0]) in ids
        if attributes.get("href"):
            assert attributes["href"][1:] in ids


def test_a_constant_prediction_is_marked() -> None:
    runs = [make_run(), make_run("flat", "experiment", how={"constant_prediction": True})]
    text = " ".join(Parsed(render(build_context(runs))).text)
    assert text.count("constant prediction") == 2  # in the table and at its commands
    assert "Constant prediction" not in text
    assert "Constant prediction" in " ".join(Parsed(render(build_context(runs[1:]))).text)


def test_warnings_about_the_data_are_on_the_page() -> None:
    warning = {"id": "single_label", "split": "test", "label": HOSTILE}
    page = Parsed(render(build_context([make_run()], stats=STATS | {"warnings": [warning]})))
    text = "".join(page.text)
    assert "1 warning about the prepared data" in text
    assert f"test: every example has the label {HOSTILE}." in text
    assert "warning" not in "".join(Parsed(render(build_context([make_run()], stats=STATS))).text).lower()


def test_the_checks_of_the_data_and_the_linear_baseline_are_on_the_page() -> None:
    content = CHECKS | {"checks": CHECKS["checks"] | {"give_away": CHECKS["checks"]["give_away"] | {"column": HOSTILE}}}
    text = " ".join(" ".join(Parsed(render(build_context([make_run()], stats=STATS, checks=content))).text).split())
    assert "TF-IDF and logistic regression, trained on 144 examples, reach accuracy 0.792, f1 0.812 on the test" in text
    assert f"{MEANINGS['near_duplicates']} 6.25 % 3 of 48 test warning" in text
    assert f"{MEANINGS['give_away']} {HOSTILE} 25.00 % train ok" in text
    assert "Label errors were looked for in 50 of 144" in text
    assert "reprise check-data" not in " ".join(Parsed(render(build_context([make_run()], stats=STATS))).text)


def test_markup_in_the_record_of_a_sweep_is_text_on_the_page() -> None:
    record = make_record()
    hostile = make_record(
        metric=HOSTILE,
        fixed=(HOSTILE,),
        answer=HOSTILE,
        importance={HOSTILE: 1.0},
        dimensions=(dataclasses.replace(record.dimensions[0], key=HOSTILE, values=(HOSTILE,)), record.dimensions[1]),
        trials=tuple(
            dataclasses.replace(
                trial,
                values=(HOSTILE, "1e-04"),
                ended=HOSTILE,
                run=RecordedRun(HOSTILE, f"{trial.number:040x}"),
            )
            for trial in record.trials
        ),
        finals=tuple(dataclasses.replace(each, runs=(RecordedRun(HOSTILE, None),) * 2) for each in record.finals),
    )
    page = Parsed(render(build_context([make_run()], searches={"sweep": hostile})))
    assert [tag for tag, _ in page.tags if tag == "img"] == []
    assert len(page.scripts) == 5
    text = "".join(page.text)
    assert text.count(HOSTILE) > 50
    assert f"trial 3: {HOSTILE}={HOSTILE} train.learning_rate=" in text
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_report_without_sweeps_has_no_section_of_one() -> None:
    assert "Sweep" not in "".join(Parsed(render(build_context([make_run()]))).text)


def test_missing_data_is_reported_with_the_command_to_get_it() -> None:
    text = " ".join(Parsed(render(build_context([make_run()]))).text)
    for command in ("dvc pull predictions", "dvc pull data/prepared", "reprise seed-noise", "dvc exp run --queue"):
        assert command in text


def test_the_same_runs_give_the_same_page() -> None:
    assert render(build_context([make_run()], stats=STATS)) == render(build_context([make_run()], stats=STATS))


def test_a_run_takes_less_than_eighteen_kilobytes() -> None:
    """Five hundred runs stay under ten megabytes, however long they trained."""

    def size(count: int) -> int:
        runs = [
            make_run(
                f"run-{n}",
                "experiment",
                how={"steps": 5000, "rows": 2000},
                seed=n,
                **{"train.learning_rate": 1e-4 * (n + 1)},
            )
            for n in range(count)
        ]
        return len(render(build_context(runs)).encode())

    assert (size(12) - size(2)) / 10 < 18_000
    assert len(vega()) < 1_000_000
