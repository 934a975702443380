"""CauCA: latents behind an unknown mixing, from their graph and known interventions.

Causal component analysis (Liang, Kekic, von Kuegelgen, Buchholz, Besserve, Gresele &
Schoelkopf, NeurIPS 2023, arXiv 2305.17225): x = g(z), where z follows a causal model with a
known graph, and environment e replaces the mechanisms of known targets by laws without
parents. Maximum likelihood over all environments of

    log p_e(x) = sum_i not in target(e) log p_i(z_i | z_pa(i))
               + sum_i in target(e) log p~_e,i(z_i) + log |det df/dx|,        z = f(x),

with a spline coupling flow f and linear Gaussian mechanisms p, p~. One intervention on each
variable that changes its law almost everywhere identifies the latents up to a function of
each (theorem 4.2), up to scale and shift if the mechanisms are indeed linear and Gaussian.

The likelihood has poor local maxima: choose among ``crl.combinators.restarts`` by the
likelihood of held-out rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from crl.core import Data, Estimator, PyTree, Readout, num_envs
from crl.nets.flows import spline_flow
from crl.nets.splines import Knots, spline, through_quantiles
from crl.numerics.linalg import dot


class Start(NamedTuple):
    """A fixed bijection ahead of the flow: each column made normal, then all white."""

    knots: Knots  # (K + 1, d)
    mean: Array  # (d,)
    whitener: Array  # (d, d)


class Mechanisms(NamedTuple):
    """Linear Gaussian mechanisms, and the laws of targeted variables."""

    weights: Array  # (1 + d, d) column i: intercept and weights of the parents of i
    variance: Array  # (d,) of the noise
    own_mean: Array  # (E, d) of variable i in environment e, in use where it is targeted
    own_variance: Array  # (E, d)


class State(NamedTuple):
    params: PyTree  # of the flow
    opt: PyTree
    start: Start


class Fitted(NamedTuple):
    params: PyTree
    start: Start
    mechanisms: Mechanisms


def make_start(key, x, num=32):
    k = through_quantiles(x, num)
    y = spline(x, k)[0]
    mean = jnp.mean(y, 0)
    cov = dot((y - mean).T, y - mean) / len(y)
    chol = jnp.linalg.cholesky(cov + 1e-6 * jnp.eye(x.shape[1], dtype=x.dtype))
    white = jax.scipy.linalg.solve_triangular(chol, jnp.eye(x.shape[1], dtype=x.dtype), lower=True)
    q = jax.random.orthogonal(key, x.shape[1], dtype=x.dtype)
    return Start(k, mean, dot(q, white))


def standardise(start, x):
    y, log_slope = spline(x, start.knots)
    z = dot(y - start.mean, start.whitener.T)
    return z, jnp.sum(log_slope, 1) + jnp.linalg.slogdet(start.whitener)[1]


def moments(z: Array, data: Data) -> Array:
    """E[u u'] with u = [1, z] in each environment, (E, 1 + d, 1 + d)."""
    u = jnp.concatenate([jnp.ones_like(z[:, :1]), z], axis=1)  # (n, 1 + d)
    member = jax.nn.one_hot(data.env, num_envs(data), dtype=z.dtype)  # (n, E)
    v = (member[:, :, None] * u[:, None, :]).reshape(len(z), -1)  # (n, E (1 + d))
    total = dot(v.T, u).reshape(num_envs(data), *[u.shape[1]] * 2)
    return total / data.given["count"][:, None, None]


def most_likely(moment: Array, data: Data) -> tuple[Mechanisms, Array]:
    """Mechanisms of largest likelihood given moments (E, 1 + d, 1 + d); E[-log p(z)]."""
    graph, target = data.given["graph"], data.given["target"].astype(moment.dtype)
    share = data.given["count"] / jnp.sum(data.given["count"])
    shared = (1 - target) * share[:, None]
    weight = jnp.sum(shared, 0)  # (d,)
    pooled = jnp.einsum("ei,ejk->ijk", shared, moment, precision="highest")
    pooled = pooled / jnp.maximum(weight, 1e-12)[:, None, None]
    d = target.shape[1]
    parents = jnp.concatenate([jnp.ones((1, d)), graph]).T.astype(moment.dtype)  # (d, 1+d)

    def regress(m, parent, i):
        system = m * jnp.outer(parent, parent) + jnp.diag(1 - parent)
        w = jnp.linalg.solve(system, parent * m[:, i + 1])
        return w, m[i + 1, i + 1] - jnp.dot(w, m[:, i + 1], precision="highest")

    weights, variance = jax.vmap(regress)(pooled, parents, jnp.arange(d))
    own_mean = moment[:, 0, 1:]
    own_variance = jnp.diagonal(moment, axis1=1, axis2=2)[:, 1:] - own_mean**2
    variance, own_variance = jnp.maximum(variance, 1e-8), jnp.maximum(own_variance, 1e-8)
    entropy = weight * jnp.log(variance) + jnp.sum(target * share[:, None] * jnp.log(own_variance), 0)
    nll = 0.5 * jnp.sum(entropy + jnp.log(2 * jnp.pi) + 1)
    return Mechanisms(weights.T, variance, own_mean, own_variance), nll


def log_prob(m: Mechanisms, z: Array, data: Data) -> Array:
    """log p_e(z) of each row (n,)"""
    target = data.given["target"][data.env] > 0  # (n, d)
    loc = m.weights[0] + dot(z, m.weights[1:])
    mean = jnp.where(target, m.own_mean[data.env], loc)
    var = jnp.where(target, m.own_variance[data.env], m.variance)
    return jnp.sum(jax.scipy.stats.norm.logpdf(z, mean, jnp.sqrt(var)), 1)
