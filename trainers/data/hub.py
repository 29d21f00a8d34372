"""Downloads from the hub: a model's files and the rows of data sets; explains in plain words what fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainers.data.formats.base import DataProblem, Entry, Reading, cut, refused
from trainers.data.formats.columnar import entries_of_batches
from trainers.protocol.trial_spec import SourceRef

BATCH = 1024
"""Rows that are read at a time."""


def download_model(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Download a model's files into the hub's cache and return their folder; files that are there are kept.

    Raises `DataProblem` where that fails.
    """
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the hub client raises many kinds of errors
        raise _problem("model", repo, revision, error) from error


def hub_entries(source: SourceRef, role: str, reading: Reading) -> Iterator[Entry]:
    """The rows of a data set's split, numbered from 1. Raises `DataProblem` where they cannot be downloaded."""
    import datasets

    split = source.split or role
    try:
        rows = datasets.load_dataset(source.source, name=source.config, revision=source.revision, split=split)
    except Exception as error:  # as above
        raise _problem(f"data.{role}", source.source, source.revision, error) from error
    if source.revision is not None:
        _check_commit(source.source, source.revision, rows, role)
    batches = (batch for table in rows.with_format("arrow").iter(BATCH) for batch in table.to_batches())
    return entries_of_batches(f"{source.source}[{split}]", rows.features.arrow_schema, batches, reading)


def _check_commit(repo: str, revision: str, rows: Any, role: str) -> None:
    """Raise `DataProblem` where rows are of another revision: without a connection `datasets` uses the latest revision
    in its cache, not the requested one."""
    loaded = {Path(file["filename"]).parent.name for file in rows.cache_files}
    if loaded and loaded != {_commit_of(repo, revision)}:
        found = f"{repo}: revision {revision!r} is not in the cache of this machine, and the hub cannot be reached"
        raise refused(f"data.{role}", found, "a connection, or a revision that was used here before")


def _commit_of(repo: str, revision: str) -> str:
    """The commit of a branch or tag, from the hub, or from the cache where the hub cannot be reached."""
    import huggingface_hub

    try:
        return str(huggingface_hub.HfApi().dataset_info(repo, revision=revision, timeout=10).sha)
    except Exception:  # noqa: BLE001  # the hub client raises many kinds of errors; then the cache decides
        folder = huggingface_hub.file_download.repo_folder_name(repo_id=repo, repo_type="dataset")
        ref = Path(huggingface_hub.constants.HF_HUB_CACHE, folder, "refs", revision)
        return ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision


def splits_of(source: SourceRef) -> list[str]:
    """The names of a data set's splits. Raises `DataProblem` where the hub does not give them."""
    import datasets

    try:
        return list(datasets.get_dataset_split_names(source.source, source.config, revision=source.revision))
    except Exception as error:  # as above
        raise _problem("data.train", source.source, source.revision, error) from error


def _problem(where: str, repo: str, revision: str | None, error: BaseException) -> DataProblem:
    """Why a download fails, and what to do."""
    found, expected = _in_plain_words(where, repo, revision, error)
    return refused(where, f"{repo}: {_without_token(found)}", _without_token(expected))


def _in_plain_words(where: str, repo: str, revision: str | None, error: BaseException) -> tuple[str, str]:
    import huggingface_hub
    from huggingface_hub import errors

    causes = list(_causes(error))

    def is_any(*kinds: type[BaseException], said: str | None = None) -> bool:
        """Whether any cause is of these kinds; `datasets` drops causes, so its message is searched for `said` too."""
        return any(isinstance(cause, kinds) for cause in causes) or (said is not None and said in str(error))

    statuses = [cause.response.status_code for cause in causes if isinstance(cause, errors.HfHubHTTPError)]
    has_token = huggingface_hub.get_token() is not None
    page = f"{huggingface_hub.constants.ENDPOINT}/{'' if where == 'model' else 'datasets/'}{repo}"
    if is_any(errors.GatedRepoError, said="is a gated dataset"):
        login = "the account of your HF_TOKEN" if has_token else "your account, and set HF_TOKEN to a token of it"
        return "is gated: its terms have to be accepted first", f"accept them at {page} with {login}"
    if 401 in statuses and has_token:
        return "the hub does not accept your HF_TOKEN", "a valid token, or no token for public models and data"
    if is_any(errors.RepositoryNotFoundError, said="doesn't exist on the Hub or cannot be accessed"):
        kind = "model" if where == "model" else "data set"
        token = "your HF_TOKEN must be allowed to read it" if has_token else "set HF_TOKEN"
        found = f"no such file or folder beside the YAML, and the hub has no such {kind}, or it is private"
        return found, f"check the name; where it is private, {token}"
    if is_any(errors.RevisionNotFoundError, said=f"Revision '{revision}' doesn't exist"):
        return f"has no revision {revision!r}", f"a branch, tag or commit of {page}"
    if is_any(errors.OfflineModeIsEnabled) or "OfflineModeIsEnabled" in str(error):
        found = "no such file or folder beside the YAML, and not in the cache of this machine: HF_HUB_OFFLINE is set"
        return found, "unset it, or a file or folder"
    if is_any(errors.LocalEntryNotFoundError, ConnectionError) or _is_unreachable(causes):
        found = "no such file or folder beside the YAML, and the hub cannot be reached"
        return found, "a file or folder, or try again with a connection: complete files are kept"
    if "any data file" in str(error):
        return "has no data files, or not those that its README names", f"look at its files: {page}/tree/main"
    first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return cut(first_line), "a file, a folder or a reachable hub id, its config and split"


def _is_unreachable(causes: Sequence[BaseException]) -> bool:
    """Whether the client's HTTP library (httpx or another one) had no connection or lost it."""
    return any(kind.__name__ == "TransportError" for cause in causes for kind in type(cause).__mro__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _without_token(text: str) -> str:
    import huggingface_hub

    token = huggingface_hub.get_token()
    return text.replace(token, "***") if token else text
