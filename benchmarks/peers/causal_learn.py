"""CD-NOD of causal-learn (Huang et al., JMLR 2020; Zheng et al., JMLR 2024), a host peer."""

import contextlib
import io
from collections.abc import Callable

import jax
import numpy as np

from crl.core import Data, Readout


def cdnod(alpha: float = 0.05, test: str = "fisherz") -> Callable:
    """PC on the columns and the environment, a cause of what changes; the graph, a CPDAG.

    test: 'fisherz' sees changes of means that are linear in the environment's number; 'kci'
    all of them, in time n^3 a test. The package's third phase, which would compare how
    mechanisms change, is not in it. Edges without direction are claimed both ways.

    Returns (key, train, test) -> Readout with graph.
    """
    # Where it is not installed, this peer fails and not the suite that names it.
    from causallearn.search.ConstraintBased.CDNOD import cdnod as search

    def run(key: jax.Array, train: Data, test_data: Data) -> Readout:
        del key, test_data
        x, env = np.asarray(train.x, float), np.asarray(train.env, float)
        if not env.any():
            raise ValueError("cdnod needs two environments or more, got one")
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars stay otherwise
            found = search(x, env[:, None], alpha, test, show_progress=False)
        d = x.shape[1]
        tail = found.G.graph[:d, :d]  # theirs: [i, j] = -1 a tail at i, 1 an arrow head
        is_joined, has_tail = tail != 0, tail == -1
        undirected = is_joined & (has_tail == has_tail.T)
        return Readout(graph=(has_tail & ~has_tail.T | undirected).astype(np.int32))

    return run
