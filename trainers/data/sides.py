"""The side of a row for ever: train, validation, certify or test by a hash of its input, or held out as it once was"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainers.data.formats.base import DataProblem
from trainers.protocol.codec import RECORD_FORMAT, from_file, to_file
from trainers.protocol.counted import counted
from trainers.protocol.events import Finding
from trainers.protocol.files import write_atomically

SIDES = ("train", "certify", "validation", "test")
"""A row that could be on several is on the last of them. So no row that chose a model, as those of validation do, can
certify one later."""
HALVED = "certify"
"""Half of the rows that are held out for validation are on this side instead, and no search ever sees them."""
DRAWN = ("test", "validation")
"""In the order in which rows are drawn: validation gets its share of what test leaves."""
_BITS = 64
_MARKS = {"certify": "c", "validation": "v", "test": "t"}
_SIDE_OF = {mark: side for side, mark in _MARKS.items()}


def hash_of(content: Hashable) -> str:
    """32 hex digits of a text, or of texts in tuples: the same in every process and on every machine."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def strictest(sides: Iterable[str]) -> str:
    """The one of several sides that a row is on."""
    return max(sides, key=SIDES.index)


@dataclass(frozen=True)
class Input:
    """What a row is recognised by, whatever else of it changes."""

    hash: str
    earlier: tuple[str, ...] = ()
    """Hashes that it may have had before its text grew."""


@dataclass(frozen=True)
class Rule:
    """Draws a side from nothing but a row's input, so that rows that come, go or move change no other row's side."""

    seed: int
    shares: dict[str, float] = field(default_factory=dict)
    """Split -> its share of the rows; without those that have files of their own."""
    asked: dict[str, float] = field(default_factory=dict)
    """Their sizes as `data` had them when the shares were fixed."""
    format: int = RECORD_FORMAT

    def side(self, row: Input) -> str:
        """The side of a row that no file holds out."""
        drawn = (split for split in DRAWN if self._draws(split, row.hash, self.shares.get(split, 0.0)))
        return self.side_in(next(drawn, "train"), row)

    def side_in(self, split: str, row: Input) -> str:
        """The side of a row of a split: validation has two."""
        return HALVED if split == "validation" and self._draws(HALVED, row.hash, 0.5) else split

    def _draws(self, side: str, digest: str, share: float) -> bool:
        drawn = hashlib.sha256(f"{self.seed} {side} {digest}".encode()).digest()
        return int.from_bytes(drawn[: _BITS // 8], "big") < share * (1 << _BITS)


@dataclass
class Standing:
    """What decides sides: the rule, and every row that was ever held out."""

    rule: Rule
    held_out: dict[str, str] = field(default_factory=dict)
    """Hash of an input -> its side, which is not train."""

    def sides(self, rows: Iterable[tuple[Input, str]]) -> dict[str, str]:
        """Hash of an input -> its side, for rows with the split whose source they stand in. Equal inputs have one.

        Only rows that stand in train alone, and were never held out, are drawn.
        """
        every = list(rows)
        named: dict[str, set[str]] = {row.hash: set() for row, _ in every}
        for row, given in every:
            before = {self.held_out[known] for known in (row.hash, *row.earlier) if known in self.held_out}
            named[row.hash] |= before | ({self.rule.side_in(given, row)} - {"train"})
        return {row.hash: strictest(named[row.hash] or [self.rule.side(row)]) for row, _ in every}

    def hold_out(self, sides: Mapping[str, str]) -> None:
        """Remember rows that are held out from now on."""
        self.held_out.update((digest, side) for digest, side in sides.items() if side != "train")


@dataclass(frozen=True)
class StandingFiles:
    """The two files that outlive every night of a name."""

    dir: Path

    @property
    def rule(self) -> Path:
        """The rule, as it was when the first rows were frozen."""
        return self.dir / "split.json"

    @property
    def held_out(self) -> Path:
        """A line for each row that was ever held out: `c`, `v` or `t`, and the hash of its input."""
        return self.dir / "held-out.txt"

    def read(self) -> Standing | None:
        """None before the first rows are frozen. Raises `DataProblem` for a damaged file, and for lost rows."""
        if not self.rule.exists():
            return None
        try:
            rule = from_file(Rule, self.rule.read_text(encoding="utf-8"))
            lines = self.held_out.read_text(encoding="utf-8").splitlines()
            return Standing(rule, {line[2:]: _SIDE_OF[line[0]] for line in lines})
        except (OSError, ValueError, LookupError) as error:
            found = f"cannot be read: {error!s:.100}"
            expected = "the file from a backup; without it, rows that were held out could be trained on"
            raise DataProblem([Finding(str(self.dir), found, expected)]) from error

    def write(self, standing: Standing) -> None:
        """Write both files, the rows first: a rule without its rows would let them go. Raises `OSError`."""
        self.dir.mkdir(parents=True, exist_ok=True)
        lines = sorted(f"{_MARKS[side]} {digest}\n" for digest, side in standing.held_out.items())
        write_atomically(self.held_out, "".join(lines))
        write_atomically(self.rule, to_file(standing.rule))


def rule_for(
    sizes: Mapping[str, float], seed: int, rows: int, given: Collection[str], before: Rule | None
) -> tuple[Rule, list[Finding]]:
    """The rule for `rows` different rows of train: a size from 1 on, a number of rows, becomes the share that it is
    now. What an earlier rule says stays.

    `given` are the splits with a source of their own. Also findings for sizes that leave nothing to train on.
    """
    shares = dict(before.shares) if before else {}
    asked = dict(before.asked) if before else {}
    findings, left = [], rows
    for split in DRAWN:
        if split not in given and split not in shares:
            size = asked[split] = sizes[split]
            shares[split] = size if size < 1 else size / max(1, left)
            if shares[split] >= 1:
                found = f"asks for {size:,.0f} of {counted(left, 'different row')}"
                findings.append(Finding(f"data.{split}_size", found, "a smaller number, or a share such as 0.1"))
        left -= round(min(1.0, shares.get(split, 0.0)) * left)
    return Rule(before.seed if before else seed, shares, asked), findings
