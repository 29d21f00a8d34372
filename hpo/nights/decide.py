"""Whether there is anything to do tonight: what a night was asked and of which rows, compared with the night before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpo.config.sweep_config import SweepConfig
from hpo.executors.environment import environment_here
from hpo.nights.agenda import has_result
from hpo.nights.record import NightFiles, NightRecord
from hpo.nights.sources import model_now, sources_now
from hpo.nights.steps import Act, Facts, Outcome, Tonight
from hpo.quoting import listed
from trainers.protocol.codec import fingerprint, from_json, to_json

_OTHERWISE = ("name", "code", "nightly", "trials", "report_to")
"""What no result depends on, or what counts by itself."""
_PLACES = ("train", "validation", "test")


@dataclass(frozen=True)
class Asked:
    """What a night was asked, besides its rows."""

    sections: dict[str, str]
    """Of the file, each as a hash; without where the rows lie, which count by what they hold."""
    model: str
    code: list[str]
    """Hashes of your own functions."""
    packages: dict[str, str]

    def changed_since(self, before: Asked) -> list[str]:
        """What is not as it was, in words."""
        names = [name for name in self.sections if self.sections[name] != before.sections.get(name)]
        new = [name for name in {**before.packages, **self.packages}
               if self.packages.get(name) != before.packages.get(name)]  # fmt: skip
        found = {
            f"{listed(names)} in the file": bool(names),
            "the base model": self.model != before.model,
            "your own code": self.code != before.code,
            f"packages ({listed(new)})": bool(new),
        }
        return [what for what, is_new in found.items() if is_new]


@dataclass(frozen=True)
class Decided:
    """Whether the sweep runs, and why."""

    run: bool
    why: str
    asked: Asked


def asked_now(config: SweepConfig) -> Asked:
    """What the file asks tonight."""
    resolved = {name: part for name, part in config.resolved().items() if name not in _OTHERWISE}
    resolved["data"] = {name: part for name, part in resolved["data"].items() if name not in _PLACES}
    here = environment_here()
    sections = {name: fingerprint(part)[:16] for name, part in resolved.items()}
    return Asked(sections, model_now(config), list(config.code), {"python": here.python, **here.packages})


def decide(tonight: Tonight) -> Outcome:
    """End the night where rows, file, model, code and packages are as in the last night that has a result."""
    asked = asked_now(tonight.config)
    decided = _decided(asked, tonight)
    return Outcome(decided.why, to_json(decided), None if decided.run else "skipped")


def _decided(asked: Asked, tonight: Tonight) -> Decided:
    last = last_settled(tonight.earlier)
    if last is None:
        return Decided(True, "no night before has a result", asked)
    before = asked_of(last)
    changed = asked.changed_since(before)
    if tonight.facts("freeze").get("sha256") != last.facts("freeze").get("sha256"):
        changed.insert(0, "the rows")
    if changed:
        return Decided(True, f"changed since {last.night}: {listed(changed)}", asked)
    if tonight.frame.always:
        return Decided(True, f"nothing has changed since {last.night}, but --always is given", asked)
    return Decided(False, f"nothing has changed since {last.night}", asked)


def asked_of(record: NightRecord) -> Asked:
    """What a night that is settled was asked: its sweep, where the file was edited between a failure and the result."""
    swept = record.facts("sweep").get("asked")
    return from_json(Asked, swept) if swept else from_json(Decided, record.facts("decide")).asked


def last_settled(records: Sequence[NightRecord]) -> NightRecord | None:
    """The newest of some nights, the oldest of which comes first, that has a result, or whose rows had one already."""
    return next((record for record in reversed(records) if _is_settled(record)), None)


def _is_settled(record: NightRecord) -> bool:
    return record.state == "skipped" or (record.state == "complete" and has_result(record))


def unless_unchanged(freeze: Act) -> Act:
    """`freeze`, or the rows that the last night froze, where the files are the same and it was asked the same.

    Nothing heavy is imported then, so that a night with nothing to do ends at once.
    """

    def act(tonight: Tonight) -> Outcome:
        # Before the rows are read: a file that is written meanwhile is another one tomorrow.
        seen = _seen_now(tonight.config)
        last = next((record for record in reversed(tonight.earlier) if record.step("freeze")), None)
        if last and _has_frozen(last, seen, tonight.frame.files):
            return Outcome(f"the files are as in {last.night}", _frozen_again(last, tonight.night.version))
        outcome = freeze(tonight)
        return Outcome(outcome.said, {**outcome.facts, **seen}, outcome.ends)

    return act


def unless_looked(look: Act) -> Act:
    """`look`, or what an earlier night that was asked the same saw in the same rows, which have not moved since."""

    def act(tonight: Tonight) -> Outcome:
        frozen = tonight.facts("freeze")
        for record in reversed(tonight.earlier):
            if record.step("look") and record.state in ("complete", "skipped"):
                before = record.facts("freeze")
                if frozen and all(before.get(name) == frozen.get(name) for name in ("sha256", "asked")):
                    return Outcome(f"the rows are as in {record.night}", {**record.facts("look"), "shift": []})
                break
        return look(tonight)

    return act


def has_other_sources(tonight: Tonight) -> bool:
    """Whether the file or the files of its rows have changed since this night froze them, as far as that is known."""
    frozen, now = tonight.facts("freeze"), _seen_now(tonight.config)
    known = [name for name in now if frozen.get(name) is not None and now[name] is not None]
    return any(frozen[name] != now[name] for name in known)


def _seen_now(config: SweepConfig) -> Facts:
    return {"sources": sources_now(config), "asked": to_json(asked_now(config))}


def _has_frozen(last: NightRecord, seen: Mapping[str, object], files: NightFiles) -> bool:
    """Whether a night that came to its end has frozen these very files, and its rows are still there."""
    facts = last.facts("freeze")
    is_seen = seen["sources"] is not None and all(facts.get(name) == value for name, value in seen.items())
    return is_seen and last.state in ("complete", "skipped") and (files.data / str(facts.get("sha256"))).is_dir()


def _frozen_again(last: NightRecord, version: str) -> Facts:
    """The facts of rows that are as in another night: none came, none went, none changed."""
    facts = last.facts("freeze")
    none: Facts = {name: dict.fromkeys(facts[name], 0) for name in ("added", "gone", "relabelled") if name in facts}
    return {**facts, **none, "version": version, "since": last.night.version, "notes": []}
