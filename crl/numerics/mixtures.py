"""Mixtures of Gaussians on the line, one for each group of rows, by EM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special as special
from jax import Array

from crl.numerics.linalg import dot

_HALF_LOG_2PI = 0.9189385
_SMALLEST = 0.1  # sd of a component over that of its group
# Two starts, as means and standard deviations in units of the group's own: side by side
# for bounded and skewed laws, nested for heavy tails.
_SPREAD = (-1.3, -0.65, 0.0, 0.65, 1.3), (0.4,) * 5
_NESTED = (-0.3, -0.15, 0.0, 0.15, 0.3), (2.0, 0.85, 0.35, 0.55, 1.3)
NUM_COMPONENTS = len(_SPREAD[0])


class Mixture(NamedTuple):
    """E laws of K components each."""

    weight: Array  # (E, K), sums to 1 over K
    mean: Array  # (E, K)
    sd: Array  # (E, K)


class Local(NamedTuple):
    """What a law says about each row."""

    log_p: Array  # (n,) log density, nats
    share: Array  # (n, K) probability that the row comes from each component
    pull: Array  # (n, K) (s - mean) / sd^2
    slope: Array  # (n,) -d log p / ds
    curvature: Array  # (n,) -d^2 log p / ds^2, which may be negative
    bound: Array  # (n,) the curvature at fixed shares, an upper bound and positive


def normal(mean: Array, var: Array) -> Mixture:
    """Gaussians with these means and variances (E,), as mixtures of equal components."""
    shape = len(mean), NUM_COMPONENTS
    weight = jnp.full(shape, 1 / NUM_COMPONENTS, mean.dtype)
    repeat = jnp.ones_like(weight)
    return Mixture(weight, mean[:, None] * repeat, jnp.sqrt(var)[:, None] * repeat)


def moments(mixture: Mixture) -> tuple[Array, Array]:
    """Mean and variance (E,)."""
    mean = jnp.sum(mixture.weight * mixture.mean, -1)
    second = (mixture.mean - mean[..., None]) ** 2 + mixture.sd**2
    return mean, jnp.sum(mixture.weight * second, -1)


def local(mixture: Mixture, s: Array, member: Array) -> Local:
    """The laws at rows s (n,) of the groups ``member``, (n, E) one-hot."""
    weight, mean, sd = (dot(member, a) for a in mixture)  # (n, K)
    unit = (s[:, None] - mean) / sd
    joint = jnp.log(weight) - jnp.log(sd) - unit**2 / 2 - _HALF_LOG_2PI
    log_p = special.logsumexp(joint, axis=1)
    share, pull = jnp.exp(joint - log_p[:, None]), unit / sd
    slope = jnp.sum(share * pull, 1)
    bound = jnp.sum(share / sd**2, 1)
    curvature = bound - jnp.sum(share * (pull - slope[:, None]) ** 2, 1)
    return Local(log_p, share, pull, slope, curvature, bound)


def normal_score(mixture: Mixture, s: Array, member: Array) -> Array:
    """Rows s (n,) brought to standard normal by the distribution functions; at most 4."""
    weight, mean, sd = (dot(member, a) for a in mixture)
    level = jnp.sum(weight * special.ndtr((s[:, None] - mean) / sd), 1)
    return special.ndtri(jnp.clip(level, 3e-5, 1 - 3e-5))


def expectation_maximisation(
    mixture: Mixture, s: Array, member: Array, num_steps: int
) -> Mixture:
    """``num_steps`` EM steps on rows s (n,) of the groups ``member`` (n, E).

    A prior worth two rows keeps components from collapsing onto one.
    """
    count = jnp.sum(member, 0)[:, None]
    _, var = _group_moments(s, member)

    def step(_, mixture):
        share = local(mixture, s, member).share
        rows = dot(member.T, share)  # (E, K)
        mean = (dot(member.T, share * s[:, None]) + 0.5 * mixture.mean) / (rows + 0.5)
        square = dot(member.T, share * (s[:, None] - dot(member, mean)) ** 2)
        square = (square + 0.5 * var) / (rows + 2)
        sd = jnp.sqrt(jnp.maximum(square, _SMALLEST**2 * var))
        return Mixture((rows + 1) / (count + NUM_COMPONENTS), mean, sd)

    return jax.lax.fori_loop(0, num_steps, step, mixture)


def fit_mixture(s: Array, member: Array, num_steps: int = 20) -> Mixture:
    """Mixtures of rows s (n,) of the groups ``member`` (n, E): the better of two starts."""
    mean, var = _group_moments(s, member)

    def fit(start):
        at, scale = jnp.asarray(start, s.dtype)
        weight = jnp.full(mean.shape[:1] + at.shape, 1 / NUM_COMPONENTS, s.dtype)
        sd = jnp.sqrt(var)
        mixture = Mixture(weight, mean + sd * at, sd * scale)
        mixture = expectation_maximisation(mixture, s, member, num_steps)
        return mixture, dot(member.T, local(mixture, s, member).log_p)

    (spread, log_p), (nested, other) = fit(_SPREAD), fit(_NESTED)
    better = (other > log_p)[:, None]
    return jax.tree.map(lambda a, b: jnp.where(better, b, a), spread, nested)


def optimism(mixture: Mixture, local: Local, member: Array) -> Array:
    """What each row's loss gains, (n,), from its own part in the fit of the mixtures.

    t' F^-1 t for the row's score t and the sum F of its squares: the leave-one-out
    correction with the Fisher information in place of the Hessian, about one nat for each
    parameter in all.
    """
    weight, _, sd = (dot(member, a) for a in mixture)
    score = jnp.concatenate(
        [
            (local.share - weight)[:, 1:],
            local.share * local.pull,
            local.share * ((local.pull * sd) ** 2 - 1),
        ],
        1,
    )  # (n, 3 K - 1), of the weights, means and log sds

    def of_group(member):
        own = score * member[:, None]
        unit = jax.lax.rsqrt(jnp.sum(own**2, 0) + 1e-6)
        own = own * unit
        fisher = dot(own.T, own) + 1e-3 * jnp.eye(own.shape[1], dtype=own.dtype)
        return jnp.sum(own * jnp.linalg.solve(fisher, own.T).T, 1)

    return sum(of_group(rows) for rows in member.T)


def _group_moments(s: Array, member: Array) -> tuple[Array, Array]:
    count = jnp.sum(member, 0)
    mean = dot(s, member) / count
    var = dot((s - dot(member, mean)) ** 2, member) / count
    return mean[:, None], var[:, None]
