import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from crl.dgp.interventional import latent_scm
from crl.dgp.mixings import leaky_tanh_mlp, linear


@pytest.fixture(scope="module")
def drawn():
    """A linear world behind a matrix: x is normal in each environment."""
    graph = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]])
    dgp = latent_scm(3, linear(3.0), graph, min_weight=0.5, max_weight=1.2, spread=0.5)
    world = jax.jit(dgp.init)(jax.random.key(0))
    return world, jax.jit(dgp.sample, static_argnums=2)(jax.random.key(1), world, 4000)


def test_the_density_is_that_of_linear_gaussian_models(drawn):
    world, (data, truth) = drawn
    w, a = np.asarray(world.mechanisms.linear, float), np.asarray(world.mixing, float)
    for e in range(4):
        kept = w * (1 - np.asarray(world.target[e]))
        b = a @ np.linalg.inv(np.eye(3) - kept.T)  # x = b s
        law = stats.multivariate_normal(b @ world.mean[e], b * np.square(world.sd[e]) @ b.T)
        rows = np.asarray(data.env) == e
        np.testing.assert_allclose(
            truth.log_prob[rows], law.logpdf(np.asarray(data.x)[rows]), atol=2e-3
        )


def test_a_targeted_variable_has_its_own_law_and_no_parents(drawn):
    _, (data, truth) = drawn
    assert data.given["target"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    for e in range(1, 4):
        z = np.asarray(truth.z)[np.asarray(data.env) == e]
        assert z[:, e - 1].mean() == pytest.approx(2, abs=0.12)  # six standard errors
        sd = z[:, e - 1].std()
        assert abs(abs(np.log(sd)) - 0.5) < 0.07
        above = np.corrcoef(z.T)[e - 1, : e - 1]
        assert np.all(np.abs(above) < 0.1)


def test_leaky_tanh_networks_invert():
    with jax.enable_x64(True):
        mixing = leaky_tanh_mlp(3)
        w = jax.jit(lambda key: mixing.init(key, 4, jnp.float64))(jax.random.key(0))
        assert np.all(np.abs(np.linalg.det(w)) >= 0.1)
        z = 3 * np.random.default_rng(1).standard_normal((200, 4))
        x = jax.jit(jax.vmap(lambda z: mixing.forward(w, z)))(z)
        back = jax.jit(jax.vmap(lambda x: mixing.inverse(w, x)))(x)
        np.testing.assert_allclose(back, z, atol=1e-8)


def test_the_last_variables_of_the_order_lose_their_environment():
    dgp = latent_scm(3, graph=np.array([[0, 1, 0], [0, 0, 0], [0, 1, 0]]), num_targeted=2)
    target = jax.jit(dgp.init)(jax.random.key(0)).target
    assert target.shape == (3, 3)
    assert jnp.sum(target, axis=0).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="0 <= num_targeted <= 3"):
        latent_scm(3, num_targeted=4)
