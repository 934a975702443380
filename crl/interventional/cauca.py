"""CauCA: latents behind an unknown mixing, from their graph and known interventions.

Causal component analysis: x = g(z), where z follows a causal model with a known graph, and
environment e replaces the mechanisms of known targets T_e by laws without parents. Maximum
likelihood over all environments of

    log p_e(x) = sum_{i not in T_e} log p_i(z_i | z_pa(i)) + sum_{i in T_e} log q_ei(z_i)
                 + log |det df/dx|,        z = f(x),

with a spline coupling flow f and linear Gaussian mechanisms p and q, as in the experiments of
Liang, Kekic, von Kuegelgen, Buchholz, Besserve, Gresele & Schoelkopf (NeurIPS 2023, arXiv
2305.17225).

Two things differ from them, both for speed. The mechanisms are no parameters of the descent:
for given z the best ones are regressions on the parents, which follow from the moments of z
in each environment, so that the loss is the likelihood at its maximum over them. And the flow
starts where the same likelihood is largest among linear maps of columns made normal one by
one, a problem of d^2 numbers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.scipy.stats import norm

from crl.check import check_options
from crl.combinators import descend
from crl.core import Data, Estimator, PyTree, Readout, num_envs
from crl.feed import draw_batch
from crl.nets.flows import Flow, spline_flow
from crl.nets.splines import Knots, spline, through_quantiles
from crl.numerics.graphs import is_acyclic
from crl.numerics.linalg import dot
from crl.numerics.whitening import whiten

NUM_KNOTS = 33  # of the splines that make columns normal: their shape is the flow's to refine
LINEAR_STEPS = 300  # of Adam at .05 on d^2 numbers, whose scale is 1: twice what they need
NUM_ROWS = 2**15  # that the start and the mechanisms are fitted to: they have few parameters


class Start(NamedTuple):
    """A fixed bijection ahead of the flow: columns made normal, then unmixed linearly."""

    knots: Knots  # (NUM_KNOTS, 1, d)
    mean: Array  # (d,)
    unmixing: Array  # (d, d)


class Mechanisms(NamedTuple):
    """Linear Gaussian mechanisms, and the laws of targeted variables."""

    weights: Array  # (1 + d, d) column i: intercept of z_i, then weights of its parents
    variance: Array  # (d,) of the noise
    own_mean: Array  # (E, d) of variable i in environment e; in use where it is targeted
    own_variance: Array  # (E, d)


class State(NamedTuple):
    """The flow in training."""

    params: PyTree  # of the flow
    opt: PyTree
    start: Start


class Fitted(NamedTuple):
    """The flow, and the mechanisms of its latents."""

    params: PyTree
    start: Start
    mechanisms: Mechanisms


def cauca(
    *,
    num_layers: int = 6,
    width: int = 32,
    depth: int = 2,
    num_bins: int = 16,
    batch_size: int = 512,
    num_steps: int = 2000,
    learning_rate: float = 0.005,
) -> Estimator:
    """Latents with a known graph and known targets of interventions, by maximum likelihood.

    Needs as many columns of x as latents d, Data.given['graph'] (d, d), the DAG, and
    Data.given['target'] (E, d), where any number of variables may be targeted in an
    environment. num_layers, width, depth, num_bins: of ``crl.nets.flows.spline_flow``.
    learning_rate: of Adam, at the first step; it falls to 0 as a cosine.

    Readout: z (n, d), column i the variable i of graph and targets; log_prob (n,) in nats;
    diag ``num_untargeted``, variables that no environment targets.

    Identified: each latent up to a function of itself, where every variable is targeted
    alone in some environment and its law there differs from the mechanism almost everywhere
    (theorem 4.2, perfect interventions); up to scale and shift if the mechanisms are linear
    and Gaussian. A variable that is never targeted is mixed with its parents, and without
    interventions all are mixed: any rotation of Gaussian latents fits as well. The likelihood
    has local maxima: choose among ``crl.combinators.restarts`` by that of held-out rows.

    Raises ValueError for sizes out of range, for data without graph or targets or of another
    shape, and for graphs with a cycle.
    Source: Liang et al. (NeurIPS 2023, arXiv 2305.17225).
    """
    check_options(
        "cauca",
        at_least_one={
            "num_layers": num_layers,
            "width": width,
            "depth": depth,
            "num_bins": num_bins,
            "batch_size": batch_size,
            "num_steps": num_steps,
        },
        positive={"learning_rate": learning_rate},
    )
    flow = spline_flow(num_layers, width, depth, num_bins)
    # A few batches early on have gradients a hundred times the usual, hence the clipping.
    # eps: the gradient in the scale of a latent, 0 but for rounding, is not to be followed.
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps), eps=1e-5),
    )

    def init(key, data):
        check_shapes(data)
        key_flow, key_rows, key_start = jax.random.split(key, 3)
        params = flow.init(key_flow, data.x[:1])
        rows = draw_batch(key_rows, data, NUM_ROWS)
        return State(params, optimizer.init(params), linear_start(key_start, rows))

    def loss(params, state, key, batch):
        """-log p(x) a row in nats, under the mechanisms that are best for the batch."""
        del key
        z, log_det = encode(flow, params, state.start, batch.x)
        _, entropy = most_likely(moments(z, batch), batch)
        return entropy - jnp.mean(log_det), {}

    def finish(key, state, data):
        rows = draw_batch(key, data, NUM_ROWS)
        z, _ = encode(flow, state.params, state.start, rows.x)
        return Fitted(state.params, state.start, most_likely(moments(z, rows), rows)[0])

    def readout(fitted, data):
        z, log_det = encode(flow, fitted.params, fitted.start, data.x)
        log_prob = log_prior(fitted.mechanisms, z, data) + log_det
        untargeted = jnp.sum(jnp.max(data.given["target"], axis=0) == 0)
        return Readout(z=z, log_prob=log_prob, diag={"num_untargeted": untargeted})

    return Estimator(
        init,
        descend(loss, optimizer),
        readout,
        num_steps,
        finish,
        batch_size=batch_size,
        validate=check_known,
    )


def linear_start(key: Array, data: Data) -> Start:
    """The likelihood at its maximum over linear maps, from a random rotation of white rows."""
    d = data.x.shape[1]
    through = through_quantiles(data.x, NUM_KNOTS - 1)
    y, _ = spline(data.x, through)  # (n, d)
    white = whiten(y, d)
    turn = dot(jax.random.orthogonal(key, d, dtype=y.dtype), white.whitener)
    moment = moments(dot(y - white.mean, turn.T), data)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, LINEAR_STEPS))

    def loss(unmixing):
        u = jnp.eye(1 + d, dtype=y.dtype).at[1:, 1:].set(unmixing)  # of [1, z]
        return most_likely(dot(dot(u, moment), u.T), data)[1] - jnp.linalg.slogdet(unmixing)[1]

    def step(carry, _):
        unmixing, opt = carry
        updates, opt = optimizer.update(jax.grad(loss)(unmixing), opt)
        return (unmixing + updates, opt), None

    eye = jnp.eye(d, dtype=y.dtype)
    (unmixing, _), _ = jax.lax.scan(step, (eye, optimizer.init(eye)), length=LINEAR_STEPS)
    # The likelihood knows no scale of the latents: without one, rounding would choose it.
    second = jnp.mean(moment, axis=0)[1:, 1:]
    size = jnp.sqrt(jnp.diagonal(dot(dot(unmixing, second), unmixing.T)))
    return Start(through, white.mean, dot(unmixing / size[:, None], turn))


def encode(flow: Flow, params: PyTree, start: Start, x: Array) -> tuple[Array, Array]:
    """z = f(x), (n, d), and log |det df/dx|, (n,)."""
    y, log_slope = spline(x, start.knots)
    z, log_det = flow.apply(params, dot(y - start.mean, start.unmixing.T))
    return z, log_det + jnp.sum(log_slope, axis=1) + jnp.linalg.slogdet(start.unmixing)[1]


def moments(z: Array, data: Data) -> Array:
    """The mean of u u' in each environment, u = [1, z]: (E, 1 + d, 1 + d)."""
    u = jnp.concatenate([jnp.ones_like(z[:, :1]), z], axis=1)  # (n, 1 + d)
    member = jax.nn.one_hot(data.env, num_envs(data), dtype=z.dtype)  # (n, E)
    split = (member[:, :, None] * u[:, None]).reshape(len(z), -1)  # (n, E (1 + d))
    total = dot(split.T, u).reshape(num_envs(data), u.shape[1], u.shape[1])
    return total / data.given["count"][:, None, None]


