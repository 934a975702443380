"""GOLEM: a linear Gaussian SCM by its likelihood, with soft penalties for edges and cycles.

Ng, Ghassami and Zhang, "On the role of sparsity and DAG constraints for learning linear
DAGs" (NeurIPS 2020): minus the log-likelihood of x = x W + z, with its log |det (I - W)|,
needs no hard constraint where the noises have equal variances.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import Estimator
from crl.numerics.graphs import exponential_cycles
from crl.scm.descent import by_descent, minimum, unexplained

MAX_INNER = 10_000
EQUAL_PENALTY = 0.02  # of the start of a fit with variances of their own, as in the paper


def golem(
    equal_variances: bool = True,
    penalty: float | None = None,
    cycle_penalty: float = 5.0,
    threshold: float = 0.3,
) -> Estimator:
    """A linear Gaussian SCM by penalised likelihood, GOLEM-EV or GOLEM-NV.

    equal_variances: whether the noises have one variance; if not, the fit with one is where
    it starts. penalty: of the absolute weights, nats; None: the paper's, .02 and .002.
    cycle_penalty: of tr exp(W * W) - d. threshold: weights below it are dropped; then the
    weakest of every cycle. Floats may be traced. Prior knowledge: given 'required' (not
    penalised, never dropped), 'forbidden' and 'tier' (crl.scm.prior).

    Claims graph, order, z, other 'weights', and diag h, of cycles before edges are dropped.
    Identified: with equal variances the graph, in the units in which x comes, as for
    ``notears``; on columns brought to the same variance that assumption is wrong, and so is
    the graph. With variances of their own the Markov equivalence class alone, and the
    search, which starts from equal ones, often misses it. Raises ValueError for options out
    of range and for what ``direct_lingam`` refuses.
    """
    who = "golem"
    if penalty is None:
        penalty = EQUAL_PENALTY if equal_variances else 0.002
    check_options(
        who,
        nonnegative={
            "penalty": penalty,
            "cycle_penalty": cycle_penalty,
            "threshold": threshold,
        },
    )

    def step(state):
        is_first = state.path == 0
        first = penalty if equal_variances else EQUAL_PENALTY
        each = jnp.where(is_first, first, penalty)
        is_equal = equal_variances | is_first
        smooth = likelihood(state.moments.covariance, is_equal, cycle_penalty)
        weights, loss = minimum(smooth, state, each, MAX_INNER)
        return state._replace(weights=weights, path=state.path + 1), {"loss": loss}

    num_steps = 1 if equal_variances else 2
    return by_descent(who, step, exponential_cycles, threshold, num_steps)


def likelihood(covariance: Array, is_equal: Array, cycle_penalty: float) -> Callable:
    """Minus the log-likelihood, with the penalty of cycles: W -> (value, gradient)."""
    d = len(covariance)

    def smooth(weights):
        variances, half = unexplained(weights, covariance)
        total = jnp.sum(variances)
        fit = jnp.where(is_equal, d * jnp.log(total), jnp.sum(jnp.log(variances))) / 2
        slope = half * jnp.where(is_equal, d / total, 1 / variances)
        rest = jnp.eye(d, dtype=weights.dtype) - weights
        log_det, inverse = jnp.linalg.slogdet(rest)[1], jnp.linalg.inv(rest)
        h, turn = exponential_cycles(weights**2)
        value = fit - log_det + cycle_penalty * h
        slope = slope + inverse.T + cycle_penalty * 2 * weights * turn
        return jnp.where(jnp.isfinite(value), value, jnp.inf), slope

    return smooth
