"""Stochastic differential equations observed at stationarity, in shifted environments.

dx = (W' g(x) - x + b + c_e) dt + sqrt(D) dW, W[i, j] the strength of i -> j, cycles allowed.
The base environment has c = 0; each further one shifts the drift of one variable, which is
its known target. Rows are independent draws from the environment's stationary law. Claims
are judged on environments that shift two variables at once, which no fit has seen.

``linear_sde`` (g the identity) draws from the exact Gaussian law; there a shift moves means
and nothing else, and means add up. ``tanh_sde`` (g = tanh) is simulated, and they do not.
Lorch, Krause and Schoelkopf, "Causal modeling with stationary diffusions" (AISTATS 2024).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options
from crl.core import DGP, Sample, Truth, grouped
from crl.numerics.diffusions import lyapunov, simulate
from crl.numerics.linalg import dot
from crl.numerics.spectra import spectral_abscissa

# Of simulated paths. The unit of time is the memory of a variable left alone; with W bounded
# as it is, laws after 12 and after 100 units, or with steps of .1 and .2, are alike in samples
# of 2,000.
NUM_STEPS, DT = 100, 0.2


class World(NamedTuple):
    """One stationary diffusion and what shifting each of its variables does."""

    weights: Array  # (d, d) W, zero diagonal
    bias: Array  # (d,) b
    noise: Array  # (d,) D, the diffusion's variance per unit of time
    shift: Array  # (d,) added to the drift of a variable where it is a target


def linear_sde(
    num_nodes: int,
    edges_per_node: float = 2.0,
    num_shifted: int | None = None,
    shift: tuple[float, float] = (3.0, 8.0),
    dtype=jnp.float32,
) -> DGP:
    """Linear stochastic differential equations: rows are Gaussian, exactly.

    num_nodes: d, columns of x. edges_per_node: expected number of parents, at most d - 1.
    num_shifted: the first that many variables are shifted, one in each auxiliary
    environment; None: all of them. 0 leaves the base alone: a control, in which W is not
    identified. shift: range of the sizes of shifts, of random sign; a variable alone has a
    standard deviation of about .7.

    Weights are U(.5, 1.5) with random signs, then scaled down until no eigenvalue of W has
    a real part above .5; D is exp U(-.5, .5), b is N(0, 1).

    Truth: graph, and in ``other`` the weights W and, on the held-out law, draws
    (E, n, d): fresh rows of every environment. Given: target. The held-out law has the
    base and an environment for each pair of neighbours among the variables that are shifted,
    in a circle; where fewer than two are, it is that of the sample.
    Raises ValueError for sizes and ranges that make no such world.
    """
    _check("linear_sde", num_nodes, edges_per_node, num_shifted, shift)

    def init(key):
        world = _random_world(key, num_nodes, edges_per_node, (0.5, 1.5), shift, dtype)
        return _bounded(world, 0.5)

    return _shifted(init, _gaussian_rows, num_nodes, num_shifted)


def tanh_sde(
    num_nodes: int,
    edges_per_node: float = 2.0,
    num_shifted: int | None = None,
    shift: tuple[float, float] = (1.5, 3.0),
    bias: float = 0.0,
    dtype=jnp.float32,
) -> DGP:
    """Neural drifts W' tanh(x) - x + b: what two shifts do is not the sum of what each does.

    Options, truth and held-out law as in ``linear_sde``. Weights are U(1, 3) with random
    signs, scaled down until no eigenvalue of W has a real part above 1, beyond which there
    may be several equilibria and no path visits them all. bias: standard deviation of b; the
    larger, the more variables stay where tanh is flat, and pass next to nothing on: at 3 laws
    can still be predicted on most worlds, and strengths no longer be told. Rows are the ends
    of simulated paths of 20 units of time.
    """
    _check("tanh_sde", num_nodes, edges_per_node, num_shifted, shift)
    check_options("tanh_sde", nonnegative={"bias": bias})

    def init(key):
        world = _random_world(key, num_nodes, edges_per_node, (1.0, 3.0), shift, dtype)
        return _bounded(world._replace(bias=bias * world.bias), 1.0)

    return _shifted(init, _simulated_rows, num_nodes, num_shifted)


def _check(who, num_nodes, edges_per_node, num_shifted, shift) -> None:
    check_options(
        who,
        at_least_one={"num_nodes": num_nodes},
        nonnegative={"edges_per_node": edges_per_node},
        one_of={"num_shifted": (num_shifted, (None, *range(num_nodes + 1)))},
        positive={"shift[0]": shift[0], "shift[1]": shift[1]},
    )


def _random_world(key, d, edges_per_node, size, shift, dtype) -> World:
    key_graph, key_weights, key_bias, key_noise, key_shift = jax.random.split(key, 5)
    p = jnp.minimum(1.0, jnp.float32(edges_per_node) / max(1, d - 1))
    is_edge = jax.random.bernoulli(key_graph, p, (d, d)) & ~np.eye(d, dtype=bool)
    return World(
        weights=jnp.where(is_edge, _signed_uniform(key_weights, (d, d), size, dtype), 0),
        bias=jax.random.normal(key_bias, (d,), dtype),
        noise=jnp.exp(jax.random.uniform(key_noise, (d,), dtype, -0.5, 0.5)),
        shift=_signed_uniform(key_shift, (d,), shift, dtype),
    )


def _bounded(world: World, abscissa: float) -> World:
    """The world with W scaled down to that largest real part of an eigenvalue."""
    scale = abscissa / jnp.maximum(spectral_abscissa(world.weights), abscissa)
    return world._replace(weights=scale * world.weights)


def _signed_uniform(key: Array, shape, size: tuple, dtype) -> Array:
    key_size, key_sign = jax.random.split(key)
    magnitude = jax.random.uniform(key_size, shape, dtype, *size)
    is_negative = jax.random.bernoulli(key_sign, jnp.float32(0.5), shape)
    return jnp.where(is_negative, -magnitude, magnitude)


def _gaussian_rows(key: Array, world: World, shifts: Array, n: int) -> Array:
    """Rows (E, n, d) of the stationary laws of a linear drift under shifts (E, d)."""
    d = len(world.bias)
    drift = world.weights.T - jnp.eye(d, dtype=world.bias.dtype)  # rows are effects
    mean = -jnp.linalg.solve(drift, (world.bias + shifts).T).T  # (E, d)
    root = jnp.linalg.cholesky(lyapunov(drift, jnp.diag(world.noise)))
    noise = jax.random.normal(key, (len(shifts), n, d), world.bias.dtype)
    return mean[:, None] + dot(noise, root.T)


def _simulated_rows(key: Array, world: World, shifts: Array, n: int) -> Array:
    """The same for the drift W' tanh(x) - x + b, at the end of simulated paths."""
    key_start, key_path = jax.random.split(key)
    start = jax.random.normal(key_start, (len(shifts), n, len(world.bias)), world.bias.dtype)

    def force(x):
        return dot(jnp.tanh(x), world.weights) + (world.bias + shifts)[:, None]

    return simulate(key_path, force, 1.0, world.noise, start, NUM_STEPS, DT)


