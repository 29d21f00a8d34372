"""A challenger and the champion of its name on the same rows: how far it is ahead, and who is champion then. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from hpo.config.objective import Objective
from hpo.results.gaps import FEWEST_ROWS, gap, scores
from hpo.results.released import Decision, Rivalry
from hpo.results.statistics import Units
from trainers.metrics.table import Rows

if TYPE_CHECKING:
    from hpo.config.promotion import Approve, Require

Answer = Literal["yes", "no", "open"]
"""Whether a challenger has shown what is required; `open` where the rows do not tell."""
MetricOf = Callable[[Rows], float]


def rivalry(champion: Rows, champion_metric: MetricOf, challenger: Rows, challenger_metric: MetricOf,
            gate: Objective, units: Units | None = None) -> Rivalry:  # fmt: skip
    """Compare per-row results of two releases, [rows, columns], of the same rows in the same order.

    Each has a function for its metric, because each numbers labels in its own way.
    """
    sign = 1.0 if gate.direction == "maximize" else -1.0
    old = scores(champion, lambda rows: sign * champion_metric(rows), units)
    new = scores(challenger, lambda rows: sign * challenger_metric(rows), units)
    lead = gap([new], [old], None).comparison(1)
    return Rivalry(gate.metric, sign * old.value, sign * new.value, len(challenger), lead)


def answer(require: Require, found: Rivalry | None, max_drop: float) -> Answer:
    """Whether the challenger has shown that it is better, or not worse by more than `max_drop` of the champion's value.

    `found` is None where the two cannot be compared: then the rows tell nothing, as too few of them do.
    """
    if require == "always":
        return "yes"
    if found is None:
        return "open"
    if math.isnan(found.challenger) or math.isnan(found.champion):
        return "yes" if not math.isnan(found.challenger) else "no"
    if found.rows < FEWEST_ROWS:  # so few rows show neither a difference nor that there is none
        return "open"
    if require == "better":
        return "yes" if found.lead.low > 0 else "no" if found.lead.high <= 0 else "open"
    margin = -max_drop * abs(found.champion)
    return "yes" if found.lead.low >= margin else "no" if found.lead.high < margin else "open"


def answer_to_itself(require: Require, found: Rivalry | None, max_drop: float) -> Answer:
    """The same where both are of one sweep. It chose the challenger over the champion, so the champion yields unless
    the challenger is shown to be worse."""
    if found is None or found.lead.high >= 0:
        return "yes"
    return answer(require, found, max_drop)


def decide(approve: Approve, found: Answer) -> Decision:
    """Who becomes champion now. Only a challenger that has shown what is required may; a person is asked as the file
    says."""
    if approve == "when_close":
        return {"yes": "champion", "open": "waits", "no": "refused"}[found]  # type: ignore[return-value]  # of Decision
    if found != "yes":
        return "refused"
    return "waits" if approve == "ask" else "champion"


def in_words(found: Rivalry) -> str:
    """The lead with its interval: `+0.0100 (-0.0020 to +0.0220 on the same 885 rows, p 0.1), within noise`."""
    lead = found.lead
    numbers = f"{lead.difference:+.4f} ({lead.low:+.4f} to {lead.high:+.4f} on the same {found.rows:,} rows, "
    word = "within noise" if not lead.is_beyond_noise else "better" if lead.difference > 0 else "worse"
    return f"{numbers}p {lead.p_value:.2g}), {word}{' beyond noise' * lead.is_beyond_noise}"
