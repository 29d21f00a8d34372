"""Files that go to a node and come back, and paths in messages; an actor is plain Python, so no Ray is needed."""

import os
import socket
import subprocess

import pytest

from hpo.errors import ClusterError
from hpo.executors.environment import Environment
from hpo.executors.ray import actor, content, copies, executor, gpus, inputs
from hpo.executors.ray.address import address_of
from hpo.executors.ray.content import Content, code_content, model_content, trial_content, whole_content
from hpo.executors.ray.copies import FolderCopy
from hpo.executors.ray.owned import own, remove_left
from hpo.executors.ray.translation import Translation
from hpo.executors.ray.versions import differences


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv(inputs.HOME_VARIABLE, str(tmp_path / "node"))
    monkeypatch.setattr(actor, "_die_with_raylet", lambda: None)
    return actor.NodeActor()


def put(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def bring(node, given, folder):
    scratch = node.begin()
    for name, piece in given.pieces():
        node.take(scratch, name, piece)
    return node.finish(scratch, given.hashes, str(folder))


# --- there ---------------------------------------------------------------------------------------------


def test_a_folder_arrives_whole_in_pieces(node, tmp_path, monkeypatch):
    monkeypatch.setattr(content, "PIECE", 4)
    given = whole_content(put(tmp_path / "here", a="12345678", b__c="123", empty=""))
    assert not node.use(given.key)
    bring(node, given, tmp_path / "node" / "inputs" / given.key)
    assert node.use(given.key)
    assert whole_content(tmp_path / "node" / "inputs" / given.key).hashes == given.hashes
    assert list((node._session / "scratch").iterdir()) == []


def test_files_that_changed_on_their_way_are_refused(node, tmp_path):
    given = whole_content(put(tmp_path / "here", a="1"))
    scratch = node.begin()
    node.take(scratch, "a", b"2")
    with pytest.raises(ValueError, match="a arrived with other content"):
        node.finish(scratch, given.hashes, str(tmp_path / "node" / "inputs" / given.key))
    assert not node.use(given.key)


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b"])
def test_no_name_leaves_its_folder(node, name):
    with pytest.raises(ValueError, match="leaves"):
        node.take(node.begin(), name, b"")
    with pytest.raises(ValueError, match="leaves"):
        node.remove("/etc")


def test_only_what_trials_read_is_sent(tmp_path):
    model = put(tmp_path / "model", **{"config.json": "{}", "model.safetensors": "w", "pytorch_model.bin": "w"})
    assert set(model_content(model).files) == {"config.json", "model.safetensors"}
    code = put(tmp_path / "code", **{"own.py": "1", "other.py": "2", "data.csv": "3"})
    request = {"specs": [{"settings": {"loss": "own.py:loss"}}], "workload": {"metrics": ["accuracy"]}}
    assert set(code_content(code, request).files) == {"own.py"}
    trial = put(tmp_path / "0", **{"spec.json": "", "rows__0000.npy": "", "trial.log": "", "checkpoints__1__a": ""})
    assert set(trial_content(trial).files) == {"checkpoints/1/a", "trial.log"}


def test_equal_content_has_one_key(tmp_path):
    first, second = (Content({"a": put(tmp_path / str(n), a="1") / "a"}) for n in range(2))
    assert first.key == second.key != Content({"b": tmp_path / "0" / "a"}).key


def test_sessions_that_ended_are_removed(node, tmp_path):
    left = tmp_path / "node" / "sessions" / "left"
    put(left, lock="", trials__0="much")
    another = actor.NodeActor()
    assert not left.exists()
    assert {session.name for session in left.parent.iterdir()} == {node._session.name, another._session.name}


def test_a_folder_is_removed_when_its_process_is_gone_and_by_nobody_else(tmp_path):
    for name in ("gone", "owned", "nobodys"):
        (tmp_path / name).mkdir()
    os.close(own(tmp_path / "gone"))
    fd = own(tmp_path / "owned")
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    os.close(own(put(tmp_path / "elsewhere", a="1")))
    remove_left(tmp_path / name for name in ("gone", "owned", "nobodys", "linked"))
    assert {path.name for path in tmp_path.iterdir()} == {"owned", "nobodys", "linked", "elsewhere"}
    assert (tmp_path / "elsewhere" / "a").exists()
    os.close(fd)


def test_a_relay_that_fails_ends_the_node_and_says_why(node, monkeypatch):
    monkeypatch.setattr(actor, "host_command", lambda worker: ["echo", "no JSON"])
    node._wanted[1] = actor._Wanted({})
    node.start("worker")
    assert node.events() == [(actor.ENDED, {})]
    assert "JSONDecodeError" in node.log_tail()
    with node._host:
        pass  # closes its pipes


def test_a_host_that_cannot_be_started_ends_the_node(node, monkeypatch):
    monkeypatch.setattr(actor, "host_command", lambda worker: ["/no such command"])
    node.start("worker")
    assert node.events() == [(actor.ENDED, {})]
    assert "No such file" in node.log_tail()


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, [("A", 10.0), ("B", 20.0), ("C", 30.0)]),
        ("2,0", [("C", 30.0), ("A", 10.0)]),
        ("GPU-bb", [("B", 20.0)]),
        ("1,7,0", [("B", 20.0)]),
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_are_those_that_the_node_may_use(monkeypatch, tmp_path, visible, found):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'GPU-aa, A, 10\\nGPU-bb, B, 20\\nGPU-cc, C, 30\\n'\n")
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    monkeypatch.setattr(gpus, "first_environment", lambda: environment)
    assert gpus.gpus_here() == found


