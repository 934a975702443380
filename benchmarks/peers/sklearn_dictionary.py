"""scikit-learn's online dictionary learning (Mairal et al. 2009), as a host peer."""

import warnings

import jax
import numpy as np

from crl.core import Data, Readout


def minibatch_dictionary(
    num_atoms: int, alpha: float = 0.3, batch_size: int = 256, max_iter: int = 10
):
    """Nonnegative lasso codes on random batches, block coordinate descent on the atoms.

    alpha: the lasso penalty of fit and transform. max_iter: passes over the rows.
    Returns (key, train, test) -> Readout with dictionary (m, p), codes (n, m) and x.
    """

    # Where it is not installed, this peer fails and not the suite that names it.
    from sklearn.decomposition import MiniBatchDictionaryLearning

    def run(key: jax.Array, train: Data, test: Data) -> Readout:
        model = MiniBatchDictionaryLearning(
            num_atoms,
            alpha=alpha,
            batch_size=batch_size,
            max_iter=max_iter,
            fit_algorithm="cd",
            transform_algorithm="lasso_cd",
            transform_alpha=alpha,
            positive_code=True,
            random_state=int(jax.random.randint(key, (), 0, 2**31 - 1)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lasso_cd stops at its iteration limit
            codes = model.fit(np.asarray(train.x)).transform(np.asarray(test.x))
        atoms = model.components_
        return Readout(x=codes @ atoms, dictionary=atoms, codes=codes)

    return run
