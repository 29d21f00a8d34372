"""Whether a night's release replaces the champion: both, and tonight's baseline, answer the same rows as released.

The validation rows, which the whole search has seen, decide whether the night claims anything. The certifying rows,
which it has not, certify the claim, as an e-value that the ledger of the name tests (`evidence`, `ledger`). Everything
else that they show is a fact for the report, and decides nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from hpo.certify.baseline import baseline_answers
from hpo.certify.contenders import Contenders, measured
from hpo.certify.evidence import e_value, is_ahead
from hpo.certify.ledger import Claim, Ledger, Measured, SealedReading, Standing
from hpo.certify.row_scores import Paired, one_row_each, paired
from hpo.config.objective import gate_of
from hpo.config.promotion import Promote
from hpo.config.sweep_config import SweepConfig
from hpo.errors import HpoError
from hpo.executors.base import Executor
from hpo.nights.night import Night
from hpo.paths import Home
from hpo.release.same_rows import Answered, SameRows
from hpo.results.outcome import Comparison
from hpo.results.records import StudySnapshot
from hpo.results.released import Decision
from hpo.results.rivals import Answer, decide
from hpo.study.store import view_study
from hpo.trials.calls import run_alone
from trainers.protocol.events import PreparedData
from trainers.protocol.requests import Inspect
from trainers.protocol.trial_spec import Workload
from trainers.runtime.card import ReleaseError

if TYPE_CHECKING:
    from hpo.release.versions import Version

Verdict = Literal["promote", "keep", "ask", "nothing"]


@dataclass(frozen=True)
class Certified:
    """What becomes of a night's release, and everything that was measured for it."""

    decision: Verdict
    """`ask`: a person decides. `nothing`: the night released nothing new."""
    why: str
    model: str = ""
    """The released model's name."""
    old_version: str | None = None
    """The champion's; None where the name has none."""
    new_version: str | None = None
    metric: str = ""
    old: Measured | None = None
    new: Measured | None = None
    baseline: Measured | None = None
    """Trial 0 of tonight's sweep; `no_baseline` says why there is none."""
    no_baseline: str = ""
    lead: Comparison | None = None
    """New against old on the certifying rows, positive where the new version is better."""
    rows: int = 0
    """Certifying rows, which the values and the lead are of."""
    about: str = ""
    """What the night's claim is about; empty where it made none. Then the next three are None."""
    e_value: float | None = None
    threshold: float | None = None
    level: float | None = None
    tests_so_far: int = 0
    """Claims in the ledger of the name, tonight's among them."""
    certified_so_far: int = 0
    test: SealedReading | None = None
    test_readings: int = 0
    """How often nights have read the sealed test for this name."""
    regressions: list[str] = field(default_factory=list)
    """What became worse, beyond noise, in sentences."""


