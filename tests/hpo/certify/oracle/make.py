"""Writes `answers.json`: what confseq, the library of who proposed these bets, answers on rows that are drawn here.

confseq (MIT licence) is no dependency: it has to be compiled to be installed, and needs an old numpy. So this file is
run by hand, in an environment of its own, and imports nothing of the project. So `answers.json` was made, on Debian 12:

    apt-get install libboost-dev
    python3.11 -m venv ORACLE
    ORACLE/bin/pip install "numpy<2" "scipy<1.16" "matplotlib<3.10" multiprocess pybind11 scikit-build cmake ninja
    ORACLE/bin/pip install --no-build-isolation --no-deps confseq==0.0.11
    ORACLE/bin/python -W ignore tests/hpo/certify/oracle/make.py

confseq knows rows from 0 to 1 and asks about a mean m: a difference d from -1 to 1 is the row (1 + d) / 2, a mean
difference of 0 is m = 1/2, and a stake of s makes 1 + s * d of 1, as a bet of 2 s in confseq does. Answers:

- `spread`: the last capital of confseq's dKelly (constant bets, evenly spaced, each with an equal part of the money) of
  49 bets, for "the mean is above 1/2";
- `aimed`: the last capital of its betting martingale, for the stakes that `hpo.certify.evidence` describes;
- `excluded`: at which of `LEVELS` its confidence sequence of those 49 bets, one-sided, has no mean up to 1/2 after the
  last row.
"""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
from confseq.betting import betting_mart, diversified_betting_mart, dKelly_cs

BETS = 49
LEVELS = (0.5, 0.1, 0.02, 0.002)
GRID = 20
"""Means that confseq tries, from 0 to 1; 1/2 is one of them."""
CASES = 80


def main() -> None:
    cases = [answered(np.random.default_rng(seed), seed % 4 == 0) for seed in range(CASES)]
    lines = ",\n  ".join(json.dumps(case) for case in cases)
    made = f'{{"confseq": "{version("confseq")}", "levels": {json.dumps(LEVELS)}, "cases": [\n  {lines}\n]}}\n'
    Path(__file__).with_name("answers.json").write_text(made)


def answered(rng, is_sized):
    """Differences of rows: signs, or thousandths; with a gain, a loss or nothing."""
    count = int(rng.choice([5, 40, 200, 1000])) if not is_sized else int(rng.integers(5, 120))
    gain = rng.choice([-0.05, 0.0, 0.03, 0.1])
    if is_sized:
        rows = np.clip(np.round(rng.normal(gain, rng.choice([0.1, 0.5]), 2 * count), 3), -1, 1)
    else:
        differing = rng.choice([0.1, 0.3, 0.9])
        better = min(differing, (differing + gain) / 2)
        rows = rng.choice([-1, 0, 1], 2 * count, p=[differing - better, 1 - differing, better])
    choosing, certifying = rows[: min(count, 100)], rows[count:]
    target = round(10 ** rng.uniform(0.1, 4), 2)
    return {
        "choosing": written(choosing, is_sized), "certifying": written(certifying, is_sized), "target": target,
        **of_confseq(choosing, certifying, target),
    }  # fmt: skip


def written(rows, is_sized):
    return [round(1000 * row) for row in rows.tolist()] if is_sized else "".join("-0+"[int(row) + 1] for row in rows)


def of_confseq(choosing, certifying, target):
    mean_square = float(np.mean(np.square(choosing))) or 1.0
    ordered = certifying[np.random.default_rng(0).permutation(len(certifying))]
    stakes = aimed(ordered, mean_square, math.log(target / 0.75))
    alone = {"theta": 1, "trunc_scale": 1}
    constant = [lambda x, m, i=i: i / (m * (BETS + 1)) for i in range(1, BETS + 1)]
    spread = diversified_betting_mart((1 + certifying) / 2, 0.5, constant, **alone)
    capital = betting_mart((1 + ordered) / 2, 0.5, lambdas_fn_positive=lambda x, m: 2 * stakes, **alone)
    excluded = []
    for level in LEVELS:
        given = {"D": BETS, "alpha": level, "breaks": GRID, "running_intersection": False, "theta": 1}
        lower, _ = dKelly_cs((1 + certifying) / 2, **given)
        excluded.append(bool(lower[-1] > 0.5 - 0.5 / GRID))  # confseq says one step of its grid less
    return {"spread": float(spread[-1]), "aimed": float(capital[-1]), "excluded": excluded}


def aimed(rows, mean_square, goal):
    """The stake on each row: before it, and with what is won by then, what reaches `goal` (a logarithm) if the rows
    that are left gain as much as is just enough; none once it is reached."""
    won, stakes = 0.0, []
    for place, row in enumerate(rows.tolist()):
        left = len(rows) - place
        stake = 0.0 if won >= goal else min(math.sqrt(2 * (goal - won) / (mean_square * left)), 0.98)
        stakes.append(stake)
        won += math.log(1 + stake * row)
    return np.array(stakes)


if __name__ == "__main__":
    main()
