"""MLflow's Model Registry: a variant that passed the gate becomes a registered version; who is champion comes after.

The registered model is a pyfunc model from code: `mlflow_model.py`, which MLflow runs, and the release folder with its
own `runtime/`. Nothing is pickled, and this project need not be installed to load it.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hpo.errors import UsageError
from hpo.executors.environment import installed
from hpo.paths import Home
from hpo.release.aliases import CHAMPION, Aliases, aliases_of, seats
from hpo.release.candidate import Candidate
from hpo.release.licences import Licence, licence_of
from hpo.release.logged_model import log_as_model
from hpo.release.model_card import CARD_FILE, CardFacts, Licences, model_card
from hpo.release.ruling import Ruling
from hpo.release.versions import ADAPTERS, Version, champion_of, check_name, version_of
from hpo.results.released import Release
from hpo.tracking.mlflow_store import client, quiet_mlflow
from trainers.runtime.card import Card

_AGAINST = "\n\nAgainst the champion: "
_MLFLOW_MODEL = Path(__file__).with_name("mlflow_model.py")


def register(home: Home, candidate: Candidate) -> Release:
    """Register the candidate's folder under `promote.name`, as a version without an alias."""
    assert candidate.config.promote is not None  # noqa: S101  # the caller promotes
    store, champion, chosen = client(home), candidate.champion, candidate.chosen
    card, name = Card.read(candidate.folder), candidate.config.promote.name
    write_card(home, candidate, card)
    source = log_model(store, champion.run_id, candidate.folder, card)
    ensure_registered(store, name)
    version = store.create_model_version(
        name, source=source, run_id=champion.run_id,
        tags={
            "variant": chosen.variant, "sweep": candidate.config.name, "trial": str(champion.number),
            **({ADAPTERS: str(len(card.adapters))} if card.adapters else {}),
        },
        description=chosen.reason,
    )  # fmt: skip
    log_as_model(home, store, version, {name: str(value) for name, value in champion.params.items()})
    return Release(
        name, str(version.version), f"models:/{name}/{version.version}", chosen.variant, champion.number,
        champion.run_id, card.example, candidate.config.promote.max_drop, candidate.config.promote.terms,
        candidate.config.promote.said,
    )  # fmt: skip


def write_card(home: Home, candidate: Candidate, card: Card) -> None:
    """Put manifest and model card into the candidate's folder."""
    assert candidate.config.promote is not None  # noqa: S101  # the caller promotes
    manifest, sources = candidate.manifest(), candidate.config.data.sources()
    manifest.write(candidate.folder)
    data = {split: Licence() if s.is_hub else licence_of(home, Path(s.source)) for split, s in sources.items()}
    licences = Licences(licence_of(home, Path(candidate.inspection.model_dir)), data)
    facts = CardFacts(
        candidate.config.promote.name, candidate.config, candidate.summary, manifest, candidate.chosen, card, licences
    )
    (candidate.folder / CARD_FILE).write_text(model_card(facts), encoding="utf-8")


def log_model(store: MlflowClient, run_id: str, folder: Path, card: Card) -> str:
    """Save a release folder as a pyfunc model among the artifacts of a run, and return its URI."""
    place = f"model-{uuid.uuid4().hex[:8]}"  # a new folder: the files of a version are never overwritten
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary, "model")
        _save_pyfunc(model, folder, card)
        store.log_artifacts(run_id, str(model), place)
    return f"{store.get_run(run_id).info.artifact_uri}/{place}"


def _save_pyfunc(model: Path, folder: Path, card: Card) -> None:
    requirements = ["numpy", "tokenizers", "onnxruntime"] + ([] if card.chat_template is None else ["jinja2"])
    quiet_mlflow()
    mlflow.pyfunc.save_model(
        path=str(model),
        python_model=str(_MLFLOW_MODEL),
        artifacts={"release": str(folder)},
        input_example=[card.example],
        pip_requirements=[f"{name}=={version}" for name, version in installed(requirements).items()],
    )


def ensure_registered(store: MlflowClient, name: str) -> None:
    """Register a name that is new."""
    try:
        store.get_registered_model(name)
    except MlflowException:
        store.create_registered_model(name)


def seat(home: Home, release: Release, rule_on: Callable[[Version | None], Ruling]) -> Release:
    """Give a version the alias that it has earned against the champion of its name; returned as it stands then.

    `rule_on` is asked again where another version has become champion meanwhile. A version that a person has made
    champion, or that was champion before, keeps its alias.
    """
    while True:
        incumbent = champion_of(home, release.name)
        known = aliases_of(home, release.name)
        if release.version in (known.champion, known.previous):
            return _seated(release, Ruling("champion", release.why, release.rivalry), known)
        ruling = rule_on(incumbent)
        with seats(home, release.name) as held:
            if held.now().champion != (incumbent and incumbent.version):
                continue
            if ruling.decision == "champion":
                held.crown(release.version)
            else:
                held.challenge(release.version, waits=ruling.decision == "waits")
            now = held.now()
        if ruling.why:
            _describe(home, release, ruling.why)
        return _seated(release, ruling, now)


def _seated(release: Release, ruling: Ruling, now: Aliases) -> Release:
    """A refused version has no alias where another one waits for a person as the challenger."""
    alias = now.of(release.version)
    place = f"@{alias}" if alias else f"/{release.version}"
    return replace(
        release, uri=f"models:/{release.name}{place}", decision=ruling.decision, why=ruling.why,
        rivalry=ruling.rivalry,
    )  # fmt: skip


def _describe(home: Home, release: Release, why: str) -> None:
    """Add the comparison to what MLflow's UI shows of a version."""
    store = client(home)
    gate, *_ = (store.get_model_version(release.name, release.version).description or "").split(_AGAINST)
    store.update_model_version(release.name, release.version, f"{gate}{_AGAINST}{why}")


def is_registered(home: Home, release: Release, say: Callable[[str], None]) -> bool:
    """Whether a version is still registered with its files; `say` gets a message where it was deleted in MLflow."""
    found = version_of(home, release.name, release.version)
    if found is not None and found.has_files():
        return True
    say(f"{release.name!r} version {release.version} was deleted in MLflow: releasing it again")
    return False


def give_back(home: Home, release: Release, say: Callable[[str], None]) -> None:
    """Give a released version its alias again, where no version has it any more."""
    if champion_of(home, release.name) is None:
        with seats(home, release.name) as held:
            held.crown(release.version)
        say(f"the alias {CHAMPION!r} of {release.name!r} was deleted in MLflow: giving it to version "
            f"{release.version} again")  # fmt: skip


def released_version(home: Home, name: str) -> Version:
    """The version `models:/NAME@champion`. Raises `UsageError` when there is none."""
    check_name(home, name)
    if found := champion_of(home, name):
        return found
    way = f"hpo approve {name} makes its challenger one; or run its sweep again, or set the alias in MLflow"
    raise UsageError(f"no version of {name!r} has the alias {CHAMPION!r}; {way}")
