"""The report in a real browser: it draws, says nothing to the console, asks nobody, and fits, light and dark."""

from __future__ import annotations

import dataclasses

import pytest

from hpo.report.comparison import Comparison
from hpo.report.page import html_comparison, html_page
from hpo.results.timeline import Stint
from tests.hpo.report.test_page import facts_of, searched
from tests.hpo.serving import browser

BROWSER = browser.installed()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no browser: none of chromium, google-chrome is found")
DRAWN = "document.querySelectorAll('#parallel .axis').length == 4"
PATIENCE = 3  # other tests run on the same cores at the same time
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
FILTERED = """(() => {
  const began = performance.now(), query = document.getElementById("query");
  query.value = "learning_rate > 1e-3; state = complete";
  query.dispatchEvent(new Event("input"));
  return [document.getElementById("shown").textContent, performance.now() - began];
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser.opened(BROWSER, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def small():
    """A sweep with all that is drawn."""
    timeline = [Stint(n, None, n % 2, 2, 0.0, n * 10.0, n * 10.0 + 15, "complete") for n in range(20)]
    facts = facts_of(*searched(20))
    return dataclasses.replace(facts, summary=dataclasses.replace(facts.summary, timeline=timeline))


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_it_draws_fits_and_asks_nobody(page, small, tmp_path, width, is_dark):
    file = tmp_path / "report.html"
    file.write_text(html_page(small))
    page.requested.clear()
    page.open(file.as_uri(), width, is_dark=is_dark)
    page.until(DRAWN)
    assert page.of(FITS)
    assert page.of("document.querySelectorAll('#timeline .stint').length") == 20
    assert page.of("document.querySelectorAll('#pairs svg').length") == 3
    text, _ = page.of(FILTERED)
    assert text.endswith("of 20 trials")
    assert page.errors == []
    assert page.requested == [file.as_uri()]


def test_a_range_is_kept_by_keyboard(page, small, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(html_page(small))
    page.open(file.as_uri(), 1600)
    page.until(DRAWN)
    press = "document.querySelector('#parallel .handle').dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}))"
    page.of("document.querySelector('#parallel .handle').focus()")
    page.of(press % "ArrowUp")
    assert page.of("document.getElementById('query').value").startswith("learning_rate >= ")
    assert page.of("document.activeElement.classList.contains('handle')")
    page.of(press % "Escape")
    assert page.of("document.getElementById('query').value") == ""


def test_several_sweeps_are_drawn_beside_each_other(page, small, tmp_path):
    other = dataclasses.replace(small, summary=dataclasses.replace(small.summary, sweep="other"))
    file = tmp_path / "comparison.html"
    file.write_text(html_comparison(Comparison([small, other], [])))
    page.open(file.as_uri(), 360)
    page.until("document.querySelectorAll('#curves .sweep').length == 2")
    assert page.of(FITS)
    assert page.errors == []


def test_ten_thousand_trials_are_drawn_as_densities_and_filtered_at_once(page, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(html_page(facts_of(*searched(10_000))))
    page.open(file.as_uri(), 1600)
    page.until(DRAWN)
    assert page.of("document.querySelectorAll('#scatter canvas').length") == 3
    assert page.of("document.querySelectorAll('#scatter circle').length") < 10
    took = min(page.of(FILTERED)[1] for _ in range(3))
    assert took < 100 * PATIENCE, took
