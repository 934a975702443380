import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import wishart

import crl
from crl.core import grouped
from crl.scm.hessians import graph_of, quadratic_hessians, slopes
from crl.scm.precision_ratio import precision_ratio
from crl.theory.two_environments import _derivatives

METHOD = precision_ratio()


def population(seed, d, change="independent", num_envs=3):
    """Weights (d, d) [i, j] of i on j, and covariances (E, d, d), of a linear SCM."""
    rng = np.random.default_rng(seed)
    share = min(1, 2 / (d - 1))
    weights = rng.uniform(0.5, 1.2, (d, d)) * rng.choice([-1, 1], (d, d))
    weights = np.triu(weights * (rng.random((d, d)) < share), 1)
    place = rng.permutation(d)
    weights = weights[place][:, place]
    shape = num_envs, d
    grows = rng.random(shape) < 0.5
    sd = np.where(grows, rng.uniform(1.6, 3, shape), rng.uniform(0.3, 0.65, shape))
    sd[0] = 1
    if change == "none":
        sd[:] = 1
    if change == "alike":
        sd = np.array([1, 0.5, 2])[:, None] * np.ones(d)
    if change == "proportional":
        sd[2] = (1 + (sd[1] ** -2 - 1) / 2) ** -0.5
    mix = np.linalg.inv(np.eye(d) - weights)
    return weights, np.stack([mix.T @ np.diag(s**2) @ mix for s in sd])


@jax.jit
def from_covariances(covariance):
    found = slopes(quadratic_hessians(covariance), covariance[0])
    graph, order = graph_of(found.weights, jnp.sqrt(jnp.diagonal(covariance[0])), 0.15)
    return found, graph, order


def errors(graph, weights):
    """Structural Hamming distance, a reversal one error."""
    wrong = (np.array(graph) > 0) != (weights != 0)
    return int(np.triu(wrong | wrong.T).sum())


def check_exact(weights, covariance, dtype):
    found, graph, order = from_covariances(jnp.asarray(covariance, dtype))
    np.testing.assert_allclose(found.weights, weights, atol=1e-4)
    assert errors(graph, weights) == 0
    place = np.argsort(order)
    assert (place[:, None] < place)[weights != 0].all()
    assert found.diag["complex_pairs"] == 0 and found.diag["num_envs"] == len(covariance)


def test_exact_precisions_of_three_environments_give_graph_and_weights():
    for seed in range(4):
        weights, covariance = population(seed, 3)
        check_exact(weights, covariance, jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 3, 5, 10])
def test_exact_precisions_give_graph_and_weights_at_any_size(d):
    with jax.enable_x64(True):
        for seed in range(10):
            weights, covariance = population(seed, d)
            check_exact(weights, covariance, jnp.float64)
            # The same from numpy's eigenvectors.
            precision = np.linalg.inv(covariance)
            by_numpy = _derivatives(precision[0] - precision[1:])
            found, *_ = from_covariances(jnp.asarray(covariance))
            np.testing.assert_allclose(by_numpy.T, found.weights, atol=1e-6)


@pytest.mark.slow
def test_more_environments_are_diagonalised_together():
    check_exact(*population(0, 5, num_envs=6), jnp.float32)
    # From samples they err less than the first three of them alone.
    gain = []
    for seed in range(12):
        weights, covariance = population(seed, 5, num_envs=6)
        rng = np.random.default_rng(seed)
        sample = np.stack(
            [wishart(10_000, c / 10_000).rvs(random_state=rng) for c in covariance]
        )
        all_, three = (
            from_covariances(jnp.asarray(c, jnp.float32))[0] for c in (sample, sample[:3])
        )
        gain.append([np.abs(f.weights - weights).max() for f in (all_, three)])
    together, first = np.median(gain, 0)
    assert together < first / 2


