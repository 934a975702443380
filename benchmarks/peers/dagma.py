"""The authors' DAGMA (Bello et al. 2022), linear, as a host peer."""

import contextlib
import io
from collections.abc import Callable

import jax
import numpy as np

from crl.core import Data, Readout


def dagma_linear(penalty: float = 0.03, threshold: float = 0.3) -> Callable:
    """Options as in ``crl.scm.dagma``; graph and other 'weights'."""
    # Where it is not installed, this peer fails and not the suite that names it.
    from dagma.linear import DagmaLinear

    def run(key: jax.Array, train: Data, test: Data) -> Readout:
        del key, test
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            weights = DagmaLinear("l2").fit(
                np.array(train.x, float), lambda1=penalty, w_threshold=threshold
            )
        graph = (weights != 0).astype(np.int32)
        return Readout(graph=graph, other={"weights": weights.astype(np.float32)})

    return run
