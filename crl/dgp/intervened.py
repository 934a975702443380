"""Structural causal models observed under interventions on their variables.

Environment 0 is observational. In the others the mechanism or the noise of what they target
is another one, and all else is as in environment 0:

    perfect   x_i loses its parents, its noise has mean ``strength``
    do        x_i = strength
    soft      x_i keeps its parents, its mechanism is drawn anew
    shift     the noise has mean ``strength``
    scale     the noise has standard deviation ``strength``
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.stats as stats
import numpy as np
from jax import Array

from crl.check import check_options
from crl.core import DGP, Sample, Truth, grouped
from crl.dgp.graphs import graph_law
from crl.dgp.mechanisms import KINDS, Mechanisms, pull, push, random_mechanisms

INTERVENTIONS = ("perfect", "do", "soft", "shift", "scale")


class World(NamedTuple):
    """One SCM with its interventions."""

    mechanisms: Mechanisms
    changed: Mechanisms  # what a variable's mechanism is where it is a target
    target: Array  # (E, d) 1 where environment e intervenes on variable i
    mean: Array  # (E, d) of the noise
    sd: Array  # (E, d) and its standard deviation


def intervened_scm(
    num_nodes: int,
    intervention: str = "perfect",
    targets: Array | None = None,
    graph: str | Array = "erdos_renyi",
    edges_per_node: float = 1.0,
    mechanism: str = "anm",
    strength: float = 2.0,
    known_targets: bool = True,
    dtype=jnp.float32,
) -> DGP:
    """SCMs with Gaussian noise, one observational environment and interventions.

    intervention: 'perfect', 'do', 'soft', 'shift' or 'scale', see above. targets: (E - 1, d)
    of 0 and 1, the variables of each further environment; None: each variable in turn.
    graph, edges_per_node, mechanism: as in ``multi_environment_scm``. strength: of 'scale'
    > 0; 'soft' does not read it. It may be traced. known_targets: whether Data.given holds
    'target' (E, d).

    Perfect interventions on each variable but one, told apart, identify the graph (Eberhardt,
    Glymour and Scheines 2006). 'perfect', 'do' and 'soft' break the assumption that all
    mechanisms are shared: they are controls for methods that make it.

    Truth: z the noises, those that a 'do' overrules included; graph, targets, log_prob, but
    for 'do', whose law has no density. ``mix`` is that of the observational environment.
    Raises ValueError for names, graphs, targets and rates that make no such world.
    """
    who = "intervened_scm"
    check_options(
        who,
        at_least_one={"num_nodes": num_nodes},
        nonnegative={"edges_per_node": edges_per_node},
        one_of={
            "intervention": (intervention, INTERVENTIONS),
            "mechanism": (mechanism, KINDS),
        },
        positive={"strength": strength} if intervention == "scale" else None,
    )
    draw_graph = graph_law(who, graph, num_nodes, edges_per_node)
    targets = np.eye(num_nodes) if targets is None else np.asarray(targets)
    _check_targets(targets, num_nodes)
    targets = np.concatenate([np.zeros((1, num_nodes)), targets])  # (E, d)

    def init(key):
        key_graph, key_base, key_other = jax.random.split(key, 3)
        g = draw_graph(key_graph)
        base = random_mechanisms(key_base, mechanism, g, dtype)
        changed = base
        if intervention == "perfect":
            changed = base._replace(linear=0 * base.linear, hidden=0 * base.hidden)
        elif intervention == "soft":
            changed = random_mechanisms(key_other, mechanism, g, dtype)
        target = jnp.asarray(targets, dtype)
        moved = target if intervention in ("perfect", "shift") else 0 * target
        scaled = target if intervention == "scale" else 0 * target
        return World(
            base,
            changed,
            jnp.asarray(targets, jnp.int32),
            mean=strength * moved,
            sd=1 + (strength - 1) * scaled,
        )

    def sample(key, world, n):
        shape = len(targets), n, num_nodes
        s = jax.random.normal(key, shape, dtype)
        s = world.mean[:, None] + world.sd[:, None] * s

        def observe(args):
            e, s = args
            m, is_set = _at(world, e), (world.target[e] > 0) & (intervention == "do")
            value = jnp.full(num_nodes, strength, dtype)
            x = jax.vmap(lambda s: push(mechanism, m, s, is_set, value))(s)
            return x, jax.vmap(lambda x: log_density(mechanism, world, e, x))(x)

        x, log_prob = jax.lax.map(observe, (jnp.arange(len(targets)), s))
        truth = Truth(
            z=s.reshape(-1, num_nodes),
            graph=world.mechanisms.graph,
            targets=world.target,
            log_prob=None if intervention == "do" else log_prob.ravel(),
        )
        given = {"target": world.target} if known_targets else {}
        return Sample(grouped(x.reshape(-1, num_nodes), [n] * len(targets), **given), truth)

    return DGP(init, sample, lambda world, z: push(mechanism, world.mechanisms, z))


def log_density(mechanism: str, world: World, env: Array, x: Array) -> Array:
    """log p_env(x) of one point x (d,), in nats; of no meaning where 'do' sets a variable."""
    s, log_det = pull(mechanism, _at(world, env), x)
    return jnp.sum(stats.norm.logpdf(s, world.mean[env], world.sd[env])) + log_det


def _at(world: World, env: Array) -> Mechanisms:
    """The mechanisms of one environment."""
    is_target = world.target[env] > 0  # (d,)
    base, changed = world.mechanisms, world.changed
    rows = is_target[:, None]

    def choose(name, mask):
        return jnp.where(mask, getattr(changed, name), getattr(base, name))

    return base._replace(
        linear=choose("linear", is_target),  # the variable is on axis 1
        hidden=choose("hidden", rows),
        bias=choose("bias", rows),
        loc=choose("loc", rows),
        scale=choose("scale", rows),
    )


def _check_targets(targets: np.ndarray, num_nodes: int) -> None:
    if (
        targets.ndim != 2
        or targets.shape[1] != num_nodes
        or not np.isin(targets, (0, 1)).all()
    ):
        raise ValueError(
            f"expected targets of shape (environments, {num_nodes}) with 0 and 1, got "
            f"{targets.tolist()}: one row for each environment that intervenes, the "
            "observational one left out"
        )