@pytest.mark.parametrize(("said", "free_mb"), [("81559", 81559.0), ("[N/A]", 0.0), ("[Not Supported]", 0.0)])
def test_free_memory_that_the_tool_does_not_tell_is_0_and_no_error(monkeypatch, said, free_mb):
    done = subprocess.CompletedProcess([], 0, f"GPU-aa, NVIDIA GB10, {said}\n")
    monkeypatch.setattr(gpus.subprocess, "run", lambda *command, **options: done)
    monkeypatch.setattr(gpus, "first_environment", dict)
    assert gpus.gpus_here() == [("NVIDIA GB10", free_mb)]


def test_nothing_is_heard_of_a_node_that_is_ending(node):
    node._put("line", {})
    assert node.events() == [("line", {})]
    node.end()
    node._put("line", {})
    assert node._lines == []
    assert not node._session.exists()


# --- back ----------------------------------------------------------------------------------------------


@pytest.fixture
def trial(node, tmp_path):
    """A trial's folder on the node, and its copy here."""
    there = put(tmp_path / "node" / "sessions" / "t", checkpoints__1__state="1", checkpoints__1__best__w="w")
    return there, FolderCopy(tmp_path / "here", str(there), {})


def test_what_is_new_comes_back_and_what_is_gone_goes(node, trial, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "PIECE", 2)
    there, copy = trial
    put(there, **{"trial.log": "12345"})
    read = []

    def reading(path, start, most):
        read.append(os.path.relpath(path, there))
        return node.read(path, start, most)

    copy.bring(actor.snapshot(there), reading)
    assert (tmp_path / "here/trial.log").read_text() == "12345"
    assert set(read) == {"trial.log", "checkpoints/1/state", "checkpoints/1/best/w"}
    read.clear()
    (there / "checkpoints/2").mkdir()
    put(there, checkpoints__2__state="2")
    (there / "checkpoints/1/best").rename(there / "checkpoints/2/best")  # the same file, as a link is
    (there / "checkpoints/1/state").unlink()
    copy.bring(actor.snapshot(there), reading)
    assert set(read) == {"checkpoints/2/state"}
    assert set(whole_content(tmp_path / "here").files) == {"checkpoints/2/state", "checkpoints/2/best/w", "trial.log"}
    assert (tmp_path / "here/checkpoints/2/best/w").read_text() == "w"


