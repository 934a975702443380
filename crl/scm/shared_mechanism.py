"""Causal graphs from several environments that share their mechanisms.

The model: x_i = f_i(x_pa(i), s_i), f_i increasing in s_i and the same in every
environment, s_i Gaussian with variance and mean of its own in each. With a base and two
auxiliary environments whose noise variances change enough (ratios of the changes of
precision pairwise distinct) the graph is identified for any such f (Montagna, arXiv
2510.13583; proved by the Hessians of log density ratios). The estimator here maximises
the likelihood of that model instead: it scores each (variable, parent set) by the
leave-one-out loss of the best shared monotone map (crl.scm.monotone) and climbs greedily
over graphs. Up to 20 variables it then searches all causal orders exactly over the table of
scores and lets the table grow around the optimum until nothing changes.

The noises s_i are identified up to an increasing function, which the Gaussian law of the
base environment fixes; counterfactuals depend on it not at all. Without a change between
environments the score orients only as far as the Markov equivalence class and the model
class allow: at chance where mechanisms are linear, above it where they are general, since
an effect on the scale of the noise can be told from its reverse in one environment, as in
location-scale noise models (Immer et al., ICML 2023). ``edge_z`` says which orientations
the data decide. A noise law far from Gaussian in the auxiliary environments adds edges or
reverses some; ``diag['noise_skewness']`` shows it where it is skewed. Hidden confounders
add an edge between their effects. ``benchmarks/scm.py`` holds what to expect, by number.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options
from crl.core import Data, Estimator, Readout, num_envs
from crl.numerics.fixed_point import iterate
from crl.numerics.graphs import indirect_paths, topological_order, transitive_closure
from crl.numerics.linalg import dot
from crl.numerics.order_search import optimal_dag
from crl.scm import monotone
from crl.scm.monotone import Basis, Columns, Law

_EXACT = 20  # variables up to which all orders are searched
_WORD = 30  # bits of a set kept in one int32
_NOISE = 1e-5  # nats; scores are means of rows in float32, with errors near 1e-6
_DECIDED = 2.5  # an orientation counts as decided by the data from this z on
_ACCELERATOR_BATCH = 64


class Table(NamedTuple):
    """The local fits made so far, in the order in which they were asked for."""

    code: Array  # (m, 1 + w) int32: node, -1 where unused; bitmask of its parents in w words
    score: Array  # (m,) leave-one-out loss in nats, without penalty; inf where unused
    loss: Array  # (m, n) its rows
    law: Law  # (m, ...)
    size: Array  # () entries used


class State(NamedTuple):
    """The search so far."""

    basis: Basis
    table: Table
    graph: Array  # (d, d) 0/1
    climbing: Array  # () bool: in the greedy part of the search
    has_grown: Array  # () bool: the last step fitted something new


class Fitted(NamedTuple):
    """The graph, and the local laws that it uses.

    ``edge_z[i, j]``: by how many standard errors the best graph without the edge i -> j
    (reversed or removed) is worse than the best of all; 0 where there is no edge. Beyond 20
    variables the best that climbing finds: the true z may be smaller.
    """

    basis: Basis
    law: Law  # (d, ...) of each variable given its parents
    graph: Array  # (d, d) 0/1
    order: Array  # (d,)
    edge_prob: Array  # (d, d)
    edge_z: Array  # (d, d)
    num_fits: Array  # () entries of the table
    table_full: Array  # () bool


def shared_mechanism(
    max_parents: int = 5,
    penalty: float = 0.004,
    num_features: int = 40,
    num_bootstrap: int = 50,
    max_steps: int = 200,
) -> Estimator:
    """Learn graph, mechanisms, noises and counterfactuals from >= 2 environments.

    The theorem asks for 3 environments, base included; they may differ in size.
    max_parents: largest number of parents of a variable. penalty: nats per row and edge.
    num_features: kernel features of the coefficient functions, at most 64; 16 takes two
    thirds of the time of 40. num_bootstrap: replicates of the rows, reweighted, for
    edge_prob; they and the edges take one search each. max_steps: bound on the steps,
    greedy moves (one a step) and then rounds of the exact search; the fit stops by itself
    when the table has stopped to grow.

    Claims: graph; order; edge_prob, the share of bootstrap replicates whose best graph
    has the edge, made symmetric where the orientation is undecided (z <= 2.5, see
    Fitted.edge_z); z, the noises; log_prob; counterfactual where Data.aux asks for one.
    Takes 2 variables or more. Time grows with the fits, about d (d + number of edges).
    Memory of the fit is about 24 d^2 n bytes for n rows in all, and 4.5 d 2^d bytes in the
    exact search, 95 MB at 20 variables.
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
        n, d = data.x.shape
        if d < 2:
            raise ValueError(f"shared_mechanism needs at least 2 variables, got {d}")
        basis = monotone.make_basis(key, data.x)
        table = _empty_table(basis, n, d, min(max_parents, d - 1), num_envs(data))
        return State(
            basis, table, jnp.zeros((d, d), jnp.int32), jnp.array(True), jnp.array(True)
        )

    def step(key, state, data):
        del key  # nothing random
        columns = monotone.normalized(state.basis, data.x)
        graphs = _centres(state, penalty, max_steps)
        around = jax.vmap(_around)(graphs)  # (c, d, d, 1 + w)
        wanted = around.reshape(-1, around.shape[-1])
        fit = _local_fit(state.basis, columns, data, state.table, num_features)
        table = _grow(fit, state.table, wanted, max_parents)
        graph = graphs[0]
        score = _look_up(table.score, _find(table, around[0]))
        moved, gain = _best_move(graph, score, penalty)
        improved = state.climbing & (gain > _NOISE)
        info = {
            "loss": jnp.sum(jnp.diagonal(score)) + penalty * jnp.sum(graph),
            "num_edges": jnp.sum(graph),
            "num_fits": table.size,
        }
        # Stays on for the step after the last move, which begins the exact rounds.
        has_grown = state.climbing | (table.size > state.table.size)
        graph = jnp.where(improved, moved, graph)
        return State(state.basis, table, graph, improved, has_grown), info

    def finish(key, state, data):
        table, d = state.table, len(state.graph)
        member = jax.nn.one_hot(data.env, num_envs(data), dtype=table.loss.dtype)  # (n, E)
        edge_prob, edge_z = _confidence(
            key, table, state.graph, member, num_bootstrap, penalty, max_steps
        )
        m = len(table.code)
        return Fitted(
            state.basis,
            jax.tree.map(lambda a: a[_entries(table, state.graph)], table.law),
            state.graph,
            topological_order(state.graph),
            edge_prob,
            edge_z,
            table.size,
            # Then the search has seen fewer sets than it asked for.
            (table.size == m) & (m < d * 2 ** (d - 1)),
        )

    def readout(fitted, data):
        columns = monotone.normalized(fitted.basis, data.x)
        s, log_prob, residual = _noises(fitted, columns, data.env)  # (n, d) each
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
            diag=_diagnose(fitted, residual, data.env),
        )

    return Estimator(
        init,
        step,
        readout,
        max_steps,
        finish,
        converged=lambda state: ~state.climbing & ~state.has_grown,
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


def _local_fit(
    basis: Basis, columns: Columns, data: Data, table: Table, num_features: int
) -> Callable:
    """(code (1 + w,)) -> the fit of that node's law given these parents."""
    num_nodes, slots = columns.z.shape[1], table.law.parents.shape[1]

    def fit(code):
        parents = jnp.nonzero(_members(code, num_nodes), size=slots, fill_value=num_nodes)
        return monotone.fit_law(
            *(basis, columns, data.env, code[0], parents[0].astype(jnp.int32)),
            *(num_envs(data), num_features),
        )

    return fit


def _grow(fit: Callable, table: Table, wanted: Array, max_parents: int) -> Table:
    """The table with the laws ``wanted``, (m, 1 + w) codes, that it lacked."""
    missing = (_num_parents(wanted) <= max_parents) & (_find(table, wanted) < 0)
    twin = jnp.all(wanted[:, None] == wanted, -1)
    missing &= ~jnp.any(jnp.tril(twin, -1), 1)

    def on(apply, batch):
        return lambda table, missing: _fill(apply, batch, fit, table, wanted, missing)

    return jax.lax.platform_dependent(
        table,
        missing,
        cpu=on(jax.lax.map, 1),
        default=on(lambda f, xs: jax.vmap(f)(xs), min(_ACCELERATOR_BATCH, len(wanted))),
    )


def _fill(
    apply: Callable, batch: int, fit: Callable, table: Table, wanted: Array, missing: Array
) -> Table:
    """Fits what is missing, ``batch`` codes at a time, while the table has room."""
    num, capacity = len(wanted), len(table.code)

    def more(carry):
        table, missing = carry
        return jnp.any(missing) & (table.size < capacity)

    def body(carry):
        table, missing = carry
        # Unused places of a batch point past the end and are dropped.
        at = jnp.nonzero(missing, size=batch, fill_value=num)[0]
        code = jnp.take(wanted, at, axis=0, mode="fill", fill_value=0)
        fits = apply(fit, code)
        used = at < num
        place = jnp.where(used, table.size + jnp.arange(batch), capacity)

        def put(old, new):
            return old.at[place].set(jnp.nan_to_num(new), mode="drop")

        # A fit that failed is a set of parents that nobody will choose.
        score = jnp.where(jnp.isfinite(fits.score), fits.score, jnp.inf)
        size = jnp.minimum(table.size + jnp.sum(used, dtype=jnp.int32), capacity)
        table = Table(
            put(table.code, code),
            table.score.at[place].set(score, mode="drop"),
            put(table.loss, fits.loss),
            jax.tree.map(put, table.law, fits.law),
            size,
        )
        return table, missing.at[at].set(False, mode="drop")

    return jax.lax.while_loop(more, body, (table, missing))[0]


def _noises(fitted: Fitted, columns: Columns, env: Array) -> tuple[Array, Array, Array]:
    """Noises s (n, d), log densities of x in units of its sd, and standardised noises."""

    def noise(law, node):
        a = monotone.coefficients(law, fitted.basis, columns)
        s, slope = monotone.to_noise(a, fitted.basis, node, columns.z[:, node])
        mean, var = law.noise_mean[env], law.noise_var[env]
        log_s = jax.scipy.stats.norm.logpdf(s, mean, jnp.sqrt(var))
        # Beyond the training range the map may bend; a floor keeps the log defined.
        return s, log_s + jnp.log(jnp.maximum(slope, 1e-4)), (s - mean) / jnp.sqrt(var)

    return jax.vmap(noise, out_axes=1)(fitted.law, jnp.arange(len(fitted.graph)))


def _empty_table(basis: Basis, n: int, d: int, slots: int, num_envs: int) -> Table:
    # All sets there are, up to a bound: a greedy climb with e edges and the exact rounds
    # after it asked for about d^2 + 15 e sets on sparse graphs.
    num_sets = 2 ** (d - 1) if d < 12 else 2**11
    m = d * min(6 * d, num_sets)
    dtype, k = basis.mean.dtype, basis.centre.shape[1]
    law = Law(
        jnp.zeros((m, slots), jnp.int32),
        jnp.zeros((m, basis.landmarks.shape[0], 2 + k), dtype),
        jnp.zeros((m, 2 + k), dtype),
        jnp.zeros((m, slots), dtype),
        jnp.zeros((m, num_envs), dtype),
        jnp.ones((m, num_envs), dtype),
    )
    return Table(
        jnp.full((m, 1 + -(-d // _WORD)), -1, jnp.int32),
        jnp.full(m, jnp.inf, dtype),
        jnp.zeros((m, n), dtype),
        law,
        jnp.zeros((), jnp.int32),
    )


def _pack(member: Array) -> Array:
    """Sets as bitmasks: (..., d) bool to (..., w) int32."""
    d = member.shape[-1]
    padded = jnp.pad(member, [(0, 0)] * (member.ndim - 1) + [(0, -d % _WORD)])
    words = padded.reshape(*member.shape[:-1], -1, _WORD).astype(jnp.int32)
    return jnp.sum(words << jnp.arange(_WORD, dtype=jnp.int32), -1, dtype=jnp.int32)


def _members(code: Array, d: int) -> Array:
    """The parents in codes (..., 1 + w), (..., d) bool."""
    j = jnp.arange(d)
    return (code[..., 1 + j // _WORD] >> (j % _WORD)) & 1 > 0


def _num_parents(code: Array) -> Array:
    return jnp.sum(jax.lax.population_count(code[..., 1:]), -1)


def _around(graph: Array) -> Array:
    """Codes (d, d, 1 + w): [i, j] is the parent set of i with j flipped; [i, i] as it is."""
    d = len(graph)
    eye = jnp.eye(d, dtype=bool)
    member = (graph.T[:, None] > 0) ^ (eye & ~eye[:, None])  # (node, flipped, parent)
    node = jnp.broadcast_to(jnp.arange(d, dtype=jnp.int32)[:, None, None], (d, d, 1))
    return jnp.concatenate([node, _pack(member)], -1)


def _find(table: Table, code: Array) -> Array:
    """Where each code (..., 1 + w) is in the table, -1 where it is not."""

    def find(code):
        same = jnp.all(code == table.code, -1)  # (m,)
        return jnp.where(jnp.any(same), jnp.argmax(same), -1).astype(jnp.int32)

    flat = code.reshape(-1, code.shape[-1])
    return jax.lax.map(find, flat, batch_size=1024).reshape(code.shape[:-1])


def _entries(table: Table, graph: Array) -> Array:
    """The entry (d,) of each node's parent set."""
    node = jnp.arange(len(graph), dtype=jnp.int32)[:, None]
    return _find(table, jnp.concatenate([node, _pack(graph.T > 0)], -1))


def _look_up(score: Array, entry: Array) -> Array:
    return jnp.where(entry >= 0, score[entry], jnp.inf)


def _best_move(graph: Array, score: Array, penalty: float) -> tuple[Array, Array]:
    """The best addition, removal or reversal of one edge, and by how much it improves.

    score: (d, d): [i, j] of i with parent j flipped, [i, i] of i with its parents.
    """
    d, edge = graph.shape[0], graph.astype(bool)
    change = (score - jnp.diagonal(score)[:, None]).T  # [j, i]: flip the edge j -> i
    closure = transitive_closure(graph)
    add = jnp.where(~edge & ~closure.T & ~jnp.eye(d, dtype=bool), change + penalty, jnp.inf)
    remove = jnp.where(edge, change - penalty, jnp.inf)
    # Both flips must have been fitted; then the penalty stays the same.
    turn = jnp.where(edge & ~indirect_paths(graph, closure), change + change.T, jnp.inf)
    moves = jnp.stack([add, remove, turn])
    moves = jnp.where(jnp.isnan(moves), jnp.inf, moves)
    best = jnp.argmin(moves)
    kind, j, i = jnp.unravel_index(best, moves.shape)
    moved = graph.at[j, i].set((kind == 0).astype(graph.dtype))
    return moved.at[i, j].add((kind == 2).astype(graph.dtype)), -jnp.min(moves)


def _climb(table: Table, score: Array, graph: Array, penalty: float, max_moves: int) -> Array:
    """Greedy moves from ``graph`` among the parent sets of the table."""

    def move(graph):
        entry = _find(table, _around(graph))
        moved, gain = _best_move(graph, _look_up(score, entry), penalty)
        return jnp.where(gain > _NOISE, moved, graph)

    return iterate(move, graph, lambda old, new: jnp.any(old != new), max_moves)


def _search(table: Table, score: Array, graph: Array, penalty: float, max_moves: int) -> Array:
    """The best graph of the table at these scores, exact or by climbing from ``graph``."""
    d = len(graph)
    if d > _EXACT:
        return _climb(table, score, graph, penalty, max_moves)
    penalized = score + penalty * _num_parents(table.code)
    node = jnp.where(table.code[:, 0] < 0, d, table.code[:, 0])
    entry = optimal_dag(node, table.code[:, 1], penalized, d).entry
    return _members(table.code[entry], d).T.astype(graph.dtype)


def _centres(state: State, penalty: float, max_moves: int) -> Array:
    """The graphs (c, d, d), one or two, around whose parent sets a step looks."""
    d, table = len(state.graph), state.table
    if d > _EXACT:
        return state.graph[None]

    def exact():
        # The best graph of the table, and what each node would choose if there were no
        # cycles to avoid.
        node = table.code[:, 0] == jnp.arange(d)[:, None]
        free = jnp.argmin(jnp.where(node, table.score, jnp.inf), 1)
        free = _members(table.code[free], d).T.astype(state.graph.dtype)
        best = _search(table, table.score, state.graph, penalty, max_moves)
        return jnp.stack([best, free])

    return jax.lax.cond(state.climbing, lambda: jnp.stack([state.graph] * 2), exact)


def _confidence(key, table, graph, member, num_bootstrap, penalty, max_moves):
    """edge_prob and edge_z: the search over again, on reweighted rows and without each edge.

    member: (n, E) one-hot environments.
    Every fit is kept; only its rows count differently, so a replicate costs one search.
    """
    d, dtype = graph.shape[0], table.loss.dtype
    node, member_of = table.code[:, 0], _members(table.code, d)  # (m,), (m, d)
    tail, head = jnp.nonzero(graph, size=d * (d - 1) // 2, fill_value=0)
    num_edges = jnp.sum(graph)
    n = len(member)
    best_loss = jnp.sum(table.loss[_entries(table, graph)], 0)  # (n,)

    def replicate(t, carry):
        count, z, turned = carry
        is_edge = t < num_edges
        j, i = tail[t], head[t]
        # Bayesian bootstrap within environments (Rubin 1981).
        weight = jax.random.exponential(jax.random.fold_in(key, t), (n,), dtype)
        weight = weight / dot(member, dot(weight, member) / jnp.sum(member, 0))
        resampled = dot(table.loss, weight) / n
        resampled = jnp.where(jnp.isfinite(table.score), resampled, jnp.inf)
        forbidden = (node == i) & member_of[:, j]
        score = jnp.where(forbidden, jnp.inf, table.score)
        score = jnp.where(is_edge, score, resampled)
        found = _search(table, score, graph, penalty, max_moves)
        excess = jnp.sum(table.loss[_entries(table, found)], 0) - best_loss
        edges = jnp.sum(found) - num_edges
        error = jnp.std(excess) / n**0.5
        z_edge = (jnp.mean(excess) + penalty * edges) / jnp.maximum(error, 1e-8)
        return (
            count + jnp.where(is_edge, 0, found),
            z.at[j, i].set(jnp.where(is_edge, z_edge, z[j, i])),
            turned.at[j, i].set(jnp.where(is_edge, found[i, j] > 0, turned[j, i])),
        )

    carry = (jnp.zeros_like(graph), jnp.zeros((d, d), dtype), jnp.zeros((d, d), bool))
    count, z, turned = jax.lax.fori_loop(0, num_edges + num_bootstrap, replicate, carry)
    prob = count.astype(dtype) / num_bootstrap
    undecided = turned & (z <= _DECIDED)
    undecided = undecided | undecided.T
    return jnp.where(undecided, (prob + prob.T) / 2, prob), z


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


def _diagnose(fitted: Fitted, residual: Array, env: Array) -> dict[str, Array]:
    z = jnp.where(fitted.graph > 0, fitted.edge_z, jnp.inf)
    member = jax.nn.one_hot(env, fitted.law.noise_var.shape[1], dtype=residual.dtype)
    skewness = dot(member.T, residual**3) / jnp.sum(member, 0)[:, None]  # (E, d)
    return {
        # The smallest over variables of the largest change of noise sd, in log units:
        # near 0 a variable keeps its noise and the theorem does not apply to it.
        "noise_change": jnp.min(jnp.max(jnp.abs(jnp.log(fitted.law.noise_var)) / 2, axis=1)),
        # The largest in size over variables and environments; 0 under the model.
        "noise_skewness": jnp.max(jnp.abs(skewness)),
        "undecided_edges": jnp.sum(z <= _DECIDED),
        "num_fits": fitted.num_fits,
        "table_full": fitted.table_full,
    }
