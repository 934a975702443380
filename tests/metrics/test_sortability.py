import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from crl.core import Readout, Sample, Truth, grouped
from crl.metrics.sortability import r2_sortability, varsortability

D, N = 5, 200
RNG = np.random.default_rng(0)


def linear_world(d=D, is_scaled=False):
    order = RNG.permutation(d)
    weights = np.triu(RNG.uniform(0.5, 2, (d, d)) * RNG.choice([-1, 0, 1], (d, d)), 1)
    weights[0, 1] = 1  # one edge at least
    x = RNG.normal(size=(N, d)) @ np.linalg.inv(np.eye(d) - weights)
    x = x / x.std(0) if is_scaled else x
    return (weights != 0).astype(int)[order][:, order], x[:, order].astype("float32")


@jax.jit
@jax.vmap
def judge(graph, x):
    sample = Sample(grouped(x), Truth(graph=graph))
    return varsortability(Readout(), sample), r2_sortability(Readout(), sample)


def along_paths(graph, score):
    """The share of pairs in the order of their score, over paths of each length."""
    power = [np.linalg.matrix_power(graph, k) for k in range(1, D)]
    pairs = [pair for paths in power for pair in zip(*np.nonzero(paths))]
    return np.mean([score[i] < score[j] for i, j in pairs])


def test_sortabilities_agree_with_a_walk_over_paths_and_scikit_learn():
    worlds = [linear_world() for _ in range(50)]
    var, r2 = judge(*map(np.stack, zip(*worlds)))
    for k, (graph, x) in enumerate(worlds):
        x = x.astype(float)
        assert var[k] == pytest.approx(along_paths(graph, x.var(0)), abs=1e-6)
        r2_of = [
            LinearRegression().fit(rest, y).score(rest, y)
            for y, rest in ((x[:, i], np.delete(x, i, 1)) for i in range(D))
        ]
        assert r2[k] == pytest.approx(along_paths(graph, r2_of), abs=1e-6)
    assert np.mean(var) > 0.9  # raw data are sorted by their variance


def test_standardised_columns_are_ties_and_r2_does_not_see_the_scale():
    graph, x = linear_world()
    var, r2 = judge(np.stack([graph] * 2), np.stack([x, x / x.std(0)]))
    assert var[1] == 0.5 and r2[0] == r2[1]


def test_sortability_is_undefined_without_edges_and_for_constant_columns():
    graph, x = linear_world()
    flat = np.where(np.arange(D) == 2, np.float32(0.1), x)
    both = judge(np.stack([0 * graph, graph]), np.stack([x, flat]))
    assert np.isnan(both).all()
    with pytest.raises(ValueError, match="graph over the 4 columns of x"):
        varsortability(Readout(), Sample(grouped(jnp.asarray(x[:, :4])), Truth(graph=graph)))
    few = Sample(grouped(jnp.asarray(x[:D])), Truth(graph=graph))
    assert np.isnan(r2_sortability(Readout(), few))


def test_sortabilities_are_those_of_causaldisco():
    analytics = pytest.importorskip("CausalDisco.analytics")
    worlds = [linear_world(12) for _ in range(50)]
    var, r2 = judge(*map(np.stack, zip(*worlds)))
    for k, (graph, x) in enumerate(worlds):
        assert var[k] == pytest.approx(analytics.var_sortability(x, graph), abs=1e-5)
        assert r2[k] == pytest.approx(analytics.r2_sortability(x, graph), abs=1e-5)