def certify(
    executor: Executor, config: SweepConfig, home: Home, night: Night, ledger: Ledger, certifying: Workload
) -> Certified:
    """Decide about the version that the night's sweep has released.

    `config` is the night's, with `promote` as the file says it; `certifying` has the certifying rows for validation.
    Called again for the same night, after a kill say, it finds the same claim. Raises `HpoError` where the sweep, the
    rows or the ledger cannot be read.
    """
    from hpo.release.versions import champion_of, version_of  # late, for MLflow

    wanted, study = config.promote, view_study(home.studies_db, night.sweep)
    release, data = study.state.challenger or study.state.release, study.state.data
    if wanted is None or release is None or data is None:
        return Certified("nothing", study.state.refusal or "the night's sweep has released no version")
    new, old = version_of(home, wanted.name, release.version), champion_of(home, wanted.name)
    if new is None:
        return Certified("nothing", f"version {release.version} of {wanted.name!r} was deleted", wanted.name)
    if old is not None and old.version == new.version:
        return Certified("nothing", f"version {new.version} is the champion of {wanted.name!r} already", wanted.name)
    scratch = home.sweep(night.sweep).dir / "certify"
    shutil.rmtree(scratch, ignore_errors=True)  # a kill left it
    try:
        prepared = run_alone(executor, Inspect(replace(certifying, cache_dir=str(scratch / "cache"))))
        assert isinstance(prepared, PreparedData)  # noqa: S101  # the protocol's answer to Inspect
        same = SameRows(executor, config.task, prepared, scratch / "certifying")
        seen = SameRows(executor, config.task, data, scratch / "seen")
        return _Trial(config, wanted, home, night, ledger, study, same, seen, new, old).verdict()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class _Trial:
    """A night's release on trial."""

    config: SweepConfig
    wanted: Promote
    home: Home
    night: Night
    ledger: Ledger
    study: StudySnapshot
    same: SameRows
    """The certifying rows."""
    seen: SameRows
    """The rows of the night's sweep, which chose the new version."""
    new: Version
    old: Version | None

    def verdict(self) -> Certified:
        """Measure all that there is, and decide."""
        gate = gate_of(self.config.task, self.config.objective)
        found = self._counted(Certified(
            "ask", "", self.wanted.name, None if self.old is None else self.old.version, self.new.version, gate.metric,
            rows=self.same.prepared.rows["validation"],
        ))  # fmt: skip
        try:
            new = self.same.answered(self.new.folder(), "new")
        except (HpoError, ReleaseError) as error:
            return replace(found, why=f"version {self.new.version} cannot be measured ({error})")
        baseline, why = baseline_answers(self.same, self.home, self.study, self.wanted.target)
        metric_of = partial(self.same.metric, gate.metric)
        shown = Contenders(gate, metric_of, new, baseline, units=self.same.units())
        value = shown.measured(new)
        self.ledger.stand(Standing(self.night.version, self.new.version, gate.metric, value, found.rows))
        base = None if baseline is None else shown.measured(baseline)
        found = replace(found, new=value, baseline=base, no_baseline=why)
        if self.old is None:
            return self._decided(found, "yes", f"{self.wanted.name!r} has no champion yet")
        try:
            old = self._champion(self.old, len(new.rows))
        except (HpoError, ReleaseError) as error:
            return self._incomparable(found, error)
        shown = replace(shown, old=old)
        found = replace(
            found, old=shown.measured(old), lead=shown.lead(new, old).comparison(1),
            regressions=shown.regressions(self.ledger.standing(self.old.version, gate.metric)),
        )  # fmt: skip
        return self._against(found, new, old)

    def _incomparable(self, found: Certified, error: Exception) -> Certified:
        """Left to a person, unless the file asks for no comparison."""
        why = f"version {self.new.version} cannot be compared with the champion, {self.old} ({error})"
        if self.wanted.requirement == "always":
            return self._decided(found, "yes", f"{why}; the file says require: always")
        return replace(found, why=f"{why}; hpo approve {self.wanted.name}/{self.new.version} makes it the champion")

    def _champion(self, version: Version, rows: int) -> Answered:
        """The champion's certifying answers. Raises `HpoError` or `ReleaseError` where they do not compare."""
        folder = version.folder()
        self.same.check_comparable(folder)
        return _as_many(self.same.answered(folder, "old"), rows)

    def _against(self, found: Certified, new: Answered, old: Answered) -> Certified:
        """Against the champion of the name: whether the night claims anything, and what came of it."""
        if self.wanted.requirement == "always":
            return self._decided(found, "yes", "the file says require: always, so nothing is asked")
        try:
            pairs = self._paired(found, new, old)
        except (HpoError, ReleaseError) as error:
            return self._incomparable(found, error)
        if not (np.isfinite(pairs.choosing).all() and np.isfinite(pairs.certifying).all()):
            return replace(found, why=f"{pairs.about} is not a number for some rows, so nothing can be claimed")
        if not is_ahead(pairs.choosing):
            why = f"no claim: the {len(pairs.choosing):,} rows that choose do not prefer version {self.new.version}"
            return self._decided(found, _unproven(found), f"{why} beyond noise ({pairs.about})")
        claim = self.ledger.settle(
            Claim(self.night.version, self.night.sweep, str(found.old_version), self.new.version,
                  len(pairs.certifying), pairs.about),
            partial(e_value, pairs.certifying, pairs.choosing),
        )  # fmt: skip
        if (claim.old, claim.new) != (found.old_version, found.new_version):
            why = f"{self.night} has made its claim already: that version {claim.new} is better than {claim.old}"
            return self._decided(found, "no", why)
        return self._tested(self._counted(found), claim)

    def _paired(self, found: Certified, new: Answered, old: Answered) -> Paired:
        """Both versions row by row: on the rows that choose, which they answer now, and on those that certify.

        Raises `HpoError` or `ReleaseError` where they do not compare.
        """
        assert self.old is not None  # noqa: S101  # the caller has its answers
        after = self.seen.answered(self.new.folder(), "new")
        before = _as_many(self.seen.answered(self.old.folder(), "old"), len(after.rows))
        allowed = self.wanted.max_drop if self.wanted.requirement == "not_worse" else 0.0
        choosing = one_row_each(before.rows, after.rows, self.seen.units())
        certifying, labels = one_row_each(old.rows, new.rows, self.same.units()), (old.labels, new.labels)
        return paired(self.config.task, found.metric, choosing, certifying, labels, allowed)

    def _tested(self, found: Certified, claim: Claim) -> Certified:
        """What a claim that was tested leads to."""
        found = replace(found, about=claim.about, e_value=claim.e_value, threshold=1 / claim.level, level=claim.level)
        numbers = f"{claim.about}: e-value {claim.e_value:.3g}, needed {1 / claim.level:.3g} (claim {claim.number})"
        if not claim.is_certified:
            return self._decided(found, _unproven(found), f"not certified: {numbers}")
        if self.wanted.requirement == "better" and not (found.lead and found.lead.difference > 0):
            why = f"certified: {numbers}; but by {found.metric} it is not better on the same rows"
            return self._decided(found, "open", why)
        found = self._counted(replace(found, test=self._read_test(found.metric)))
        return self._decided(found, "yes", f"certified: {numbers}")

    def _decided(self, found: Certified, answer: Answer, why: str) -> Certified:
        """As the file wants it: who has shown what is required is promoted, unless a person is asked."""
        outcomes: dict[Decision, Verdict] = {"champion": "promote", "waits": "ask", "refused": "keep"}
        return replace(found, decision=outcomes[decide(self.wanted.approve, answer)], why=why)

    def _read_test(self, metric: str) -> SealedReading | None:
        """Both versions on the sealed test; of a night that has read it before, that reading. None without rows."""
        key = (self.night.version, "promotion")
        if before := next((r for r in self.ledger.readings() if (r.night, r.by) == key), None):
            return before
        if not self.same.prepared.rows["test"]:
            return None
        found: dict[str, Measured] = {}
        rows, units = 0, self.same.units("test")
        for role, version in (("old", self.old), ("new", self.new)):
            assert version is not None  # noqa: S101  # a claim is against a champion
            answered = self.same.answered(version.folder(), role, "test")
            metric_of = self.same.metric(metric, answered.labels)
            rows, found[role] = len(answered.rows), measured(answered.rows, metric_of, units)
        return self.ledger.read(
            SealedReading(self.night.version, "promotion", rows, metric, found["old"], found["new"])
        )

    def _counted(self, found: Certified) -> Certified:
        """With what the ledger holds now."""
        claims, readings = self.ledger.claims(), self.ledger.readings()
        certified = sum(claim.is_certified for claim in claims)
        return replace(found, tests_so_far=len(claims), certified_so_far=certified, test_readings=len(readings))


def _as_many(champion: Answered, rows: int) -> Answered:
    """The champion's answers, where they are as many as those of the new version. Raises `HpoError`."""
    if len(champion.rows) != rows:
        raise HpoError(f"they answered {len(champion.rows)} and {rows} rows")
    return champion


def _unproven(found: Certified) -> Answer:
    """A version that is not certified may still be the better one, unless it is worse beyond noise."""
    return "no" if found.lead is not None and found.lead.high < 0 else "open"
