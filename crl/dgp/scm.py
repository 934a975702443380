"""Structural causal models observed in several environments, mechanisms shared by all.

Environment e changes the laws of the noises and nothing else: s_i ~ law scaled by
sd[e, i] about mean[e, i], with sd[0] = 1 and mean[0] = 0 in the base environment. Two
auxiliary environments whose noise variances change enough identify the graph of any
invertible mechanism (Montagna, arXiv 2510.13583); without a change, or with changes
proportional to one another, the theorem's argument is void.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options, is_concrete
from crl.core import DGP, Sample, Truth, grouped
from crl.dgp import sources
from crl.dgp.graphs import graph_law
from crl.dgp.mechanisms import (
    KINDS,
    Mechanisms,
    internally_standardized,
    pull,
    push,
    random_mechanisms,
)
from crl.numerics.graphs import transitive_closure

_CHANGES = ("independent", "proportional", "none")
_NUM_REFERENCE = 2000  # rows per environment that internal scaling takes its moments from
# Standardised; the number is a parameter of the law.
NOISES = {
    "gaussian": sources.gaussian(),
    "student_t3": sources.student_t(3.0),
    "student_t5": sources.student_t(5.0),
    "logistic": sources.logistic(),
    "laplace": sources.laplace(),
    "gumbel": sources.gumbel(),
    "gamma": sources.gamma(2.0),
    "chi2": sources.gamma(1.5),  # 3 degrees of freedom
    "exponential": sources.gamma(1.0),
    "uniform": sources.uniform(),
}


class World(NamedTuple):
    """One multi-environment SCM."""

    mechanisms: Mechanisms
    sd: Array  # (E, d) standard deviation of the noise of each variable; sd[0] = 1
    mean: Array  # (E, d) its mean; mean[0] = 0


def multi_environment_scm(
    num_nodes: int,
    graph: str | Array = "erdos_renyi",
    edges_per_node: float = 1.0,
    mechanism: str = "general",
    scaling: str = "raw",
    num_envs: int = 3,
    change: str = "independent",
    changed: float = 1.0,
    mean_shift: float = 0.0,
    noise: str = "gaussian",
    sizes: Sequence[float] | None = None,
    known_targets: bool = False,
    dtype=jnp.float32,
) -> DGP:
    """SCMs with shared mechanisms and environments that change the noise laws.

    graph: 'erdos_renyi', 'scale_free', 'stochastic_block', 'chain', 'fork', 'collider'
    (crl.dgp.graphs), or a fixed (d, d) DAG of 0 and 1, [i, j] for i -> j.
    edges_per_node: for 'erdos_renyi' the expected number k, of which a graph on d nodes
    has room for (d - 1) / 2: from there on it is complete; likewise for 'stochastic_block'.
    For 'scale_free' the number of parents that each variable takes, an integer.
    mechanism: 'linear', 'anm', 'lsnm', 'general', 'gp', 'polynomial' or 'post_nonlinear'
    (crl.dgp.mechanisms).
    scaling: 'raw', or 'internal': every variable has mean 0 and variance 1 over all
    environments in equal parts before it is passed on, so that its scale tells nothing of
    its place in the order (crl.metrics.sortability). ``standardized`` rescales columns only.
    change: 'independent' draws sd from U(1.6, 3) or U(.3, .65) with equal chance, for
    each variable and auxiliary environment; 'proportional' makes all environments change
    the precisions in proportion, 1/sd_e^2 - 1 = (1/sd_1^2 - 1)/e, so that two auxiliary
    environments say no more than one; 'none' leaves all as the base: a control, from
    which only the Markov equivalence class of a linear SCM follows.
    changed: the probability that an auxiliary environment changes a variable at all,
    in [0, 1]: below 1, changes are sparse, and some orientations may have no support.
    mean_shift: standard deviation of the noise means in auxiliary environments.
    noise: the standardised law of all noises, a name of ``NOISES``: 'gaussian',
    'student_t3', 'student_t5', 'logistic', 'laplace', 'gumbel', 'gamma', 'chi2',
    'exponential' or 'uniform' (crl.dgp.sources).
    sizes: rows of each environment as a multiple of n, static; None: n in each.
    known_targets: whether Data.given holds 'target' (E, d), 1 where the noise's law changes.

    Truth: z the noises s, graph, targets, log_prob, and the counterfactual of each row
    under do(x_i = value), i random and value a fresh draw of x_i in the row's environment,
    independent of all rows of x (Data.aux do_mask, and do_value, 0 where nothing is set).
    Raises ValueError for sizes, rates, names and graphs that make no such world.
    """
    who = "multi_environment_scm"
    check_options(
        who,
        at_least_one={"num_nodes": num_nodes, "num_envs": num_envs},
        nonnegative={"edges_per_node": edges_per_node, "mean_shift": mean_shift},
        one_of={
            "mechanism": (mechanism, KINDS),
            "change": (change, _CHANGES),
            "scaling": (scaling, ("raw", "internal")),
            "noise": (noise, tuple(NOISES)),
        },
    )
    if is_concrete(changed) and not 0 <= changed <= 1:
        raise ValueError(f"{who} needs 0 <= changed <= 1, a probability, got {changed}")
    draw_graph = graph_law(who, graph, num_nodes, edges_per_node)
    sizes = [1.0] * num_envs if sizes is None else sizes
    _check_sizes(sizes, num_envs)

    def init(key):
        key_graph, key_mechanisms, key_sd, key_mean, *keys = jax.random.split(key, 6)
        key_change, key_scale = keys
        shape = num_envs, num_nodes
        is_changed = jax.random.uniform(key_change, shape, jnp.float32) < changed
        mean = mean_shift * jax.random.normal(key_mean, shape, dtype)
        world = World(
            random_mechanisms(key_mechanisms, mechanism, draw_graph(key_graph), dtype),
            _noise_sd(key_sd, change, is_changed, dtype),
            jnp.where(is_changed, mean, 0).at[0].set(0),
        )
        if scaling == "raw":
            return world
        s, _ = draw(key_scale, world, np.repeat(np.arange(num_envs), _NUM_REFERENCE))
        scaled = internally_standardized(mechanism, world.mechanisms, s)
        return world._replace(mechanisms=scaled)

    def draw(key, world, env):
        unit = NOISES[noise].sample(key, (len(env), num_nodes), dtype)
        s = unit * world.sd[env] + world.mean[env]
        return s, jax.vmap(lambda s: push(mechanism, world.mechanisms, s))(s)  # (n, d)

    def sample(key, world, n):
        key_noise, key_node, key_value = jax.random.split(key, 3)
        count = [max(1, round(size * n)) for size in sizes]
        env = np.repeat(np.arange(num_envs), count)
        s, x = draw(key_noise, world, env)
        # Fresh rows rather than others of x, so that a part of a sample says nothing about
        # the values of the rest.
        do_mask, do_value = _query(key_node, draw(key_value, world, env)[1])
        answer = functools.partial(push, mechanism, world.mechanisms)
        density = functools.partial(log_density, mechanism, world, noise=noise)
        truth = Truth(
            z=s,
            graph=world.mechanisms.graph,
            targets=_targets(world),
            counterfactual=jax.vmap(answer)(s, do_mask, do_value),
            affected=transitive_closure(world.mechanisms.graph)[jnp.argmax(do_mask, 1)],
            log_prob=jax.vmap(density)(env, x),
        )
        given = {"target": truth.targets} if known_targets else {}
        aux = {"do_mask": do_mask, "do_value": do_value}
        return Sample(grouped(x, count, aux, **given), truth)

    def mix(world, z):
        return push(mechanism, world.mechanisms, z)

    return DGP(init, sample, mix)


def log_density(
    mechanism: str, world: World, env: Array, x: Array, noise: str = "gaussian"
) -> Array:
    """log p_env(x) of one point x (d,), in nats, by the change of variables."""
    s, log_det = pull(mechanism, world.mechanisms, x)
    mean, sd = world.mean[env], world.sd[env]
    return jnp.sum(NOISES[noise].log_prob((s - mean) / sd) - jnp.log(sd)) + log_det


def _query(key: Array, x: Array) -> tuple[Array, Array]:
    """do(x_i = value) for each row of x (n, d): mask and values (n, d), i at random.

    One value of each row and 0 elsewhere, so that the rows are no further data.
    """
    n, d = x.shape
    do_mask = jax.random.randint(key, (n, 1), 0, d, jnp.int32) == jnp.arange(d)
    return do_mask, jnp.where(do_mask, x, 0)


def _targets(world: World) -> Array:
    """(E, d) 1 where the law of a noise is not that of the base."""
    changed = (world.sd != world.sd[0]) | (world.mean != world.mean[0])
    return changed.astype(jnp.int32)


def _check_sizes(sizes: Sequence[float], num_envs: int) -> None:
    if len(sizes) != num_envs or not all(0 < size < np.inf for size in sizes):
        raise ValueError(
            f"expected sizes with one positive number per environment, {num_envs}, got "
            f"{list(sizes)}: (4, 1, 1) has four times as many rows in the base"
        )


def _noise_sd(key: Array, change: str, is_changed: Array, dtype) -> Array:
    u = jax.random.uniform(key, is_changed.shape, dtype, -1.0, 1.0)
    sd = jnp.where(u > 0, 1.6 + 1.4 * u, 0.65 + 0.35 * u)
    sd = jnp.where(is_changed, sd, 1).at[0].set(1)
    if change == "none":
        return jnp.ones_like(sd)
    if change == "proportional" and len(sd) > 1:
        share = 1 / jnp.maximum(jnp.arange(len(sd), dtype=dtype), 1)[:, None]
        sd = (1 + share * (sd[1] ** -2 - 1)) ** -0.5
        sd = sd.at[0].set(1)
    return sd
