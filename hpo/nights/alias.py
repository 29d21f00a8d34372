"""Who is champion after a night: what was certified decides, unless a person does or has moved the alias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hpo.config.promotion import Approve
from hpo.nights.steps import Facts, Outcome, Tonight
from hpo.results.released import Decision
from trainers.protocol.codec import to_json

if TYPE_CHECKING:
    from hpo.release.aliases import Seats

Seat = Literal["champion", "waits", "challenger"]
"""A version is champion, waits for a person, or stays the challenger because it has not shown enough."""
_DECISIONS: Mapping[Seat, Decision] = {"champion": "champion", "waits": "waits", "challenger": "refused"}
"""As a sweep without a night calls them."""


@dataclass(frozen=True)
class Seated:
    """What became of a night's release."""

    model: str
    version: str
    seat: Seat
    why: str
    previous: str | None = None
    """The champion before, which `hpo rollback` brings back."""
    promoted: bool = False
    """Whether this night gave it the alias."""


def rule(certified: Facts, approve: Approve, champion: str | None) -> tuple[Seat, str]:
    """The seat of tonight's release, and why; `champion` is the version that has the alias now.

    `certified` has the `decision`, which follows the file's `approve`, and the `old_version` that it is about.
    """
    decision, why = certified.get("decision", "nothing"), str(certified.get("why") or "")
    if decision == "ask":
        return "waits", why or "the rows do not tell"
    was = certified.get("old_version")
    if champion is None and was is None:
        is_asked = approve == "ask"
        return ("waits", "the file says approve: ask") if is_asked else ("champion", "the name had no champion")
    if champion is not None and decision != "promote":
        return "challenger", why or "it was not certified to be better"
    if certified.get("old_version", champion) != champion:
        now = "there is none" if champion is None else f"it is version {champion}"
        return "waits", f"champion was {was or 'none'} when it was certified, and {now} now"
    return "champion", why or "it is certified to be better"


def promote(tonight: Tonight) -> Outcome:
    """Give tonight's release its seat, unless it has been champion already: then it stays where it is.

    The night's sweep learns of it, also where a kill came between.
    """
    swept, wanted = tonight.facts("sweep"), tonight.config.promote
    if wanted is None or swept.get("version") is None:
        return Outcome("there is no release tonight", {"promoted": False})
    from hpo.release.aliases import seats  # late, for MLflow
    from hpo.release.later_decision import note_decision
    from hpo.release.versions import version_of

    model, version = str(swept["model"]), str(swept["version"])
    if version_of(tonight.home, model, version) is None:
        return Outcome(f"version {version} of {model!r} was deleted", {"promoted": False})
    with seats(tonight.home, model) as held:
        seated = _seated(held, model, version, tonight.facts("certify"), wanted.approve)
    note_decision(tonight.home, tonight.night.sweep, model, version, _DECISIONS[seated.seat])
    return _outcome(seated)


def _seated(held: Seats, model: str, version: str, certified: Facts, approve: Approve) -> Seated:
    now = held.now()
    if version == now.champion:
        return Seated(model, version, "champion", "it has the alias", now.previous, promoted=True)
    if version == now.previous:
        return Seated(model, version, "challenger", f"version {now.champion} took the alias back")
    seat, why = rule(certified, approve, now.champion)
    if seat == "champion":
        held.crown(version)
    else:
        held.judged(version)
        held.challenge(version, waits=seat == "waits")
    return Seated(model, version, seat, why, held.now().previous, promoted=seat == "champion")


def _outcome(seated: Seated) -> Outcome:
    said = {
        "champion": "is the champion",
        "waits": f"waits for your approval (hpo approve {seated.model}/{seated.version})",
        "challenger": "stays the challenger",
    }[seated.seat]
    return Outcome(f"version {seated.version} of {seated.model!r} {said}: {seated.why}", to_json(seated))
