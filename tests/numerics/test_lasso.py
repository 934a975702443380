import functools
import itertools

import jax
import numpy as np
import pytest

from crl.numerics.entropy import GAUSSIAN, entropy
from crl.numerics.lasso import adaptive_lasso, least_squares


@functools.partial(jax.jit, static_argnums=3)
def selected(correlation, response, mask, n):
    return adaptive_lasso(correlation, response, mask, n)


def problem(seed, n=200, d=6):
    """Standardised correlated columns (n, d) and a target of which some matter."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ (np.eye(d) + 0.7 * np.triu(rng.normal(size=(d, d)), 1))
    effects = rng.normal(size=d) * (rng.random(d) < 0.5)
    y = x @ effects + 2 * rng.normal(size=n)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    return x, y


def in_float32(x, y):
    n = len(y)
    return (x.T @ x / n).astype(np.float32), (x.T @ y / n).astype(np.float32)


def test_the_selection_is_that_of_scikit_learns_path():
    linear_model = pytest.importorskip("sklearn.linear_model")
    sizes = set()
    for seed in range(20):
        x, y = problem(seed)
        weight = np.abs(linear_model.LinearRegression().fit(x, y).coef_)
        theirs = linear_model.LassoLarsIC(criterion="bic").fit(x * weight, y).coef_ != 0
        ours = selected(*in_float32(x, y), np.ones(6, bool), len(y))
        np.testing.assert_array_equal(ours, theirs)
        sizes.add(int(theirs.sum()))
    assert len(sizes) > 3


def test_the_selection_is_a_minimum_of_the_lasso_by_brute_force():
    """Of the models that the lasso passes, found on a fine grid by all sign patterns."""
    for seed in range(4):
        x, y = problem(seed, d=3)
        n = len(y)
        full = np.linalg.lstsq(x, y, rcond=None)[0]
        noise = np.mean((y - x @ full) ** 2) * n / (n - 4)
        scaled = x * np.abs(full)
        gram, pull = scaled.T @ scaled / n, scaled.T @ y / n

        def lasso(penalty, gram=gram, pull=pull):
            best = np.inf, np.zeros(3)
            for signs in itertools.product((-1, 0, 1), repeat=3):
                s, b = np.array(signs), np.zeros(3)
                on = s != 0
                b[on] = np.linalg.solve(gram[np.ix_(on, on)], (pull - penalty * s)[on])
                cost = b @ gram @ b / 2 - pull @ b + penalty * np.abs(b).sum()
                if np.all(b[on] * s[on] > 0) and cost < best[0]:
                    best = cost, b
            return best[1]

        scores = {}
        for penalty in np.geomspace(1e-6, np.abs(pull).max() * 1.001, 400):
            b = lasso(penalty)
            bic = np.sum((y - scaled @ b) ** 2) / noise + np.log(n) * np.sum(b != 0)
            support = tuple(b != 0)
            scores[support] = min(scores.get(support, np.inf), bic)
        ours = selected(*in_float32(x, y), np.ones(3, bool), n)
        assert tuple(ours.tolist()) == min(scores, key=scores.get)


def test_only_variables_of_the_mask_take_part():
    x, y = problem(3)
    correlation, response = in_float32(x, y)
    mask = np.array([1, 0, 1, 1, 0, 1], bool)
    inside = np.ix_(mask, mask)
    expected = np.zeros(6, bool)
    expected[mask] = selected(correlation[inside], response[mask], np.ones(4, bool), len(y))
    np.testing.assert_array_equal(selected(correlation, response, mask, len(y)), expected)
    assert not selected(correlation, response, np.zeros(6, bool), len(y)).any()
    solved = least_squares(correlation, response, mask)
    np.testing.assert_allclose(solved[mask], np.linalg.lstsq(x[:, mask], y)[0], atol=1e-4)
    assert np.all(np.asarray(solved)[~mask] == 0)


def test_entropy_is_the_formula_and_highest_for_a_gaussian():
    rng = np.random.default_rng(0)
    n = 10_000
    laws = [
        rng.normal(size=n),
        rng.laplace(size=n),
        rng.uniform(size=n),
        rng.exponential(size=n),
    ]
    laws = [(u - u.mean()) / u.std() for u in laws]
    found = [float(entropy(u.astype(np.float32))) for u in laws]
    for u, ours in zip(laws, found):
        even, odd = np.mean(np.log(np.cosh(u))) - 0.37457, np.mean(u * np.exp(-(u**2) / 2))
        expected = (1 + np.log(2 * np.pi)) / 2 - 79.047 * even**2 - 7.4129 * odd**2
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert abs(found[0] - GAUSSIAN) < 1e-3 and max(found[1:]) < GAUSSIAN - 0.02
