"""A control: what is left when no variable knows of another."""

import jax
from jax import Array

from crl.core import DGP, Sample, Truth


def shuffled_columns(dgp: DGP) -> DGP:
    """``dgp`` with the rows of x in another order in each column, and the graph as it was.

    Columns keep their laws and depend on nothing, so that no graph can be found better than
    by chance, unless from the marginals alone: variances that grow along the causal order,
    say. Held-out rows are those of ``dgp``. Truth: the graph alone. Aux is left out.
    """

    def sample(key: Array, world, n: int) -> Sample:
        key_rows, key_order = jax.random.split(key)
        data, truth = dgp.sample(key_rows, world, n)
        x = jax.random.permutation(key_order, data.x, axis=0, independent=True)
        return Sample(data._replace(x=x, aux={}), Truth(graph=truth.graph))

    def held_out(key: Array, world, n: int) -> Sample:
        data, truth = (dgp.held_out or dgp.sample)(key, world, n)
        return Sample(data._replace(aux={}), Truth(graph=truth.graph))

    return DGP(dgp.init, sample, None, held_out)
