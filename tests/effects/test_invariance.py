"""IRM and V-REx find what is invariant where theory says so, and only there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import crl
from crl import loop
from crl.core import Task, draw, grouped
from crl.dgp.spurious import spurious_effects
from crl.effects.irm import irm, slopes
from crl.effects.vrex import variance, vrex
from crl.metrics.interventions import y_rmse


def rows(sizes=(50, 80, 30), seed=0):
    """x (n, 3), y (n, 2) and labels, of environments of different sizes."""
    rng = np.random.default_rng(seed)
    env = np.repeat(np.arange(len(sizes)), sizes)
    y = rng.normal(size=(len(env), 2)) * (1 + env[:, None]) + 3
    x = np.c_[y[:, :1] * (1 - env[:, None]), y[:, 1:] + 1, y[:, :1]]
    return x + rng.normal(size=x.shape), y, env


def data_of(x, y, env):
    return grouped(jnp.asarray(x), np.bincount(env), {"y": jnp.asarray(y)})


def member(env):
    is_in = env[:, None] == np.unique(env)
    return jnp.asarray(is_in / is_in.sum(0))


def test_penalties_are_those_of_their_papers():
    """By automatic differentiation with respect to the scale, and by numpy."""
    _, y, env = rows()
    f = y + np.random.default_rng(1).normal(size=y.shape)

    def risk(w, e):
        return jnp.mean(jnp.sum((y[env == e] - w * f[env == e]) ** 2, 1))

    with jax.enable_x64(True):
        by_scale = [jax.grad(risk)(1.0, e) for e in range(3)]
        args = jnp.asarray(f), jnp.asarray(y), member(env)
        np.testing.assert_allclose(slopes(*args), np.mean(np.square(by_scale)), rtol=1e-10)
        of_risk = np.var([float(risk(1.0, e)) for e in range(3)])
        np.testing.assert_allclose(variance(*args), of_risk, rtol=1e-10)


@functools.cache
def fitted():
    """In float64, on ``rows()``: least squares by weight 0, and both methods."""
    with jax.enable_x64(True):
        data = data_of(*rows())
        found = {}
        for name, estimator in [("ols", irm(0.0)), ("irm", irm(3.0)), ("vrex", vrex(3.0))]:
            fit = crl.fit(estimator, jax.random.key(0), data)
            claims = crl.readout(estimator, fit.state, data)
            found[name] = jax.device_get((claims.other["effect"], claims.y, claims.diag))
    return found


def test_without_weight_they_are_least_squares_over_equal_parts_of_environments():
    x, y, env = rows()
    root = (1 / np.bincount(env)[env] ** 0.5)[:, None] / y.std(0)
    a = np.c_[x, np.ones(len(x))]
    for q in range(2):  # each outcome in its own units
        w = root[:, q : q + 1]
        expected = np.linalg.lstsq(a * w, y[:, q] * w[:, 0], rcond=None)[0]
        np.testing.assert_allclose(fitted()["ols"][0][:, q], expected[:3], atol=2e-3)
        np.testing.assert_allclose(fitted()["ols"][1][:, q], a @ expected, atol=1e-2)


@pytest.mark.parametrize("name", ["irm", "vrex"])
def test_they_minimise_risk_and_penalty_as_scipy_does(name):
    """From least squares, the start of both, to the same minimum."""
    x, y, env = rows()
    u = (x - x.mean(0)) / x.std(0)
    v = (y - y.mean(0)) / y.std(0)

    def parts(p):
        f = np.c_[u, np.ones(len(u))] @ p.reshape(4, 2)
        risk, slope = [], []
        for e in range(3):
            g, z = f[env == e], v[env == e]
            risk.append(np.mean(np.sum((z - g) ** 2, 1)))
            slope.append(2 * np.mean(np.sum((g - z) * g, 1)))
        return np.mean(risk), np.mean(np.square(slope)) if name == "irm" else np.var(risk)

    def loss(p):
        return parts(p)[0] + 3 * parts(p)[1]

    start = np.linalg.lstsq(np.c_[u, np.ones(len(u))], v, rcond=None)[0].ravel()
    best = scipy.optimize.minimize(loss, start, tol=1e-10)
    slope, _, diag = fitted()[name]
    ours = np.r_[slope * x.std(0)[:, None] / y.std(0), np.zeros((1, 2))]
    ours[3] = ((fitted()[name][1] - y.mean(0)) / y.std(0) - u @ ours[:3])[0]
    assert loss(ours.ravel()) <= best.fun * 1.001
    np.testing.assert_allclose(diag["penalty"], parts(ours.ravel())[1], rtol=1e-4)


@functools.cache
def risks_under_shift(n, worlds, **options):
    """Medians over worlds of y_rmse where effects turn: least squares, irm, vrex."""
    task = Task(spurious_effects(**options), n, 2000, {})

    def one(key):
        train, test = draw(task, key)
        found = []
        for estimator in (irm(0.0), irm(), vrex()):
            lane = loop.run(estimator, key, train.data)
            found.append(y_rmse(estimator.readout(lane.state, test.data), test))
        return jnp.stack(found)

    every = jax.jit(lambda keys: jax.lax.map(one, keys))
    return np.median(every(jax.random.split(jax.random.key(0), worlds)), 0)


@pytest.mark.slow
def test_with_many_environments_they_beat_least_squares_under_shift():
    """Of population laws: least squares 1.1 to 1.8, irm up to 1.05, causes alone 1."""
    ols, by_irm, by_vrex = risks_under_shift(4000, 5, num_effects=1, num_envs=6)
    assert ols > 1.15 and by_irm < 1.1 and by_vrex < 1.25


@pytest.mark.slow
def test_irm_alone_withstands_noise_that_changes():
    """Of population laws 1.92, 1.08 and 2.82: equal risks need what y causes."""
    ols, by_irm, by_vrex = risks_under_shift(4000, 5, change="noise")
    assert 1.82 < ols < 2.02 and by_irm < 1.18 and by_vrex > 2.5


@pytest.mark.slow
def test_one_environment_leaves_both_at_least_squares():
    """(b, 1) / 2 has risk 3.5 where effects turn."""
    found = risks_under_shift(4000, 5, num_envs=1, spread=0.0)
    np.testing.assert_allclose(found, 3.5**0.5, rtol=0.04)


@pytest.mark.slow
def test_as_many_effects_as_environments_hide_what_is_invariant():
    """Rosenfeld et al. 2021: an invariant predictor of less risk uses effects."""
    ols, by_irm, by_vrex = risks_under_shift(4000, 5, num_effects=4, num_envs=4)
    assert ols > 1.4 and by_irm > 1.25 and by_vrex > 1.25


@pytest.mark.slow
def test_networks_may_use_effects_in_spite_of_the_penalty():
    """y = |c| + noise: no line predicts it, and its effect turns in the last rows."""
    rng = np.random.default_rng(0)

    def draw(a, n=4000):
        c = rng.normal(size=n)
        y = 2 * np.abs(c) + 0.5 * rng.normal(size=n)
        return np.c_[c, a * y + 0.5 * rng.normal(size=n)].astype(np.float32), y[:, None]

    parts = [draw(a) for a in (2.0, 1.0, 0.2, -0.3)]
    x, y = (np.concatenate(p) for p in zip(*parts))
    data = data_of(x, y.astype(np.float32), np.repeat(np.arange(4), 4000))
    turned, truth = draw(-2.0)
    fit = crl.fit(irm(depth=1), jax.random.key(0), data)
    claims = crl.readout(irm(depth=1), fit.state, crl.as_data(turned))
    assert claims.other is None
    # The noise alone is .5; 3000 steps had less than .8, 20,000 have 1.
    assert np.sqrt(np.mean((claims.y - truth) ** 2)) > 0.8


@pytest.mark.parametrize("factory", [irm, vrex])
def test_what_cannot_be_fitted_is_refused(factory):
    name, (x, y, env) = factory.__name__, rows()
    for options, words in [
        ({"weight": -1.0}, "weight >= 0"),
        ({"depth": -1}, "depth"),
        ({"num_steps": 0}, "num_steps"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
    ]:
        with pytest.raises(ValueError, match=f"{name} needs .*{words}"):
            factory(**options)
    for wrong, words in [(np.where(y > 4, np.nan, y), "finite"), (y[:, 0], "of shape")]:
        with pytest.raises(ValueError, match=f"{name} needs .*{words}"):
            factory().validate(data_of(x, wrong, env))
    with pytest.raises(ValueError, match=r"aux\['y'\].*got none"):
        factory().validate(grouped(jnp.asarray(x)))
