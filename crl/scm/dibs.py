"""DiBS: a posterior over causal graphs by particles that follow a gradient.

Lorch, Rothfuss, Scholkopf and Krause, "DiBS: Differentiable Bayesian structure learning"
(NeurIPS 2021): graphs are drawn edge by edge from latent particles, P(i -> j | Z) =
sigmoid(alpha <u_i, v_j>), cycles are priced by the prior exp(-beta h), and Stein variational
gradient descent moves the particles on p(Z | x) while alpha and beta grow. Here with the
BGe score, the marginal likelihood of linear Gaussian networks (section 5.3 there). Edges
are independent given Z and the score is a sum over variables, so the expectation over
graphs is a product of expectations over the parents of one variable: sampled weights are
normalised for each variable apart, which leaves far less variance than for whole graphs.

Identified, of a linear Gaussian network, is the Markov equivalence class. The score cannot
tell its members apart and columns are standardised, so neither the variances nor their
order say anything: an edge that may point either way has a probability near one half.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.scipy.special import logsumexp

from crl.check import check_options, check_variables
from crl.core import Estimator, Readout
from crl.numerics.bge import Scatter, local_log_density, local_score, scatter
from crl.numerics.graphs import cycles, strongest_dag, topological_order
from crl.numerics.linalg import dot
from crl.scm.prior import refuse_prior


class State(NamedTuple):
    """Particles in motion."""

    z: Array  # (s, 2, d, d) of each particle u and v, one row per variable
    opt: optax.OptState
    time: Array  # () int32, steps done
    scatter: Scatter  # of the standardised rows
    mean: Array  # (d,) of the rows
    sd: Array  # (d,)


class Posterior(NamedTuple):
    """Graphs with what their weights and predictive laws need."""

    graphs: Array  # (s, d, d) bool, one per particle
    log_joint: Array  # (s,) log p(x, graph) up to a constant
    is_whole: Array  # (s,) bool, whether the particle was acyclic by itself
    scatter: Scatter
    mean: Array  # (d,)
    sd: Array  # (d,)


def dibs(
    num_particles: int = 20,
    num_graphs: int = 32,
    edges_per_node: float = 1.0,
    alpha: float = 2000.0,
    beta: float = 1000.0,
    bandwidth: float = 5.0,
    learning_rate: float = 0.01,
    num_steps: int = 1000,
) -> Estimator:
    """A posterior over the DAGs of a linear Gaussian network.

    num_particles: graphs that the posterior is made of. num_graphs: drawn per particle and
    step for the gradient. edges_per_node: k of an Erdos-Renyi prior, under which k d edges
    are expected; from (d - 1) / 2 on it takes graphs to be complete. alpha, beta: inverse
    temperature of the edges and price of cycles at the last step, to which both grow
    linearly. bandwidth: of the kernel exp(-|z - z'|^2 / bandwidth). learning_rate: of
    RMSprop. Floats may be traced. Environments are pooled, rows are not weighted.

    Claims edge_prob, under the posterior restricted to the graphs that particles found;
    graph_samples (s, d, d), as many draws from it as particles; graph, the most probable;
    order, a causal order of it; log_prob, the predictive density of rows under the mixture;
    diag share_acyclic, of particles whose own graph has no cycle: where it is well below 1,
    raise beta or num_steps. Edges that would close one are left out, the weakest first.

    Identified is the Markov equivalence class, in the limit of many rows and particles.
    Particles stay in modes that lie near where they began: with few of them, or rows by the
    thousand, the posterior is narrower than the true one. Raises ValueError for options
    out of range and for constant columns.
    """
    check_options(
        "dibs",
        at_least_one={
            "num_particles": num_particles,
            "num_graphs": num_graphs,
            "num_steps": num_steps,
        },
        positive={
            "edges_per_node": edges_per_node,
            "alpha": alpha,
            "beta": beta,
            "bandwidth": bandwidth,
            "learning_rate": learning_rate,
        },
    )
    optimizer = optax.rmsprop(learning_rate)

    def init(key, data):
        d = data.x.shape[1]
        mean, sd = jnp.mean(data.x, 0), jnp.std(data.x, 0)
        # As the prior of the particles: <u_i, v_j> has unit variance / d.
        z = jax.random.normal(key, (num_particles, 2, d, d), data.x.dtype) / d**0.5
        rows = scatter((data.x - mean) / sd)
        return State(z, optimizer.init(z), jnp.zeros((), jnp.int32), rows, mean, sd)

    def step(key, state, batch):
        del batch  # its scatter is in the state
        share = (state.time + 1) / num_steps
        keys = jax.random.split(key, num_particles)
        odds = log_odds(edges_per_node, state.z.shape[-1])

        def one(key, z):
            return particle_gradient(
                key, z, state.scatter, share * alpha, share * beta, odds, num_graphs
            )

        gradient, evidence, cyclic = jax.vmap(one)(keys, state.z)
        phi = stein(state.z, gradient, bandwidth)
        updates, opt = optimizer.update(-phi, state.opt)
        state = state._replace(z=state.z + updates, opt=opt, time=state.time + 1)
        return state, {"loss": -jnp.mean(evidence), "cyclic": jnp.mean(cyclic)}

    def finish(key, state, data):
        del key, data
        latent = latent_scores(state.z)
        graphs = jax.vmap(strongest_dag)(latent)  # at alpha = infinity
        score = jnp.sum(graph_scores(state.scatter, graphs), 1)
        odds = log_odds(edges_per_node, latent.shape[-1])
        log_joint = score + odds * jnp.sum(graphs, (1, 2))
        own = jnp.sum((latent > 0) & ~jnp.eye(latent.shape[-1], dtype=bool), (1, 2))
        is_whole = jnp.sum(graphs, (1, 2)) == own
        return Posterior(graphs, log_joint, is_whole, state.scatter, state.mean, state.sd)

    def readout(fitted, data):
        weight = jax.nn.softmax(fitted.log_joint)
        # Systematic draws: each graph as often as its weight says, give or take one.
        s = len(weight)
        draws = jnp.searchsorted(jnp.cumsum(weight), (jnp.arange(s) + 0.5) / s).clip(0, s - 1)
        graph = fitted.graphs[jnp.argmax(fitted.log_joint)]
        return Readout(
            graph=graph.astype(jnp.int32),
            edge_prob=jnp.tensordot(weight, fitted.graphs.astype(weight.dtype), 1),
            graph_samples=fitted.graphs[draws].astype(jnp.int32),
            order=topological_order(graph),
            log_prob=mixture_log_density(fitted, data.x),
            diag={"share_acyclic": jnp.mean(fitted.is_whole.astype(weight.dtype))},
        )

    def validate(data):
        check_variables("dibs", np.asarray(data.x))
        refuse_prior("dibs", data)

    return Estimator(init, step, readout, num_steps, finish, validate=validate)


def log_odds(edges_per_node: float, d: int) -> Array:
    """The log odds of an edge under the prior: k d edges among d (d - 1) / 2 pairs."""
    p = jnp.clip(2 * edges_per_node / max(1, d - 1), 1e-6, 1 - 1e-6)
    return jnp.log(p) - jnp.log1p(-p)


def latent_scores(z: Array) -> Array:
    """<u_i, v_j> of particles z (..., 2, d, d): (..., d, d)."""
    return dot(z[..., 0, :, :], jnp.swapaxes(z[..., 1, :, :], -1, -2))


def graph_scores(s: Scatter, graphs: Array) -> Array:
    """The BGe score of each variable of each graph (m, d, d): (m, d)."""
    d = graphs.shape[-1]
    score = jax.vmap(local_score, (None, 1, 0))  # over variables, whose parents are columns
    return jax.vmap(score, (None, 0, None))(s, graphs, jnp.arange(d))


def particle_gradient(
    key: Array, z: Array, s: Scatter, alpha: Array, beta: Array, odds: Array, num_graphs: int
) -> tuple[Array, Array, Array]:
    """The gradient of log p(z, x) at a particle z (2, d, d); log p(x | z); h, the cycles.

    The likelihood by the score function: with weights w ~ p(x_j | parents) over graphs drawn
    from z, its gradient in <u_i, v_j> is alpha (sum w g_ij - mean g_ij).
    """
    d = z.shape[-1]
    off = ~jnp.eye(d, dtype=bool)
    prob = jax.nn.sigmoid(alpha * latent_scores(z))
    graphs = jax.random.bernoulli(key, prob, (num_graphs, d, d)) & off
    score = graph_scores(s, graphs)  # (m, d)
    weight = jax.nn.softmax(score, 0)[:, None, :]  # (m, 1, d), per variable
    g = graphs.astype(z.dtype)
    pull = alpha * (jnp.sum(weight * g, 0) - jnp.mean(g, 0))  # (d, d)

    def log_density(z):
        latent = latent_scores(z)
        prob = jnp.where(off, jax.nn.sigmoid(alpha * latent), 0)
        h = cycles(prob)
        log_prior = odds * jnp.sum(prob) - beta * h - d * jnp.sum(z**2) / 2
        return jnp.sum(pull * latent) + log_prior, h

    gradient, h = jax.grad(log_density, has_aux=True)(z)
    evidence = jnp.sum(logsumexp(score, 0)) - d * jnp.log(num_graphs)
    return gradient, evidence, h


def stein(z: Array, gradient: Array, bandwidth: float) -> Array:
    """The Stein variational direction (s, ...) of particles z (s, ...) (Liu and Wang 2016)."""
    flat, g = z.reshape(len(z), -1), gradient.reshape(len(z), -1)
    square = jnp.sum((flat[:, None] - flat) ** 2, -1)  # (s, s)
    kernel = jnp.exp(-square / bandwidth)
    repulsion = 2 / bandwidth * (jnp.sum(kernel, 1, keepdims=True) * flat - dot(kernel, flat))
    return ((dot(kernel, g) + repulsion) / len(z)).reshape(z.shape)


def mixture_log_density(fitted: Posterior, x: Array) -> Array:
    """log sum_s weight_s p(x | graph_s, rows), (n,)."""
    standard = (x - fitted.mean) / fitted.sd
    d = x.shape[1]

    def of_graph(graph):
        density = jax.vmap(local_log_density, (None, 1, 0, None))
        return jnp.sum(density(fitted.scatter, graph, jnp.arange(d), standard), 0)  # (n,)

    log_density = jax.vmap(of_graph)(fitted.graphs)  # (s, n)
    log_weight = jax.nn.log_softmax(fitted.log_joint)[:, None]
    return logsumexp(log_weight + log_density, 0) - jnp.sum(jnp.log(fitted.sd))
