"""Invertible networks with the logarithm of their determinant.

A ``Flow`` maps rows x (n, d) to z (n, d) and log |det dz/dx| (n,), and back.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.nets.splines import inverse_spline, knots, spline
from crl.numerics.linalg import dot


class Flow(NamedTuple):
    """A bijection of R^d as three pure functions, on batches of rows."""

    init: Callable  # (key, x (n, d)) -> params
    apply: Callable  # (params, x (n, d)) -> z (n, d), log |det dz/dx| (n,)
    inverse: Callable  # (params, z (n, d)) -> x (n, d)


class Layer(NamedTuple):
    """A coupling layer: half of the coordinates steer the splines of the others."""

    weights: tuple  # of the conditioner, (out, in) each; the last starts as 0
    biases: tuple  # (out, 1)
    free: Array  # (3 K - 1, a, 1) splines of the steering coordinates themselves
    linear: Array  # (d, d) what follows
    shift: Array  # (d, 1)


def spline_flow(
    num_layers: int = 6,
    width: int = 64,
    depth: int = 2,
    num_bins: int = 8,
    bound: float = 4.0,
) -> Flow:
    """Rational-quadratic coupling layers, each followed by a linear map; starts as identity.

    In layer l the a = d // 2 coordinates from the l-th on (cyclically) pass through splines of
    their own, and steer those of the other d - a through an MLP of ``depth`` hidden layers of
    ``width`` units with SiLU. ``num_bins`` pieces lie within [-bound, bound]; outside, splines
    are the identity: x should have a scale of about 1.

    Source: Durkan et al., Neural spline flows (NeurIPS 2019), with full matrices for their LU
    factors: the number of coordinates is small here.
    """

    def init(key, x):
        keys = jax.random.split(key, num_layers)
        return jax.vmap(lambda k: _init_layer(k, x.shape[1], width, depth, num_bins, x.dtype))(
            keys
        )

    def apply(params, x):
        def forward(carry, layer):
            x, log_det = carry
            x, log_slope = _forward(layer, x, bound)
            x = jnp.roll(dot(layer.linear, x) + layer.shift, -1, axis=0)
            return (x, log_det + log_slope + jnp.linalg.slogdet(layer.linear)[1]), None

        x = x.T  # (d, n): rows along memory, bins across it
        (z, log_det), _ = jax.lax.scan(forward, (x, jnp.zeros_like(x[0])), params)
        return jnp.roll(z, num_layers, axis=0).T, log_det

    def inverse(params, z):
        def backward(x, layer):
            x = jnp.linalg.solve(layer.linear, jnp.roll(x, 1, axis=0) - layer.shift)
            return _backward(layer, x, bound), None

        z = jnp.roll(z.T, -num_layers, axis=0)
        return jax.lax.scan(backward, z, params, reverse=True)[0].T

    return Flow(init, apply, inverse)


def _init_layer(key, d, width, depth, num_bins, dtype) -> Layer:
    a, raw = d // 2, 3 * num_bins - 1
    sizes = [a, *[width] * depth, (d - a) * raw]
    normal = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal", 1, 0)
    keys = jax.random.split(key, depth)
    hidden = [
        normal(k, (o, max(i, 1)), dtype)[:, :i] for k, i, o in zip(keys, sizes, sizes[1:])
    ]
    return Layer(
        weights=(*hidden, jnp.zeros((sizes[-1], sizes[-2]), dtype)),
        biases=tuple(jnp.zeros((o, 1), dtype) for o in sizes[1:]),
        free=jnp.zeros((raw, a, 1), dtype),
        linear=jnp.eye(d, dtype=dtype),
        shift=jnp.zeros((d, 1), dtype),
    )


def _steered(layer: Layer, steering: Array, bound: float):
    """Knots for the other coordinates, from the steering ones (a, n)."""
    h = steering
    for w, b in zip(layer.weights[:-1], layer.biases[:-1]):
        h = jax.nn.silu(w @ h + b)  # a learned function: TF32 is precise enough for it
    raw = layer.weights[-1] @ h + layer.biases[-1]
    return knots(raw.reshape(layer.free.shape[0], -1, steering.shape[1]), bound)


def _forward(layer: Layer, x: Array, bound: float) -> tuple[Array, Array]:
    a = layer.free.shape[1]
    steering, log_free = spline(x[:a], knots(layer.free, bound))
    steered, log_steered = spline(x[a:], _steered(layer, x[:a], bound))
    log_det = jnp.sum(log_free, axis=0) + jnp.sum(log_steered, axis=0)
    return jnp.concatenate([steering, steered]), log_det


def _backward(layer: Layer, y: Array, bound: float) -> Array:
    a = layer.free.shape[1]
    steering = inverse_spline(y[:a], knots(layer.free, bound))
    steered = inverse_spline(y[a:], _steered(layer, steering, bound))
    return jnp.concatenate([steering, steered])
