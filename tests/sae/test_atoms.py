import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from crl.numerics.linalg import unit_rows
from crl.sae.atoms import (
    duplicates,
    geometric_median,
    unit_decoder,
    worst_directions,
)
from crl.sae.autoencoder import Params

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def params(m=6, p=4):
    return Params(normal(m, p), normal(m), unit_rows(jnp.asarray(normal(m, p))), normal(p))


def test_rows_stay_on_the_sphere_under_adam():
    optimizer, start = unit_decoder(optax.adam(0.1)), params()

    def step(carry, key):
        at, state = carry
        grads = jax.tree.map(lambda a: jax.random.normal(key, a.shape), at)
        updates, state = optimizer.update(grads, state, at)
        return (optax.apply_updates(at, updates), state), None

    keys = jax.random.split(jax.random.key(0), 100)
    (end, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), keys)
    np.testing.assert_allclose(jnp.linalg.norm(end.w_dec, axis=1), 1, atol=1e-6)
    assert jnp.abs(end.w_dec - start.w_dec).max() > 0.1


def test_a_radial_gradient_moves_no_atom():
    optimizer, start = unit_decoder(optax.adam(0.1)), params()
    radial = jax.tree.map(jnp.zeros_like, start)._replace(w_dec=8 * start.w_dec)
    updates, state = optimizer.update(radial, optimizer.init(start), start)
    # What rounding leaves of it, 1e-7, Adam would blow up to a step of 0.1 without the
    # 1e-8 in its denominator; plain Adam moves every entry by 0.1.
    assert jnp.abs(optax.tree_utils.tree_get(state, "mu").w_dec).max() < 1e-6
    plain, _ = optax.adam(0.1).update(radial, optax.adam(0.1).init(start), start)
    assert jnp.abs(plain.w_dec).max() > 0.09
    assert updates.w_dec.shape == start.w_dec.shape


@pytest.mark.parametrize("m", [5, 300])  # below and above one block
def test_duplicates_are_all_but_the_first_of_a_cluster(m):
    atoms = normal(m, 12)
    atoms[m // 2] = atoms[1] + 0.05 * normal(12)
    atoms[m - 1] = atoms[1]
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    brute = [any(atoms[i] @ atoms[j] > 0.9 for j in range(i)) for i in range(m)]
    assert 2 <= sum(brute) < m // 2 + 1
    np.testing.assert_array_equal(duplicates(jnp.asarray(atoms), 0.9), brute)


def test_each_atom_to_replace_gets_a_different_worst_residual():
    residual = jnp.asarray([[1.0, 0], [0, 3], [2, 0], [0, 0]])
    replace = jnp.asarray([False, True, True, False, True, True])
    directions, replaced = worst_directions(residual, replace)
    np.testing.assert_allclose(directions[jnp.asarray([1, 2, 4])], [[0, 1], [1, 0], [1, 0]])
    # The fourth would get a row without a residual: it waits.
    np.testing.assert_array_equal(replaced, [False, True, True, False, True, False])


def test_geometric_median_balances_unit_vectors_and_ignores_outliers():
    x = normal(200, 3)
    x[:5] += 1000
    median = np.asarray(geometric_median(jnp.asarray(x)))
    # Stationarity of the sum of distances: the unit vectors to the rows sum to 0.
    away = (x - median) / np.linalg.norm(x - median, axis=1, keepdims=True)
    assert np.linalg.norm(away.mean(0)) < 1e-4
    assert np.abs(x.mean(0)).max() > 20 and np.abs(median).max() < 0.5
    same = jnp.broadcast_to(jnp.asarray([1.0, 2.0]), (10, 2))
    np.testing.assert_allclose(geometric_median(same), [1, 2])
