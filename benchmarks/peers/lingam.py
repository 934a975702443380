"""The lingam package (Ikeuchi et al., JMLR 2023), as host peers."""

from collections.abc import Callable

import jax
import numpy as np

from crl.core import Data, Readout


def direct_lingam() -> Callable:
    """DirectLiNGAM with the pairwise likelihood ratios; graph, order and other 'weights'."""
    # Where it is not installed, this peer fails and not the suite that names it.
    from lingam import DirectLiNGAM

    def run(key: jax.Array, train: Data, test: Data) -> Readout:
        del key, test
        return _claims(DirectLiNGAM().fit(np.asarray(train.x, float)))

    return run


def ica_lingam() -> Callable:
    """ICA-LiNGAM: the same claims."""
    from lingam import ICALiNGAM

    def run(key: jax.Array, train: Data, test: Data) -> Readout:
        del test
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        return _claims(ICALiNGAM(seed).fit(np.asarray(train.x, float)))

    return run


def _claims(model) -> Readout:
    weights = model.adjacency_matrix_.T.astype(np.float32)  # theirs: [i, j] for j -> i
    return Readout(
        graph=(weights != 0).astype(np.int32),
        order=np.asarray(model.causal_order_, np.int32),
        other={"weights": weights},
    )
