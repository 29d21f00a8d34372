"""The page at `/` in a real browser: label bars, streamed answers, nothing from elsewhere, narrow screens."""

from __future__ import annotations

import json

import pytest

from hpo.serving.order import Order
from tests.hpo.serving import browser
from tests.hpo.serving.running import started
from trainers.runtime.release import Release

BROWSER = browser.installed()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no browser: none of chromium, google-chrome is found")
LOADED = "document.querySelectorAll('#model option').length > 0 && document.querySelector('#fields textarea') !== null"
IDLE = "!document.querySelector('#go').disabled"
OUT = "document.querySelector('#out').textContent"


@pytest.fixture(scope="module", params=[1200, 360])
def page(running, request, tmp_path_factory):
    with browser.opened(BROWSER, tmp_path_factory.mktemp("browser")) as opened:
        opened.open(running.url, request.param)
        opened.until(LOADED)
        yield opened


def ask(page, model, text):
    page.of(
        f"document.querySelector('#model').value = {json.dumps(model)};"
        "document.querySelector('#model').dispatchEvent(new Event('change'));"
        f"document.querySelector('#fields textarea').value = {json.dumps(text)};"
        "document.querySelector('#go').click()"
    )


def fits(page):
    """Whether nothing sticks out to the right."""
    return page.of("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_text_gets_its_label_bars(page, encoder_release):
    ask(page, "judge", "a quiet wonder")
    page.until(f"{IDLE} && document.querySelectorAll('#out .bar').length == 3")
    (wanted,) = Release.load(encoder_release()).predict(["a quiet wonder"])
    labels = page.of("[...document.querySelectorAll('#out .row')].map(row => row.firstChild.textContent)")
    assert labels == sorted(wanted["scores"], key=wanted["scores"].get, reverse=True)
    widths = page.of("[...document.querySelectorAll('#out .bar')].map(bar => bar.getBoundingClientRect().width)")
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0
    assert fits(page)


def test_a_streamed_answer_appears(page, running, chat_release):
    """In pieces: the page has text before the answer is whole."""
    page.of(
        "window.seen = [];"
        "new MutationObserver(() => seen.push(document.querySelector('#out').textContent))"
        ".observe(document.querySelector('#out'), {childList: true})"
    )
    ask(page, "writer", "Hi")
    (wanted,) = Release.load(chat_release()).predict(["Hi"])
    page.until(f"{IDLE} && {OUT} == {json.dumps(wanted['text'])}")
    assert wanted["text"]
    assert fits(page)


def test_a_refusal_is_said_and_text_stays_text(page):
    ask(page, "judge", " ")
    page.until(f"{IDLE} && document.querySelector('#out .wrong') !== null")
    assert "is empty" in page.of(OUT)
    page.errors.clear()  # the console names every answer of 400
    ask(page, "judge", "<img src=x onerror=alert(1)> <b>rain</b> " + "a" * 300)
    page.until(f"{IDLE} && document.querySelectorAll('#out .bar').length == 3")
    assert fits(page)


def test_nothing_is_asked_of_others_and_nothing_goes_wrong(page, running):
    assert page.errors == []
    assert {"/".join(url.split("/")[:3]) for url in page.requested} == {running.url}
    assert f"{running.url}/v1/classify" in page.requested


def test_an_answer_under_way_is_stopped(page, running):
    ask(page, "writer", "Hi " * 20)
    page.of("document.querySelector('#stop').click()")
    page.until(IDLE)
    assert page.errors == []


def test_a_judge_of_pairs_has_a_field_for_each_column(encoder_release, copy_of, tmp_path):
    folder = copy_of(encoder_release())
    card = json.loads((folder / "release.json").read_text())
    (folder / "release.json").write_text(json.dumps({**card, "columns": ["text", "text_pair"]}))
    with (
        started(Order({"pairs": folder}, "127.0.0.1", 0)) as running,
        browser.opened(BROWSER, tmp_path / "browser") as page,
    ):
        page.open(running.url, 360)
        page.until("document.querySelectorAll('#fields textarea').length == 2")
        page.of("for (const field of document.querySelectorAll('#fields textarea')) field.value = 'a film'")
        page.of("document.querySelector('#go').click()")
        page.until(f"{IDLE} && document.querySelectorAll('#out .bar').length == 3")
        assert page.errors == []
