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
``Fitted.decided``: an orientation counts where the likelihood decides it (z > 2.5), a hidden
common cause does not explain the pair better, and, unless the equivalence class fixes it, the
noise of one of its ends changes or linear laws hold.
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

from crl.check import check_options
from crl.core import Data, Estimator, Readout, num_envs
from crl.numerics import mixtures
from crl.numerics.graphs import topological_order
from crl.numerics.linalg import dot
from crl.numerics.mixtures import Mixture
from crl.scm import monotone
from crl.scm.common_cause import common_cause
from crl.scm.evidence import (
    NUM_BLOCKS,
    bootstrap,
    by_block,
    excess,
    is_carried,
    is_gaussian,
)
from crl.scm.linear_law import fit_linear
from crl.scm.monotone import Basis, Columns, Law
from crl.scm.score_table import (
    EXACT,
    NOISE,
    Table,
    around,
    best_move,
    empty_table,
    entries,
    exact,
    find,
    flips,
    grow,
    is_full,
    members,
    num_parents,
    search,
    search_without,
)

DECIDED = 2.5  # an orientation counts as decided by the data from this z on
_LINEAR_MARGIN = 0.04  # nats a row that a linear law may fall behind the flexible one
_LINEAR_LEVEL = 0.01  # of the test that all noises are independent of the parents
_CLIMB, _REFINE, _PROBE, _DONE = np.arange(4, dtype=np.int32)  # phases of the search


