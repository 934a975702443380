"""NOTEARS and GOLEM of gcastle (Zhang et al. 2021), as host peers."""

import os
from collections.abc import Callable

import jax
import numpy as np

from crl.core import Data, Readout


def gcastle_notears(penalty: float = 0.1, threshold: float = 0.3) -> Callable:
    """NOTEARS with an L1 penalty; the graph."""
    # Where it is not installed, this peer fails and not the suite that names it.
    os.environ.setdefault("CASTLE_BACKEND", "pytorch")
    from castle.algorithms import Notears

    return _peer(lambda: Notears(lambda1=penalty, w_threshold=threshold))


def gcastle_golem(num_steps: int = 10_000) -> Callable:
    """GOLEM with equal variances; the graph."""
    os.environ.setdefault("CASTLE_BACKEND", "pytorch")
    from castle.algorithms import GOLEM

    return _peer(lambda: GOLEM(num_iter=num_steps, device_type="cpu"))


def _peer(model: Callable) -> Callable:
    def run(key: jax.Array, train: Data, test: Data) -> Readout:
        del key, test
        x = np.asarray(train.x, float)
        learner = model()
        learner.learn(x - x.mean(0))
        return Readout(graph=np.asarray(learner.causal_matrix).astype(np.int32))

    return run
