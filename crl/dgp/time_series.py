"""Linear time series with effects within a step: structural vector autoregressions.

x_t = W' x_t + L_1' x_(t-1) + ... + L_p' x_(t-p) + e_t, with W acyclic, [i, j] the effect of i
on j. Rows are consecutive steps of one stationary series.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options, is_concrete
from crl.core import DGP, Sample, Truth, grouped
from crl.dgp.graphs import graph_law
from crl.dgp.mechanisms import random_mechanisms
from crl.dgp.scm import NOISES
from crl.numerics.linalg import dot
from crl.numerics.spectra import spectral_radius

_NUM_FORGOTTEN = 200  # steps before the first row: at memory .9, 1e-9 of the start is left


class World(NamedTuple):
    """One structural vector autoregression."""

    graph: Array  # (d, d) of W
    weights: Array  # (d, d) W, effects within a step
    lagged: Array  # (p, d, d) [k] those after k + 1 steps


def structural_var(
    num_nodes: int,
    num_lags: int = 1,
    graph: str | Array = "erdos_renyi",
    edges_per_node: float = 1.0,
    noise: str = "laplace",
    memory: float = 0.7,
    dtype=jnp.float32,
) -> DGP:
    """Stationary linear series with acyclic effects within a step.

    graph, edges_per_node: of W, as in ``multi_environment_scm``, with |w| in U(.5, 1.2).
    num_lags: p; all lagged effects are there, N(0, 1) before they are scaled. noise: the
    standardised law of all noises, as there; 'gaussian' is the control of VAR-LiNGAM. memory:
    in (0, .9], what is left of a shock after a step, in the long run: the spectral radius of
    the series. It may be traced.

    Truth: z the noises, graph that of W, other 'weights' (d, d) and 'lagged' (p, d, d). Data:
    aux 'time', the number of the step.
    Raises ValueError for sizes, rates, names and graphs that make no such world.
    """
    who = "structural_var"
    check_options(
        who,
        at_least_one={"num_nodes": num_nodes, "num_lags": num_lags},
        nonnegative={"edges_per_node": edges_per_node},
        positive={"memory": memory},
        one_of={"noise": (noise, tuple(NOISES))},
    )
    if is_concrete(memory) and memory > 0.9:
        raise ValueError(f"{who} needs memory <= 0.9, got {memory}: a longer one is not drawn")
    draw_graph = graph_law(who, graph, num_nodes, edges_per_node)

    def init(key):
        key_graph, key_within, key_lagged = jax.random.split(key, 3)
        within = random_mechanisms(key_within, "linear", draw_graph(key_graph), dtype)
        lagged = jax.random.normal(key_lagged, (num_lags, num_nodes, num_nodes), dtype)
        scale = memory / spectral_radius(companion(within.linear, lagged))
        power = scale ** jnp.arange(1, num_lags + 1, dtype=dtype)
        return World(within.graph, within.linear, lagged * power[:, None, None])

    def sample(key, world, n):
        num_steps = _NUM_FORGOTTEN + n
        noises = NOISES[noise].sample(key, (num_steps, num_nodes), dtype)
        _, x = jax.lax.scan(
            lambda past, e: advance(world, past, e),
            jnp.zeros((num_lags, num_nodes), dtype),
            noises,
        )
        other = {"weights": world.weights, "lagged": world.lagged}
        truth = Truth(z=noises[_NUM_FORGOTTEN:], graph=world.graph, other=other)
        aux = {"time": jnp.arange(n, dtype=dtype)}
        return Sample(grouped(x[_NUM_FORGOTTEN:], aux=aux), truth)

    return DGP(init, sample)


def advance(world: World, past: Array, noise: Array) -> tuple[Array, Array]:
    """One step of the series: the next past, and x (d,). past: (p, d), nearest first."""
    push = jnp.einsum("ki,kij->j", past, world.lagged, precision="highest") + noise
    eye = jnp.eye(len(noise), dtype=noise.dtype)
    x = jnp.linalg.solve(eye - world.weights.T, push)
    return jnp.concatenate([x[None], past[:-1]]), x


def companion(weights: Array, lagged: Array) -> Array:
    """The matrix A (p d, p d) that takes p steps, in a row vector, to the next p: x A."""
    num_lags, d, _ = lagged.shape
    eye = jnp.eye(d, dtype=weights.dtype)
    reduced = dot(lagged, jnp.linalg.inv(eye - weights))  # (p, d, d) x_t = x_(t-k) R_k
    shift = jnp.eye(num_lags * d, (num_lags - 1) * d, dtype=weights.dtype)
    return jnp.concatenate([reduced.reshape(-1, d), shift], 1)
