"""The e-value, against what confseq answers for the same bets on the same rows (`oracle/make.py` says how).

confseq bets by rules of its own, and aims at no e-value. What is the same, and has to be equal, is the capital that
bets make: of its 49 constant bets, which are ours, and of any stakes that are given to it, so of ours that aim. And a
certified claim is one that its confidence sequence for the mean of rows makes too.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from hpo.certify.evidence import AIMED, MOST, e_value

ANSWERS = json.loads((Path(__file__).parent / "oracle" / "answers.json").read_text())
CASES = ANSWERS["cases"]
NONE = np.zeros(0)


def rows(written):
    signs = isinstance(written, str)
    return np.array(["-0+".index(sign) - 1.0 for sign in written] if signs else [number / 1000 for number in written])


def spread(certifying):
    """The wealth that is spread over all stakes: who aims at less than it has does not bet."""
    return (e_value(certifying, NONE, AIMED) - AIMED) / (1 - AIMED)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_equal_bets_make_an_equal_capital(case):
    certifying = rows(case["certifying"])
    assert spread(certifying) == pytest.approx(case["spread"], rel=1e-9, abs=1e-12)
    expected = AIMED * case["aimed"] + (1 - AIMED) * case["spread"]
    assert e_value(certifying, rows(case["choosing"]), case["target"]) == pytest.approx(min(expected, MOST), rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_a_claim_is_certified_where_the_confidence_sequence_excludes_no_gain(case):
    evidence = spread(rows(case["certifying"]))
    assert [evidence > 1 / level for level in ANSWERS["levels"]] == case["excluded"]


def test_there_are_claims_of_either_kind_at_each_level():
    for at_level in zip(*(case["excluded"] for case in CASES), strict=True):
        assert 5 <= sum(at_level) <= len(CASES) - 5
    reached = [case["aimed"] * AIMED >= case["target"] for case in CASES]
    assert 5 <= sum(reached) <= len(CASES) - 5
