"""scikit-learn's FastICA, as a host peer."""

import warnings
from collections.abc import Callable

import jax
import numpy as np

from crl.core import Data, Readout


def sklearn_fastica(
    num_latents: int,
    algorithm: str = "symmetric",
    nonlinearity: str = "logcosh",
    tol: float = 1e-4,
    num_steps: int = 200,
) -> Callable:
    """Options as in ``crl.ica.fastica``; whitening by eigh, several times its default's speed.

    Returns (key, train, test) -> Readout with z, unmixing and diag.
    """

    # Where it is not installed, this peer fails and not the suite that names it.
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    def run(key: jax.Array, train: Data, test: Data) -> Readout:
        model = FastICA(
            num_latents,
            algorithm={"symmetric": "parallel", "deflation": "deflation"}[algorithm],
            fun=nonlinearity,
            tol=tol,
            max_iter=num_steps,
            whiten="unit-variance",
            whiten_solver="eigh",
            random_state=int(jax.random.randint(key, (), 0, 2**31 - 1)),
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(np.asarray(train.x))
        is_stuck = any(issubclass(w.category, ConvergenceWarning) for w in caught)
        return Readout(
            z=model.transform(np.asarray(test.x)),
            unmixing=model.components_,
            diag={"converged": np.float32(not is_stuck)},
        )

    return run
