"""Causal graphs from several environments that share their mechanisms.

The model: x_i = f_i(x_pa(i), s_i), f_i increasing in s_i and the same in every
environment, s_i with a law of its own in each, first of all Gaussian. With a base and two
auxiliary environments whose noise variances change enough (ratios of the changes of
precision pairwise distinct) the graph is identified for any such f (Montagna, arXiv
2510.13583; proved by the Hessians of log density ratios). The estimator here maximises
the likelihood of that model instead: it scores each (variable, parent set) by the
leave-one-out loss of the best shared monotone map (crl.scm.monotone) and climbs greedily
over graphs. Up to 20 variables it then searches all causal orders exactly over the table of
scores and lets the table grow around the optimum until nothing changes. Last it looks for
each edge at the best graph without it, fits what lies around that one, and begins again
where this finds anything new: on dense graphs greedy moves and a table grown around one
optimum miss the truth, and would not know.

The noises s_i are identified up to an increasing function, which a noise law of mean 0
and variance 1 in the base environment, as near to Gaussian as the data allow, fixes;
counterfactuals depend on it not at all. Where the noises of the graph found are not Gaussian,
the search begins again with mixtures of Gaussians in every environment, one map still
shared by all.

Without a change between environments so flexible a law fits as well against the direction
of cause as along it, up to what its finite size makes of the noise law: nothing follows from
the difference, however significant. What still orients is conditional independence, up to
the Markov equivalence class, and simplicity: where linear laws with additive noise leave
noises that are independent of the parents and predict as well, they are taken, and orient
the edges wherever noise is not Gaussian (Shimizu et al., JMLR 2006); being small, they also
tell apart what flexible laws leave undecided. They are tried where anything is. Hence
``Fitted.decided``: an orientation counts where the likelihood decides it (z > 2.5), against a
hidden common cause by as much, and, unless the equivalence class fixes it, the noise of one of
its ends changes or linear laws hold; and where its head has no parent that a hidden cause
explains better, which would make the law of the head wrong.
That a linear law holds is tested, and at few rows a mild nonlinearity passes the test.
A map that bends with the parents leaves no dependence to be tested.

Hidden confounders add an edge between their effects. One that keeps its law in all
environments explains such a pair better than the edge (crl.scm.common_cause), which is left
undecided; ``Fitted.hidden_z`` tells. Beside a true edge a confounder is not seen.
``benchmarks/scm.py`` holds what to expect, by number.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options, check_variables
from crl.core import Data, Estimator, Readout, num_envs
from crl.numerics import mixtures
from crl.numerics.graphs import topological_order
from crl.numerics.linalg import dot
from crl.numerics.mixtures import Mixture
from crl.scm import monotone
from crl.scm.common_cause import common_cause
from crl.scm.edge_search import State, advance, begin, is_done, propose, with_mixtures
from crl.scm.evidence import NUM_BLOCKS, bootstrap, by_block, is_carried, is_gaussian
from crl.scm.linear_law import linear_table, no_linear_fits, prefer_linear
from crl.scm.monotone import Basis, Law
from crl.scm.prior import refuse_prior
from crl.scm.score_table import Table, empty_table, entries, grow, is_full, laws, parents_in

DECIDED = 2.5  # an orientation counts as decided by the data from this z on


class Fitted(NamedTuple):
    """The graph, and the local laws that it uses.

    ``edge_z[i, j]``: by how many standard errors the best graph without the edge i -> j
    (reversed or removed) is worse than the best of all, ``edge_gain[e, i, j]``: by how many
    nats a row of environment e; 0 where there is no edge, or where max_steps ended the search
    before it. Beyond 13 variables the best that climbing finds:
    the true z may be smaller.
    """

    basis: Basis
    law: Law  # (d, ...) of each variable given its parents
    graph: Array  # (d, d) 0/1
    order: Array  # (d,)
    edge_prob: Array  # (d, d)
    edge_gain: Array  # (E, d, d)
    edge_z: Array  # (d, d)
    hidden_z: Array  # (d, d) see ``common_cause``
    decided: Array  # (d, d) bool: edges whose orientation the data decide
    mixture: Array  # () bool: noise laws may be other than Gaussian
    linear: Array  # () bool: the laws are linear with additive noise
    num_fits: Array  # () entries of the table
    table_full: Array  # () bool
    num_bound: Array  # () variables that have max_parents parents, and might want more


def shared_mechanism(
    max_parents: int = 8,
    penalty: float = 0.004,
    num_features: int = 40,
    num_bootstrap: int = 50,
    max_steps: int = 1000,
) -> Estimator:
    """Learn graph, mechanisms, noises and counterfactuals from >= 2 environments.

    The theorem asks for 3 environments, base included; they may differ in size.
    max_parents: largest number of parents of a variable; diag ``num_bound`` counts those
    that have as many. penalty: nats per row and edge. num_features: kernel features of the
    coefficient functions, at most 64; 16 takes two thirds of the time of 40. num_bootstrap:
    replicates of the rows, reweighted, for edge_prob, one search each. max_steps: bound on
    the steps, each a greedy move, a round of the exact search or an edge probed; the fit
    stops by itself when no edge has an alternative that is better or was never fitted.

    Claims: graph; order; edge_prob, the share of bootstrap replicates whose best graph
    has the edge, made symmetric where the orientation is undecided; other 'decided' (d, d),
    the edges whose orientation the data settle, 'edge_z', 'edge_gain' and 'hidden_z', see
    ``Fitted``; z, the noises; log_prob; counterfactual where Data.aux asks for one.
    Takes 2 variables or more. Time grows with the fits, about d (d + 3 times the number of
    edges) for sparse graphs. Memory of the fit is at most 80 d^2 (128 E + 450) bytes for E
    environments, three times as much at its end, and 4.5 d 2^d bytes in the exact search,
    95 MB at 20 variables.
    """
    check_options(
        "shared_mechanism",
        at_least_one={
            "max_parents": max_parents,
            "num_features": num_features,
            "num_bootstrap": num_bootstrap,
            "max_steps": max_steps,
        },
        nonnegative={"penalty": penalty},
    )
    if num_features > 64:
        raise ValueError(f"shared_mechanism needs num_features <= 64, got {num_features}")

    def init(key, data):
        d = data.x.shape[1]
        if d < 2:
            raise ValueError(f"shared_mechanism needs at least 2 variables, got {d}")
        basis = monotone.make_basis(key, data.x)
        table = _no_fits(basis, d, min(max_parents, d - 1), num_envs(data))
        return begin(basis, table, data)

    def step(key, state, data):
        del key  # nothing random
        centre, wanted = propose(state, penalty)
        table = grow(_local_fit(state, data, num_features), state.table, wanted, max_parents)
        state = advance(state, table, centre, data, penalty)
        state = jax.lax.cond(
            is_done(state) & ~state.is_mixture,
            lambda state: _or_with_mixtures(state, data),
            lambda state: state,
            state,
        )
        used = table.score[entries(table, state.graph)]
        num_edges = jnp.sum(state.graph)
        info = {
            "loss": jnp.sum(used) + penalty * num_edges,
            "num_edges": num_edges,
            "num_fits": table.size,
            "phase": state.phase,
        }
        return state, info

    def finish(key, state, data):
        columns, basis = monotone.normalized(state.basis, data.x), state.basis
        linear = jax.lax.cond(
            state.is_mixture | ~_is_settled(state, data),
            lambda: linear_table(state, data),
            lambda: no_linear_fits(state),
        )
        table, graph, is_linear, *edges = prefer_linear(state, linear, data, penalty)
        gain, z, is_turned = edges
        law = laws(table, graph)
        s, _ = monotone.noises(basis, law, columns, data.env)

        def without(head, entry):
            other = jax.tree.map(lambda a: a[entry], table.law)
            a = monotone.coefficients(other, basis, columns)
            return monotone.to_noise(a, basis, head, columns.z[:, head])[0]

        hidden_z = common_cause(table, graph, s, without, data, penalty)
        carried = is_linear | is_carried(graph, s, data)
        decided = carried & (z > DECIDED) & _is_sound(graph, hidden_z, is_linear) & (graph > 0)
        # Either way round where it may turn, in the data or in the equivalence class.
        open_ = (graph > 0) & ~decided & (is_turned | ~carried)
        open_ = open_ | open_.T
        prob = bootstrap(key, table, graph, data, num_bootstrap, penalty)
        return Fitted(
            basis,
            law,
            graph,
            topological_order(graph),
            jnp.where(open_, (prob + prob.T) / 2, prob),
            gain,
            z,
            hidden_z,
            decided,
            state.is_mixture,
            is_linear,
            table.size,
            is_full(table),  # then the search has seen fewer sets than it asked for
            jnp.sum(jnp.sum(graph, 0) >= max_parents) * (max_parents < len(graph) - 1),
        )

    def readout(fitted, data):
        columns = monotone.normalized(fitted.basis, data.x)
        basis, law = fitted.basis, fitted.law
        s, log_prob = monotone.noises(basis, law, columns, data.env)
        counterfactual = None
        if "do_mask" in data.aux:
            counterfactual = monotone.counterfactual(
                *(basis, law, fitted.order, columns, s),
                *(data.aux["do_mask"], data.aux["do_value"]),
            )
        return Readout(
            z=s,
            graph=fitted.graph,
            edge_prob=fitted.edge_prob,
            order=fitted.order,
            counterfactual=counterfactual,
            log_prob=jnp.sum(log_prob - jnp.log(basis.sd), 1),
            diag=_diagnose(fitted, s, data.env),
            other={
                "decided": fitted.decided,
                "edge_gain": fitted.edge_gain,
                "edge_z": fitted.edge_z,
                "hidden_z": fitted.hidden_z,
            },
        )

    return Estimator(
        init,
        step,
        readout,
        max_steps,
        finish,
        converged=is_done,
        validate=_validate,
    )


def _validate(data: Data) -> None:
    if num_envs(data) < 2:
        raise ValueError(
            "shared_mechanism expected at least 2 environments, got 1: pass env, whose "
            "labels say which rows belong together"
        )
    fewest = int(np.min(np.asarray(data.given["count"])))
    if fewest < 50:
        raise ValueError(
            f"expected at least 50 rows in each environment, got {fewest}: the local "
            "fits have dozens of parameters"
        )
    check_variables("shared_mechanism", np.asarray(data.x))
    refuse_prior("shared_mechanism", data)


def _local_fit(state: State, data: Data, num_features: int) -> Callable:
    """(code (1 + w,)) -> the laws of that node given these parents, loss (b,), score."""
    columns = monotone.normalized(state.basis, data.x)
    shape = len(state.graph), state.table.law.parents.shape[1]

    def fit(code):
        found = monotone.fit_law(
            *(state.basis, columns, data.env, code[0], parents_in(code, *shape)),
            *(num_envs(data), num_features, state.is_mixture),
        )
        return found.law, by_block(found.loss, data), found.score

    return fit


def _no_fits(basis: Basis, d: int, slots: int, num_envs: int) -> Table:
    dtype, k = basis.mean.dtype, basis.centre.shape[1]
    law = Law(
        jnp.zeros(slots, jnp.int32),
        jnp.zeros((basis.landmarks.shape[0], 2 + k), dtype),
        jnp.zeros(2 + k, dtype),
        jnp.zeros(slots, dtype),
        Mixture(*[jnp.zeros((num_envs, mixtures.NUM_COMPONENTS), dtype)] * 3),
    )
    return empty_table(d, num_envs * NUM_BLOCKS, law, dtype)


def _noises(state: State, data: Data) -> Array:
    """The noises (n, d) of the graph found so far."""
    columns = monotone.normalized(state.basis, data.x)
    law = laws(state.table, state.graph)
    return monotone.noises(state.basis, law, columns, data.env)[0]


def _or_with_mixtures(state: State, data: Data) -> State:
    """The finished search, or its beginning anew if a noise of its graph is not Gaussian."""
    does = is_gaussian(_noises(state, data), data)
    anew = with_mixtures(state)
    return jax.tree.map(lambda a, b: jnp.where(does, a, b), state, anew)


def _is_sound(graph: Array, hidden_z: Array, is_linear: Array) -> Array:
    """Where no hidden cause stands against an orientation, (d, d) bool."""
    # Linear laws are oriented by noise that is not Gaussian, of which the comparison with a
    # common cause knows nothing: it can object, but need not speak for the edge.
    is_none_hidden = is_linear | (hidden_z < -DECIDED)
    # A parent that a common cause explains better makes the law of its child wrong.
    return is_none_hidden & ~jnp.any((graph > 0) & (hidden_z > 0), 0)


def _is_settled(state: State, data: Data) -> Array:
    """Whether the data decide every edge of the graph, () bool."""
    carried = is_carried(state.graph, _noises(state, data), data)
    return jnp.all((carried & (state.edge_z > DECIDED)) | (state.graph == 0))


def _diagnose(fitted: Fitted, s: Array, env: Array) -> dict[str, Array]:
    mean, var = mixtures.moments(fitted.law.noise)  # (d, E)
    member = jax.nn.one_hot(env, var.shape[1], dtype=s.dtype)
    cubes = ((s - mean.T[env]) / jnp.sqrt(var.T[env])) ** 3
    skewness = dot(member.T, cubes) / jnp.sum(member, 0)[:, None]  # (E, d)
    return {
        # The smallest over variables of the largest change of noise sd, in log units:
        # near 0 a variable keeps its noise and the theorem does not apply to it.
        "noise_change": jnp.min(jnp.max(jnp.abs(jnp.log(var)) / 2, axis=1)),
        # The largest in size over variables and environments; 0 for Gaussian noise.
        "noise_skewness": jnp.max(jnp.abs(skewness)),
        "undecided_edges": jnp.sum((fitted.graph > 0) & ~fitted.decided),
        # Linear laws with additive noise hold; they orient where noise is not Gaussian.
        "linear": fitted.linear,
        "mixture": fitted.mixture,
        "num_fits": fitted.num_fits,
        "table_full": fitted.table_full,
        "num_bound": fitted.num_bound,
    }