class State(NamedTuple):
    """The search so far."""

    basis: Basis
    table: Table
    graph: Array  # (d, d) 0/1, the best known
    is_mixture: Array  # () bool: noise laws are mixtures, no longer Gaussian
    phase: Array  # () int32: _CLIMB, _REFINE, _PROBE or _DONE
    edge: Array  # () int32: which edge of the graph to probe next
    has_grown: Array  # () bool: probing the edges before it has fitted something new
    edge_gain: Array  # (E, d, d) see ``Fitted``
    edge_z: Array  # (d, d)
    is_turned: Array  # (d, d) bool: without the edge i -> j the best graph has j -> i


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
        none = jnp.zeros((d, d), jnp.int32)
        zero = jnp.zeros((), jnp.int32)
        return State(
            *(basis, table, none, none[0, 0] > 0, zero + _CLIMB, zero, jnp.array(False)),
            jnp.zeros((num_envs(data), d, d), table.score.dtype),
            *(none.astype(table.score.dtype), none > 0),
        )

    def step(key, state, data):
        del key  # nothing random
        fit = _local_fit(state, data, num_features)
        centres = _centres(state, penalty)  # (2, d, d)
        wanted = jax.vmap(around)(centres)  # (2, d, d, 1 + w)
        wanted = jnp.where(_is_near(state, centres)[..., None], wanted, -1)
        table = grow(fit, state.table, wanted.reshape(-1, wanted.shape[-1]), max_parents)
        state = _after(state, table, centres[0], data, penalty)
        state = jax.lax.cond(
            (state.phase == _DONE) & ~state.is_mixture,
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
            lambda: _linear_table(state, data),
            lambda: _no_linear_fits(state),
        )
        table, graph, is_linear, *edges = _prefer_linear(state, linear, data, penalty)
        gain, z, is_turned = edges
        law = _laws(table, graph)
        s, _ = noises(basis, law, columns, data.env)

        def without(head, entry):
            other = jax.tree.map(lambda a: a[entry], table.law)
            a = monotone.coefficients(other, basis, columns)
            return monotone.to_noise(a, basis, head, columns.z[:, head])[0]

        hidden_z = common_cause(table, graph, s, without, data, penalty)
        carried = is_linear | is_carried(graph, s, data)
        decided = (graph > 0) & carried & (z > DECIDED) & (hidden_z <= 0)
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
        s, log_prob = noises(fitted.basis, fitted.law, columns, data.env)
        counterfactual = None
        if "do_mask" in data.aux:
            query = data.aux["do_mask"], data.aux["do_value"]
            counterfactual = _counterfactual(fitted, columns, s, *query)
        return Readout(
            z=s,
            graph=fitted.graph,
            edge_prob=fitted.edge_prob,
            order=fitted.order,
            counterfactual=counterfactual,
            log_prob=jnp.sum(log_prob - jnp.log(fitted.basis.sd), 1),
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
        converged=lambda state: state.phase == _DONE,
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
    x = np.asarray(data.x)
    constant = np.flatnonzero(np.ptp(x, axis=0) <= 1e-6 * np.abs(x).max(0))
    if len(constant):
        raise ValueError(
            f"expected columns of x that vary, got constant ones {constant.tolist()}: "
            "drop them"
        )


def _local_fit(state: State, data: Data, num_features: int) -> Callable:
    """(code (1 + w,)) -> the laws of that node given these parents, loss (b,), score."""
    columns = monotone.normalized(state.basis, data.x)

    def fit(code):
        found = monotone.fit_law(
            *(state.basis, columns, data.env, code[0], _parents(state, code)),
            *(num_envs(data), num_features, state.is_mixture),
        )
        return found.law, by_block(found.loss, data), found.score

    return fit


def _parents(state: State, code: Array) -> Array:
    """The parents in a code, as indices padded with d."""
    slots, d = state.table.law.parents.shape[1], len(state.graph)
    return jnp.nonzero(members(code, d), size=slots, fill_value=d)[0].astype(jnp.int32)


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


def _edge(graph: Array, k: Array) -> tuple[Array, Array]:
    """The k-th edge of the graph: tail and head."""
    at = jnp.argmax(jnp.cumsum(graph.reshape(-1)) > k)
    return at // len(graph), at % len(graph)


def _centres(state: State, penalty: float) -> Array:
    """The two graphs (2, d, d) around whose parent sets a step looks, the first above all."""
    table, graph = state.table, state.graph
    d = len(graph)

    def climb():
        # Without any parents, and with one: an order needs them when a search begins again.
        return jnp.stack([graph, jnp.zeros_like(graph)])

    def refine():
        # The best graph of the table, and what each node would choose if there were no
        # cycles to avoid.
        node = table.code[:, 0] == jnp.arange(d)[:, None]
        free = jnp.argmin(jnp.where(node, table.score, jnp.inf), 1)
        free = members(table.code[free], d).T.astype(graph.dtype)
        return jnp.stack([exact(table, table.score, penalty, d), free])

    def probe():
        # The best graph without the edge, and that graph with the edge put back: a node that
        # has lost a parent and gained others may want both.
        edge = _edge(graph, state.edge)
        other = search_without(table, graph, *edge, penalty)
        return jnp.stack([other, other.at[edge].set(1)])

    return jax.lax.switch(state.phase, [climb, refine if d <= EXACT else climb, probe, climb])


def _is_near(state: State, centres: Array) -> Array:
    """Which flips (2, d, d) of a parent of a node are worth a fit.

    All of them, but when an edge is probed: what it explained is then to be explained by
    others of the Markov blankets, in the graph with it or without.
    """
    both = jnp.maximum(centres, state.graph)  # (2, d, d)
    adjacent = both + jnp.swapaxes(both, 1, 2)
    spouses = jnp.einsum("cik,cjk->cij", both, both)
    return (adjacent + spouses > 0) | (state.phase != _PROBE)


def _after(state: State, table: Table, centre: Array, data: Data, penalty: float) -> State:
    """The state once the table holds all sets around the graph ``centre``.

    Climb while a move improves; search exactly while the table grows; then look for each edge
    at the best graph without it, and begin again where that finds a better graph, or new
    sets: a search that has never looked at the alternative to an edge cannot know its z.
    """
    graph, d = state.graph, len(state.graph)
    has_grown = table.size > state.table.size
    search_again = _REFINE if d <= EXACT else _CLIMB
    state = state._replace(table=table)

    def climb():
        moved, gain = best_move(graph, flips(table, graph, table.score), penalty)
        goes_on = gain > NOISE
        return state._replace(
            graph=jnp.where(goes_on, moved, graph),
            phase=jnp.where(goes_on, _CLIMB, _REFINE if d <= EXACT else _PROBE),
        )

    def refine():
        return state._replace(
            graph=centre, phase=jnp.where(has_grown, _REFINE, _PROBE), edge=0 * state.edge
        )

    def probe():
        tail, head = _edge(graph, state.edge)
        gain, worse, z = excess(table, centre, graph, data, penalty)
        is_better = worse < -NOISE
        is_new = state.has_grown | has_grown
        is_last = state.edge + 1 >= jnp.sum(graph)
        begins_again = is_better | (is_last & is_new)
        phase = jnp.where(is_last, _DONE, _PROBE)
        return state._replace(
            graph=jnp.where(is_better, centre, graph),
            phase=jnp.where(begins_again, search_again, phase),
            edge=jnp.where(begins_again, 0, state.edge + 1),
            has_grown=is_new & ~begins_again,
            edge_gain=state.edge_gain.at[:, tail, head].set(gain),
            edge_z=state.edge_z.at[tail, head].set(z),
            is_turned=state.is_turned.at[tail, head].set(centre[head, tail] > 0),
        )

    def done():
        return state

    def tidy(state):
        # Of edges that the graph has lost nothing is known.
        is_edge = state.graph > 0
        return state._replace(
            edge_gain=jnp.where(is_edge, state.edge_gain, 0),
            edge_z=jnp.where(is_edge, state.edge_z, 0),
            is_turned=state.is_turned & is_edge,
        )

    return tidy(jax.lax.switch(state.phase, [climb, refine, probe, done]))


def _or_with_mixtures(state: State, data: Data) -> State:
    """The finished search, or its beginning anew if a noise of its graph is not Gaussian."""
    columns = monotone.normalized(state.basis, data.x)
    s, _ = noises(state.basis, _laws(state.table, state.graph), columns, data.env)
    does = is_gaussian(s, data)
    fresh = state.table._replace(
        code=jnp.full_like(state.table.code, -1),
        score=jnp.full_like(state.table.score, jnp.inf),
        size=jnp.zeros_like(state.table.size),
    )
    anew = state._replace(
        table=fresh,
        is_mixture=jnp.ones_like(state.is_mixture),
        phase=jnp.full_like(state.phase, _CLIMB),
        edge=jnp.zeros_like(state.edge),
    )
    return jax.tree.map(lambda a, b: jnp.where(does, a, b), state, anew)


def _laws(table: Table, graph: Array) -> Law:
    """The fitted laws of the variables given their parents in a graph of the table."""
    used = entries(table, graph)
    return jax.tree.map(lambda a: a[used], table.law)


def _is_settled(state: State, data: Data) -> Array:
    """Whether the data decide every edge of the graph, () bool."""
    columns = monotone.normalized(state.basis, data.x)
    s, _ = noises(state.basis, _laws(state.table, state.graph), columns, data.env)
    is_decided = is_carried(state.graph, s, data) & (state.edge_z > DECIDED)
    return jnp.all(is_decided | (state.graph == 0))


class LinearLaw(NamedTuple):
    """What a linear fit leaves in its table beside its losses."""

    law: Law
    holds: Array  # () bool


def _no_linear_fits(state: State) -> Table:
    table = state.table
    law = LinearLaw(jax.tree.map(lambda a: a[0], table.law), jnp.array(False))
    return empty_table(len(state.graph), table.loss.shape[1], law, table.loss.dtype)


def _linear_table(state: State, data: Data) -> Table:
    """The fits of the table made again with linear laws.

    One holds where its noise is independent of the parents and it predicts about as well as
    the flexible law, which serves both where there is no parent.
    """
    table, columns = state.table, monotone.normalized(state.basis, data.x)
    most = len(state.graph) - 1  # variables with parents, each of which is tested

    def fit(code):
        parents = _parents(state, code)
        found = fit_linear(state.basis, columns, data.env, code[0], parents, num_envs(data))
        at = find(table, code)
        own = jax.tree.map(lambda a: a[at], (table.law, table.loss, table.score))
        linear = found.law, by_block(found.loss, data), jnp.mean(found.loss)
        is_close = linear[2] < own[2] + _LINEAR_MARGIN
        holds = is_close & (found.p_value > _LINEAR_LEVEL / most)
        root = num_parents(code) == 0
        law, loss, score = jax.tree.map(lambda a, b: jnp.where(root, a, b), own, linear)
        return LinearLaw(law, holds | root), loss, score

    return grow(fit, _no_linear_fits(state), table.code, len(state.graph))


def _prefer_linear(
    state: State, linear: Table, data: Data, penalty: float
) -> tuple[Table, Array, Array, Array, Array, Array]:
    """Table, graph, whether laws are linear, edge_gain, edge_z and is_turned.

    They are linear where every law of the best graph of linear laws holds. Edges may be lost
    by it, as an effect without a linear part would be, only where linear laws predict better
    what differs between the two graphs.
    """
    found = search(linear, linear.score, state.graph, penalty)
    own, flexible = entries(linear, found), entries(state.table, state.graph)
    is_lost = jnp.any((state.graph > 0) & (found + found.T == 0))
    gap = jnp.where(own != flexible, linear.score[own] - state.table.score[flexible], 0)
    is_worse = jnp.sum(gap) + penalty * (jnp.sum(found) - jnp.sum(state.graph)) > 0
    holds = jnp.all(linear.law.holds[own]) & ~(is_lost & is_worse)

    def compare(k, carry):
        gain, z, is_turned = carry
        tail, head = _edge(found, k)
        other = search_without(linear, found, tail, head, penalty)
        gain_edge, _, z_edge = excess(linear, other, found, data, penalty)
        return (
            gain.at[:, tail, head].set(gain_edge),
            z.at[tail, head].set(z_edge),
            is_turned.at[tail, head].set(other[head, tail] > 0),
        )

    before = state.edge_gain, state.edge_z, state.is_turned
    none = jax.tree.map(jnp.zeros_like, before)
    edges = jax.lax.fori_loop(0, jnp.where(holds, jnp.sum(found), 0), compare, none)
    return jax.tree.map(
        lambda a, b: jnp.where(holds, a, b),
        (linear._replace(law=linear.law.law), found, holds, *edges),
        (state.table, state.graph, holds, *before),
    )


def noises(basis: Basis, law: Law, columns: Columns, env: Array) -> tuple[Array, Array]:
    """Noises s and log densities of x in units of its sd, (n, d) each."""
    member = jax.nn.one_hot(env, law.noise.mean.shape[1], dtype=columns.z.dtype)

    def noise(law, node):
        a = monotone.coefficients(law, basis, columns)
        s, slope = monotone.to_noise(a, basis, node, columns.z[:, node])
        log_s = mixtures.local(law.noise, s, member).log_p
        # Beyond the training range the map may bend; a floor keeps the log defined.
        log_x = log_s + jnp.log(jnp.maximum(slope, 1e-4))
        return s, log_x

    return jax.vmap(noise, out_axes=1)(law, jnp.arange(columns.z.shape[1]))


def _counterfactual(
    fitted: Fitted, columns: Columns, s: Array, mask: Array, value: Array
) -> Array:
    """x with its noises s under do(), computed node by node in causal order."""
    basis = fitted.basis
    value = (value - basis.mean) / basis.sd

    def assign(now, i):
        own = jax.tree.map(lambda leaf: leaf[i], fitted.law)
        a = monotone.coefficients(own, basis, now)
        # What no cause reaches stays as it was observed, to the last bit.
        moved = jnp.take(
            now.z != columns.z, own.parents, axis=1, mode="fill", fill_value=False
        )
        z = monotone.from_noise(a, basis, i, s[:, i])
        z = jnp.where(jnp.any(moved, 1), z, columns.z[:, i])
        z = now.z.at[:, i].set(jnp.where(mask[:, i], value[:, i], z))
        return Columns(z, monotone.normal_scores(basis.knots, z)), None

    now, _ = jax.lax.scan(assign, columns, fitted.order)
    return now.z * basis.sd + basis.mean


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