def test_a_checkpoint_is_here_as_a_whole_or_not_at_all(node, trial, tmp_path):
    there, copy = trial

    def breaks_off(path, start, most):
        if path.endswith("state"):
            raise ConnectionError("the node left")
        return node.read(path, start, most)

    with pytest.raises(ConnectionError):
        copy.bring(actor.snapshot(there), breaks_off)
    assert whole_content(tmp_path / "here").files == {}
    copy.bring(actor.snapshot(there), node.read)
    assert set(whole_content(tmp_path / "here").files) == {"checkpoints/1/state", "checkpoints/1/best/w"}


def test_a_file_that_ends_too_soon_is_not_taken_for_the_whole(node, trial, tmp_path):
    there, copy = trial
    put(there, **{"trial.log": "12345"})
    now = actor.snapshot(there)
    put(there, **{"trial.log": "12345 and more"})  # it may grow meanwhile
    copy.bring(now, node.read)
    assert (tmp_path / "here/trial.log").read_text() == "12345"
    put(there, **{"state.json": "{}", "trial.log": "123456"})
    now = actor.snapshot(there)
    (there / "state.json").unlink()  # as when a session ends
    with pytest.raises(copies.Incomplete, match=r"state\.json"):
        copy.bring(now, node.read)
    assert not (tmp_path / "here/state.json").exists()


def test_unfinished_files_stay_there(node, trial):
    there, _ = trial
    put(there, **{".adapter.new__w": "half", "checkpoints__.2.new__state": "half"})
    assert set(actor.snapshot(there)) == {"checkpoints/1/state", "checkpoints/1/best/w"}


# --- messages ------------------------------------------------------------------------------------------


def test_paths_are_the_nodes_there_and_ours_here():
    translation = Translation({"/home/cache": "/n/cache", "/home/cache/tokens/1": "/n/inputs/k", "/home/t": "/n/s/t"})
    request = {
        "a": "/home/cache/tokens/1/x",
        "b": ["/home/cache/tokens", "/home/cached"],
        "c": {"d": "/home/t", "e": 1},
    }
    there = translation.there(request)
    assert there == {"a": "/n/inputs/k/x", "b": ["/n/cache/tokens", "/home/cached"], "c": {"d": "/n/s/t", "e": 1}}
    assert translation.here({"message": "no /n/s/t/adapter in '/n/cache'"}) == {
        "message": "no /home/t/adapter in '/home/cache'"
    }


def test_versions_that_decide_numbers_are_compared():
    here = Environment("3.11.7", {"torch": "2.13.0+cpu", "numpy": "2.1", "mlflow": "3.1"})
    same = Environment("3.11.9", {"torch": "2.13.0+cu130", "numpy": "2.1"})
    assert differences(here, "c", same, "c") == ""
    other = Environment("3.12.1", {"torch": "2.12.0", "peft": "0.18"})
    found = differences(here, "c" * 64, other, "d" * 64)
    for difference in (
        "Python 3.12.1, here 3.11.7", "torch 2.12.0, here 2.13.0+cpu", "numpy absent, here 2.1",
        "peft 0.18, here absent", "the code of hpo has the hash dddddddddddd, here cccccccccccc",
    ):  # fmt: skip
        assert difference in found


# --- without a cluster ---------------------------------------------------------------------------------


def test_without_ray_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"pip install 'ray>="):
        executor.RayExecutor(executor.ClusterSettings(), tmp_path / "host.log")


def test_a_path_on_two_machines_is_two_sweeps_unless_they_share_it(tmp_path, monkeypatch):
    def names(*, shared_home):
        found = set()
        for host in ("a", "b"):
            monkeypatch.setattr(executor.socket, "gethostname", lambda host=host: host)
            found.add(executor.settings_here("auto", "w", tmp_path / "s" / "host.log", shared_home=shared_home).name)
        return found

    assert len(names(shared_home=False)) == 2
    assert len(names(shared_home=True)) == 1


def test_auto_is_the_cluster_of_this_machine_where_one_answers(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert address_of("auto") is None
    put(tmp_path, ray__ray_current_cluster="127.0.0.1:9\n")  # it has ended
    assert address_of("auto") is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        put(tmp_path, ray__ray_current_cluster=address)
        assert address_of("auto") == address
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert address_of("auto") == "10.0.0.1:6379"
    assert address_of("10.0.0.2:6379") == "10.0.0.2:6379"
