"""Finds the split of each file from the names of files and folders, as the hub does.

Examples are `train.csv`, `data/validation/x.csv` and `test-00000-of-00002.parquet`.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainers.data.formats.base import DataProblem, names
from trainers.data.source_files import files_of
from trainers.protocol.events import Finding

KEYWORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "eval", "evaluation": "eval",
}  # fmt: skip
"""The keywords of `datasets`."""
WAY_OUT = "rename or move them, or name the files of each split under data"
MOST_FILES = 3
"""Files that a message names for each split."""
_WORD = re.compile(rf"(?:^|[-._ 0-9])({'|'.join(KEYWORDS)})(?=[-._ 0-9]|$)", re.IGNORECASE)
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}\b.*")
"""`unsupervised-00000-of-00003.parquet`: how the hub writes a split of any name."""


@dataclass(frozen=True)
class SplitFiles:
    """The files of several splits in one folder, or of one pattern."""

    source: str
    splits: Mapping[str, Sequence[Path]]
    """train, validation, test -> files."""
    others: Sequence[Path]
    """Files of other splits, which are not used."""

    def __str__(self) -> str:
        said = [f"{_named(self.source, files)} {split}" for split, files in self.splits.items()]
        said += [f"{_named(self.source, self.others)} left out"] if self.others else []
        return f"{self.source} has files of several splits: {', '.join(said)}"


@dataclass(frozen=True)
class _Name:
    """The split of a file, from its name and the names of its folders."""

    file: Path
    splits: frozenset[str]
    """The splits of the keywords in the names; several where they contradict each other."""
    whole: str | None
    """The name of the split, where the format of the file's name is certain."""
    is_plain: bool
    """Whether the keyword is the whole name of the file or of a folder."""


def split_files(source: str) -> SplitFiles | None:
    """The splits of a source's files; None where all are of one split, or names do not say it.

    Raises `DataProblem` where a name stands for several splits, or only some names stand for a split.
    """
    base = _base(source)
    found = [_name(file, base) for file in files_of(Path(source))]
    said = {name.splits for name in found}
    if len(said) < 2:
        return None
    others = [name.file for name in found if not name.splits and name.whole]
    unnamed = [name.file for name in found if not name.splits and not name.whole]
    if len(said) == 2 and unnamed and not any(name.is_plain for name in found):
        return None  # `The Test of Time.txt` among other books
    problems = [
        *_doubts(source, [name.file for name in found if len(name.splits) > 1], "named after several splits"),
        *_doubts(source, unnamed, "named after no split, while other files are"),
        *_kinds(source, found),
    ]
    splits: dict[str, list[Path]] = {split: [] for split in ("train", "validation", "test", "eval")}
    for name in found:
        for split in name.splits:
            splits[split].append(name.file)
    splits = {split: files for split, files in splits.items() if files}
    if "eval" in splits:
        role = role_of_eval(splits)
        if role is None:
            problems += _doubts(source, splits["eval"], "named eval, beside validation and test")
        else:
            splits[role] = splits.pop("eval")
    if problems:
        raise DataProblem(problems)
    return SplitFiles(source, splits, others)


def role_of_eval(splits: Collection[str]) -> str | None:
    """The split that `eval` stands for: validation, or test where there is a validation split; None beside both."""
    return next((role for role in ("validation", "test") if role not in splits), None)


def _name(file: Path, base: Path) -> _Name:
    parts = [*file.relative_to(base).parts[:-1], file.stem]
    words = {word.lower() for part in parts for word in _WORD.findall(part)}
    shard = _SHARD.fullmatch(file.stem)
    is_saved = len(parts) > 1 and (base / "dataset_dict.json").is_file()  # by `datasets`: a folder for each split
    return _Name(
        file,
        splits=frozenset(KEYWORDS[word] for word in words),
        whole=shard[1] if shard else parts[0] if is_saved else None,
        is_plain=any(part.strip("-._ 0123456789").lower() in KEYWORDS for part in (*parts, shard[1] if shard else "")),
    )


def _base(source: str) -> Path:
    """The folder, or the part of a pattern before its first wildcard."""
    path = Path(source)
    while glob.has_magic(str(path)) and not path.exists():
        path = path.parent
    return path if path.is_dir() else path.parent


def _doubts(source: str, files: Sequence[Path], found: str) -> list[Finding]:
    return [Finding(source, f"{_named(source, files)} {found}", WAY_OUT)] if files else []


def _kinds(source: str, found: Sequence[_Name]) -> list[Finding]:
    """Findings for splits with one keyword but several names, such as `train_sft` and `train_gen`."""
    problems = []
    for split in ("train", "validation", "test"):
        kinds = sorted({name.whole for name in found if name.splits == {split} and name.whole})
        if len(kinds) > 1:
            expected = f"a pattern for one of them, e.g. {kinds[0]}-*"
            problems.append(Finding(source, f"has several splits for {split}: {names(kinds)}", expected))
    return problems


def _named(source: str, files: Sequence[Path]) -> str:
    """The names of the first files below their folder, the number of the others, and `is` or `are`."""
    shown = names([str(file.relative_to(_base(source))) for file in files[:MOST_FILES]])
    more = f" and {len(files) - MOST_FILES:,} more" if len(files) > MOST_FILES else ""
    return f"{shown}{more} {'are' if len(files) > 1 else 'is'}"
