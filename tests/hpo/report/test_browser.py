"""The report in a real browser: it draws, says nothing to the console, asks nobody, and fits, light and dark."""

from __future__ import annotations

import dataclasses

import pytest

from hpo.config.objective import Objective
from hpo.config.space import from_resolved
from hpo.report.comparison import Comparison
from hpo.report.page import html_comparison, html_page
from hpo.results.timeline import Stint
from tests.hpo.builders import trial_record
from tests.hpo.report.test_page import facts_of, searched, variant
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


def texts(page, selector):
    return page.of(f"[...document.querySelectorAll('{selector}')].map((found) => found.textContent)")


def places(page, selector, attribute):
    return page.of(f"[...document.querySelectorAll('{selector}')].map((e) => Number(e.getAttribute('{attribute}')))")


def show(page, folder, html, width, until=DRAWN):
    """Open a page in the browser, and wait until it is drawn."""
    file = folder / "report.html"
    file.write_text(html)
    page.open(file.as_uri(), width)
    page.until(until)


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
    show(page, tmp_path, html_page(small), 1600)
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
    show(page, tmp_path, html_page(facts_of(*searched(10_000))), 1600)
    assert page.of("document.querySelectorAll('#scatter canvas').length") == 3
    assert page.of("document.querySelectorAll('#scatter circle').length") < 10
    took = min(page.of(FILTERED)[1] for _ in range(3))
    assert took < 100 * PATIENCE, took


def test_variants_lie_higher_the_better_though_the_gate_has_another_direction(page, tmp_path):
    variants = [variant("int8", 0.7, 3.0), variant("int4", 0.9, 2.0)]
    facts = facts_of(
        trial_record(0, metrics={"mine": 0.5}), objectives=(Objective("mine", "minimize"),), variants=variants,
        torch={"metrics": {"f1_macro": 0.8}, "latency_p50_ms": 12.5},
    )  # fmt: skip
    show(page, tmp_path, html_page(facts), 1600, until="document.querySelectorAll('#plane circle').length == 3")
    torch, int8, int4 = places(page, "#plane circle", "cy")
    assert int4 < torch < int8


def test_trials_at_null_are_drawn_at_its_place(page, tmp_path):
    space = {"neftune_noise_alpha": {"type": "choice", "values": [None, 5.0]}}
    records = [trial_record(n, value=n / 10, params={"neftune_noise_alpha": [None, 5.0][n % 2]}) for n in range(6)]
    show(
        page,
        tmp_path,
        html_page(dataclasses.replace(facts_of(*records), space=from_resolved(space))),
        1600,
        until="document.querySelectorAll('#scatter circle').length == 6",
    )
    assert texts(page, "#scatter text")[-3:-1] == ["null", "5"]
    page.of("document.getElementById('query').value = 'neftune_noise_alpha = null'")
    page.of("document.getElementById('query').dispatchEvent(new Event('input'))")
    assert page.of("document.getElementById('shown').textContent") == "3 of 6 trials"
    assert page.errors == []


def test_an_axis_over_a_narrow_range_has_its_own_numbers(page, tmp_path):
    records = [trial_record(n, value=20.412 + n / 1000, params={"lora_r": 4 + 4 * n}) for n in range(8)]
    show(
        page,
        tmp_path,
        html_page(facts_of(*records)),
        1600,
        until="document.querySelectorAll('#scatter circle').length == 8",
    )
    ticks = texts(page, "#scatter text[text-anchor=end]")
    assert len(set(ticks)) == len(ticks) > 2
    assert all(20.412 <= float(tick) <= 20.419 for tick in ticks)


def test_a_sweep_of_many_short_sessions_has_its_timeline_in_order(page, tmp_path):
    timeline = [Stint(n, None, 0, 1, 100.0 * n, 100.0 * n, 100.0 * n + 9, "complete") for n in range(150)]
    facts = facts_of(trial_record(0))
    facts = dataclasses.replace(facts, summary=dataclasses.replace(facts.summary, timeline=timeline))
    show(page, tmp_path, html_page(facts), 360, until="document.querySelectorAll('#timeline .stint').length == 150")
    began = places(page, "#timeline .stint", "x")
    assert began == sorted(began)
    assert began[-1] <= page.of("document.querySelector('#timeline svg').viewBox.baseVal.width")


def test_what_is_folded_on_a_screen_is_on_paper(page, small, tmp_path):
    show(page, tmp_path, html_page(small), 1600)
    seen = "document.querySelector('details pre').checkVisibility()"
    assert not page.of(seen)
    page.on_paper()
    page.until(seen, within_s=5)


def test_long_values_of_a_choice_are_within_their_chart(page, tmp_path):
    kinds = ["linear", "cosine_with_restarts", "polynomial"]
    space = {"lr_scheduler_type": {"type": "choice", "values": kinds}, "lora_r": {"type": "choice", "values": [4, 8]}}
    records = [trial_record(n, value=n / 10, params={"lora_r": 4 + 4 * (n % 2), "lr_scheduler_type": kinds[n % 3]})
               for n in range(6)]  # fmt: skip
    show(
        page,
        tmp_path,
        html_page(dataclasses.replace(facts_of(*records), space=from_resolved(space))),
        1600,
        until="document.querySelectorAll('#pairs circle').length == 6",
    )
    assert {"linear", "cosine_with_r…", "polynomial"} <= set(texts(page, "#pairs text"))
    assert page.of("[...document.querySelectorAll('#pairs text')].every((text) => text.getBBox().x >= 0)")


def test_a_curve_of_one_evaluation_is_a_point(page, tmp_path):
    facts = facts_of(trial_record(0, value=0.4), trial_record(1))  # each has been evaluated once
    for html, drawn in (
        (html_page(facts), "#curves circle.point"),
        (html_comparison(Comparison([facts, facts], [])), "#curves circle.dot"),
    ):
        show(page, tmp_path, html, 1600, until=f"document.querySelectorAll('{drawn}').length == 2")
        assert page.errors == []


def test_a_long_message_is_broken_into_lines(page, tmp_path):
    failed = trial_record(1, "failed", None, cause="crash", message="/a/path" * 40)
    show(
        page,
        tmp_path,
        html_page(facts_of(trial_record(0), failed)),
        360,
        until="document.querySelectorAll('#parallel .axis').length > 0",
    )
    assert page.of(FITS)
