"""Worlds at stationarity: their laws, their targets, and the pairs of shifts held out."""

import jax
import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov

from crl.dgp.dynamics import linear_sde, tanh_sde

N = 4000


def draw(dgp):
    """A world, a sample of it and of its held-out law, in one program."""

    @jax.jit
    def run(key):
        key_world, key, key_held_out = jax.random.split(key, 3)
        world = dgp.init(key_world)
        data, truth = dgp.held_out(key_held_out, world, N)
        # Without the draws, whose law is that of the rows.
        truth = truth._replace(other={"weights": truth.other["weights"]})
        return world, dgp.sample(key, world, N), (data, truth)

    return run(jax.random.key(0))


def test_rows_of_linear_worlds_have_the_law_of_the_lyapunov_equation():
    world, *samples = draw(linear_sde(3))
    drift = np.asarray(world.weights, float).T - np.eye(3)
    covariance = solve_continuous_lyapunov(drift, -np.diag(np.asarray(world.noise, float)))
    for data, truth in samples:
        x = np.asarray(data.x, float).reshape(-1, N, 3)
        for rows, target in zip(x, np.asarray(data.given["target"]), strict=True):
            mean = -np.linalg.solve(drift, world.bias + world.shift * target)
            error = 5 * (covariance.max() / N) ** 0.5
            np.testing.assert_allclose(rows.mean(0), mean, atol=error)
            np.testing.assert_allclose(np.cov(rows.T), covariance, atol=0.1 * covariance.max())
        np.testing.assert_array_equal(truth.graph, world.weights != 0)
        np.testing.assert_array_equal(truth.targets, data.given["target"])
        np.testing.assert_array_equal(truth.other["weights"], world.weights)
    (train, _), (test, _) = samples
    np.testing.assert_array_equal(train.given["target"], [[0] * 3, *np.eye(3)])
    pairs = sorted(map(tuple, test.given["target"].tolist()))
    assert pairs == [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)]
    assert np.linalg.eigvals(world.weights).real.max() < 0.5 + 1e-4


@pytest.mark.slow
def test_rows_of_tanh_worlds_are_stationary():
    """E A h = 0 for h = x_i and x_i x_k, by hand, within sampling error."""
    world, train, test = draw(tanh_sde(3))
    for data, _ in (train, test):
        x = np.asarray(data.x, float).reshape(-1, N, 3)
        for rows, target in zip(x, data.given["target"], strict=True):
            shift = np.asarray(world.bias + world.shift * target)
            drift = np.tanh(rows) @ np.asarray(world.weights, float) - rows + shift
            error = 5 / N**0.5
            np.testing.assert_allclose(drift.mean(0) / drift.std(0), 0, atol=error)
            cross = drift[:, :, None] * (rows - rows.mean(0))[:, None]
            balance = cross + np.swapaxes(cross, 1, 2) + np.diag(world.noise)
            np.testing.assert_allclose(balance.mean(0) / balance.std(0), 0, atol=error)


def test_few_shifted_variables_leave_no_pair_or_one():
    assert linear_sde(4, num_shifted=1).held_out is None
    dgp = linear_sde(4, num_shifted=2)
    shapes = jax.eval_shape(lambda key: dgp.held_out(key, dgp.init(key), 5), jax.random.key(0))
    assert shapes.data.x.shape == (10, 4) and shapes.data.given["target"].shape == (2, 4)
    assert shapes.truth.other["draws"].shape == (2, 5, 4)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"num_nodes": 0}, "num_nodes an integer >= 1, got 0"),
        ({"edges_per_node": -1.0}, "edges_per_node >= 0, got -1.0"),
        ({"num_shifted": 4}, "num_shifted None, 0, 1, 2, 3, got 4"),
        ({"shift": (0.0, 1.0)}, r"shift\[0\] > 0, got 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    for dgp in (linear_sde, tanh_sde):
        with pytest.raises(ValueError, match=words):
            dgp(**{"num_nodes": 3, **options})
