import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from crl.numerics.graphs import (
    cycles,
    exponential_cycles,
    indirect_paths,
    is_acyclic,
    log_det_cycles,
    order_mask,
    strongest_dag,
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


def test_the_strongest_edges_without_a_cycle_are_kept():
    latent = jnp.array([[9.0, 3, -1], [-1, 9, 2], [1, -1, 9]])  # 0 -> 1 -> 2 -> 0
    np.testing.assert_array_equal(strongest_dag(latent), [[0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_cycles_are_zero_for_dags_alone():
    dag = jnp.triu(jnp.ones((4, 4)), 1)
    measure = jax.jit(cycles)
    assert abs(measure(dag)) < 1e-5
    assert measure(dag.at[3, 0].set(0.1)) > 1e-3


def _measures():
    """In float64 by their definitions: the value and the gradient of each."""

    def exponential(a):
        e = scipy.linalg.expm(a)
        return np.trace(e) - len(a), e.T

    def log_det(a):
        rest = np.eye(len(a)) - a
        return -np.linalg.slogdet(rest)[1], np.linalg.inv(rest).T

    return [(exponential_cycles, exponential), (log_det_cycles, log_det)]


@pytest.mark.parametrize("ours, definition", _measures())
def test_cycles_and_their_gradient_equal_the_definition(ours, definition):
    rng = np.random.default_rng(0)
    for scale in (1e-3, 0.1, 0.18):
        a = scale * rng.random((5, 5))
        value, gradient = jax.jit(ours)(jnp.asarray(a, jnp.float32))
        expected = definition(a.astype(np.float32).astype(float))
        np.testing.assert_allclose(value, expected[0], rtol=1e-5)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-5)


@pytest.mark.parametrize("ours, definition", _measures())
def test_cycles_are_exactly_zero_for_dags_and_precise_near_them(ours, definition):
    """Where d + 1e-9 would be rounded to d: heavy edges forwards, a faint one back."""
    dag = np.triu(np.full((5, 5), 4.0), 1)
    assert jax.jit(ours)(jnp.asarray(dag, jnp.float32))[0] == 0
    dag[4, 0] = 1e-12
    value = jax.jit(ours)(jnp.asarray(dag, jnp.float32))[0]
    # One cycle for each path from 0 to 4, of which the exponential divides long ones more.
    paths = np.linalg.inv(np.eye(5) - np.triu(dag, 1))[0, 4]
    if ours is log_det_cycles:
        np.testing.assert_allclose(value, 1e-12 * paths, rtol=1e-4)
    assert 1e-12 < value < 1.01e-12 * paths


def test_log_det_cycles_are_infinite_beyond_the_spectral_radius_of_one():
    a = jnp.array([[0.0, 2], [0.6, 0]])
    assert jnp.isinf(log_det_cycles(a)[0]) and jnp.isfinite(log_det_cycles(0.9 * a)[0])