def most_likely(moment: Array, data: Data) -> tuple[Mechanisms, Array]:
    """The best mechanisms for latents with these moments, and their -log p(z) a row.

    moment: (E, 1 + d, 1 + d) of [1, z]. A variable has one mechanism in all environments that
    do not target it: the regression on its parents, from the moments of all those together.
    """
    target = data.given["target"].astype(moment.dtype)  # (E, d)
    count = data.given["count"].astype(moment.dtype)[:, None]  # (E, 1)
    share = count / jnp.sum(count)
    shared = (1 - target) * share  # (E, d)
    pooled = jnp.einsum("ei,ejk->ijk", shared, moment, precision="highest")
    # (d, 1 + d, 1 + d) of all rows that the mechanism of i has made; where there are none,
    # of a standard normal law, which counts for nothing.
    weight = jnp.sum(shared, axis=0)[:, None, None]
    pooled = jnp.where(
        weight > 0,
        pooled / jnp.where(weight > 0, weight, 1),
        jnp.eye(len(moment[0]), dtype=moment.dtype),
    )
    weights, variance = jax.vmap(_regress, in_axes=(0, 1, 0))(
        pooled, data.given["graph"], jnp.arange(target.shape[1])
    )
    own_mean = moment[:, 0, 1:]
    own_variance = jnp.diagonal(moment, axis1=1, axis2=2)[:, 1:] - own_mean**2
    # A flow that collapses a variable in a batch gains without bound, but for this floor.
    variance, own_variance = jnp.maximum(variance, 1e-6), jnp.maximum(own_variance, 1e-6)
    log_variance = shared * jnp.log(variance) + target * share * jnp.log(own_variance)
    entropy = (jnp.sum(log_variance) + target.shape[1] * (jnp.log(2 * jnp.pi) + 1)) / 2
    return Mechanisms(weights.T, variance, own_mean, own_variance), entropy


