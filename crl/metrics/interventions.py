"""How well interventions are located, and their effects and outcomes predicted."""

import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need
from crl.numerics.linalg import column_norms


def _counterfactual_errors(claims: Readout, sample: Sample, who: str) -> Array:
    """Error of each answer (n, p), in standard deviations of its column over the truth.

    NaN where that is zero.
    """
    answer = need(sample.truth, "counterfactual", who)
    norm, is_constant = column_norms(answer)
    sd = norm / len(answer) ** 0.5
    error = need(claims, "counterfactual", who) - answer
    return error / jnp.where(is_constant, jnp.nan, sd)


@metric(best=0.0)
def counterfactual_rmse(claims: Readout, sample: Sample) -> Array:
    """Root mean square error of the counterfactual answers, over the effects of what is set.

    In standard deviations: each column in units of its own over the true answers. Variables
    that the query leaves as they were do not enter: ``counterfactual_rmse_all`` has them.
    Undefined, NaN: where no entry is affected, where a column is constant.
    """
    error = _counterfactual_errors(claims, sample, "counterfactual_rmse")
    affected = need(sample.truth, "affected", "counterfactual_rmse")
    count = jnp.sum(affected)
    mean = jnp.sum(jnp.where(affected, error**2, 0)) / jnp.maximum(count, 1)
    return jnp.where(count > 0, jnp.sqrt(mean), jnp.nan)


@metric(best=0.0)
def counterfactual_rmse_all(claims: Readout, sample: Sample) -> Array:
    """``counterfactual_rmse`` over all rows and columns, most of which no query moves."""
    error = _counterfactual_errors(claims, sample, "counterfactual_rmse_all")
    return jnp.sqrt(jnp.mean(error**2))


@metric(best=1.0)
def target_accuracy(claims: Readout, sample: Sample) -> Array:
    """The share of pairs (environment, variable) rightly called a target or none, in [0, 1].

    The base, environment 0, is left out; NaN without any other. Where few variables are
    targets, none at all scores high: see ``target_f1``.
    """
    claimed, true = _targets(claims, sample, "target_accuracy")
    return jnp.mean(claimed == true) if true.size else jnp.full((), jnp.nan)


@metric(best=1.0)
def target_f1(claims: Readout, sample: Sample) -> Array:
    """The harmonic mean of precision and recall of the claimed targets, in [0, 1].

    The base is left out. NaN where there is no target and none is claimed.
    """
    claimed, true = _targets(claims, sample, "target_f1")
    total = jnp.sum(claimed) + jnp.sum(true)
    f1 = 2 * jnp.sum(claimed & true) / jnp.maximum(total, 1)
    return jnp.where(total > 0, f1, jnp.nan)


def _targets(claims: Readout, sample: Sample, who: str) -> tuple[Array, Array]:
    """The claimed and the true targets of auxiliary environments, (E - 1, d) bool."""
    claimed, true = (need(record, "targets", who) for record in (claims, sample.truth))
    if claimed.shape != true.shape:
        raise ValueError(
            f"{who} expected readout.targets of shape {true.shape}, got {claimed.shape}: one "
            "row for each environment, base included"
        )
    return claimed[1:] > 0, true[1:] > 0


@metric(best=0.0)
def y_rmse(claims: Readout, sample: Sample) -> Array:
    """Root mean square error of the predicted outcome over rows and outputs, in units of y.

    Judged by the noise-free ``truth.y`` where the world has it, else by ``data.aux['y']``,
    whose noise no prediction undercuts. Raises ValueError for a y of another shape.
    """
    y = sample.truth.y if sample.truth.y is not None else sample.data.aux.get("y")
    if y is None:
        y = need(sample.truth, "y", "y_rmse")  # says that it is missing
    claimed = need(claims, "y", "y_rmse")
    if claimed.shape != y.shape:
        raise ValueError(
            f"y_rmse expected readout.y of shape {y.shape}, like y, got {claimed.shape}"
        )
    return jnp.sqrt(jnp.mean((claimed - y) ** 2))
