"""Adam (Kingma and Ba 2015) on a function that is infinite outside of its domain."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from crl.core import PyTree

ADAM = optax.scale_by_adam(b1=0.99, b2=0.999)


class Walk(NamedTuple):
    """Where a descent stands."""

    x: PyTree
    before: PyTree  # x before the last move, which was in the domain
    adam: optax.OptState
    rate: Array  # ()


def set_out(x: PyTree, rate: Array) -> Walk:
    """A descent from x, in the domain."""
    return Walk(x, x, ADAM.init(x), rate)


def move(walk: Walk, gradient: PyTree, is_inside: Array) -> Walk:
    """One move downhill; from where it is not inside, half of the last one back, and half
    the rate from there on."""
    slope, adam = ADAM.update(gradient, walk.adam)
    ahead = jax.tree.map(lambda x, g: x - walk.rate * g, walk.x, slope)
    middle = jax.tree.map(lambda x, y: (x + y) / 2, walk.x, walk.before)
    onwards = Walk(ahead, walk.x, adam, walk.rate)
    back = walk._replace(x=middle, rate=walk.rate / 2)
    return jax.tree.map(lambda x, y: jnp.where(is_inside, x, y), onwards, back)


def minimize(
    smooth: Callable[[PyTree], tuple[Array, PyTree]],
    start: PyTree,
    rate: Array,
    tol: float,
    every: int,
    max_steps: int,
) -> PyTree:
    """A local minimum downhill from ``start``.

    smooth: x -> (value (), gradient), inf outside of its domain, in which the start lies.
    rate: of each move. tol: relative change of the value over ``every`` moves at which it
    stops.
    """

    def one(_, walk):
        value, gradient = smooth(walk.x)
        return move(walk, gradient, jnp.isfinite(value))

    def block(carry):
        walk, old, _, num = carry
        walk = jax.lax.fori_loop(0, every, one, walk)
        value, _ = smooth(walk.x)
        return walk, value, jnp.abs(value - old) > tol * jnp.abs(old), num + 1

    def goes_on(carry):
        return carry[2] & (carry[3] * every < max_steps)

    # A finite value that no function has: of inf a change has no size.
    far = jnp.asarray(jnp.finfo(rate.dtype).max / 4, rate.dtype)
    walk = set_out(start, rate)
    return jax.lax.while_loop(goes_on, block, (walk, far, jnp.array(True), 0))[0].x
