from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.check import as_data
from crl.core import grouped
from crl.dgp.time_series import companion, structural_var
from crl.numerics.spectra import spectral_radius
from crl.scm.direct_lingam import direct_lingam
from crl.scm.var_lingam import var_lingam

D, LAGS = 3, 2


@cache
def drawing(noise, n):
    dgp = structural_var(D, LAGS, noise=noise)

    @jax.jit
    def draw(key):
        key_world, key_rows = jax.random.split(key)
        return dgp.sample(key_rows, dgp.init(key_world), n)

    return draw


def series(seed, noise="laplace", n=400):
    return drawing(noise, n)(jax.random.key(seed))


@jax.jit
def fitted(data):
    return var_lingam(LAGS).init(jax.random.key(0), data)


def fit(x, **given):
    nothing = {"required": np.zeros((D, D)), "forbidden": np.zeros((D, D))}
    given = {k: jnp.asarray(v, jnp.float32) for k, v in (nothing | given).items()}
    data = grouped(jnp.asarray(x), **given)
    var_lingam(LAGS).validate(data)
    return fitted(data)


def turned(graph, order):
    place = np.argsort(order)
    return [place[i] > place[j] for i, j in np.argwhere(graph)]


def test_lagged_effects_are_those_of_regression_on_causes_and_past():
    """With the order known, both steps are one least squares regression of each variable."""
    full = np.triu(np.ones((D, D)), 1)
    for seed in range(3):
        x = np.asarray(series(seed).data.x, float)
        out = fit(x.astype(np.float32), required=full)
        assert out.order.tolist() == [0, 1, 2]
        n = len(x)
        past = [x[LAGS - k : n - k] for k in range(1, LAGS + 1)]
        for j in range(D):
            a = np.hstack([x[LAGS:, :j], *past, np.ones((n - LAGS, 1))])
            expected = np.linalg.lstsq(a, x[LAGS:, j], rcond=None)[0]
            np.testing.assert_allclose(out.weights[:j, j], expected[:j], atol=2e-2)
            lagged = expected[j:-1].reshape(LAGS, D)
            np.testing.assert_allclose(out.lagged[:, :, j], lagged, atol=2e-2)


def test_it_is_direct_lingam_on_what_regression_on_the_past_leaves():
    alone = jax.jit(lambda data: direct_lingam().init(jax.random.key(0), data))
    for seed in range(5):
        x = np.asarray(series(seed).data.x, float)
        n = len(x)
        past = [x[LAGS - k : n - k] for k in range(1, LAGS + 1)]
        a = np.hstack([*past, np.ones((n - LAGS, 1))])
        rest = x[LAGS:] - a @ np.linalg.lstsq(a, x[LAGS:], rcond=None)[0]
        expected = alone(grouped(jnp.asarray(rest, jnp.float32)))
        out = fit(x.astype(np.float32))
        np.testing.assert_array_equal(out.order, expected.order)
        np.testing.assert_array_equal(out.graph, expected.graph)
        np.testing.assert_allclose(out.weights, expected.weights, atol=1e-4)


@pytest.mark.slow
def test_all_effects_are_the_true_ones_at_many_rows():
    for seed in range(3):
        sample = series(seed, n=30_000)
        out = fitted(sample.data)
        np.testing.assert_array_equal(out.graph, sample.truth.graph)
        np.testing.assert_allclose(out.weights, sample.truth.other["weights"], atol=0.05)
        np.testing.assert_allclose(out.lagged, sample.truth.other["lagged"], atol=0.05)


def test_gaussian_noise_leaves_the_order_to_chance():
    """40 series of 400 rows: about 120 edges within a step."""
    share = {}
    for noise in ("gaussian", "laplace"):
        samples = [series(seed, noise) for seed in range(40)]
        found = [turned(s.truth.graph, fit(s.data.x).order) for s in samples]
        share[noise] = np.mean(np.concatenate(found))
    assert 0.3 < share["gaussian"] < 0.7 and share["laplace"] < 0.1, share


