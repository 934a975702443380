"""Picard-O (Ablin, Cardoso & Gramfort 2018), as a host peer."""

import warnings
from collections.abc import Callable

import jax
import numpy as np

from crl.core import Data, Readout


def picard_o(num_latents: int, tol: float = 1e-7, num_steps: int = 500) -> Callable:
    """L-BFGS on the orthogonal group, tanh density with adaptive signs.

    Same fixed points as symmetric FastICA with "logcosh". tol bounds the largest entry of
    the gradient. Returns (key, train, test) -> Readout with z, unmixing and diag.
    """

    # Where it is not installed, this peer fails and not the suite that names it.
    from picard import picard

    def run(key: jax.Array, train: Data, test: Data) -> Readout:
        x = np.asarray(train.x)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            whitener, rotation, _, mean = picard(
                x.T,
                n_components=num_latents,
                ortho=True,
                tol=tol,
                max_iter=num_steps,
                return_X_mean=True,
                random_state=int(jax.random.randint(key, (), 0, 2**31 - 1)),
            )
        is_stuck = any("did not converge" in str(w.message) for w in caught)
        unmixing = rotation @ whitener
        scale = ((x - mean) @ unmixing.T).std(0)  # unit variance, as the others
        unmixing = unmixing / scale[:, None]
        return Readout(
            z=(np.asarray(test.x) - mean) @ unmixing.T,
            unmixing=unmixing,
            diag={"converged": np.float32(not is_stuck)},
        )

    return run
