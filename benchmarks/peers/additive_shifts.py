"""Shifts whose effects on the means add up: the baseline of unseen combinations."""

from collections.abc import Callable

import jax
import numpy as np

from crl.core import Data, Readout


def additive_shifts(num_draws: int = 1000, no_effect: bool = False) -> Callable:
    """Rows of the base environment, moved by the sum of the mean shifts of single targets.

    Exact where the drift is linear, since a shift moves the mean in proportion and leaves the
    covariance. no_effect: not moved at all. Returns (key, train, test) -> Readout with
    weights, [i, j] the response of j to a shift of i, and draws (E, num_draws, p).
    """

    def run(key: jax.Array, train: Data, test: Data) -> Readout:
        x, env = np.asarray(train.x), np.asarray(train.env)
        target, asked = np.asarray(train.given["target"]), np.asarray(test.given["target"])
        means = np.stack([x[env == e].mean(0) for e in range(len(target))])  # (E, p)
        # Least squares of the mean's moves on the targets: exact where each is shifted once.
        response = np.linalg.lstsq(target.astype(float), means - means[0], rcond=None)[0]
        moves = asked @ response * (not no_effect)  # (E', p)
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        base = x[env == 0]
        picked = np.random.default_rng(seed).integers(len(base), size=(len(asked), num_draws))
        draws = (base[picked] + moves[:, None]).astype(x.dtype)
        return Readout(other={"weights": response.astype(x.dtype), "draws": draws})

    return run
