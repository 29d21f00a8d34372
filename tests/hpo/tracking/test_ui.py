"""What a person sees who opens MLflow's UI on a sweep, in a real browser."""

from __future__ import annotations

import subprocess
import sys

import httpx2
import pytest

from hpo.commands.sweep import run_sweep
from hpo.paths import Home
from tests.hpo.builders import RATE, write_sweep
from tests.hpo.serving import browser
from tests.ports import free_port

BROWSER = browser.installed()
SWEEP = {
    "name": "seen", "search_strategy": {"type": "random", "num_trials": 4}, "pruner": {"type": "none"},
    "search_space": {**RATE, "lora_r": {"type": "choice", "values": [4, 8, 16]}}, "promote": False,
    "training": {"max_examples": 100, "evaluations": 2},
}  # fmt: skip
LOADS_WITHIN_S = 100
"""MLflow's page is some megabytes of JavaScript."""
NAMES = (
    "[...document.querySelectorAll('.ag-pinned-left-cols-container .ag-row')]"
    ".sort((a, b) => a.getAttribute('row-index') - b.getAttribute('row-index'))"
    ".map(row => row.querySelector('a')?.textContent)"
)
HEADERS = "[...document.querySelectorAll('.ag-header-cell')].map(cell => cell.textContent.trim())"


@pytest.fixture
def shown(home_with_store, tmp_path):
    """A finished sweep of the fake trainer."""
    return run_sweep(write_sweep(tmp_path, **SWEEP), Home(home_with_store), worker="trainers.host.fake")


@pytest.mark.skipif(BROWSER is None, reason="there is no browser: none of chromium, google-chrome is found")
def test_mlflow_opens_on_the_trials_best_first_without_a_click(shown, home_with_store, tmp_path):
    command = [sys.executable, "-m", "hpo", "--home", str(home_with_store), "ui", "seen", "--no-browser"]
    with subprocess.Popen([*command, "--port", str(port := free_port())], stdout=subprocess.PIPE, text=True) as server:
        try:
            lines = [server.stdout.readline().strip() for _ in range(4)]
            table, charts = (line.partition(": ")[2] for line in lines[2:])
            assert_nobody_can_run_commands(f"http://127.0.0.1:{port}")
            with browser.opened(BROWSER, tmp_path / "browser") as page:
                page.open(table, 1600)
                page.until(f"{NAMES}.length == {len(shown.trials)}", LOADS_WITHIN_S)
                best = sorted(shown.trials, key=lambda trial: -trial.value)
                assert [name[:4] for name in page.of(NAMES)] == [f"#{trial.number:03d}" for trial in best]
                assert {"best/f1_macro", "learning_rate", "lora_r", "hpo.state"} <= set(page.of(HEADERS))
                page.open(charts, 1600)
                page.until("document.querySelectorAll('.js-plotly-plot').length >= 3", LOADS_WITHIN_S)
        finally:
            server.terminate()
    assert server.returncode == 0


def assert_nobody_can_run_commands(server):
    """MLflow's assistant would, for every user of the machine; what the pages need is there."""
    for path in ("config", "providers", "sessions/1/stream"):
        refused = httpx2.get(f"{server}/ajax-api/3.0/mlflow/assistant/{path}")
        assert (refused.status_code, refused.text) == (404, "hpo ui serves MLflow without its assistant")
    assert httpx2.put(f"{server}/ajax-api/3.0/mlflow/assistant/config", json={}).status_code == 404
    assert httpx2.get(f"{server}/ajax-api/2.0/mlflow/experiments/search?max_results=1").status_code == 200
