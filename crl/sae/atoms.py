"""Care of the atoms of a dictionary while it is trained: unit norm, and no wasted slots.

A TopK encoder leaves atoms that never fire, and pairs that share one true feature; neither
is repaired by the gradient. Replacing both by directions in which the reconstruction is
worst (the clean-up step of K-SVD, Aharon et al. 2006) is what makes the dictionary stable.
"""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from crl.numerics.linalg import dot, unit_rows

BLOCK = 256  # rows of the Gram matrix at a time: m^2 floats would not fit for large m


def unit_decoder(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """``inner`` with the rows of ``params.w_dec`` kept on the unit sphere.

    The radial part of the gradient, which the renormalisation would undo, never enters the
    moments of ``inner``; the rows are renormalised after its step.
    """

    def update(grads, state, params):
        atoms, g = params.w_dec, grads.w_dec
        g = g - jnp.sum(g * atoms, axis=1, keepdims=True) * atoms
        updates, state = inner.update(grads._replace(w_dec=g), state, params)
        moved = unit_rows(atoms + updates.w_dec)
        return updates._replace(w_dec=moved - atoms), state

    return optax.GradientTransformation(inner.init, update)


def duplicates(atoms: Array, threshold: float) -> Array:
    """(m,) bool: whether an atom before this one has cosine above ``threshold`` with it.

    atoms: (m, p) unit rows. Of a pair, the first stays.
    """
    m, p = atoms.shape
    pad = -m % BLOCK
    blocks = jnp.pad(atoms, ((0, pad), (0, 0))).reshape(-1, BLOCK, p)
    index = jnp.arange(m + pad).reshape(-1, BLOCK)

    def block(args):
        rows, i = args
        cosine = dot(rows, atoms.T)  # (block, m)
        return jnp.any((cosine > threshold) & (jnp.arange(m) < i[:, None]), axis=1)

    return jax.lax.map(block, (blocks, index)).reshape(-1)[:m]


def worst_directions(residual: Array, replace: Array) -> tuple[Array, Array]:
    """For each atom to replace, the direction of one of the largest residuals.

    residual: (n, p) x minus its reconstruction. replace: (m,) bool. The j-th atom to go
    gets the j-th worst row. Returns directions (m, p), unit rows, and the mask (m,) of the
    atoms that got one: there are no more than rows with a residual.
    """
    n = residual.shape[0]
    size = jnp.sum(residual**2, axis=1)  # (n,)
    order = jnp.argsort(-size)
    rank = jnp.cumsum(replace) - 1  # (m,)
    row = order[jnp.clip(rank, 0, n - 1)]
    return unit_rows(residual[row]), replace & (rank < n) & (size[row] > 0)


def geometric_median(x: Array, num_steps: int = 50) -> Array:
    """The point (p,) with the least sum of distances to the rows of x (n, p); Weiszfeld.

    Unlike the mean it does not follow a few rows of large norm.
    """
    mean = jnp.mean(x, axis=0)
    # Keeps a row that coincides with the estimate from taking all the weight.
    spread = jnp.mean(jnp.linalg.norm(x - mean, axis=1))
    floor = jnp.where(spread > 0, 1e-6 * spread, 1)

    def step(_, center):
        distance = jnp.linalg.norm(x - center, axis=1)
        weight = 1 / jnp.maximum(distance, floor)
        return weight @ x / jnp.sum(weight)

    return jax.lax.fori_loop(0, num_steps, step, mean)
