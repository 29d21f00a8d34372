"""Makes the folder of a demo model or data set from the extracted files. Each converter returns its counts."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hpo.demo import program
from hpo.demo.archive import extract
from hpo.errors import FetchError

_MIN_ABS_RATING = 0.5
_MIN_TURNS = 4


def _copy_files(raw: Path, built: Path, _name: str) -> Mapping[str, int]:
    for file in raw.iterdir():
        shutil.copyfile(file, built / file.name)
    return {}


def _convert_model(raw: Path, built: Path, name: str) -> Mapping[str, int]:
    """Convert GGUF to a safetensors folder in a separate process: this one never loads torch."""
    (source,) = raw.glob("*.gguf")
    # Started in the folder of both packages, so that it works from a checkout and from any current folder.
    packages = Path(__file__).resolve().parents[2]
    done = program.run([sys.executable, "-m", "trainers.convert_gguf", str(source), str(built)], packages)
    if done.returncode != 0:
        log = built.parents[1] / f"{name}.log"
        log.write_text(done.stdout, encoding="utf-8")
        last = (done.stdout.strip().splitlines() or ["the converter printed nothing"])[-1]
        raise FetchError(f"could not convert {source.name}: {last} (its whole output is in {log})")
    return {}


def _vader_movie(raw: Path, built: Path, name: str) -> Mapping[str, int]:
    """Rows of tab-separated id, mean rating from -4 to 4, and text; ratings near zero have no class and are dropped."""
    member = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    extract(raw / "ratings.tar.gz", {member: "ratings.tsv"}, raw)
    lines = (raw / "ratings.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    kept: list[Mapping[str, Any]] = []
    for number, mean, text in (line.split("\t") for line in lines):
        rating = float(mean)
        if abs(rating) >= _MIN_ABS_RATING:
            label = "positive" if rating > 0 else "negative"
            kept.append({"id": number, "text": text.strip(), "label": label, "rating": rating})
    _write_jsonl(built / f"{name}.jsonl", kept)
    return {"rows": len(kept), "dropped": len(lines) - len(kept)}


def _chitchat(raw: Path, built: Path, name: str) -> Mapping[str, int]:
    conversations = json.loads((raw / "dataset.json").read_text(encoding="utf-8")).values()
    kept = [{"messages": turns} for turns in map(_turns, conversations) if len(turns) >= _MIN_TURNS]
    _write_jsonl(built / f"{name}.jsonl", kept)
    return {"rows": len(kept), "dropped": len(conversations) - len(kept)}


def _newsgroups(raw: Path, built: Path, name: str) -> Mapping[str, int]:
    """Rows of tab-separated group and text, after three header lines."""
    lines = (raw / "train.tab").read_text(encoding="utf-8").split("\n")[3:]
    rows = [dict(zip(("label", "text"), line.split("\t"), strict=True)) for line in lines if line.strip()]
    kept = [row for row in rows if row["text"].strip()]
    _write_jsonl(built / f"{name}.jsonl", kept)
    return {"rows": len(kept), "dropped": len(rows) - len(kept)}


def _turns(conversation: Mapping[str, Any]) -> list[dict[str, str]]:
    """Turns that alternate between user and assistant and end with the assistant; empty unless two people speak."""
    said = [message for group in conversation["messages"] for message in group if message["text"].strip()]
    if len({message["sender"] for message in said}) != 2:
        return []
    speeches = [
        "\n".join(message["text"].strip() for message in group)
        for _, group in itertools.groupby(said, key=lambda message: message["sender"])
    ]
    roles = itertools.cycle(("user", "assistant"))
    complete = speeches[: len(speeches) // 2 * 2]
    return [{"role": role, "content": content} for role, content in zip(roles, complete, strict=False)]


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


CONVERTERS: Mapping[str, Callable[[Path, Path, str], Mapping[str, int]]] = {
    "copy_files": _copy_files,
    "convert_model": _convert_model,
    "vader_movie": _vader_movie,
    "chitchat": _chitchat,
    "newsgroups": _newsgroups,
}