@pytest.mark.slow
def test_lingam_on_the_rows_alone_takes_the_past_for_a_hidden_cause():
    """The control: DirectLiNGAM, which does not look back, turns more edges."""
    alone = jax.jit(lambda data: direct_lingam().init(jax.random.key(0), data).order)
    with_past, without = [], []
    for seed in range(40):
        sample = series(seed)
        with_past += turned(sample.truth.graph, fit(sample.data.x).order)
        without += turned(sample.truth.graph, alone(sample.data))
    assert np.mean(without) > np.mean(with_past) + 0.1, (np.mean(without), np.mean(with_past))


def test_units_of_the_columns_say_nothing():
    scale = np.array([1000, 1, 1e-3], np.float32)
    x = series(1).data.x
    one, other = fit(x), fit(x * scale + 7 * scale)
    np.testing.assert_array_equal(one.graph, other.graph)
    expected = one.lagged * scale / scale[:, None]
    np.testing.assert_allclose(other.lagged / expected, 1, rtol=2e-2)


def test_var_lingam_equals_lingam():
    """Order and effects on the same arrays; theirs are without a constant, so x is centred."""
    lingam = pytest.importorskip("lingam")
    for seed in range(5):
        x = np.asarray(series(seed).data.x)
        model = lingam.VARLiNGAM(lags=LAGS, criterion=None, prune=False)
        theirs = model.fit(x.astype(float) - x.mean(0, dtype=float))
        out = fit(x)
        assert out.order.tolist() == list(theirs.causal_order_)
        within, *lagged = np.swapaxes(theirs.adjacency_matrices_, 1, 2)
        np.testing.assert_allclose(out.weights, within, atol=1e-3)
        np.testing.assert_allclose(out.lagged, lagged, atol=1e-3)


def test_prior_knowledge_is_of_the_effects_within_a_step():
    x = series(1, "gaussian").data.x
    chain = np.zeros((D, D))
    chain[2, 0] = chain[0, 1] = 1
    out = fit(x, required=chain)
    assert out.order.tolist() == [2, 0, 1] and out.graph[2, 0] and out.graph[0, 1]
    out = fit(x, forbidden=1 - np.eye(D))
    assert not np.any(out.weights) and np.all(np.asarray(out.lagged) != 0)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x: {"x": x[:11]}, r"more rows than num_lags \+ .* = 12, got 11"),
        (
            lambda x: {"x": x, "env": np.arange(len(x)) // 200},
            "one series, got 2 environments",
        ),
        (lambda x: {"x": x, "aux": {"time": np.sqrt(np.arange(len(x)))}}, "evenly spaced"),
        (lambda x: {"x": x, "aux": {"time": -np.arange(len(x))}}, "in the order of time"),
        (lambda x: {"x": np.c_[x, np.roll(x[:, 0], 1)][1:]}, r"past determines: \[3\]"),
        (lambda x: {"x": np.c_[x, x[:, 0]]}, "copies of one another"),
    ],
)
def test_rows_that_are_no_series_are_refused(change, words):
    x = np.asarray(series(0).data.x)
    with pytest.raises(ValueError, match=f"var_lingam needs .*{words}"):
        var_lingam(LAGS).validate(as_data(**change(x)))
    with pytest.raises(ValueError, match="var_lingam needs num_lags an integer >= 1, got 0"):
        var_lingam(0)


# --- the worlds ----------------------------------------------------------------------------


def test_the_series_obeys_its_equation_with_the_noises_of_the_truth():
    sample = series(0)
    x, truth = np.asarray(sample.data.x, float), sample.truth
    n, weights = len(x), np.asarray(truth.other["weights"])
    rest = x[LAGS:] - x[LAGS:] @ weights
    for k, effects in enumerate(np.asarray(truth.other["lagged"]), 1):
        rest -= x[LAGS - k : n - k] @ effects
    np.testing.assert_allclose(rest, truth.z[LAGS:], atol=1e-4)
    np.testing.assert_array_equal(truth.graph, weights != 0)


def test_its_memory_is_that_of_the_option():
    for seed in range(3):
        truth = series(seed).truth
        a = companion(truth.other["weights"], truth.other["lagged"])
        eigenvalues = np.linalg.eigvals(np.asarray(a, float))
        assert np.abs(eigenvalues).max() == pytest.approx(0.7, rel=1e-3)
        assert float(spectral_radius(a)) == pytest.approx(0.7, rel=1e-3)
    with pytest.raises(ValueError, match=r"structural_var needs memory <= 0\.9, got 0\.95"):
        structural_var(3, memory=0.95)
