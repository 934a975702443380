"""Stationary diffusions: the closed form, what it identifies, and where it must fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_continuous_lyapunov

from crl.check import as_data
from crl.core import Task, draw
from crl.dgp.dynamics import linear_sde, tanh_sde
from crl.dynamics.stationary_diffusion import (
    fourier_equations,
    quadratic_equations,
    stationary_diffusion,
)
from crl.metrics.dynamics import sliced_w2_to_floor, weight_auprc, weight_error
from crl.numerics.kernels import Fourier

B = np.array([[0, 0.8, 0], [0, 0, -0.6], [0.5, 0, 0]])  # a cycle; rows are effects
BIAS, SHIFT, NOISE = np.array([0.5, -1, 2]), np.array([3.0, -4, 5]), np.array([0.7, 1, 1.5])
DRIFT = B - np.eye(3)
COVARIANCE = solve_continuous_lyapunov(DRIFT, -np.diag(NOISE))


def mean_under(target):
    return -np.linalg.solve(DRIFT, BIAS + SHIFT * np.asarray(target))


def rows_with_moments(mean, n, rng):
    """Rows whose sample mean is this and whose sample covariance is COVARIANCE."""
    z = rng.normal(size=(n, len(mean)))
    z -= z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / n)).T
    return mean + z @ np.linalg.cholesky(COVARIANCE).T


@pytest.fixture(scope="module")
def exact():
    """Environments of unequal size with the exact moments of the system above, fitted."""
    rng = np.random.default_rng(0)
    target, count = np.vstack([np.zeros(3), np.eye(3)]).astype(int), [300, 40, 80, 55]
    x = [rows_with_moments(mean_under(t), n, rng) for t, n in zip(target, count)]
    x = np.concatenate(x).astype("float32")
    data = as_data(x, np.repeat(np.arange(4), count), given={"target": target})
    estimator = stationary_diffusion(num_draws=4000)
    return jax.jit(estimator.init)(jax.random.key(0), data), jax.jit(estimator.readout), data


def test_moments_of_shifted_environments_give_the_system(exact):
    fitted = exact[0]
    for found, true in [(fitted.drift, B), (fitted.bias, BIAS), (fitted.noise, NOISE)]:
        np.testing.assert_allclose(found, true, atol=2e-3)
    np.testing.assert_allclose(fitted.shift, SHIFT, atol=5e-3)
    assert fitted.deviation < 1e-8


def test_laws_of_unseen_double_shifts_are_those_of_the_lyapunov_equation(exact):
    fitted, readout, data = exact
    target = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
    asked = data._replace(given={**data.given, "target": jnp.asarray(target)})
    claims = readout(fitted, asked)
    draws = np.asarray(claims.other["draws"], float)
    for found, t in zip(draws, target):
        np.testing.assert_allclose(found.mean(0), mean_under(t), atol=0.08)  # 4 std. errors
        np.testing.assert_allclose(np.cov(found.T), COVARIANCE, atol=0.12)
    assert claims.diag["stable"] == 1
    np.testing.assert_array_equal(claims.other["weights"], fitted.drift.T)
    # The rows of the data that are asked about say nothing.
    again = readout(fitted, asked._replace(x=asked.x + 1))
    np.testing.assert_array_equal(again.other["draws"], draws)


def test_laws_that_the_fit_cannot_know_are_nan(exact):
    fitted, readout, data = exact
    unseen = fitted._replace(is_shifted=jnp.array([True, True, False]))
    draws = readout(unseen, data).other["draws"]
    np.testing.assert_array_equal(jnp.isnan(draws).any((1, 2)), [False, False, False, True])
    explosive = fitted._replace(drift=fitted.drift + 2 * jnp.eye(3))
    claims = readout(explosive, data)
    assert claims.diag["stable"] == 0 and jnp.isnan(claims.other["draws"]).all()


def test_true_system_has_no_deviation_and_its_transpose_and_other_clocks_do():
    matrix, noise = np.array([[-1, 0.9], [0.1, -1]]), np.array([0.6, 1.4])
    root = np.linalg.cholesky(solve_continuous_lyapunov(matrix, -np.diag(noise)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)  # expectations by quadrature
    u = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2) @ root.T
    share = np.outer(weights, weights).reshape(-1, 1) / weights.sum() ** 2
    rng = np.random.default_rng(0)
    features = Fourier(rng.normal(size=(5, 2)), rng.uniform(0, 6, 5))
    with jax.enable_x64(True):
        features, u, share = jax.tree.map(jnp.asarray, (features, u, share))
        found = jax.jit(fourier_equations)(features, u, u, share, 1.0)
    on_drift, _, on_noise, constant = (np.asarray(a[0]) for a in found)

    def deviation(matrix, noise, leak=1.0):
        b = matrix + leak * np.eye(2)
        mean = np.einsum("mil,il->m", on_drift, b) + on_noise @ noise + leak * constant
        return np.mean(mean**2)

    assert deviation(matrix, noise) < 1e-20
    assert deviation(3 * matrix, 3 * noise, 3.0) < 1e-19  # another unit of time
    assert deviation(matrix.T, noise) > 1e-3
    assert deviation(3 * matrix, noise, 3.0) > 1e-3


def test_each_variable_shifted_adds_an_equation_for_each_variable():
    d, rng = 3, np.random.default_rng(0)
    target = np.vstack([np.zeros(d), np.eye(d), np.eye(d)[0]])  # the first shift twice
    u = np.concatenate([rows_with_moments(mean_under(t), 30, rng) for t in target])
    share = np.repeat(np.eye(len(target)), 30, 0) / 30
    with jax.enable_x64(True):
        u, share = jnp.asarray(u), jnp.asarray(share)
        found = jax.jit(quadratic_equations)(u, u, share, 1.0)
    on_drift, on_bias, on_noise, _ = map(np.asarray, found)
    row, column = np.nonzero(~np.eye(d, dtype=bool))
    parts = [on_drift[..., row, column], on_bias, on_bias * target[:, None], on_noise]
    matrix = np.concatenate(parts, -1)  # (E, k, d (d + 2))

    def rank(environments):
        """Of their equations in the drift, b, c and D, less one for each unknown c."""
        num_shifts = len(np.unique(target[environments], axis=0)) - 1
        rows = matrix[environments].reshape(-1, d * (d + 2))
        return np.linalg.matrix_rank(rows, 1e-8) - num_shifts

    one = d * (d + 1) // 2 + d
    assert rank([0]) == one
    assert rank([0, 1]) == rank([0, 1, 4]) == one + d - 1  # the same again says nothing new
    assert rank([0, 1, 2, 3]) == d * (d - 1) + 2 * d  # all that there is to know


@pytest.mark.parametrize(
    "options, words",
    [
        ({"drift": "cubic"}, "drift 'linear', 'tanh', got 'cubic'"),
        ({"kernel": "laplace"}, "kernel 'quadratic', 'gaussian', got 'laplace'"),
        ({"bandwidth": 0.0}, "bandwidth > 0, got 0.0"),
        ({"leak": -1.0}, "leak > 0, got -1.0"),
        ({"num_draws": 0}, "num_draws an integer >= 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        stationary_diffusion(**options)


def test_data_without_targets_or_variation_are_refused():
    x, env = np.random.default_rng(0).normal(size=(8, 2)), np.repeat([0, 1], 4)
    validate = stationary_diffusion().validate
    validate(as_data(x))
    with pytest.raises(ValueError, match=r"needs given\['target'\] for its 2 environments"):
        validate(as_data(x, env))
    for target in (np.eye(3), np.full((2, 2), 0.5)):
        with pytest.raises(ValueError, match=r"of 0 and 1 and shape \(2, 2\)"):
            validate(as_data(x, env, given={"target": target}))
    with pytest.raises(ValueError, match=r"columns that vary, got constant \[1\]"):
        validate(as_data(x * [1, 0], env, given={"target": np.eye(2)}))


# --- figures, each beside the control that must fail --------------------------------------


def medians(dgp, estimator, metrics, n, permuted=False, worlds=5):
    """The median over worlds of each metric on the held-out law."""
    task = Task(dgp, n, n, {})

    @jax.jit
    def world(key):
        train, test = draw(task, key)
        data = train.data
        if permuted:  # every environment carries the target of the next
            target = data.given["target"]
            target = target.at[1:].set(jnp.roll(target[1:], 1, 0))
            data = data._replace(given={**data.given, "target": target})
        claims = estimator.readout(estimator.init(key, data), test.data)
        return jnp.stack([metric(claims, test) for metric in metrics])

    return np.median([world(jax.random.key(seed)) for seed in range(worlds)], 0)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["quadratic", "gaussian"])
@pytest.mark.parametrize("d, worst", [(5, 0.05), (10, 0.07), (20, 0.1)])
def test_linear_drifts_are_recovered_when_every_variable_is_shifted(kernel, d, worst):
    estimator = stationary_diffusion(kernel=kernel, num_draws=10)
    error, auprc = medians(linear_sde(d), estimator, (weight_error, weight_auprc), 1000)
    assert error <= worst and auprc >= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["quadratic", "gaussian"])
@pytest.mark.parametrize("d", [5, 10, 20])
def test_one_environment_does_not_identify_the_drift(kernel, d):
    estimator = stationary_diffusion(kernel=kernel, num_draws=10)
    dgp = linear_sde(d, num_shifted=0)
    error, auprc = medians(dgp, estimator, (weight_error, weight_auprc), 10_000)
    assert error >= 0.6 and auprc <= 0.85


@pytest.mark.slow
def test_permuted_targets_do_not_give_the_drift():
    estimator = stationary_diffusion(num_draws=10)
    (error,) = medians(linear_sde(5), estimator, (weight_error,), 1000, permuted=True)
    assert error >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["quadratic", "gaussian"])
def test_double_shifts_of_tanh_drifts_are_predicted_but_not_by_a_linear_drift(kernel):
    for drift, holds in [("tanh", lambda v: v <= 1.5), ("linear", lambda v: v >= 2.5)]:
        estimator = stationary_diffusion(drift, kernel, num_draws=2000)
        (value,) = medians(tanh_sde(5), estimator, (sliced_w2_to_floor,), 2000)
        assert holds(value), (drift, value)