def _regress(moment: Array, parents: Array, i: Array) -> tuple[Array, Array]:
    """Least squares of z_i on 1 and its parents (d,): weights (1 + d,), residual variance."""
    use = jnp.concatenate([jnp.ones(1), parents]).astype(moment.dtype)
    covariance = use * moment[:, i + 1]
    system = moment * jnp.outer(use, use) + jnp.diag(1 - use)
    weights = jnp.linalg.solve(system, covariance)
    return weights, moment[i + 1, i + 1] - dot(weights, covariance)


def log_prior(mechanisms: Mechanisms, z: Array, data: Data) -> Array:
    """log p_e(z) of each row (n,), in nats."""
    weights, variance, own_mean, own_variance = mechanisms
    is_target = data.given["target"][data.env] > 0  # (n, d)
    mean = jnp.where(is_target, own_mean[data.env], weights[0] + dot(z, weights[1:]))
    variance = jnp.where(is_target, own_variance[data.env], variance)
    return jnp.sum(norm.logpdf(z, mean, jnp.sqrt(variance)), axis=1)


def check_shapes(data: Data) -> None:
    """Raise a ValueError for data without a graph and targets that fit x."""
    d = data.x.shape[-1]
    shapes = {"graph": (d, d), "target": (num_envs(data), d)}
    for name, shape in shapes.items():
        if name not in data.given:
            raise ValueError(
                f"cauca needs given[{name!r}] of shape {shape}: pass crl.as_data(x, env, "
                f"given={{{name!r}: ...}})"
            )
        if data.given[name].shape != shape or data.x.ndim != 2:
            raise ValueError(
                f"cauca needs given[{name!r}] of shape {shape} for x of shape {data.x.shape}, "
                f"got {data.given[name].shape}: one latent for each column of x"
            )


def check_known(data: Data) -> None:
    """Raise a ValueError for data without a graph and targets that fit x, or with a cycle."""
    check_shapes(data)
    if not is_acyclic(data.given["graph"]):
        graph = np.asarray(data.given["graph"]).tolist()
        raise ValueError(f"cauca needs a graph without cycles, got {graph}")
