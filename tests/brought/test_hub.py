"""The real clients of the hub against a stand-in on loopback: what comes, and what is said where nothing comes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.brought.hub import MEMBER_TOKEN, TOKEN, Hub, Repo, environment, oid_of, serving

ROOT = Path(__file__).parents[2]
MODEL = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"0123", "notes.bin": b"pickled"}
CHUNK = 10 << 20
"""Bytes that the client reads at a time: what breaks off within is lost."""
LARGE = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * (5 * CHUNK // 2 // 256)}
NOT_HERE = "no such file or folder beside the YAML, and"
NO_MODEL = f"org/smal: {NOT_HERE} the hub has no such model, or it is private"


def parquet(rows, names=None):
    import datasets

    label = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    buffer = io.BytesIO()
    datasets.Dataset.from_list(rows, features=features).to_parquet(buffer)
    return buffer.getvalue()


def reviews(split, label=1):
    rows = [{"text": f"{split} {n}", "label": label} for n in range(3)]
    return {f"data/{split}-00000-of-00001.parquet": parquet(rows, ["negative", "positive"])}


REPOS = {
    "models/org/small": Repo({"main": MODEL, "v1": {**MODEL, "config.json": b'{"model_type": "gpt2"}'}}),
    "models/org/secret": Repo({"main": MODEL}, is_private=True),
    "models/org/gated": Repo({"main": MODEL}, is_gated=True),
    "models/org/broken": Repo({"main": LARGE}),
    "models/org/broken-twice": Repo({"main": LARGE}),
    "datasets/org/reviews": Repo({
        "main": reviews("train") | reviews("validation", 0) | reviews("test"), "v1": reviews("train", 0),
    }),
    "datasets/org/contest": Repo({"main": reviews("train") | reviews("test", -1)}),
    "datasets/org/odd": Repo({"main": reviews("train") | reviews("dev")}),
    "datasets/org/empty": Repo({"main": {"README.md": b"nothing yet"}}),
    "datasets/org/missing": Repo({"main": {
        "README.md": b"---\nconfigs:\n- config_name: default\n  data_files: rows.csv\n---\n"
    }}),
    "datasets/org/secret": Repo({"main": reviews("train")}, is_private=True),
    "datasets/org/gated": Repo({"main": reviews("train")}, is_gated=True),
}  # fmt: skip


@pytest.fixture(scope="module")
def hub():
    with serving() as served:
        served.repos = REPOS
        yield served


@pytest.fixture(scope="module")
def ask(hub, tmp_path_factory):
    """Asks the client's process; what it prints besides its answers must name no token."""
    home = tmp_path_factory.mktemp("hub")
    with (home / "errors").open("w+") as errors:
        command = [sys.executable, "-m", "tests.brought.hub"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
        with subprocess.Popen(command, cwd=ROOT, env=environment(hub, home), **pipes) as client:

            def ask(what, token=None, **arguments):
                client.stdin.write(json.dumps({"what": what, "token": token, "arguments": arguments}) + "\n")
                client.stdin.flush()
                line = client.stdout.readline()
                errors.seek(0)
                said = errors.read()
                assert line, said
                assert "Traceback" not in said
                assert not any(secret in line + said for secret in (TOKEN, MEMBER_TOKEN, "hf_wrong"))
                return json.loads(line)

            yield ask


def oids(files):
    return {name: oid_of(content) for name, content in files.items()}


WANTED = {name: oid for name, oid in oids(MODEL).items() if name != "notes.bin"}


def finding(answer):
    [[where, found, expected]] = answer["findings"]
    return f"{where}: {found}; {expected}"


# --- models --------------------------------------------------------------------------------------------


def test_a_model_comes_with_the_files_that_are_asked_for(ask):
    files = ask("model", source="org/small")["answer"]
    assert files == WANTED
    files = ask("model", source="org/small", revision="v1")["answer"]
    assert files == {**WANTED, "config.json": oid_of(b'{"model_type": "gpt2"}')}


def test_a_private_model_comes_with_a_token(ask):
    told = finding(ask("model", source="org/secret"))
    assert told == (
        "model: org/secret: no such file or folder beside the YAML, and the hub has no such model, or it is private; "
        "check the name; where it is private, set HF_TOKEN"
    )  # fmt: skip
    assert set(ask("model", token=TOKEN, source="org/secret")["answer"]) == set(WANTED)


def test_a_gated_model_says_where_its_terms_are(ask, hub):
    page = f"{hub.endpoint}/org/gated"
    assert finding(ask("model", source="org/gated")) == (
        "model: org/gated: is gated: its terms have to be accepted first; "
        f"accept them at {page} with your account, and set HF_TOKEN to a token of it"
    )
    assert finding(ask("model", token=TOKEN, source="org/gated")).endswith(
        f"accept them at {page} with the account of your HF_TOKEN"
    )
    assert set(ask("model", token=MEMBER_TOKEN, source="org/gated")["answer"]) == set(WANTED)


@pytest.mark.parametrize(
    ("arguments", "token", "said"),
    [
        ({"source": "org/smal"}, None, f"{NO_MODEL}; check the name"),
        ({"source": "org/smal"}, TOKEN, f"{NO_MODEL}; check the name; where it is private, your HF_TOKEN must be"),
        ({"source": "org/small", "revision": "v9"}, None, "org/small: has no revision 'v9'; a branch, tag or"),
        ({"source": "org/small", "revision": "v9"}, "hf_wrong", "org/small: the hub does not accept your HF_TOKEN"),
        ({"source": "./org/small//x"}, None, "./org/small//x: "),
    ],
)  # fmt: skip
def test_what_does_not_come_is_said_with_the_way_out(ask, arguments, token, said):
    assert finding(ask("model", token=token, **arguments)).startswith(f"model: {said}")


def test_a_download_that_breaks_off_goes_on_where_it_broke(ask, hub):
    hub.ranges.clear()
    hub.cuts["model.safetensors"] = 1
    assert ask("model", source="org/broken")["answer"] == oids(LARGE)
    assert hub.ranges == [f"bytes={CHUNK}-"]


def test_a_download_that_keeps_breaking_is_said_and_whole_files_are_kept(ask, hub):
    hub.cuts["model.safetensors"] = 100
    told = finding(ask("model", source="org/broken-twice"))
    assert told.startswith(
        f"model: org/broken-twice: {NOT_HERE} the hub cannot be reached; a file or folder, or try again"
    )
    assert told.endswith("complete files are kept")
    hub.cuts.clear()
    hub.downloads.clear()
    assert ask("model", source="org/broken-twice")["answer"] == oids(LARGE)
    assert hub.downloads == ["model.safetensors"]


# --- data sets -----------------------------------------------------------------------------------------


def test_rows_of_a_data_set_keep_the_names_of_its_classes(ask):
    wanted = [{"text": f"train {n}", "label": "positive"} for n in range(3)]
    assert ask("data", source="org/reviews")["answer"] == wanted
    assert ask("data", source="org/reviews", split="train[1:2]")["answer"] == wanted[1:2]
    old = ask("data", source="org/reviews", revision="v1")["answer"]
    assert [row["label"] for row in old] == ["negative"] * 3


def test_a_data_set_brings_its_own_validation_and_test(ask):
    splits, notes = ask("splits", source="org/reviews")["answer"]
    assert splits == {"train": None, "validation": "validation", "test": "test"}
    assert notes == [f"data: {name} is the split {name} of org/reviews" for name in ("validation", "test")]
    assert ask("splits", source="org/odd")["answer"][0] == {"train": None, "validation": "dev"}


def test_a_test_set_without_labels_is_left_out(ask):
    splits, [note] = ask("splits", source="org/contest")["answer"]
    assert splits == {"train": None}
    assert note.startswith("data: the test rows of org/contest have no values in label")


def test_private_and_gated_data_sets(ask, hub):
    assert finding(ask("data", source="org/secret")) == (
        "data.train: org/secret: no such file or folder beside the YAML, and the hub has no such data set, or it is "
        "private; check the name; where it is private, set HF_TOKEN"
    )  # fmt: skip
    assert len(ask("data", token=TOKEN, source="org/secret")["answer"]) == 3
    told = finding(ask("data", token=TOKEN, source="org/gated"))
    assert f"accept them at {hub.endpoint}/datasets/org/gated" in told
    assert len(ask("data", token=MEMBER_TOKEN, source="org/gated")["answer"]) == 3


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"source": "org/empty"}, "org/empty: has no data files, or not those that its README names"),
        ({"source": "org/missing"}, "org/missing: has no data files, or not those that its README names"),
        ({"source": "org/nothing", "token": "hf_wrong"}, "org/nothing: the hub does not accept your HF_TOKEN"),
        ({"source": "org/nothing"}, f"org/nothing: {NOT_HERE} the hub has no such data set, or it is private"),
        ({"source": "org/reviews", "revision": "v9"}, "org/reviews: has no revision 'v9'"),
        ({"source": "org/reviews", "split": "dev"}, "org/reviews: Unknown split \"dev\". Should be one of ['train', "),
        (
            {"source": "org/reviews", "config": "en"},
            "org/reviews: BuilderConfig 'en' not found. Available: ['default']",
        ),
    ],
)
def test_a_data_set_that_does_not_come_is_said_with_the_way_out(ask, source, said):
    assert finding(ask("data", **source)).startswith(f"data.train: {said}")