@pytest.mark.parametrize("change", ["alike", "proportional", "none"])
def test_changes_in_proportion_or_none_identify_nothing_and_say_so(change):
    # What is not identified is up to rounding: right in 1 of 3 graphs or fewer, so that less
    # than 3 of 12 are wrong with probability .0005. Identified, none would be.
    wrong = 0
    for seed in range(12):
        weights, covariance = population(seed, 3, change)
        found, graph, _ = from_covariances(jnp.asarray(covariance, jnp.float32))
        assert min(found.diag["ratio_gap"], found.diag["least_change"]) < 1e-5
        wrong += errors(graph, weights) > 0
        assert np.isfinite(found.weights).all()
    assert wrong >= 3


def rows_of(seed, d, n, change="independent", shift=0.0):
    """Weights, and a Data of n rows an environment; shift: sd of the means of its noises."""
    weights, covariance = population(seed, d, change)
    rng = np.random.default_rng(seed + 1000)
    mix = np.linalg.inv(np.eye(d) - weights)
    sd = [
        np.sqrt(np.diag((np.eye(d) - weights.T) @ c @ (np.eye(d) - weights)))
        for c in covariance
    ]
    x = [(rng.normal(size=(n, d)) * s + shift * rng.normal(size=d)) @ mix for s in sd]
    return weights, grouped(jnp.asarray(np.concatenate(x), jnp.float32), (n,) * len(x))


fitted = jax.jit(lambda data: METHOD.init(jax.random.key(0), data))


@pytest.mark.slow
def test_five_linear_variables_are_found_from_100_000_rows_wherever_they_are_told_apart():
    """16 worlds, in which means of the noises move, too."""
    wrong, told = [], 0
    for seed in range(16):
        weights, data = rows_of(seed, 5, 100_000, shift=1.0)
        METHOD.validate(data)
        out = METHOD.readout(fitted(data), data)
        wrong.append(errors(out.graph, weights))
        if out.diag["identified"]:
            told += 1
            assert wrong[-1] == 0
            assert np.abs(out.other["weights"] - weights).max() < 0.05
            np.testing.assert_allclose(np.corrcoef(out.z[:100_000].T), np.eye(5), atol=0.1)
    assert told >= 8 and np.median(wrong) == 0 and np.mean(wrong) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("change", ["alike", "proportional", "none"])
def test_samples_of_the_controls_are_wrong_and_not_called_identified(change):
    """24 worlds of 10,000 rows an environment."""
    wrong = 0
    for seed in range(24):
        weights, data = rows_of(seed, 5, 10_000, change)
        out = fitted(data)
        assert not out.diag["identified"]
        wrong += errors(out.graph, weights)
    assert wrong / 24 > 2


@pytest.mark.slow
def test_units_and_positions_of_columns_say_nothing():
    weights, data = rows_of(0, 3, 20_000)
    scale = jnp.array([1e-3, 1.0, 1e4])
    one, two = fitted(data), fitted(data._replace(x=data.x * scale + 5 * scale))
    np.testing.assert_array_equal(one.graph, two.graph)
    np.testing.assert_allclose(two.weights, one.weights * scale / scale[:, None], rtol=1e-2)
    assert errors(one.graph, weights) == 0 and one.diag["identified"]


def test_data_in_which_no_ratio_exists_is_refused():
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    flat, double = x.copy(), x.copy()
    flat[20:40, 1] = 2.0
    double[40:, 2] = double[40:, 0]
    env = np.repeat(np.arange(3), 20)
    for rows, labels, words in [
        (x, env % 2, "at least 3 environments, .*got 2"),
        (x[:, :1], env, "at least 2 columns, got 1"),
        (x, np.r_[env[:58], 3, 3], r"rows \[20, 20, 18, 2\] of 3 columns"),
        (flat, env, "constant or dependent ones in environment 1"),
        (double, env, "constant or dependent ones in environment 2"),
    ]:
        order = np.argsort(labels, kind="stable")
        with pytest.raises(ValueError, match=f"precision_ratio needs .*{words}"):
            METHOD.validate(crl.as_data(rows[order], labels[order]))
    with pytest.raises(ValueError, match="precision_ratio needs threshold >= 0, got -1"):
        precision_ratio(-1)
