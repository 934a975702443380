"""Linear laws with additive noise, x = b'c + s, of one variable given its parents.

The flexible maps of crl.scm.monotone predict as well against the direction of cause as along
it, where no change of the noise tells them apart, whatever the noise. Under a linear law with
independent noise s, here a mixture of Gaussians in each environment, the direction is
identified wherever the noise is not Gaussian (Shimizu et al., JMLR 2006); that s is
independent of c can be tested.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import Data, num_envs
from crl.numerics import mixtures
from crl.numerics.independence import independence
from crl.numerics.linalg import dot
from crl.numerics.mixtures import Mixture
from crl.numerics.normality import jarque_bera
from crl.scm.edge_search import State, edge_at
from crl.scm.evidence import by_block, excess
from crl.scm.monotone import Basis, Columns, Law, better, normalized, solve, solve_mixture
from crl.scm.score_table import (
    Table,
    empty_table,
    entries,
    find,
    grow,
    num_parents,
    parents_in,
    search,
    search_without,
)

_MARGIN = 0.04  # nats a row that a linear law may fall behind the flexible one
_LEVEL = 0.01  # of the test that all noises are independent of the parents
_GAUSSIAN_LEVEL = 0.05  # from this p-value on no mixture is tried


class LinearLaw(NamedTuple):
    """What a linear fit leaves in its table beside its losses."""

    law: Law
    holds: Array  # () bool


class LinearFit(NamedTuple):
    """A linear law, and whether its noise passes for independent of the parents."""

    law: Law
    loss: Array  # (n,) leave-one-out, in nats of standardised x
    p_value: Array  # () of the test, over all parents; 1 without any


def fit_linear(
    basis: Basis, columns: Columns, env: Array, node: Array, parents: Array, num_envs: int
) -> LinearFit:
    """Fit the linear law of variable ``node`` given ``parents``, (c,) int32 padded with d."""
    z, member = columns.z, jax.nn.one_hot(env, num_envs, dtype=columns.z.dtype)
    theta, loss, noise = solve_linear(columns, node, parents, member)
    num = 2 + basis.centre.shape[1]
    weight = jnp.zeros((basis.landmarks.shape[0], num), theta.dtype)
    constant = jnp.zeros(num, theta.dtype).at[:2].set(theta[jnp.array([0, -1])])
    law = Law(parents, weight, constant, theta[1:-1], noise)
    s = theta[0] + z[:, node] * theta[-1]
    s = s + dot(jnp.take(z, parents, axis=1, mode="fill", fill_value=0), theta[1:-1])
    s = mixtures.normal_score(noise, s, member)
    p_value = jax.vmap(lambda j: independence(s, columns.u[:, j], member))(parents)
    filled = parents < z.shape[1]
    p_value = jnp.min(jnp.where(filled, p_value, 1)) * jnp.maximum(jnp.sum(filled), 1)
    return LinearFit(law, loss, jnp.minimum(p_value, 1))


def solve_linear(
    columns: Columns, node: Array, parents: Array, member: Array
) -> tuple[Array, Array, Mixture]:
    """s = theta (1, c, x): parameters (2 + c,), leave-one-out losses (n,), law of s."""
    z = columns.z
    one = jnp.ones((len(z), 1), z.dtype)
    x_pa = jnp.take(z, parents, axis=1, mode="fill", fill_value=0)
    phi = jnp.concatenate([one, x_pa, z[:, node, None]], 1)
    ridge = jnp.full(phi.shape[1], 1e-3, z.dtype).at[1:-1].set(0.1)
    start = jnp.zeros_like(ridge).at[-1].set(1)
    theta, loss, *gaussian = solve(phi, one, ridge, member, start)
    fit = theta, loss, mixtures.normal(*gaussian)
    _, p_value = jarque_bera(dot(phi, theta)[:, None], member)
    return jax.lax.cond(
        p_value[0] > _GAUSSIAN_LEVEL,
        lambda: fit,
        lambda: better(fit, solve_mixture(phi, one, ridge, member, theta), 0.0),
    )


def no_linear_fits(state: State) -> Table:
    """The table of ``linear_table`` before its first fit."""
    table = state.table
    law = LinearLaw(jax.tree.map(lambda a: a[0], table.law), jnp.array(False))
    return empty_table(len(state.graph), table.loss.shape[1], law, table.loss.dtype)


def linear_table(state: State, data: Data) -> Table:
    """The fits of the table made again with linear laws.

    One holds where its noise is independent of the parents and it predicts about as well as
    the flexible law, which serves both where there is no parent.
    """
    table, columns = state.table, normalized(state.basis, data.x)
    d = len(state.graph)
    shape = d, table.law.parents.shape[1]
    most = d - 1  # variables with parents, each of which is tested

    def fit(code):
        parents = parents_in(code, *shape)
        found = fit_linear(state.basis, columns, data.env, code[0], parents, num_envs(data))
        at = find(table, code)
        own = jax.tree.map(lambda a: a[at], (table.law, table.loss, table.score))
        linear = found.law, by_block(found.loss, data), jnp.mean(found.loss)
        is_close = linear[2] < own[2] + _MARGIN
        holds = is_close & (found.p_value > _LEVEL / most)
        root = num_parents(code) == 0
        law, loss, score = jax.tree.map(lambda a, b: jnp.where(root, a, b), own, linear)
        return LinearLaw(law, holds | root), loss, score

    return grow(fit, no_linear_fits(state), table.code, d)


def prefer_linear(
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
        tail, head = edge_at(found, k)
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
