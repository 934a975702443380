import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.nets import splines


def durkan(x, widths, heights, slopes, bound):
    """Equations 4 to 6 of Neural spline flows, one scalar at a time."""
    k = len(widths)
    share = 1e-3 / k + (1 - 1e-3) * np.exp(widths) / np.exp(widths).sum()
    xs = np.concatenate([[-bound], -bound + 2 * bound * np.cumsum(share)])
    share = 1e-3 / k + (1 - 1e-3) * np.exp(heights) / np.exp(heights).sum()
    ys = np.concatenate([[-bound], -bound + 2 * bound * np.cumsum(share)])
    inner = 1e-3 + np.log1p(np.exp(slopes + np.log(np.expm1(1 - 1e-3))))
    ds = np.concatenate([[1], inner, [1]])
    if not -bound < x < bound:
        return x, 0.0
    i = np.searchsorted(xs, x) - 1
    s = (ys[i + 1] - ys[i]) / (xs[i + 1] - xs[i])
    t = (x - xs[i]) / (xs[i + 1] - xs[i])
    below = s + (ds[i + 1] + ds[i] - 2 * s) * t * (1 - t)
    y = ys[i] + (ys[i + 1] - ys[i]) * (s * t**2 + ds[i] * t * (1 - t)) / below
    top = s**2 * (ds[i + 1] * t**2 + 2 * s * t * (1 - t) + ds[i] * (1 - t) ** 2)
    return y, np.log(top / below**2)


@pytest.fixture(scope="module")
def random_spline():
    rng = np.random.default_rng(0)
    return rng.standard_normal(3 * 5 - 1), np.linspace(-4.5, 4.5, 301)


def test_splines_follow_the_formula_of_neural_spline_flows(random_spline):
    raw, points = random_spline
    with jax.enable_x64(True):
        value, log_slope = splines.spline(
            points, splines.knots(jnp.asarray(raw)[:, None], 3.0)
        )
    expected = [durkan(x, raw[:5], raw[5:10], raw[10:], 3.0) for x in points]
    np.testing.assert_allclose(value, [y for y, _ in expected], rtol=1e-12)
    np.testing.assert_allclose(log_slope, [d for _, d in expected], atol=1e-12)


def test_the_inverse_of_a_spline_inverts_it_also_in_the_tails(random_spline):
    raw, points = (jnp.asarray(a, jnp.float32) for a in random_spline)
    k = splines.knots(raw[:, None], 3.0)
    there_and_back = splines.inverse_spline(splines.spline(points, k)[0], k)
    np.testing.assert_allclose(there_and_back, points, atol=1e-5)
    steep = splines.through_quantiles(points[:, None] ** 3, 8)
    back = splines.inverse_spline(splines.spline(2 * points[:, None], steep)[0], steep)
    np.testing.assert_allclose(back[:, 0], 2 * points, atol=1e-4)


def test_splines_through_quantiles_make_columns_normal():
    u = jax.random.uniform(jax.random.key(0), (4000, 2))
    x = jnp.stack([jnp.exp(3 * u[:, 0]), u[:, 1] ** 3], axis=1)
    y = splines.spline(x, splines.through_quantiles(x, 32))[0]
    probability = jax.scipy.stats.norm.cdf(jnp.sort(y, axis=0))
    ranks = (jnp.arange(4000)[:, None] + 0.5) / 4000
    assert jnp.max(jnp.abs(probability - ranks)) < 0.01
