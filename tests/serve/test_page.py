"""The page of a server in chromium, with axe-core for accessibility."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from reprise.serve.app import Service, create_app
from served import serving

pytestmark = [pytest.mark.report, pytest.mark.timeout(900)]

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> a funny film 😀 and a dull story"

Open = Callable[..., Page]


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """Serve on a free port, from a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Open a page; fails at the end if it requested another host or logged a message."""
    contexts, problems = [], []

    def opened(url: str, size: Any = DESKTOP, **options: Any) -> Page:
        context = browser.new_context(viewport=size, **options)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "request", lambda request: request.url.startswith(url.rsplit("/", 1)[0]) or problems.append(request.url)
        )
        page.on(
            "console",
            # Chromium reports each answer that is an error; and asks for an icon.
            lambda message: "Failed to load resource" in message.text or problems.append(message.text),
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def assert_accessible(page: Page, axe: str) -> None:
    """Run axe-core, and check that nothing is wider than the page."""
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_labels_have_bars_and_the_keyboard_suffices(
    exported: Callable[[str], Path], opened: Open, axe: str, size: Any, scheme: str
) -> None:
    with serving(exported("classification")) as service, listening(service) as url:
        page = opened(f"{url}/", size, color_scheme=scheme)
        expect(page.get_by_role("heading", level=1)).to_have_text("reviews")
        expect(page.get_by_label("Second text")).to_be_hidden()
        page.keyboard.press("Tab")
        page.keyboard.type("a funny film")
        page.keyboard.press("Control+Enter")
        labels = page.locator(".labels li")
        expect(labels).to_have_count(2)
        best = service.kind.predictions(service.model([("a funny film",)])[0], 1)
        (top,) = next(best)["top"]
        expect(labels.first).to_contain_text(top["label"])
        expect(labels.first).to_contain_text(f"{100 * top['probability']:.1f} %")
        share = labels.first.locator(".bar").evaluate("bar => bar.style.getPropertyValue('--share')")
        assert float(share) == top["probability"]
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # the button
        expect(labels).to_have_count(2)
        assert_accessible(page, axe)
        page = opened(f"{url}/docs", size, color_scheme=scheme)
        assert_accessible(page, axe)


def test_entities_are_marked_where_they_are_and_texts_are_never_markup(
    exported: Callable[[str], Path], opened: Open, axe: str
) -> None:
    with serving(exported("entities")) as service, listening(service) as url:
        page = opened(f"{url}/")
        expect(page.get_by_role("heading", level=1)).to_have_text("reviews")
        page.get_by_label("Text", exact=True).fill(HOSTILE)
        page.get_by_role("button", name="Predict").click()
        shown = page.locator(".text")
        expect(shown).to_be_visible()
        logits, words = service.model([(HOSTILE,)])
        (row,) = service.kind.predictions(logits, None, words)
        assert row["entities"]
        marks = page.locator("mark").evaluate_all("marks => marks.map(mark => mark.firstChild.data)")
        assert marks == [each["text"] for each in row["entities"]]
        assert_accessible(page, axe)


def test_pairs_have_two_fields_and_an_error_is_shown(exported: Callable[[str], Path], opened: Open, axe: str) -> None:
    with serving(exported("pairs"), chars=20) as service, listening(service) as url:
        page = opened(f"{url}/")
        page.get_by_label("First text (first)").fill("a funny film")
        page.get_by_label("Second text (second)").fill("a dull film")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".labels li")).to_have_count(2)
        page.get_by_label("Second text (second)").fill("a dull film " * 5)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".warning")).to_have_text("No answer: a text is too long; expected at most 20 characters")
        assert_accessible(page, axe)
