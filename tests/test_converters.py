"""Conventions of other libraries, by hand and, where they are installed, by themselves."""

import sys

import numpy as np
import pytest

from crl.converters import (
    from_causal_learn,
    from_lingam,
    from_networkx,
    to_causal_learn,
    to_lingam,
    to_networkx,
)

# 0 -> 1 -> 3 and 0 - 2 without orientation
CPDAG = np.array([[0, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
DAG = np.triu(CPDAG)


def test_lingam_has_effects_in_columns():
    weights = DAG * 1.5
    assert to_lingam(weights)[1, 0] == 1.5 and to_lingam(weights)[0, 1] == 0
    np.testing.assert_array_equal(from_lingam(to_lingam(weights)), weights)


def test_causal_learn_has_marks_at_the_ends():
    marks = np.zeros((4, 4), int)
    marks[0, 1], marks[1, 0] = -1, 1  # 0 -> 1
    marks[1, 3], marks[3, 1] = -1, 1
    marks[0, 2] = marks[2, 0] = -1
    np.testing.assert_array_equal(from_causal_learn(marks), CPDAG)
    marks[0, 2] = marks[2, 0] = 1  # 0 <-> 2
    np.testing.assert_array_equal(from_causal_learn(marks), CPDAG)
    marks[2, 0] = 2
    with pytest.raises(ValueError, match="a PAG with circles"):
        from_causal_learn(marks)


def test_what_is_no_graph_is_refused():
    with pytest.raises(ValueError, match=r"a matrix \(d, d\), got shape \(2, 3\)"):
        to_lingam(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("convert", "module", "package"),
    [(to_networkx, "networkx", "networkx"), (to_causal_learn, "causallearn", "causal-learn")],
)
def test_a_missing_library_is_named(monkeypatch, convert, module, package):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"needs {package}: pip install {package}"):
        convert(DAG)


def test_networkx_graphs_come_back():
    networkx = pytest.importorskip("networkx")
    graph = to_networkx(DAG, names=list("abcd"))
    assert set(graph.edges) == {("a", "b"), ("a", "c"), ("b", "d")}
    np.testing.assert_array_equal(from_networkx(graph, list("abcd")), DAG)
    np.testing.assert_array_equal(from_networkx(graph, list("dcba")), DAG[::-1, ::-1])
    path = networkx.path_graph(3)
    np.testing.assert_array_equal(from_networkx(path), np.eye(3, k=1) + np.eye(3, k=-1))
    with pytest.raises(ValueError, match="expected names of all nodes"):
        from_networkx(graph, list("abc"))


def test_causal_learn_reads_our_edges():
    pytest.importorskip("causallearn")
    graph = to_causal_learn(CPDAG)
    edges = {str(edge).strip() for edge in graph.get_graph_edges()}
    assert edges == {"X1 --> X2", "X2 --> X4", "X1 --- X3"}
    assert graph.is_ancestor_of(graph.nodes[0], graph.nodes[3])
    np.testing.assert_array_equal(from_causal_learn(graph), CPDAG)


def test_lingam_finds_the_weights_that_we_wrote():
    lingam = pytest.importorskip("lingam")
    weights = np.array([[0, 2.0, 0], [0, 0, -1], [0, 0, 0]])
    noise = np.random.default_rng(0).exponential(size=(2000, 3))
    model = lingam.DirectLiNGAM().fit(noise @ np.linalg.inv(np.eye(3) - weights))
    found = from_lingam(model.adjacency_matrix_)
    np.testing.assert_allclose(found, weights, atol=0.1)
