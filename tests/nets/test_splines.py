import jax
import numpy as np
import pytest
from scipy import stats

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


@jax.jit
def there(points, raw):
    return splines.spline(points, splines.knots(raw[:, None], 3.0))


@jax.jit
def back(values, raw):
    return splines.inverse_spline(values, splines.knots(raw[:, None], 3.0))


def test_splines_follow_the_formula_of_neural_spline_flows(random_spline):
    raw, points = random_spline
    with jax.enable_x64(True):
        value, log_slope = there(points, raw)
    expected = [durkan(x, raw[:5], raw[5:10], raw[10:], 3.0) for x in points]
    np.testing.assert_allclose(value, [y for y, _ in expected], rtol=1e-12)
    np.testing.assert_allclose(log_slope, [d for _, d in expected], atol=1e-12)


def test_the_inverse_of_a_spline_inverts_it_also_in_the_tails(random_spline):
    raw, points = (a.astype(np.float32) for a in random_spline)
    np.testing.assert_allclose(back(there(points, raw)[0], raw), points, atol=1e-5)


def test_splines_through_quantiles_make_columns_normal_and_invert():
    u = np.random.default_rng(0).random((4000, 2), np.float32)
    x = np.stack([np.exp(3 * u[:, 0]), u[:, 1] - 1], axis=1)

    @jax.jit
    def round_trip(x):
        through = splines.through_quantiles(x, 32)
        y, _ = splines.spline(x, through)
        return y, splines.inverse_spline(y, through)

    y, again = round_trip(x)
    ranks = (np.arange(4000)[:, None] + 0.5) / 4000
    assert np.max(np.abs(stats.norm.cdf(np.sort(y, axis=0)) - ranks)) < 0.02
    np.testing.assert_allclose(again, x, rtol=1e-4, atol=1e-5)
