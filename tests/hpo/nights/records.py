"""Records of nights as the steps leave them."""

from __future__ import annotations

from typing import Any

from hpo.nights.record import NightRecord, Step


def measured(value: float | None, spread: float = 0.01) -> dict[str, float] | None:
    return value and {"value": value, "low": value - spread, "high": value + spread}


def night(date: str = "2026-11-28", state: Any = "complete", reason: str = "", **facts: dict[str, Any]) -> NightRecord:
    """A night with the steps that have facts; each took a minute."""
    steps = []
    for minute, (name, found) in enumerate(facts.items()):
        began, ended = (f"{date}T01:{m:02d}:00+01:00" for m in (minute, minute + 1))
        steps.append(Step(name, began, ended, found.get("said", f"{name} is done"), found))
    return NightRecord("movies", date, "Europe/Berlin", "/movies.yaml", state, f"{date}T01:00:00+01:00",
                       f"{date}T01:30:00+01:00", reason, steps)  # fmt: skip


def promoted(date: str = "2026-11-28", new: float = 0.88, old: float | None = 0.86, **certify: Any) -> NightRecord:
    """A night that found a better model."""
    return night(
        date,
        freeze={"version": f"movies@{date}", "rows": {"train": 1200, "validation": 150, "test": 150},
                "added": {"train": 40, "validation": 5}, "gone": {"train": 2}, "relabelled": {"test": 1}, "notes": []},
        look={"findings": [], "shift": ["rows are longer than before: 21 words, not 14"], "notes": [], "stops": None},
        decide={"run": True},
        sweep={"sweep": f"movies-{date}", "trials": 20, "seconds": 1200.0, "gpu_hours": 0.0, "cost": 1.5,
               "said": "20 trials, the best has f1_macro 0.8900", "regression": ""},
        certify={"decision": "promote", "model": "movies", "metric": "f1_macro", "old": measured(old),
                 "new": measured(new), "baseline": measured(0.8), "e_value": 1340.2, "threshold": 1250.0,
                 "tests_so_far": 3, "lead": {"difference": 0.02, "low": 0.01, "high": 0.03}, "regressions": [],
                 "said": "certified: accuracy", **certify},
        promote={"model": "movies", "version": "3", "seat": "champion", "promoted": True, "previous": old and "2",
                 "said": "version 3 of 'movies' is the champion"},
    )  # fmt: skip


def kept(
    date: str = "2026-11-29", regressions: Any = (), seat: str = "challenger", **certify: Any
) -> NightRecord:  # fmt: skip
    """A night whose model is not the better one."""
    return night(
        date,
        freeze={"version": f"movies@{date}", "rows": {"train": 1200}, "added": {}, "gone": {}, "notes": []},
        sweep={"sweep": f"movies-{date}", "trials": 20, "seconds": 1100.0, "cost": None},
        certify={"decision": "keep", "model": "movies", "metric": "f1_macro", "old": measured(0.87),
                 "new": measured(0.80), "baseline": None, "e_value": 0.4, "threshold": 1900.0, "tests_so_far": 4,
                 "regressions": list(regressions), "said": "not certified", **certify},
        promote={"model": "movies", "version": "4", "seat": seat, "promoted": False,
                 "said": "version 4 of 'movies' stays the challenger: not certified"},
    )  # fmt: skip
