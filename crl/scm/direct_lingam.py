"""DirectLiNGAM: the causal order of a linear non-Gaussian SCM, one cause after the other.

Shimizu et al., "DirectLiNGAM: a direct method for learning a linear non-Gaussian structural
equation model" (JMLR 2011), with the pairwise likelihood ratios of Hyvarinen and Smith
(JMLR 2013). A variable without causes is independent of what remains of the others after
regression on it; the one that looks most like it comes first, is regressed out, and so on.
No step size and no start: the same data give the same graph, whatever the columns' units.
"""

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import Estimator
from crl.numerics.entropy import entropy
from crl.numerics.linalg import dot
from crl.scm.linear import check_linear, claims, in_order, standardised
from crl.scm.prior import prior

BLOCK = 2**18  # numbers that are looked at together


def direct_lingam() -> Estimator:
    """A linear SCM by DirectLiNGAM; closed form, without options.

    Claims graph, order, z, the noises in the units of x, other 'weights' (d, d), [i, j] the
    effect of i on j, and diag second_negentropy, nats: the second smallest of the noises,
    which the theory asks to be above 0. Prior knowledge: given 'required', 'forbidden' and
    'tier' (crl.scm.prior): a required edge is never pruned. Environments are pooled.

    Identified: the graph and the weights, when the SCM is linear and acyclic, all causes are
    observed and at most one noise is Gaussian. With Gaussian noises the order is chance
    (look at second_negentropy: about 1 / rows for them); with a hidden cause or nonlinear
    mechanisms it is wrong without a sign. Edges are pruned by the adaptive lasso with BIC,
    which keeps a weak false edge at times.

    Raises ValueError for no more rows than columns, columns that are constant or that others
    determine, and prior knowledge that contradicts itself.
    """

    def init(key, data):
        del key  # closed form
        known = prior(data)
        return in_order(data.x, causal_order(data.x, known.before), known, {})

    def step(key, state, batch):
        del key, batch  # closed form
        return state, {}

    def validate(data):
        check_linear("direct_lingam", data)

    return Estimator(init, step, claims, 0, validate=validate)


def causal_order(x: Array, before: Array) -> Array:
    """The order (d,) int32 of the columns of x (n, d), causes first.

    before: (d, d) bool, [i, j] where i is known to come before j.
    """
    z, _ = standardised(x)  # (d, n)
    d = len(z)

    def take_one(count, carry):
        z, order, is_left = carry
        unexplained = dependence(z, is_left, d - count)
        is_candidate = is_left & ~jnp.any(before & is_left[:, None], 0)
        cause = jnp.argmin(jnp.where(is_candidate, unexplained, jnp.inf))
        slope = dot(z, z[cause]) / z.shape[1]  # (d,)
        is_left = is_left.at[cause].set(False)
        rest = z - jnp.where(is_left, slope, 0)[:, None] * z[cause]
        rest = rest / jnp.std(rest, 1, keepdims=True)
        return rest, order.at[count].set(cause.astype(jnp.int32)), is_left

    start = (z, jnp.zeros(d, jnp.int32), jnp.ones(d, bool))
    return jax.lax.fori_loop(0, d, take_one, start)[1]


def dependence(z: Array, is_left: Array, num_left: Array) -> Array:
    """How much each variable looks like an effect of others that are left, (d,).

    sum_j min(0, I_ij)^2, where I_ij, the difference of mutual informations of a variable and
    its residual either way, is positive where i causes j (Hyvarinen and Smith, eq. 3).
    """
    d = len(z)
    marginal = entropy(z)
    residual = residual_entropies(z, is_left, num_left)
    forward = marginal[:, None] + residual.T  # [i, j]: H(x_i) + H(x_j given i)
    gain = jnp.where(is_left & ~jnp.eye(d, dtype=bool), forward.T - forward, 0)
    return jnp.sum(jnp.minimum(gain, 0) ** 2, 1)


def residual_entropies(z: Array, is_left: Array, num_left: Array) -> Array:
    """[i, j] the entropy of what remains of z_i after regression on z_j, (d, d).

    z: (d, n) standardised rows. Only pairs of variables that are left are filled in: as many
    blocks of pairs as that takes, each small enough for a cache.
    """
    d, n = z.shape
    size = max(1, min(d * d, BLOCK // n))
    left = jnp.argsort(~is_left)  # those that are left first
    slopes = dot(z, z.T) / n

    def fill(block, found):
        pair = jnp.minimum(block * size + jnp.arange(size), num_left**2 - 1)
        i, j = left[pair // num_left], left[pair % num_left]
        rest = z[i] - slopes[i, j][:, None] * z[j]
        power = jnp.mean(rest**2, 1, keepdims=True)
        rest = rest * jax.lax.rsqrt(jnp.where(power > 0, power, 1))  # i = j: nothing remains
        return found.at[i, j].set(entropy(rest))

    num_blocks = (num_left**2 + size - 1) // size
    return jax.lax.fori_loop(0, num_blocks, fill, jnp.zeros((d, d), z.dtype))
