"""A causal order drawn at random, then regression: what learners of orders must beat."""

from collections.abc import Callable

import jax
import numpy as np

from crl.core import Data, Readout


def random_order() -> Callable:
    """Each variable on all before it; coefficients with t^2 > log n are edges, as BIC has it.

    Returns (key, train, test) -> Readout with graph and order.
    """

    def run(key: jax.Array, train: Data, test: Data) -> Readout:
        del test
        x = np.asarray(train.x, float)
        x = x - x.mean(0)
        n, d = x.shape
        order = np.asarray(jax.random.permutation(key, d))
        graph = np.zeros((d, d), np.int32)
        for place in range(1, d):
            before, j = order[:place], order[place]
            inverse = np.linalg.inv(x[:, before].T @ x[:, before])
            slope = inverse @ (x[:, before].T @ x[:, j])
            noise = np.mean((x[:, j] - x[:, before] @ slope) ** 2)
            graph[before, j] = slope**2 > np.log(n) * noise * np.diag(inverse)
        return Readout(graph=graph, order=order.astype(np.int32))

    return run
