import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import crl
from crl.core import Task, draw, grouped
from crl.dgp.interventional import latent_scm
from crl.dgp.mixings import linear
from crl.interventional import cauca as module
from crl.interventional.cauca import cauca
from crl.metrics.latents import mcc
from crl.metrics.likelihood import held_out_log_prob, log_prob_gap

GRAPH = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]])
TARGET = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]])


def test_the_best_mechanisms_are_regressions_on_the_parents():
    """Against numpy's least squares and scipy's densities, environments of unequal size."""
    count = [40, 30, 50, 20]
    z = np.random.default_rng(0).standard_normal((140, 3)) @ np.array(
        [[1, 0.5, 0], [0, 1, -1], [0.3, 0, 1]]
    )
    with jax.enable_x64(True):
        data = grouped(
            jnp.asarray(z), count, graph=jnp.asarray(GRAPH), target=jnp.asarray(TARGET)
        )
        m, entropy = jax.jit(lambda d: module.most_likely(module.moments(d.x, d), d))(data)
        log_p = jax.jit(module.log_prior)(m, data.x, data)
    env, expected = np.repeat(range(4), count), np.zeros(140)
    for i in range(3):
        rows = TARGET[env, i] == 0
        design = np.column_stack([np.ones(140), z[:, GRAPH[:, i] == 1]])
        weights, residual = np.linalg.lstsq(design[rows], z[rows, i])[:2]
        np.testing.assert_allclose(
            m.weights[np.flatnonzero(np.r_[1, GRAPH[:, i]]), i], weights, atol=1e-10
        )
        sd = (residual[0] / rows.sum()) ** 0.5
        expected += rows * stats.norm.logpdf(z[:, i], design @ weights, sd)
        for e in np.flatnonzero(TARGET[:, i]):
            own = z[env == e, i]
            expected[env == e] += stats.norm.logpdf(own, own.mean(), own.std())
    np.testing.assert_allclose(log_p, expected, atol=1e-9)
    np.testing.assert_allclose(entropy, -expected.mean(), atol=1e-9)


@pytest.fixture(scope="module")
def linear_fit():
    """Two latents behind a matrix, which the start alone unmixes."""
    task = Task(latent_scm(2, linear(5.0), GRAPH[:2, :2], max_weight=2.0), 2000, 2000, {})
    train, test = jax.jit(lambda key: draw(task, key))(jax.random.key(0))
    estimator = cauca(
        num_layers=2, width=4, depth=1, num_bins=8, num_steps=300, learning_rate=0.01
    )
    fit = crl.fit(estimator, jax.random.key(1), train.data)
    return estimator, fit.state, test


@pytest.mark.slow
def test_a_linear_mixing_is_undone(linear_fit):
    estimator, fitted, test = linear_fit
    claims = crl.readout(estimator, fitted, test.data)
    assert jax.jit(mcc)(claims, test) > 0.99
    # Labels come with the targets: no assignment is needed.
    assert np.abs(np.corrcoef(claims.z.T, test.truth.z.T)[[0, 1], [2, 3]]).min() > 0.98
    assert abs(log_prob_gap(claims, test)) < 0.05
    assert claims.diag["num_untargeted"] == 0


@pytest.mark.slow
def test_the_density_integrates_to_one(linear_fit):
    estimator, fitted, test = linear_fit
    x = np.asarray(test.data.x)
    low, high = x.min(0) - 2, x.max(0) + 2
    side = [np.linspace(a, b, 120, dtype=np.float32) for a, b in zip(low, high)]
    grid = np.stack(np.meshgrid(*side), axis=-1).reshape(-1, 2)
    area = np.prod((high - low) / 119)
    for e in range(3):
        data = test.data._replace(x=jnp.asarray(grid), env=jnp.full(len(grid), e, jnp.int32))
        log_p = crl.readout(estimator, fitted, data).log_prob
        assert np.sum(np.exp(log_p)) * area == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target": TARGET}, "needs given\\['graph'\\] of shape \\(3, 3\\)"),
        ({"graph": GRAPH, "target": TARGET[:3]}, "of shape \\(4, 3\\)"),
        ({"graph": GRAPH + GRAPH.T, "target": TARGET}, "without cycles"),
    ],
)
def test_data_without_its_graph_and_targets_are_refused(given, words):
    data = grouped(jnp.zeros((8, 3)), [2, 2, 2, 2], **given)
    with pytest.raises(ValueError, match=words):
        cauca().validate(data)


@pytest.mark.slow
def test_interventions_identify_the_latents_and_without_them_nothing_does():
    """d = 3, two layers of leaky tanh; the control has one environment of as many rows."""
    options = {"num_latents": 3, "edges_per_node": 1.0}
    estimator = crl.restarts(cauca(num_steps=1000), 2, held_out_log_prob)
    value = {}
    for name, dgp, n in [
        ("all", latent_scm(**options), 20_000),
        ("none", latent_scm(**options, num_targeted=0), 80_000),
    ]:
        train, test = draw(Task(dgp, n, 5000, {}), jax.random.key(3))
        fit = crl.fit(estimator, jax.random.key(1), train.data)
        value[name] = mcc(crl.readout(estimator, fit.state, test.data), test)
    assert value["all"] > 0.97
    assert value["none"] < 0.9
