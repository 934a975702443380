"""Latent causal models behind a mixing, observed under hard interventions on the latents.

Environment 0 is observational. In environment e the variables that it targets lose their
parents and get a noise law of their own; all other mechanisms are those of environment 0:

    z_i = f_i(z_pa(i), s_i), s_i ~ N(0, 1)         where i is not targeted
    z_i = f_i(nothing, s_i), s_i ~ N(mean, sd^2)   where it is
    x = g(z)

One such environment for every variable identifies the latents up to a function of each, for
a known graph, known targets and any smooth g (Liang et al., CauCA, NeurIPS 2023, theorem
4.2); without interventions nothing does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.stats as stats
import numpy as np
from jax import Array

from crl.check import check_options
from crl.core import DGP, PyTree, Sample, Truth, grouped
from crl.dgp.graphs import erdos_renyi
from crl.dgp.mechanisms import KINDS, Mechanisms, pull, push, random_mechanisms
from crl.dgp.mixings import Mixing, leaky_tanh_mlp

TOLD = ("graph", "empty")


class World(NamedTuple):
    """One latent SCM with its interventions and its mixing."""

    mechanisms: Mechanisms
    target: Array  # (E, d) 1 where environment e intervenes on variable i
    mean: Array  # (E, d) of the noise, 0 where nothing is targeted
    sd: Array  # (E, d) and its standard deviation, 1 where nothing is targeted
    mixing: PyTree


def latent_scm(
    num_latents: int,
    mixing: Mixing | None = None,
    graph: Array | None = None,
    edges_per_node: float = 0.5,
    mechanism: str = "linear",
    min_weight: float = 0.0,
    max_weight: float = 1.0,
    num_targeted: int | None = None,
    shift: float = 2.0,
    spread: float = 0.0,
    told: str = "graph",
    dtype=jnp.float32,
) -> DGP:
    """A latent SCM with one hard intervention on each variable in turn: E = d + 1.

    mixing: of crl.dgp.mixings; None: ``leaky_tanh_mlp(2)``. graph: a fixed (d, d) DAG,
    [i, j] = 1 for i -> j; None: Erdos-Renyi, where every pair is joined with probability
    2 edges_per_node / (d - 1), and variables lie in random order. mechanism: a name of
    crl.dgp.mechanisms.KINDS, linear weights of size U(min_weight, max_weight)
    and random sign. num_targeted: how many variables have their environment, the last ones in
    the causal order being left out; None: all. 0: one observational environment.
    shift: the mean of the noise of a targeted variable. spread: the logarithm of its standard
    deviation is +spread or -spread with equal chance. told: the graph that the estimator is
    given, the true 'graph' or an 'empty' one.

    The defaults are the worlds of CauCA's experiments (mean shift of two standard deviations,
    weights in U(-1, 1), edges with probability .5 at d = 3), but for graphs without an edge,
    which those leave out.
    Data.given: graph and target. Truth: z, graph, targets, log_prob.
    Raises ValueError for sizes and names that make no such world.
    """
    d = num_latents
    targeted = d if num_targeted is None else num_targeted
    check_options(
        "latent_scm",
        at_least_one={"num_latents": d},
        nonnegative={
            "edges_per_node": edges_per_node,
            "min_weight": min_weight,
            "max_weight": max_weight,
        },
        one_of={"mechanism": (mechanism, KINDS), "told": (told, TOLD)},
    )
    if not 0 <= targeted <= d:
        raise ValueError(f"latent_scm needs 0 <= num_targeted <= {d}, got {targeted}")
    if graph is not None and np.shape(graph) != (d, d):
        raise ValueError(f"latent_scm needs a graph of shape {(d, d)}, got {np.shape(graph)}")
    mix = leaky_tanh_mlp(2) if mixing is None else mixing

    def init(key):
        key_graph, key_mechanisms, key_weights, key_sd, key_mix = jax.random.split(key, 5)
        g = erdos_renyi(key_graph, d, edges_per_node) if graph is None else jnp.asarray(graph)
        mechanisms = random_mechanisms(key_mechanisms, mechanism, g.astype(jnp.int32), dtype)
        u = jax.random.uniform(key_weights, (d, d), dtype, -1, 1)
        weights = jnp.sign(u) * (min_weight + (max_weight - min_weight) * jnp.abs(u))
        mechanisms = mechanisms._replace(linear=weights * g)
        target = jnp.zeros((targeted + 1, d), jnp.int32)
        target = target.at[1 + jnp.arange(targeted), mechanisms.order[:targeted]].set(1)
        sign = jax.random.rademacher(key_sd, target.shape, dtype)
        return World(
            mechanisms,
            target,
            mean=shift * target.astype(dtype),
            sd=jnp.exp(spread * sign * target),
            mixing=mix.init(key_mix, d, dtype),
        )

    def sample(key, world, n):
        count = [n] * (targeted + 1)
        env = np.repeat(np.arange(targeted + 1), n)
        s = world.mean[env] + world.sd[env] * jax.random.normal(key, (len(env), d), dtype)
        z = jax.vmap(lambda e, s: push(mechanism, _intervened(world, e), s))(env, s)
        x = jax.vmap(lambda z: mix.forward(world.mixing, z))(z)
        graph = world.mechanisms.graph
        known = graph if told == "graph" else jnp.zeros_like(graph)
        truth = Truth(
            z=z,
            graph=graph,
            targets=world.target,
            log_prob=jax.vmap(lambda e, z: log_density(mechanism, mix, world, e, z))(env, z),
        )
        return Sample(grouped(x, count, target=world.target, graph=known), truth)

    return DGP(init, sample, lambda world, z: mix.forward(world.mixing, z))


def log_density(mechanism: str, mixing: Mixing, world: World, env: Array, z: Array) -> Array:
    """log p_env(x) of the one point x = g(z), in nats, for a square mixing; z: (d,)."""
    s, log_det = pull(mechanism, _intervened(world, env), z)
    jacobian = jax.jacfwd(lambda z: mixing.forward(world.mixing, z))(z)  # (d, d)
    log_p = jnp.sum(stats.norm.logpdf(s, world.mean[env], world.sd[env])) + log_det
    return log_p - jnp.linalg.slogdet(jacobian)[1]


def _intervened(world: World, env: Array) -> Mechanisms:
    """The mechanisms of one environment: what it targets has no parents."""
    m, keep = world.mechanisms, 1 - world.target[env]  # (d,)
    return m._replace(linear=m.linear * keep, hidden=m.hidden * keep[:, None])
