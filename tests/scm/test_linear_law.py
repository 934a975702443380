import jax
import jax.numpy as jnp
import numpy as np

from crl.scm import linear_law, monotone


def test_linear_laws_predict_as_the_truth_where_they_hold_and_are_refused_elsewhere():
    """3 x 400 rows with Laplace noise: independent along the cause, not against it and not for
    a square; less than .05 nats a row short of the true density."""
    rng, env = np.random.default_rng(0), np.repeat([0, 1, 2], 400)
    scale = np.array([1.0, 2.0, 0.5])[env]
    c = rng.laplace(size=1200)
    noise = rng.laplace(size=1200) * scale
    square = c**2 + 0.3 * rng.normal(size=1200)
    x = np.stack([c, c + noise, square], 1).astype(np.float32)

    @jax.jit
    def fit(node, parent):
        basis = monotone.make_basis(jax.random.key(0), jnp.asarray(x))
        columns = monotone.normalized(basis, jnp.asarray(x))
        parents = jnp.array([parent, 3], jnp.int32)
        return linear_law.fit_linear(basis, columns, jnp.asarray(env), node, parents, 3)

    along = fit(1, 0)
    truth = np.log(2 * scale) + np.abs(noise) / scale - np.log(x[:, 1].std())
    assert along.p_value > 0.05
    assert -0.01 < np.mean(along.loss - truth) < 0.05
    assert fit(0, 1).p_value < 1e-3
    assert fit(2, 0).p_value < 1e-3
    assert fit(1, 3).p_value == 1  # no parent, nothing to test
