"""The short sections that say how a sweep runs, ends and is shown: `finalists`, `trials`, `promote`, `report_to`,
`experiment`."""

from __future__ import annotations

from typing import get_args

from hpo.config.finalists import Finalists
from hpo.config.keys import SWEEP_NAME, Described, Flag, Group, Number, OneOf, Text, Value, Whole, read_all
from hpo.config.promotion import Approve, AuthorSays, Promote, ReleasedAs, Require
from hpo.config.sweep_config import RetryPolicy
from hpo.config.yaml_source import Section
from hpo.errors import did_you_mean
from hpo.paths import NAME_PATTERN
from trainers.protocol.catalog import TASKS
from trainers.protocol.requests import Prefer
from trainers.protocol.variants import Target

VIEWS = ("mlflow", "tensorboard")
"""What `report_to` may name."""
WITHOUT_AGREEMENT = ("regression", "text-similarity")
"""These tasks answer with numbers, and two numbers are hardly ever the same."""
_SWITCHES = {"on": "true", "yes": "true", "off": "false", "no": "false"}
"""What YAML 1.1 takes for true and false, and YAML 1.2 for text."""

FINALISTS = Group(
    "finalists", None, "repeats of the best trials; `true` for the defaults below", shown="false", short=("boolean",),
    keys=(
        Whole("top", 3, "how many of the best complete trials; the baseline comes on top", low=1, high=100),
        Whole("seeds", 3, "most trainings of each, with seeds that the search has not used; from 2", low=2, high=100),
        OneOf("claim", "recipe",
              "what is said to be better than the baseline: the `recipe` (its settings, whatever the seed), or the "
              "`adapter` (the one that the search trained, which takes no repeats)",
              choices=("recipe", "adapter")),
    ),
)  # fmt: skip
TRIALS = Group(
    "trials", None, "what trials may take of the machine, and what the sweep does before it gives one up",
    keys=(
        Whole("retries", 2, "further attempts after a crash, an interruption or a stall, each from the last checkpoint",
              low=0, high=1000),
        Number("stall_minutes", 30,
               "a trial that makes no progress for so long is hung: it is ended and tried again", above=0),
        Number("memory_gb", None,
               "most memory in GB (2^30 bytes) of all trials at a time, or of those on one GPU; left out, what is free",
               above=0),
    ),
)  # fmt: skip
CARD = Group(
    "card", None, "what only you know, for the model card (`README.md` of the release)",
    keys=(
        Text("intended_use", None, "the purpose of the model, and who may use it"),
        Text("licence", None, "the licence of the release, as the hub writes it: `apache-2.0`"),
    ),
)  # fmt: skip
PROMOTE = Group(
    "promote", None,
    "`false` ends the sweep at the champion. Left out, a champion that can never be released (see `hpo check`) stays "
    "an adapter; written, it is an error before the first trial",
    shown="true", short=("boolean",),
    keys=(
        Described("name", None, "name in the model registry", shown="the sweep's", described=SWEEP_NAME),
        OneOf("as", "merged",
              "the adapter becomes part of the weights (`merged`), or stays a small file beside the base model, which "
              "is exported once in fp32 (`adapters`; see `hpo bundle`)",
              choices=get_args(ReleasedAs)),
        Whole("top", 0, "with `as: adapters`, how many of the best other complete trials become adapters too",
              low=0, high=100),
        Number("max_drop", 0.01,
               "largest worsening of the metric against PyTorch, as a share of its value, that a variant may show; it "
               "is measured on as many validation rows as show that with an error of at most 1 %, else on all",
               low=0, below=1),
        Number("min_agreement", None,
               "smallest share of answers that are PyTorch's: labels, or the likeliest tokens (tags) of the first rows",
               above=0, below=1),
        Number("max_latency_ms", None, "largest median time of one answer, in milliseconds on this machine",
               above=0),
        Number("max_size_mb", None, "largest size of the release folder, in MB", above=0),
        OneOf("prefer", "latency",
              "which variant is released of those that passed: the fastest (`latency`), the smallest (`size`), or the "
              "one whose logits are nearest to PyTorch's (`quality`)",
              choices=get_args(Prefer)),
        OneOf("target", "cpu",
              "what the release is made for and measured on; `cuda` needs onnxruntime-gpu, and makes fp32 and fp16",
              choices=get_args(Target)),
        OneOf("require", "better",
              "what a release must show to become the champion of a name that has one, both answering the same "
              "validation rows: `better` beyond noise, `not_worse` by more than `max_drop` (a share of the champion's "
              "value), or nothing (`always`)",
              choices=get_args(Require)),
        OneOf("approve", "auto",
              "who gives it the alias `champion` then: nobody is asked (`auto`), you are (`ask`: it is `challenger` "
              "until `hpo approve`), or you are only where the rows do not tell (`when_close`)",
              choices=get_args(Approve)),
        Flag("replace", False, "`true` is the earlier spelling of `require: always`"),
        Flag("allow_useless", False,
             "release a champion that is no better than always answering the mean of the values, or the most frequent "
             "label(s)"),
        CARD,
    ),
)  # fmt: skip
REPORT_TO = Described(
    "report_to", None,
    "`[tensorboard]` writes event files below the home, in `tensorboard/NAME`, for trials from then on; MLflow is "
    "always written and may be named too",
    shown="[]", described={"type": ["array", "null"], "items": {"enum": list(VIEWS)}},
)  # fmt: skip
EXPERIMENT = Described(
    "experiment", None,
    "MLflow experiment that this sweep shares with all others that name it; a sweep that has runs stays where they are",
    shown="one of its own", described={**SWEEP_NAME, "type": ["string", "null"]},
)  # fmt: skip


