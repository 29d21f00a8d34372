"""The ledger: levels of e-LOND, and that no night is counted twice, whoever is killed or writes at the same time."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from hpo.certify.ledger import Claim, Ledger, Measured, SealedReading, Standing, share
from hpo.errors import SweepError


def settled(ledger, night, e_value=1.0, **changes):
    """The claim of a night, with its e-value, or with what makes one of its target."""
    date = f"2026-11-{night:02}"
    fields = {"night": f"movies@{date}", "sweep": f"movies-{date}", "old": "1", "new": "2"}
    claim = Claim(**{**fields, "rows": 1000, "about": "the share of right rows", **changes})
    return ledger.settle(claim, e_value if callable(e_value) else lambda target: e_value)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledgers" / "movies.jsonl", 0.05)


def test_all_shares_together_are_at_most_one():
    counted = 100_000
    rest = math.sqrt(15.5) / math.sqrt(counted + 15)  # the integral from there on, which is more than the sum
    assert 0.99 < sum(share(claim) for claim in range(1, counted + 1)) + rest <= 1.0
    assert share(1) > 2.5 * share(16) > 10 * share(100) > 0


def test_a_claim_is_certified_where_its_e_value_reaches_one_over_its_level(ledger):
    first = settled(ledger, 1, lambda target: 0.9 * target)
    second = settled(ledger, 2, lambda target: 1.1 * target)
    third = settled(ledger, 3, lambda target: 0.6 * target)
    assert [(one.number, one.is_certified) for one in (first, second, third)] == [(1, False), (2, True), (3, True)]
    assert third.level == pytest.approx(2 * 0.05 * share(3))
    assert ledger.claims() == [first, second, third]


def test_a_gain_over_one_champion_that_is_certified_each_night_counts_once(ledger):
    for night in (1, 2, 3):
        assert settled(ledger, night, lambda target: 2 * target).is_certified
    fourth = settled(ledger, 4, lambda target: 2 * target, old="2")
    fifth = settled(ledger, 5)
    assert (fourth.level, fifth.level) == (pytest.approx(2 * 0.05 * share(4)), pytest.approx(3 * 0.05 * share(5)))


def test_a_night_makes_one_claim_however_often_it_is_run(ledger):
    before = settled(ledger, 1, 5.0)
    assert settled(ledger, 1, 1e9, new="3") == before
    assert len(ledger.path.read_text().splitlines()) == 1
    assert settled(ledger, 2).number == 2


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_line_that_a_kill_cut_short_does_not_count_and_goes(ledger, cut):
    first = settled(ledger, 1)
    whole = ledger.path.read_bytes()
    settled(ledger, 2)
    ledger.path.write_bytes(ledger.path.read_bytes()[: len(whole) + cut])
    assert ledger.claims() == [first]
    again = settled(ledger, 2, 7.0)
    assert ledger.claims() == [first, again]
    assert again.number == 2
    assert all(json.loads(line)["kind"] == "claim" for line in ledger.path.read_text().splitlines())


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"kind": "other"}', '{"kind": "claim"}', '{"kind": "claim", "format": 9}']
)
def test_a_damaged_line_stops_everything_because_claims_would_be_forgotten(ledger, damage):
    settled(ledger, 1)
    ledger.path.write_text(f"{ledger.path.read_text()}{damage}\n")
    with pytest.raises(SweepError, match=r"movies\.jsonl:2: cannot be read .*bring back a copy"):
        settled(ledger, 2)


def test_nights_that_write_at_the_same_time_get_different_numbers(ledger):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda night: settled(Ledger(ledger.path), night), [1, 2, 3, 4, 5, 6, 1, 2]))
    assert sorted({one.number for one in found}) == [1, 2, 3, 4, 5, 6]
    assert len(ledger.claims()) == 6


def test_each_reading_of_the_sealed_test_is_counted_once(ledger):
    value = Measured(0.9, 0.88, 0.92)
    readings = [
        ledger.read(SealedReading(night, by, 500, "f1_macro", None, value))
        for night, by in (("a", "finalists"), ("a", "promotion"), ("a", "promotion"), ("b", "promotion"))
    ]
    assert [one.number for one in readings] == [1, 2, 2, 3]
    assert len(ledger.readings()) == 3
    assert not ledger.claims()


def test_what_a_version_measured_is_found_again_by_its_metric(ledger):
    assert ledger.standing("2", "f1_macro") is None
    standing = ledger.stand(Standing("a", "2", "f1_macro", Measured(0.9, 0.88, 0.92), 500))
    assert ledger.stand(Standing("a", "2", "f1_macro", Measured(0.1, 0.1, 0.1), 500)) == standing
    assert ledger.standing("2", "f1_macro") == standing
    assert ledger.standing("2", "accuracy") is None