def test_a_hub_that_is_not_there(tmp_path):
    code = "from trainers.model.source import model_folder as f, ModelRef; f(ModelRef('org/small'))"
    for endpoint, offline, said in (
        ("http://127.0.0.1:9", "0", f"org/small: {NOT_HERE} the hub cannot be reached"),
        ("http://127.0.0.1:9", "1", f"org/small: {NOT_HERE} not in the cache of this machine: HF_HUB_OFFLINE is set"),
    ):
        env = environment(Hub(endpoint=endpoint), tmp_path) | {"HF_HUB_OFFLINE": offline}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.stderr.splitlines()[-1].endswith(f"DataProblem: model: {said}")


def test_without_a_connection_no_other_revision_comes(hub, tmp_path):
    code = (
        "import sys\nfrom trainers.data.sources import DataProblem, read_rows\n"
        "from trainers.protocol.trial_spec import SourceRef\n"
        "for revision in (None, *sys.argv[1:]):\n"
        "    try: print(revision, read_rows(SourceRef('org/reviews', revision=revision), 'train', [])[0].values)\n"
        "    except DataProblem as problem: print(revision, problem)\n"
    )

    def said(*revisions, **changes):
        env = environment(hub, tmp_path) | changes
        command = [sys.executable, "-c", code, *revisions]
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    main = {"text": "train 0", "label": "positive"}
    assert said("main") == [f"None {main}", f"main {main}"]
    first, again, other = said("main", "v1", HF_HUB_OFFLINE="1")
    assert (first, again) == (f"None {main}", f"main {main}")
    assert other.startswith("v1 data.train: org/reviews: revision 'v1' is not in the cache of this machine")
