import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from crl.dgp import mixings, sources
from crl.dgp.latent import mixed_sources

SOURCES = {
    "laplace": (sources.laplace(), 3.0),
    "logistic": (sources.logistic(), 1.2),
    "gaussian": (sources.gaussian(), 0.0),
    "uniform": (sources.uniform(), -1.2),
    "student_t": (sources.student_t(9.0), 6 / 5),
    "gumbel": (sources.gumbel(), 2.4),
    "gamma": (sources.gamma(3.0), 2.0),
    "exponential": (sources.gamma(1.0), 6.0),
    "generalized_normal": (sources.generalized_normal(4.0), -0.8116),
    "gaussian_mixture": (
        sources.gaussian_mixture((-1.0, 2.0), (0.5, 0.3), (2.0, 1.0)),
        -1.37253,
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources_are_standardised_and_follow_their_density(name):
    """Kolmogorov-Smirnov, n = 20000, false alarm 1e-6; moments by quadrature."""
    source, kurtosis = SOURCES[name]
    grid = np.linspace(-40, 40, 400_001)
    density = np.exp(np.asarray(source.log_prob(jnp.asarray(grid, jnp.float32)), float))
    moments = [np.trapezoid(density * grid**k, grid) for k in (0, 1, 2, 4)]
    # Student-t with 9 degrees of freedom has a fourth moment beyond the grid of about 1e-3.
    np.testing.assert_allclose(moments, [1, 0, 1, 3 + kurtosis], atol=5e-3)
    s = np.asarray(source.sample(jax.random.key(1), (20_000,), jnp.float32))
    assert s.dtype == np.float32
    cdf = np.cumsum(density) * (grid[1] - grid[0])
    assert stats.kstest(s, lambda q: np.interp(q, grid, cdf)).pvalue > 1e-6


def test_alternating_sources_give_each_latent_its_law():
    source = sources.alternating([sources.laplace(), sources.uniform()])
    s = np.asarray(source.sample(jax.random.key(0), (20_000, 3), jnp.float32))
    kurtosis = stats.kurtosis(s)
    np.testing.assert_allclose(kurtosis, [3, -1.2, 3], atol=0.8)  # sd of the first: about .2
    one = sources.uniform().log_prob(jnp.asarray(s[:, 1]))
    np.testing.assert_array_equal(source.log_prob(jnp.asarray(s))[:, 1], one)


@pytest.mark.parametrize(
    "mixing",
    [
        mixings.linear(100.0, num_observed=6),
        mixings.near_isometric(0.5),
        mixings.near_isometric(0.5, "quadratic"),
        mixings.flat_torus(),
        mixings.leaky_relu_mlp(),
    ],
    ids=["linear", "near_isometric", "quadratic", "flat_torus", "leaky_relu_mlp"],
)
def test_inverse_undoes_forward(mixing):
    dgp = mixed_sources(sources.uniform(), mixing, 4)

    def back(key):
        world = dgp.init(key)
        sample = dgp.sample(key, world, 200)
        return sample.truth.z, jax.vmap(mixing.inverse, (None, 0))(world, sample.data.x)

    z, back = jax.jit(back)(jax.random.key(3))
    np.testing.assert_allclose(back, z, atol=2e-4)  # float32, condition up to 100


def test_linear_mixing_has_the_condition_number_asked_for():
    dgp = mixed_sources(sources.laplace(), mixings.linear(50.0, num_observed=7), 4)
    world = dgp.init(jax.random.key(0))
    sample = dgp.sample(jax.random.key(1), world, 10)
    s = np.linalg.svd(sample.truth.mixing, compute_uv=False)
    np.testing.assert_allclose(s, np.logspace(0, -np.log10(50), 4), rtol=1e-5)
    np.testing.assert_allclose(
        sample.data.x, sample.truth.z @ sample.truth.mixing.T, atol=1e-6
    )


def test_flat_torus_is_an_exact_isometry():
    mixing = mixings.flat_torus(span=6.0)
    with jax.enable_x64(True):
        q = mixing.init(jax.random.key(0), 5, jnp.float64)
        z = sources.uniform().sample(jax.random.key(1), (50, 5), jnp.float64)
        jacobian = jax.vmap(jax.jacfwd(mixing.forward, 1), (None, 0))(q, z)
        s = np.linalg.svd(jacobian, compute_uv=False)
    np.testing.assert_allclose(s, 1, atol=1e-12)


def test_near_isometric_mlp_perturbs_by_less_than_eta():
    """Each singular value of the Jacobian lies in [1 - eta, 1 + eta]."""
    mixing = mixings.near_isometric(0.3)
    params = mixing.init(jax.random.key(0), 6, jnp.float32)
    z = sources.laplace().sample(jax.random.key(1), (200, 6), jnp.float32)
    s = np.linalg.svd(jax.vmap(jax.jacfwd(mixing.forward, 1), (None, 0))(params, z))[1]
    assert 0.7 <= s.min() < 0.95 and 1.05 < s.max() <= 1.3


def test_leaky_relu_mlp_keeps_well_conditioned_layers():
    """Kept layers lie below the 25th percentile of condition numbers, drawn anew here."""
    w = mixings.leaky_relu_mlp(num_layers=6).init(jax.random.key(0), 8, jnp.float32)
    rng = np.random.default_rng(0)
    other = rng.uniform(-1, 1, (4000, 8, 8))
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    # 384 candidates place the percentile within 10 % of its limit.
    assert np.linalg.cond(w).max() < 1.1 * np.quantile(np.linalg.cond(other), 0.25)
    np.testing.assert_allclose(np.linalg.norm(w, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: sources.student_t(2.0), "df > 2"),
        (lambda: sources.generalized_normal(0.0), "alpha > 0"),
        (lambda: sources.gamma(0.0), "shape > 0"),
        (lambda: sources.gaussian_mixture((0.0, 1.0), (1.0,)), "as many"),
        (lambda: sources.alternating([]), "at least one"),
        (lambda: mixings.linear(0.5), "condition >= 1"),
        (lambda: mixings.near_isometric(1.0), "eta < 1"),
        (lambda: mixings.near_isometric(0.1, "cubic"), "mlp and quadratic"),
        (lambda: mixings.flat_torus(7.0), "2 pi"),
        (lambda: mixings.flat_torus(width=-1.0), "width > 0"),
        (lambda: mixings.leaky_relu_mlp(2, 1.5), "slope <= 1"),
        (lambda: mixings.leaky_relu_mlp(0), "num_layers an integer >= 1"),
        (
            lambda: mixed_sources(sources.laplace(), mixings.linear(), 0),
            "num_latents an integer >= 1",
        ),
    ],
)
def test_bad_options_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
