import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.numerics.joint_eigenvectors import joint_eigenvectors

find = jax.jit(joint_eigenvectors)


def matrices(seed, d, num):
    """``num`` matrices with the same eigenvectors (d, d), and their eigenvalues (num, d)."""
    rng = np.random.default_rng(seed)
    vectors, values = rng.normal(size=(d, d)), rng.normal(size=(num, d))
    a = np.stack([vectors @ np.diag(v) @ np.linalg.inv(vectors) for v in values])
    return a.astype(np.float32), vectors, values


def parallel(a, b):
    """|cos| (d, d) between the columns of a and b."""
    return np.abs((a / np.linalg.norm(a, axis=0)).T @ (b / np.linalg.norm(b, axis=0)))


@pytest.mark.parametrize("num", [1, 3])
def test_columns_are_the_eigenvectors_that_numpy_finds(num):
    for seed in range(4):
        a, vectors, _ = matrices(seed, 4, num)
        found, rest = find(a)
        np.testing.assert_allclose(np.linalg.det(found), 1, rtol=1e-3)
        np.testing.assert_allclose(parallel(np.array(found), vectors).max(1), 1, atol=1e-5)
        np.testing.assert_allclose(
            np.sort(np.linalg.eigvals(a[0]).real), np.sort(np.diag(rest[0])), atol=1e-4
        )
        off = np.array(rest) * (1 - np.eye(4))
        assert np.abs(off).max() < 1e-5 * np.linalg.cond(vectors)


def test_values_that_coincide_in_one_matrix_are_told_apart_by_another():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 4))
    values = np.array([[1.0, 1.0, 2.0, 2.0], [1.0, 2.0, 1.0, 2.0], [0, 0, 0, 0]])
    a = np.stack([vectors @ np.diag(v) @ np.linalg.inv(vectors) for v in values])
    found, _ = find(jnp.asarray(a[[0, 1, 2]], jnp.float32))
    np.testing.assert_allclose(parallel(np.array(found), vectors).max(1), 1, atol=1e-5)
    alone, _ = find(jnp.asarray(a[[0, 0, 2]], jnp.float32))
    assert parallel(np.array(alone), vectors).max(1).min() < 0.99


def test_a_complex_pair_leaves_a_block_that_turns():
    rng = np.random.default_rng(1)
    block = np.zeros((4, 4))
    block[:2, :2], block[2, 2], block[3, 3] = [[0.5, 2.0], [-2.0, 0.5]], -1.0, 3.0
    vectors = rng.normal(size=(4, 4))
    a = vectors @ block @ np.linalg.inv(vectors)
    _, rest = find(jnp.asarray(a[None], jnp.float32).repeat(3, 0))
    skew = np.triu(np.array(rest[0]) - np.array(rest[0]).T, 1) / 2
    assert np.sum(np.abs(skew) > 1e-3) == 1
    np.testing.assert_allclose(np.abs(skew).max(), 2, rtol=1e-3)
    np.testing.assert_allclose(rest[0] + rest[0].T, 2 * np.diag(np.diag(rest[0])), atol=2e-3)


def test_rounding_is_that_of_the_type_and_nothing_is_left_undefined():
    a, _, _ = matrices(5, 4, 1)
    with jax.enable_x64(True):
        found, _ = joint_eigenvectors(jnp.asarray(a, jnp.float64))
        # a itself was rounded to float32.
        expected = np.linalg.eig(a[0].astype(float))[1].real
        np.testing.assert_allclose(parallel(np.array(found), expected).max(1), 1, atol=1e-12)
    for a in (np.zeros((1, 4, 4)), np.eye(4)[None], np.ones((1, 4, 4))):
        assert all(np.isfinite(x).all() for x in find(jnp.asarray(a, jnp.float32)))
