"""The k-class and anchor regression, against formulas and libraries that share no code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from crl.core import grouped
from crl.dgp.anchors import shifted_anchors
from crl.dgp.instruments import augmented_regression, linear_instruments
from crl.effects.anchor_regression import anchor_regression
from crl.effects.liml import liml
from crl.effects.two_stage_least_squares import two_stage_least_squares
from crl.metrics.effects import causal_excess_risk, effect_error

N = 200


@functools.cache
def arrays():
    """x (n, 3), its last column exogenous and so among the instruments z (n, 5); y (n, 2)."""
    rng = np.random.default_rng(1)
    z, u = rng.normal(size=(N, 4)), rng.normal(size=(N, 2))
    x = np.c_[z @ rng.normal(size=(4, 2)) + u + 3, rng.normal(size=N)]
    y = x @ rng.normal(size=(3, 2)) + u @ rng.normal(size=(2, 2)) + rng.normal(size=(N, 2)) - 4
    return x, y, np.c_[z, x[:, 2]] + 10


def data_of(x, y, z):
    return grouped(jnp.asarray(x), aux={"y": jnp.asarray(y), "instrument": jnp.asarray(z)})


@functools.cache
def ours():
    """All estimates on ``arrays()`` in float64, k and gamma traced, in one compilation."""

    def all_of(data, k, gamma, fuller):
        fits = {
            "2sls": two_stage_least_squares(),
            "k": two_stage_least_squares(k),
            "liml": liml(),
            "fuller": liml(fuller),
            "anchor": anchor_regression(gamma),
            "ols": two_stage_least_squares(0.0),
            "anchor 1": anchor_regression(1.0),
        }
        return {name: e.init(jax.random.key(0), data) for name, e in fits.items()}

    with jax.enable_x64(True):
        return jax.device_get(jax.jit(all_of)(data_of(*arrays()), 0.4, 5.0, 1.0))


def formula(inside, outside):
    """Normal equations with the n x n projection, intercept last."""
    x, y, z = arrays()
    x, z = np.c_[x, np.ones(N)], np.c_[z, np.ones(N)]
    p = z @ np.linalg.solve(z.T @ z, z.T)
    weight = inside * p + outside * (np.eye(N) - p)
    return np.linalg.solve(x.T @ weight @ x, x.T @ weight @ y)  # (m + 1, q)


def liml_formula(fuller):
    x, y, z = arrays()
    both = []
    for i in range(2):
        w = np.c_[y[:, i], x[:, :2]]  # the last column of x is exogenous: projected out
        c, z1 = np.c_[x[:, 2], np.ones(N)], np.c_[z, np.ones(N)]
        of_c, of_z = (w - a @ np.linalg.lstsq(a, w, rcond=None)[0] for a in (c, z1))
        least = scipy.linalg.eigh(w.T @ of_c, w.T @ of_z, eigvals_only=True)[0]
        k = least - fuller / (N - z1.shape[1])
        both.append(formula(1, 1 - k)[:, i])
    return np.stack(both, 1)


def close(fit, coefficients, tol=1e-10):
    found = np.r_[fit.coefficients, fit.intercept[None]]
    np.testing.assert_allclose(found, coefficients, atol=tol, rtol=tol)


def test_k_class_and_anchor_regression_equal_their_normal_equations():
    close(ours()["2sls"], formula(1, 0))
    close(ours()["k"], formula(1, 0.6))
    close(ours()["anchor"], formula(5, 1))
    close(ours()["liml"], liml_formula(0))
    close(ours()["fuller"], liml_formula(1))


def test_least_squares_is_k_0_and_gamma_1():
    x, y, _ = arrays()
    expected = np.linalg.lstsq(np.c_[x, np.ones(N)], y, rcond=None)[0]
    close(ours()["ols"], expected)
    close(ours()["anchor 1"], expected)


def test_k_class_equals_linearmodels():
    iv = pytest.importorskip("linearmodels.iv")
    x, y, z = arrays()
    exog = np.c_[x[:, 2], np.ones(N)]
    models = {
        "2sls": iv.IV2SLS,
        "liml": iv.IVLIML,
        "fuller": functools.partial(iv.IVLIML, fuller=1),
        "k": functools.partial(iv.IVLIML, kappa=0.4),
    }
    for name, model in models.items():
        fits = [model(y[:, i], exog, x[:, :2], z[:, :4]).fit().params.values for i in (0, 1)]
        close(ours()[name], np.stack(fits, 1)[[2, 3, 0, 1]])  # theirs: exogenous first


def test_k_class_and_anchor_regression_equal_ivmodels():
    models = pytest.importorskip("ivmodels.models")
    x, y, z = arrays()
    for name, kappa in {
        "2sls": "tsls",
        "liml": "liml",
        "fuller": "fuller(1)",
        "k": 0.4,
    }.items():
        fits = [
            models.KClass(kappa).fit(x[:, :2], y[:, i], z[:, :4], C=x[:, 2:]) for i in (0, 1)
        ]
        close(ours()[name], np.stack([np.r_[f.coef_, f.intercept_] for f in fits], 1))
    fits = [models.AnchorRegression(5.0).fit(x, y[:, i], z) for i in (0, 1)]
    close(ours()["anchor"], np.stack([np.r_[f.coef_, f.intercept_] for f in fits], 1))


def test_redundant_instruments_change_nothing():
    """Copies, sums and constants among the instruments, in float32 and far from zero."""
    x, y, z = (a.astype(np.float32) for a in arrays())
    more = np.c_[z, z[:, :2], z[:, :1] - z[:, 1:2], np.full((N, 1), 7.3, np.float32)]
    fit = jax.jit(lambda data: two_stage_least_squares().init(jax.random.key(0), data))
    two_stage_least_squares().validate(data_of(x, y, more))
    close(fit(data_of(x, y, more)), formula(1, 0), tol=2e-3)


def bad(**changes):
    x, y, z = arrays()
    return data_of(**{"x": x, "y": y, "z": z, **changes})


@pytest.mark.parametrize(
    "factory, changes, words",
    [
        (two_stage_least_squares, {"y": np.full((N, 1), np.nan)}, "200 of 200 rows"),
        (two_stage_least_squares, {"z": np.zeros(N)}, "'instrument'.*got shape"),
        (two_stage_least_squares, {"z": arrays()[2][:, :2]}, "2 linearly independent ones"),
        (liml, {"z": np.ones((N, 3))}, "got 0 linearly independent"),
        (anchor_regression, {"x": arrays()[0][:, [0, 1, 1]]}, "rank 2 of 3"),
        (anchor_regression, {"z": np.ones((N, N))}, "got 200 rows for 204"),
    ],
)
def test_data_that_identify_nothing_are_refused(factory, changes, words):
    with pytest.raises(ValueError, match=words):
        factory().validate(bad(**changes))


def test_instruments_that_do_not_move_x_are_refused():
    x, y, z = arrays()
    one, half = np.ones(N // 2), np.arange(N // 2.0)
    # The third column of x varies where the instruments do not, and is orthogonal to them.
    x = np.c_[x[:, :2], np.r_[one, -one]]
    z = np.r_[np.c_[half, half**2, half**3], np.c_[half, half**2, half**3]] / N
    with pytest.raises(ValueError, match="move every direction of x, got 2 of 3"):
        two_stage_least_squares().validate(data_of(x, y, z))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: two_stage_least_squares(k=1.5), "1 - k >= 0, got -0.5"),
        (lambda: liml(fuller=-1.0), "fuller >= 0"),
        (lambda: anchor_regression(gamma=-1.0), "gamma >= 0"),
        (lambda: augmented_regression(augmentation="mirror"), "'violating'"),
        (lambda: shifted_anchors(target="x"), "'confounder'"),
        (lambda: linear_instruments(do_sd=0.0), "do_sd > 0"),
    ],
)
def test_options_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_anchor_regression_has_the_coefficients_of_its_formula():
    """delta = confounding / (2 + gamma strength^2): 1, .471, .151, 0, to 4 standard errors."""
    dgp, n = shifted_anchors(), 20_000
    gammas = jnp.array([0.0, 1.0, 5.0, 1e4])

    @jax.jit
    def errors(key):
        key_world, key_train, key_test = jax.random.split(key, 3)
        world = dgp.init(key_world)
        train, test = dgp.sample(key_train, world, n), dgp.held_out(key_test, world, n)

        def one(gamma):
            estimator = anchor_regression(gamma)
            claims = estimator.readout(estimator.init(key, train.data), test.data)
            risk = jnp.mean((claims.y - test.truth.y) ** 2)
            return effect_error(claims, test), risk, causal_excess_risk(claims, test)

        return jax.vmap(one)(gammas)

    error, risk, excess = errors(jax.random.key(0))
    delta = 2 / (2 + np.asarray(gammas) * 1.5**2)
    np.testing.assert_allclose(error, delta, atol=0.08)
    np.testing.assert_allclose(risk, (2 - delta) ** 2 + delta**2 * (1 + 1.5**2 * 5), rtol=0.05)
    np.testing.assert_allclose(excess, error**2 / (error**2 + 4), rtol=1e-4)
    assert np.argmin(risk) == 2  # gamma = the shift of the held-out law
