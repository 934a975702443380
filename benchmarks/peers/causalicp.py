"""The causalicp package (Gamella 2021), as a host peer."""

from collections.abc import Callable

import jax
import numpy as np

from crl.core import Data, Readout


def causal_icp(target: int, alpha: float = 0.05) -> Callable:
    """Invariant causal prediction of one column; graph, the edges into it."""
    # Where it is not installed, this peer fails and not the suite that names it.
    import causalicp

    def run(key: jax.Array, train: Data, test: Data) -> Readout:
        del key, test
        x, env = np.asarray(train.x, float), np.asarray(train.env)
        groups = [x[env == e] for e in range(env.max() + 1)]
        graph = np.zeros((x.shape[1],) * 2, np.int32)
        graph[list(causalicp.fit(groups, target, alpha).estimate or ()), target] = 1
        return Readout(graph=graph)

    return run
