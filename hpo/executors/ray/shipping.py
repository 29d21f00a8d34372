"""What goes to a node with a request: inputs once, the files of its trials each time, and devices that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.executors.base import Place
from hpo.executors.ray.content import (
    Content,
    adapter_content,
    code_content,
    model_content,
    trial_content,
    whole_content,
)
from hpo.executors.ray.copies import FolderCopy, Stamp
from hpo.executors.ray.translation import Translation

Message = dict[str, Any]
WHOLE = "-"
"""In place of a trial's number: the request itself."""


@dataclass(frozen=True)
class Shipped:
    """A request whose files are on the node."""

    request: Message
    """With the node's paths."""
    translation: Translation
    copies: Mapping[str, FolderCopy]
    """Folder on the node -> its copy here."""
    writes: Mapping[str, str]
    """Trial (`WHOLE` for the request) -> the folder on the node that it writes to."""
    folders: list[str]
    """On the node; they go when the request is over."""


class Shipping:
    """Sends to one node. `ask` calls a method of its actor and waits for the answer."""

    def __init__(self, home: str, session: str, ask: Callable[..., Any]) -> None:
        self._home = home
        self._session = session
        self._ask = ask
        self._sent: dict[str, str] = {}
        """Key of inputs -> their folder on the node."""

    def ship(self, request_id: int, request: Message) -> Shipped:
        """Send the files that a request needs. Raises `OSError` where one cannot be read here."""
        specs = [*request.get("specs", ()), *([request["spec"]] if request.get("spec") else ())]
        folders = self._inputs_of(request, (request if "workload" in request else specs[0])["workload"])
        copies: dict[str, FolderCopy] = {}
        writes: dict[str, str] = {}
        theirs: list[str] = []
        if request["type"] in ("Train", "Score"):
            for spec in specs:
                there = f"{self._session}/trials/{request_id}-{spec['number']}"
                folders[spec["dir"]] = there
                theirs.append(there)
                here = Path(spec["dir"])
                if request["type"] == "Score":
                    self._bring(adapter_content(here), there)
                else:
                    copies[there] = FolderCopy(here, there, self._bring(trial_content(here), there))
                    writes[str(spec["number"])] = there
        else:  # what is measured writes aside, on the disk of trials, and keeps nothing
            folders.update({spec["dir"]: self._session for spec in specs})
        if rows := request.get("rows_file"):
            there = f"{self._session}/scores/{request_id}"
            folders[rows] = f"{there}/{Path(rows).name}"
            theirs.append(there)
            copies[there], writes[WHOLE] = FolderCopy(Path(rows).parent, there, {}), there
        translation = Translation(folders)
        return Shipped(translation.there(request), translation, copies, writes, theirs)

    def _inputs_of(self, request: Message, workload: Message) -> dict[str, str]:
        """Folders here that a request reads -> where the node has them."""
        inspection = request.get("inspection") or {}
        folders = {workload["cache_dir"]: f"{self._home}/cache"}
        if model := inspection.get("model_dir"):
            folders[model] = self._inputs(model_content(Path(model)))
            if Path(workload["model"]["source"]).is_absolute():
                folders[workload["model"]["source"]] = folders[model]
        if tokens := inspection.get("tokens_dir"):
            folders[tokens] = self._inputs(whole_content(Path(tokens)))
        if adapter := workload["model"].get("adapter"):
            folders[adapter] = self._inputs(whole_content(Path(adapter)))
        if (code := workload["code_dir"]) and (own := code_content(Path(code), request)).files:
            folders[code] = self._inputs(own)
        return folders

    def _inputs(self, content: Content) -> str:
        """The folder on the node that has the content; brought there where it is not."""
        if content.key not in self._sent:
            folder = f"{self._home}/inputs/{content.key}"
            if not self._ask("use", content.key):
                self._bring(content, folder)
                self._ask("use", content.key)
            self._sent[content.key] = folder
        return self._sent[content.key]

    def _bring(self, content: Content, folder: str) -> Mapping[str, Stamp]:
        """Put files into a folder on the node; returns the stamps that they have there."""
        if not content.files:
            return {}
        scratch = self._ask("begin")
        for name, piece in content.pieces():
            self._ask("take", scratch, name, piece)
        stamps: Mapping[str, Stamp] = self._ask("finish", scratch, content.hashes, folder)
        return stamps


def for_devices_of(place: Place, request: Message) -> Message:
    """The request for the devices of a node: the data was looked at on a machine with others. A trial has those of its
    slot; what runs outside any slot has the first ones, as many as it asks for where there are so many."""

    def first(wanted: int) -> list[str]:
        return [f"cuda:{gpu}" for gpu in range(min(wanted, place.gpus))] if place.gpus else ["cpu"] * wanted

    changed = dict(request)
    if request.get("inspection"):
        changed["inspection"] = {
            **request["inspection"], "gpus": place.gpus, "gpu_memory_mb": place.gpu_memory_mb
        }  # fmt: skip
    if "threads" in request:
        changed["threads"] = min(request["threads"], place.cores)
    if "devices" in request:
        changed["devices"] = first(len(request["devices"]))
    for name in ("spec", "decide_for"):
        if request.get(name):
            changed[name] = {**request[name], "devices": first(len(request[name]["devices"]))}
    return changed
