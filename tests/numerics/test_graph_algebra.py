import itertools

import jax
import jax.numpy as jnp
import numpy as np

from crl.numerics.graphs import (
    indirect_paths,
    is_acyclic,
    order_mask,
    topological_order,
    transitive_closure,
)


def _closure_by_powers(g):
    total, power = np.zeros_like(g), np.eye(len(g), dtype=int)
    for _ in range(len(g)):
        power = np.minimum(power @ g, 1)
        total = np.maximum(total, power)
    return total.astype(bool)


def _random_graphs(num=60, d=6):
    rng = np.random.default_rng(0)
    return (rng.random((num, d, d)) < 0.25).astype(np.int32) * (1 - np.eye(d, dtype=np.int32))


def test_closure_and_acyclicity_agree_with_matrix_powers():
    graphs = _random_graphs()
    closures = jax.jit(jax.vmap(transitive_closure))(jnp.array(graphs))
    acyclic = jax.jit(jax.vmap(is_acyclic))(jnp.array(graphs))
    for g, c, a in zip(graphs, closures, acyclic):
        expected = _closure_by_powers(g)
        np.testing.assert_array_equal(c, expected)
        assert bool(a) == (not expected.diagonal().any())
    assert 5 < int(acyclic.sum()) < 55  # both cases occur


def test_topological_order_puts_causes_first_on_every_dag():
    upper = np.triu(_random_graphs(), 1)
    rng = np.random.default_rng(1)
    dags = np.stack([g[p][:, p] for g in upper for p in [rng.permutation(6)]])
    orders = jax.jit(jax.vmap(topological_order))(jnp.array(dags))
    masks = jax.jit(jax.vmap(order_mask))(orders)
    for g, order, mask in zip(dags, orders, masks):
        assert sorted(order.tolist()) == list(range(6))
        assert not (g * ~np.array(mask)).any()


def test_an_edge_can_be_reversed_exactly_where_no_indirect_path_runs_along_it():
    d = 4
    upper = [(i, j) for i in range(d) for j in range(i + 1, d)]
    dags = np.zeros((64, d, d), np.int32)
    for g, bits in zip(dags, itertools.product([0, 1], repeat=6)):
        g[tuple(zip(*upper))] = bits
    indirect = jax.jit(jax.vmap(lambda g: indirect_paths(g, transitive_closure(g))))(dags)
    for g, ind in zip(dags, indirect):
        for i, j in upper:
            if g[i, j]:
                r = g.copy()
                r[i, j], r[j, i] = 0, 1
                assert bool(ind[i, j]) == _closure_by_powers(r).diagonal().any()
