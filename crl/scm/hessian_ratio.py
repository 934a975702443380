"""Causal graphs of nonlinear mechanisms from Hessians of log density ratios.

The proof of Montagna (arXiv 2510.13583) that two auxiliary environments are enough, step by
step: a classifier of environments learns the ratios T_e = log p_e - log p_0, in which the
Jacobian of the mechanisms cancels; at the point x* where all grad T_e vanish, the noises
are at their modes, and the Hessians there hold the derivatives of the mechanisms and hence
the graph (crl.scm.hessians). Of use to see the theorem at work on data, and where it is
fragile: ``shared_mechanism`` is the method to use.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from crl.check import check_options
from crl.combinators import descend
from crl.core import Data, Estimator, PyTree, Readout, num_envs
from crl.nets.mlp import residual_mlp
from crl.numerics.linalg import dot
from crl.scm.hessians import (
    check_auxiliary,
    environment_moments,
    graph_of,
    quadratic_hessians,
    slopes,
)

_NUM_STARTS = 64  # rows near the mean from which x* is looked for
_NUM_SEARCH = 40  # Gauss-Newton steps of each
_BOX = 2.0  # standard deviations from the mean, beyond which x* is not looked for


class Params(NamedTuple):
    """Logits of the environments 1, 2, ... against 0: u'Q u / 2 + l'u + c + net(u)."""

    quadratic: Array  # (E - 1, d, d)
    linear: Array  # (E - 1, d)
    constant: Array  # (E - 1,)
    net: PyTree


class State(NamedTuple):
    """The classifier, in columns u = (x - mean) / sd."""

    params: Params
    mean: Array  # (d,)
    sd: Array  # (d,)
    opt: optax.OptState


class Fitted(NamedTuple):
    """What the Hessians at one point say."""

    critical_point: Array  # (d,) x*
    slopes: Array  # (d, d) slopes[i, j] = df_j / dx_i there
    graph: Array  # (d, d) int32
    order: Array  # (d,) int32
    diag: dict[str, Array]


def hessian_ratio(
    width: int = 64,
    threshold: float = 0.15,
    learning_rate: float = 3e-3,
    decay: float = 1.0,
    num_steps: int = 3000,
    batch_size: int = 1000,
) -> Estimator:
    """A graph from a base and at least two auxiliary environments, mechanisms unknown.

    width: of the network that adds to quadratic logits, which start as those of Gaussian
    laws. threshold: as in ``precision_ratio``, of derivatives at x*. learning_rate, decay: of
    AdamW, cosine to 0. Floats may be traced.

    Claims graph, order, other 'slopes' (d, d), df_j / dx_i at other 'critical_point' (d,), x*
    in the units of x, and diag: ``complex_pairs``, ``ratio_gap``, ``least_change``,
    ``num_envs`` (crl.scm.hessians), and ``gradient``, the root of sum_e |grad T_e|^2 at x*,
    in units of 1 / sd of x: where it is not small, T_e have no critical point in common.
    Identified, as rows, steps and width go to infinity: the graph of an acyclic SCM whose
    mechanisms are invertible in their noise and the same in all environments, without hidden
    causes, but for edges whose derivative vanishes at x*; where noises are Gaussian, or
    others whose log ratios have a critical point in common, one environment changes the
    variance of each, and no two change in proportion.

    Second derivatives of a fitted classifier are its weakest part: expect the direction of
    one edge from 10,000 rows an environment, most of a graph on three variables, and errors
    beyond. On linear mechanisms ``precision_ratio`` has the same Hessians in closed form.

    Raises ValueError as ``precision_ratio`` does.
    """
    check_options(
        "hessian_ratio",
        at_least_one={"width": width, "num_steps": num_steps, "batch_size": batch_size},
        positive={"learning_rate": learning_rate},
        nonnegative={"threshold": threshold, "decay": decay},
    )
    schedule = optax.cosine_decay_schedule(learning_rate, num_steps)
    optimizer = optax.adamw(schedule, weight_decay=decay, mask=_is_net)

    def init(key, data):
        mean, sd = jnp.mean(data.x, 0), jnp.std(data.x, 0)
        params = _gaussian(data._replace(x=(data.x - mean) / sd))
        net = residual_mlp(num_envs(data) - 1, width, depth=1).init(key, data.x[:1])
        params = params._replace(net=net)
        return State(params, mean, sd, optimizer.init(params))

    def loss(params, state, key, batch):
        del key
        ratios = log_ratios(params, width, (batch.x - state.mean) / state.sd)  # (n, E - 1)
        # The share of an environment in the batch moves constants alone.
        logits = jnp.pad(ratios, ((0, 0), (1, 0)))
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch.env)
        return jnp.mean(nll), {}

    def finish(key, state, data):
        del key
        u = (data.x - state.mean) / state.sd

        def ratios(u):
            return log_ratios(state.params, width, u[None])[0]

        point, gradient = critical_point(ratios, u)
        _, covariance = environment_moments(data._replace(x=u))
        with jax.default_matmul_precision("highest"):
            found = slopes(jax.hessian(ratios)(point), covariance[0])
        spread = jnp.sqrt(jnp.diagonal(covariance[0]))
        graph, order = graph_of(found.weights, spread, threshold)
        return Fitted(
            state.mean + state.sd * point,
            found.weights * state.sd / state.sd[:, None],
            graph,
            order,
            found.diag | {"gradient": gradient},
        )

    def readout(fitted, data):
        del data
        other = {"critical_point": fitted.critical_point, "slopes": fitted.slopes}
        return Readout(graph=fitted.graph, order=fitted.order, diag=fitted.diag, other=other)

    return Estimator(
        init,
        descend(loss, optimizer),
        readout,
        num_steps,
        finish,
        batch_size=batch_size,
        validate=lambda data: check_auxiliary("hessian_ratio", data),
    )


def _is_net(params: Params) -> Params:
    """Which parameters decay: those of the network."""
    return Params(False, False, False, jax.tree.map(lambda _: True, params.net))


def _gaussian(data: Data) -> Params:
    """Logits of Gaussian laws with the moments of the environments, without a network."""
    mean, covariance = environment_moments(data)
    precision = jnp.linalg.inv(covariance)
    pull = jnp.einsum("eij,ej->ei", precision, mean, precision="highest")
    constant = -(jnp.linalg.slogdet(covariance)[1] + jnp.sum(pull * mean, 1)) / 2
    return Params(
        quadratic_hessians(covariance), pull[1:] - pull[0], constant[1:] - constant[0], None
    )


def log_ratios(params: Params, width: int, u: Array) -> Array:
    """T_e(u) up to constants, (n, E - 1), of rows u (n, d)."""
    net = residual_mlp(len(params.constant), width, depth=1)
    bend = jnp.einsum("ni,eij,nj->ne", u, params.quadratic, u, precision="highest") / 2
    return bend + dot(u, params.linear.T) + params.constant + net.apply(params.net, u)


def critical_point(ratios: Callable, u: Array) -> tuple[Array, Array]:
    """Where sum_e |grad T_e|^2 is least, (d,), and its root there, ().

    ratios: (d,) -> (E - 1,). u: (n, d) standardised rows; the search starts at those nearest
    to 0 and stays within ``_BOX``. Levenberg-Marquardt: a step that gains nothing is not
    taken, and damped four times as much next.
    """
    gradients = jax.jacfwd(ratios)  # (E - 1, d)

    def value(u):
        return jnp.sum(gradients(u) ** 2)

    def step(carry, _):
        u, damping = carry
        residual = gradients(u).reshape(-1)
        jacobian = jax.jacfwd(gradients)(u).reshape(len(residual), -1)
        gram = dot(jacobian.T, jacobian)
        gram = gram + damping * (jnp.trace(gram) + 1e-6) / len(u) * jnp.eye(
            len(u), dtype=u.dtype
        )
        move = jnp.linalg.solve(gram, dot(jacobian.T, residual))
        new = jnp.clip(u - move, -_BOX, _BOX)
        gains = value(new) < value(u)
        damping = jnp.clip(jnp.where(gains, damping / 4, damping * 4), 1e-6, 1e6)
        return (jnp.where(gains, new, u), damping), None

    def search(u):
        (u, _), _ = jax.lax.scan(step, (u, jnp.full((), 0.1, u.dtype)), None, _NUM_SEARCH)
        return u, value(u)

    _, nearest = jax.lax.top_k(-jnp.sum(u**2, 1), min(_NUM_STARTS, len(u)))
    with jax.default_matmul_precision("highest"):
        points, values = jax.vmap(search)(jnp.clip(u[nearest], -_BOX, _BOX))
    best = jnp.argmin(values)
    return points[best], jnp.sqrt(values[best])