def _shifted(init: Callable, law: Callable, num_nodes: int, num_shifted: int | None) -> DGP:
    """A DGP of single shifts that is judged on double ones.

    law: (key, world, shifts (E, d), n) -> rows (E, n, d).
    """
    d = num_nodes
    k = d if num_shifted is None else num_shifted
    single = np.vstack([np.zeros((1, d)), np.eye(d)[:k]]).astype(np.int32)
    # Neighbours among the variables that are shifted; two of them make one pair.
    pairs = np.unique(np.eye(k, d) + np.roll(np.eye(k), 1, 0) @ np.eye(k, d), axis=0)
    double = np.vstack([np.zeros((1, d)), np.minimum(pairs, 1)]).astype(np.int32)

    def truth(world, target, **other):
        graph = (world.weights != 0).astype(jnp.int32)
        other = {"weights": world.weights, **other}
        return Truth(graph=graph, targets=jnp.asarray(target), other=other)

    def rows(key, world, target, n):
        x = law(key, world, target * world.shift, n)  # (E, n, d)
        return grouped(x.reshape(-1, d), [n] * len(target), target=jnp.asarray(target))

    def sample(key, world, n):
        return Sample(rows(key, world, single, n), truth(world, single))

    def held_out(key, world, n):
        key_rows, key_draws = jax.random.split(key)
        draws = law(key_draws, world, double * world.shift, n)
        return Sample(rows(key_rows, world, double, n), truth(world, double, draws=draws))

    return DGP(init, sample, held_out=held_out if k > 1 else None)
