"""Metrics of dynamical systems against scikit-learn and numpy on the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from crl.check import as_data
from crl.core import Readout, Sample, Truth, grouped
from crl.metrics.dynamics import (
    NUM_DIRECTIONS,
    mmd,
    sliced_w2,
    sliced_w2_to_floor,
    weight_auprc,
    weight_error,
)

RNG = np.random.default_rng(0)


def sample(graph, weights):
    truth = Truth(graph=jnp.asarray(graph), other={"weights": jnp.asarray(weights)})
    return Sample(grouped(jnp.zeros((2, len(graph)))), truth)


def claim(weights):
    return Readout(other={"weights": jnp.asarray(weights, jnp.float32)})


@pytest.mark.parametrize("ties", [False, True])
def test_auprc_is_the_average_precision_of_scikit_learn(ties):
    d = 6
    graph = (RNG.random((d, d)) < 0.3) & ~np.eye(d, dtype=bool)
    weights = RNG.normal(size=(d, d)) + graph
    if ties:
        weights = np.round(weights)
    off = ~np.eye(d, dtype=bool)
    want = average_precision_score(graph[off], np.abs(weights[off]))
    found = jax.jit(weight_auprc)(claim(weights), sample(graph.astype(int), weights))
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_weight_error_is_relative_ignores_the_diagonal_and_sees_a_transpose():
    w = np.array([[0, 2.0, 0], [0, 0, -1], [0, 0, 0]], "float32")

    @jax.jit
    def judge(claimed, w):
        return [m(claim(claimed), sample(w != 0, w)) for m in (weight_error, weight_auprc)]

    np.testing.assert_allclose(judge(w + 7 * np.eye(3), w), [0, 1])
    np.testing.assert_allclose(judge(0 * w, w), [1, 1 / 3], rtol=1e-5)
    np.testing.assert_allclose(judge(1.1 * w, w), [0.1, 1], rtol=1e-5)
    error, auprc = judge(w.T, w)
    assert error > 1 and auprc < 0.5
    assert np.isnan(judge(w, 0 * w)).all()


def laws():
    """Three environments of unequal size, the last two of which intervene."""
    count, target = [30, 20, 50], np.array([[0, 0], [1, 0], [1, 1]])
    x = RNG.normal(size=(100, 2)).astype("float32") * [1, 3]
    data = as_data(x, np.repeat(range(3), count), given={"target": target})
    return data, np.split(np.asarray(data.x, float), np.cumsum(count)[:-1])


def test_sliced_w2_equals_numpy_over_environments_that_intervene():
    data, rows = laws()
    draws = RNG.normal(size=(3, 100, 2)).astype("float32")
    directions = np.random.default_rng(0).standard_normal((2, NUM_DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)

    def distance(x, y):
        level = (np.arange(len(y)) + 0.5) / len(y)
        quantiles = np.quantile(x @ directions, level, axis=0, method="inverted_cdf")
        gap = np.sort(y @ directions, 0) - quantiles
        return np.sqrt(np.mean(gap**2) / np.mean(x.var(0)))

    want = [distance(x, y) for x, y in zip(rows, draws.astype(float))]
    claims = Readout(other={"draws": jnp.asarray(draws)})
    truth = Truth(other={"draws": jnp.asarray(draws)})

    @jax.jit
    def judge(data):
        return [m(claims, Sample(data, truth)) for m in (sliced_w2, sliced_w2_to_floor)]

    np.testing.assert_allclose(judge(data), [np.mean(want[1:]), 1], rtol=1e-5)
    # Where none intervenes, all count.
    none = jnp.zeros_like(data.given["target"])
    data = data._replace(given={**data.given, "target": none})
    np.testing.assert_allclose(judge(data), [np.mean(want), 1], rtol=1e-5)


def test_mmd_equals_numpy_and_tells_laws_apart():
    data, rows = laws()
    near, far = (RNG.normal(size=(3, 20, 2)) * [1, 3] + shift for shift in (0, 3))

    def distance(x, y):
        x = x[((np.arange(20) + 0.5) * len(x) / 20).astype(int)]
        both = np.concatenate([y, x])
        square = ((both[:, None] - both) ** 2).sum(-1)
        k = np.exp(-square / (2 * np.median(square[np.triu_indices(40, 1)])))
        return np.sqrt(k[:20, :20].mean() + k[20:, 20:].mean() - 2 * k[:20, 20:].mean())

    def judge(draws):
        claims = Readout(other={"draws": jnp.asarray(draws, jnp.float32)})
        return mmd(claims, Sample(data, Truth()))

    found = jax.jit(jax.vmap(judge))(np.stack([near, far]))
    for value, draws in zip(found, (near, far)):
        want = np.mean([distance(x, y) for x, y in zip(rows[1:], draws[1:])])
        np.testing.assert_allclose(value, want, rtol=1e-4)
    assert found[1] > 2 * found[0]
