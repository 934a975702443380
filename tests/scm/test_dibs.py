import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import crl
from crl.core import grouped
from crl.scm.dibs import dibs

N, SCALE = 200, np.array([1.0, 100.0, 0.01], np.float32)
SMALL = dibs(8, 8, edges_per_node=0.5, alpha=400.0, beta=200.0, num_steps=200)


def collider(n, seed):
    """0 -> 1 <- 2, which is alone in its Markov equivalence class."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    x[:, 1] += x[:, 0] + x[:, 2]
    return x


def claims(x, new):
    fit = crl.fit(SMALL, jax.random.key(0), grouped(jnp.asarray(x)))
    assert not fit.diverged
    return fit, crl.readout(SMALL, fit.state, grouped(jnp.asarray(new)))


@pytest.fixture(scope="module")
def fitted():
    return claims(collider(N, 0), collider(N, 1))


def test_dibs_finds_the_collider(fitted):
    fit, out = fitted
    expected = np.zeros((3, 3))
    expected[[0, 2], 1] = 1
    np.testing.assert_allclose(out.edge_prob, expected, atol=0.15)
    np.testing.assert_array_equal(out.graph, expected)
    assert out.order[-1] == 1
    assert out.graph_samples.shape == (8, 3, 3)
    np.testing.assert_allclose(np.mean(out.graph_samples, 0), out.edge_prob, atol=1 / 8)
    assert out.diag["share_acyclic"] > 0.5
    assert np.isfinite(fit.trace["loss"]).all()


def test_held_out_density_is_near_that_of_the_law_and_above_that_of_an_empty_graph(fitted):
    x, new = collider(N, 0), collider(N, 1)
    law = scipy.stats.multivariate_normal(np.zeros(3), np.cov(collider(100_000, 2).T))
    empty = scipy.stats.norm.logpdf(new, x.mean(0), x.std(0)).sum(1).mean()
    density = float(np.mean(fitted[1].log_prob))
    assert law.logpdf(new).mean() - 0.1 < density < law.logpdf(new).mean() + 0.02
    assert density > empty + 0.5


def test_the_units_of_the_columns_say_nothing(fitted):
    """Nothing of it comes from the order of the variances."""
    _, out = claims(collider(N, 0) * SCALE, collider(N, 1) * SCALE)
    np.testing.assert_allclose(out.edge_prob, fitted[1].edge_prob, atol=1e-3)
    shifted = fitted[1].log_prob - np.log(SCALE).sum()
    np.testing.assert_allclose(out.log_prob, shifted, rtol=1e-3, atol=1e-3)


def test_columns_in_an_order_of_their_own_have_no_edges():
    """A control: rows of each column permuted, so that nothing depends on anything."""
    rng = np.random.default_rng(3)
    x = rng.permuted(collider(N, 0), axis=0)
    _, out = claims(x, collider(N, 1))
    assert out.edge_prob.sum() < 0.7


def test_constant_columns_and_options_out_of_range_are_refused():
    x = collider(N, 0)
    x[:, 2] = 7
    with pytest.raises(ValueError, match=r"constant ones: \[2\]"):
        SMALL.validate(grouped(jnp.asarray(x)))
    with pytest.raises(ValueError, match="dibs reads no prior knowledge, got given 'tier'"):
        SMALL.validate(grouped(jnp.asarray(collider(N, 0)), tier=jnp.arange(3)))
    with pytest.raises(ValueError, match="dibs needs beta > 0"):
        dibs(beta=-1.0)