def parse_name(section: Section, default: str) -> str:
    """Read `name:`, of a sweep or of what it releases."""
    name = section.text("name", default) or default
    if not NAME_PATTERN.fullmatch(name):
        section.got(name, "expected letters, digits, '.', '_' and '-'", "name")
    return name


def parse_finalists(root: Section) -> Finalists | None:
    """Read `finalists:`; None where it is off."""
    if root.raw("finalists") is None or (section := _switched(root, "finalists")) is None:
        return None
    finalists = Finalists(**read_all(section, FINALISTS.keys))
    section.finish()
    return finalists


def parse_trials(root: Section) -> tuple[RetryPolicy, float | None]:
    """Read `trials:`: (what is tried again, the memory that trials may take in GB)."""
    section = root.section("trials")
    given = read_all(section, TRIALS.keys)
    section.finish()
    return RetryPolicy(given["retries"], float(given["stall_minutes"])), given["memory_gb"]


def promote_by_default(name: str) -> Promote:
    """What an empty `promote:` means."""
    return Promote.of(name, AuthorSays(), {key.name: key.default for key in PROMOTE.keys if isinstance(key, Value)})


def parse_promote(root: Section, name: str, task: str) -> Promote | None:
    """Read `promote:`, by default the champion under the sweep's `name`."""
    if (section := _switched(root, "promote")) is None:
        return None
    promoted = parse_name(section, name) if "name" in section else name
    card = section.section("card")
    said = AuthorSays(**read_all(card, CARD.keys))
    card.finish()
    promote = Promote.of(promoted, said, read_all(section, PROMOTE.keys))
    if promote.replace and "require" in section and promote.require != "always":
        section.problem(f"conflicts with require: {promote.require}", "true means require: always", "replace")
    if promote.min_agreement is not None and task in WITHOUT_AGREEMENT:
        section.problem(f"is given, but {task} answers with numbers", "leave it out; max_drop limits the metric",
                        "min_agreement")  # fmt: skip
    if task in TASKS and not TASKS[task].variants[promote.target]:
        section.problem(f"is {promote.target}, but releases of {task} are made for cpu alone", "write cpu", "target")
    if promote.target != "cpu" and promote.is_adapters:
        section.problem(f"is {promote.target}, but as: adapters is made for cpu alone", "write cpu", "target")
    if promote.top and not promote.is_adapters:
        section.problem(f"is {promote.top}, but a merged release holds one trial", "write as: adapters too", "top")
    section.finish()
    return promote


def parse_report_to(root: Section) -> tuple[str, ...]:
    """Read `report_to:`, where trials are shown; MLflow has them in any case."""
    given = root.raw("report_to")
    if given is None:
        return ()
    if not isinstance(given, list):
        root.got(given, "expected a list, e.g. [tensorboard]", "report_to")
        return ()
    for name in given:
        if name not in VIEWS:
            root.got(name, did_you_mean(str(name), VIEWS), "report_to")
    return tuple(name for name in VIEWS if name in given)


def parse_experiment(root: Section) -> str | None:
    """Read `experiment:`; None where the sweep has one of its own."""
    name = root.text("experiment", None)
    if name is not None and not NAME_PATTERN.fullmatch(name):
        root.got(name, "expected letters, digits, '.', '_' and '-'", "experiment")
    return name


def _switched(root: Section, key: str) -> Section | None:
    """A section that `false` turns off, and that `true` leaves at its defaults."""
    given = root.raw(key)
    if isinstance(given, str) and (meant := _SWITCHES.get(given.lower())):
        root.got(given, f"write {meant}", key)
        return None
    if given is False:
        return None
    return root.child(key, {}) if given is True else root.section(key)
