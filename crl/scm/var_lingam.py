"""VAR-LiNGAM: effects within a time step and from the steps before it.

Hyvarinen, Zhang, Shimizu and Hoyer, "Estimation of a structural vector autoregression model
using non-Gaussianity" (JMLR 2010). Regression on the past leaves x_t = n_t, of which the
linear non-Gaussian model n = W' n + e holds with the effects W within a step.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options
from crl.core import Data, Estimator, Readout, num_envs
from crl.numerics.linalg import dot
from crl.scm.direct_lingam import causal_order
from crl.scm.linear import check_linear, in_order, standardised
from crl.scm.prior import prior


class Fitted(NamedTuple):
    """A structural vector autoregression."""

    weights: Array  # (d, d) [i, j]: effect of x_t,i on x_t,j
    lagged: Array  # (p, d, d) [k, i, j]: effect of x_(t - 1 - k),i on x_t,j
    graph: Array  # (d, d) int32, of the effects within a step
    order: Array  # (d,) int32, causes first
    diag: dict[str, Array]


def var_lingam(num_lags: int = 1) -> Estimator:
    """A structural vector autoregression by VAR-LiNGAM; closed form.

    num_lags: p, the steps back that have an effect. Rows are one series in the order of time,
    evenly spaced, in one environment; Data.aux 'time' (n,) is not needed, and checked where
    it is given. Claims of the effects within a step graph, order and other 'weights' (d, d),
    [i, j] of i on j; other 'lagged' (p, d, d), [k, i, j] of i on j after k + 1 steps, by
    least squares, none of them pruned; diag second_negentropy, nats, as ``direct_lingam``.
    Prior knowledge, of the effects within a step: given 'required', 'forbidden' and 'tier'
    (crl.scm.prior).

    Identified: all of it, when the series is stationary with p lags at most, effects are
    linear and within a step acyclic, all causes are observed, and the noises are independent
    over time, of one another, and but for one not Gaussian. With Gaussian noises the order is
    chance; effects faster than the sampling, or hidden causes, make it wrong without a sign.

    Raises ValueError for several environments, uneven times, no more rows than
    p + (p + 1) d + 1, columns that are constant or that others or the past determine, and
    prior knowledge that contradicts itself.
    """
    check_options("var_lingam", at_least_one={"num_lags": num_lags})

    def init(key, data):
        del key  # closed form
        z, scale = standardised(data.x)
        past, now = past_and_present(z.T, num_lags)
        reduced = jnp.linalg.lstsq(past, now)[0]  # (p d, d)
        known = prior(data)
        rest = (now - dot(past, reduced)) * scale
        within = in_order(rest, causal_order(rest, known.before), known, {})
        d = len(z)
        reduced = reduced.reshape(num_lags, d, d) * scale / scale[:, None]
        lagged = reduced - dot(reduced, within.weights)
        return Fitted(within.weights, lagged, within.graph, within.order, within.diag)

    def step(key, state, batch):
        del key, batch  # closed form
        return state, {}

    def readout(fitted, data):
        del data
        return Readout(
            graph=fitted.graph,
            order=fitted.order,
            diag=fitted.diag,
            other={"weights": fitted.weights, "lagged": fitted.lagged},
        )

    def validate(data):
        check_series("var_lingam", data, num_lags)
        check_linear("var_lingam", data)
        _check_noises("var_lingam", np.asarray(data.x, np.float64), num_lags)

    return Estimator(init, step, readout, 0, validate=validate)


def past_and_present(x: Array, num_lags: int) -> tuple[Array, Array]:
    """The p rows before each of x (n, d), nearest first, (n - p, p d), and it, (n - p, d)."""
    n = len(x)
    before = [x[num_lags - k : n - k] for k in range(1, num_lags + 1)]
    return jnp.concatenate(before, 1), x[num_lags:]


def check_series(who: str, data: Data, num_lags: int) -> None:
    """Raise a ValueError for rows that are not one series, long enough for a regression."""
    n, d = data.x.shape
    if num_envs(data) > 1:
        raise ValueError(
            f"{who} needs one series, got {num_envs(data)} environments: fit each alone"
        )
    least = num_lags + (num_lags + 1) * d + 1
    if n <= least:
        raise ValueError(
            f"{who} needs more rows than num_lags + (num_lags + 1) d + 1 = {least}, got {n}: "
            "give a longer series or fewer lags"
        )
    time = np.asarray(data.aux.get("time", np.arange(n)), np.float64)
    steps = np.diff(time)
    if time.shape != (n,) or not steps[0] > 0 or not np.allclose(steps, steps[0], rtol=1e-3):
        raise ValueError(
            f"{who} needs rows in the order of time, evenly spaced, got aux['time'] "
            f"{time[:5].tolist()}...: sort the rows, or fill the gaps"
        )


def _check_noises(who: str, x: np.ndarray, num_lags: int) -> None:
    x = (x - x.mean(0)) / x.std(0)
    past = np.hstack([x[num_lags - k : len(x) - k] for k in range(1, num_lags + 1)])
    rest = x[num_lags:] - past @ np.linalg.lstsq(past, x[num_lags:], rcond=None)[0]
    determined = np.flatnonzero(rest.std(0) < 1e-5)
    if len(determined):
        raise ValueError(
            f"{who} needs columns with a noise of their own, got some that the past "
            f"determines: {determined[:8].tolist()}: drop them"
        )
