"""What the doctor says of a cluster's nodes."""

from __future__ import annotations

import dataclasses

import pytest

from hpo.care.cluster import look_at_cluster, node_findings
from hpo.executors.environment import environment_here
from hpo.executors.node_facts import NodeFacts
from tests.hpo.executors.nodes import TestCluster

HERE = environment_here()
GOOD = NodeFacts("node (10.0.0.2)", 8, 1, 32_000.0, 100.0, 0.1, HERE, "same")


@pytest.mark.parametrize(
    ("changes", "marks", "says"),
    [
        ({}, ["ok"], "8 cores, 1 GPU"),
        ({"disk_gb": 1.0}, ["problem"], "1.0 GB of disk free"),
        ({"memory_mb": 1000.0}, ["note"], "1.0 GiB of memory"),
        ({"code": "other"}, ["ok", "problem"], "the code of hpo"),
        ({"environment": dataclasses.replace(HERE, python="3.14.1")}, ["ok", "problem"], "Python 3.14.1"),
        ({"skew_s": 90.0}, ["ok", "problem"], "90 s ahead"),
        ({"problem": "No module named 'hpo'"}, ["problem"], "No module named"),
    ],
)
def test_what_is_wrong_with_a_node_is_a_line_of_its_own(changes, marks, says):
    found = list(node_findings(dataclasses.replace(GOOD, **changes), HERE, "same"))
    assert [finding.mark for finding in found] == marks
    assert says in found[-1].found


def test_a_cluster_s_nodes_answer_for_themselves():
    with TestCluster() as cluster:
        cluster.add(2)
        [found] = look_at_cluster(cluster.address)
    assert found.mark == "ok"
    assert found.found.startswith("2 cores, ")


def test_a_cluster_that_does_not_answer_is_a_problem(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    [dead] = look_at_cluster("auto")
    assert dead.mark == "problem"
    assert "no Ray cluster answers at 127.0.0.1:9" in dead.found


@pytest.mark.parametrize("named", ["", "auto"])
def test_where_no_cluster_is_there_to_be_found_that_is_the_problem(monkeypatch, tmp_path, named):
    monkeypatch.setenv("RAY_ADDRESS", named)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    [none] = look_at_cluster("auto")
    assert (none.mark, none.remedy) == ("problem", "give it as HOST:PORT")
