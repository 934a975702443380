"""Graphs to and from other libraries.

Here and in gcastle, dagma, ges and sempler ``graph[i, j]`` says that i -> j, and an edge
without orientation has both entries: nothing to convert. The libraries below differ. A
library is imported when its function is called.
"""

import importlib
from typing import Any

import numpy as np
from jax.typing import ArrayLike


def to_networkx(graph: ArrayLike, names: list | None = None) -> Any:
    """A networkx.DiGraph of a graph (d, d); entries other than 0 and 1 become weights.

    names: of the d variables; None: 0 to d - 1.
    """
    networkx = _library("networkx", "to_networkx")
    matrix = _square(graph, "to_networkx")
    names = list(range(len(matrix))) if names is None else list(names)
    if len(names) != len(matrix):
        raise ValueError(f"expected {len(matrix)} names, got {len(names)}: one a variable")
    found = networkx.DiGraph()
    found.add_nodes_from(names)
    for i, j in zip(*np.nonzero(matrix)):
        found.add_edge(names[i], names[j], weight=matrix[i, j].item())
    return found


def from_networkx(graph: Any, names: list | None = None) -> np.ndarray:
    """The 0/1 matrix (d, d) of a networkx graph; names: the order of its nodes.

    Edges of an undirected graph have no orientation. Raises ValueError unless names are
    the nodes.
    """
    names = list(graph.nodes) if names is None else list(names)
    if set(names) != set(graph.nodes) or len(names) != len(graph):
        raise ValueError(f"expected names of all nodes, {list(graph.nodes)}, got {names}")
    place = {name: k for k, name in enumerate(names)}
    matrix = np.zeros((len(names),) * 2, np.int32)
    for a, b in graph.edges:
        matrix[place[a], place[b]] = 1
        if not graph.is_directed():
            matrix[place[b], place[a]] = 1
    return matrix


def from_lingam(adjacency: ArrayLike) -> np.ndarray:
    """Weights (d, d), [i, j] of i -> j, from the ``adjacency_matrix_`` of a lingam model.

    There [i, j] is the effect of j on i. NaN, by which lingam marks pairs with a hidden
    cause, stays NaN.
    """
    return _square(adjacency, "from_lingam").T


def to_lingam(weights: ArrayLike) -> np.ndarray:
    """The adjacency matrix of lingam of weights (d, d), [i, j] of i -> j."""
    return _square(weights, "to_lingam").T


def from_causal_learn(graph: Any) -> np.ndarray:
    """The 0/1 matrix (d, d) of a causal-learn graph, or of its ``graph`` of end marks.

    There [i, j] is the mark at i of the edge between i and j, -1 a tail and 1 an arrowhead.
    i <-> j, an orientation that the tests contradict, becomes an edge without one. Raises
    ValueError for circles, 2: a PAG is no graph of direct causes.
    """
    marks = _square(getattr(graph, "graph", graph), "from_causal_learn")
    if not np.isin(marks, (-1, 0, 1)).all() or np.any((marks == 0) != (marks.T == 0)):
        raise ValueError(
            f"expected end marks -1, 0 and 1 of a DAG or CPDAG, got {marks.tolist()}: a PAG "
            "with circles has no counterpart here"
        )
    arrow = marks.T == 1  # an arrowhead at j
    both = (marks == marks.T) & (marks != 0)
    return (arrow | both).astype(np.int32)


def to_causal_learn(graph: ArrayLike) -> Any:
    """A causal-learn GeneralGraph with nodes X1 to Xd of a DAG or CPDAG (d, d)."""
    package = "causallearn.graph."
    general = _library(package + "GeneralGraph", "to_causal_learn", "causal-learn")
    nodes = _library(package + "GraphNode", "to_causal_learn", "causal-learn")
    matrix = _square(graph, "to_causal_learn") != 0
    found = general.GeneralGraph([nodes.GraphNode(f"X{k + 1}") for k in range(len(matrix))])
    joined = matrix | matrix.T
    # At j an arrowhead where i -> j alone, else a tail; [j, i] is the mark at j.
    head = matrix & ~matrix.T
    found.graph = np.where(head.T, 1, np.where(joined, -1, 0))
    found.reconstitute_dpath(found.get_graph_edges())
    return found


def _library(name: str, who: str, package: str | None = None) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = package or name
        raise ImportError(f"{who} needs {package}: pip install {package}") from error


def _square(matrix: ArrayLike, who: str) -> np.ndarray:
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{who} needs a matrix (d, d), got shape {matrix.shape}")
    return matrix
