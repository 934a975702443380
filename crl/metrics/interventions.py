"""How well the effects of interventions are predicted."""

import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Truth, need
from crl.numerics.linalg import column_norms


def counterfactual_rmse(readout: Readout, truth: Truth) -> dict[str, Array]:
    """Error of the answers to the counterfactual queries, in standard deviations.

    Every column is measured in units of its own standard deviation over the true answers.
    ``all`` is the root mean square over all rows and columns, most of which the query
    leaves as they were; ``affected`` over the effects of the variables set, the honest
    number. Undefined, NaN: where no entry is affected, where a column is constant.
    """
    estimate = need(readout, "counterfactual", "counterfactual_rmse")
    answer = need(truth, "counterfactual", "counterfactual_rmse")
    affected = need(truth, "affected", "counterfactual_rmse")
    norm, is_constant = column_norms(answer)
    sd = norm / answer.shape[0] ** 0.5
    error = (estimate - answer) / jnp.where(is_constant, jnp.nan, sd)
    count = jnp.sum(affected)
    mean = jnp.sum(jnp.where(affected, error**2, 0)) / jnp.maximum(count, 1)
    return {
        "affected": jnp.where(count > 0, jnp.sqrt(mean), jnp.nan),
        "all": jnp.sqrt(jnp.mean(error**2)),
    }
