import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from crl.numerics import mixtures
from crl.numerics.mixtures import Mixture

N = 400  # rows of each of two groups
MEMBER = jax.nn.one_hot(np.repeat([0, 1], N), 2)
fit_mixture = jax.jit(mixtures.fit_mixture)


def test_densities_and_derivatives_are_those_of_scipy_and_autodiff():
    mixture = Mixture(*(jnp.array(a) for a in ([[0.3, 0.7]], [[-1.0, 0.5]], [[0.4, 2.0]])))
    s = jnp.linspace(-3, 3, 50)
    member = jnp.ones((50, 1))
    at = mixtures.local(mixture, s, member)
    expected = 0.3 * stats.norm(-1, 0.4).pdf(s) + 0.7 * stats.norm(0.5, 2).pdf(s)
    np.testing.assert_allclose(np.exp(at.log_p), expected, rtol=1e-5)

    def loss(s):
        return -mixtures.local(mixture, s[None], jnp.ones((1, 1))).log_p[0]

    np.testing.assert_allclose(at.slope, jax.vmap(jax.grad(loss))(s), atol=1e-4)
    second = jax.vmap(jax.grad(jax.grad(loss)))(s)
    np.testing.assert_allclose(at.curvature, second, atol=1e-3)
    assert (at.curvature <= at.bound + 1e-5).all() and (at.bound > 0).all()
    mean, var = mixtures.moments(mixture)
    np.testing.assert_allclose(mean, [0.05], atol=1e-6)
    np.testing.assert_allclose(var, [0.3 * 0.16 + 0.7 * 4 + 0.21 * 1.5**2], rtol=1e-5)
    level = 0.3 * stats.norm(-1, 0.4).cdf(s) + 0.7 * stats.norm(0.5, 2).cdf(s)
    score = mixtures.normal_score(mixture, s, member)
    np.testing.assert_allclose(score, stats.norm.ppf(level), atol=1e-3)


def test_fits_follow_the_law_of_each_group_and_their_optimism_is_that_of_their_parameters():
    rng = np.random.default_rng(0)
    draw = [lambda n: rng.standard_t(3, n), lambda n: 5 + rng.uniform(-1, 1, n)]
    s = jnp.asarray(np.concatenate([law(N) for law in draw]), jnp.float32)
    fresh = jnp.asarray(np.concatenate([law(N) for law in draw]), jnp.float32)
    fitted = fit_mixture(s, MEMBER)
    score = mixtures.normal_score(fitted, fresh, MEMBER)
    for group in (score[:N], score[N:]):
        # Rows that the fit has not seen; Kolmogorov-Smirnov, false alarm 1e-4 a group.
        assert stats.kstest(np.array(group), "norm").pvalue > 1e-4
    at = mixtures.local(fitted, s, MEMBER)
    total = mixtures.optimism(fitted, at, MEMBER).sum()
    assert 18 < float(total) < 2 * (3 * mixtures.NUM_COMPONENTS - 1) + 0.1
    # On fresh rows the loss is no worse than on the old ones by much more than that.
    worse = float((at.log_p - mixtures.local(fitted, fresh, MEMBER).log_p).mean())
    gaussian = mixtures.normal(*(a[:, 0] for a in mixtures._group_moments(s, MEMBER)))
    gain = (
        mixtures.local(fitted, fresh, MEMBER).log_p
        - mixtures.local(gaussian, fresh, MEMBER).log_p
    )
    assert worse < 0.15 and float(gain.mean()) > 0.05


def test_a_gaussian_mixture_of_equal_components_is_the_gaussian():
    s = jnp.linspace(-2, 2, 2 * N)
    mean, var = jnp.array([0.0, 1.0]), jnp.array([1.0, 4.0])
    log_p = mixtures.local(mixtures.normal(mean, var), s, MEMBER).log_p
    expected = stats.norm.logpdf(s, MEMBER @ mean, MEMBER @ jnp.sqrt(var))
    np.testing.assert_allclose(log_p, expected, atol=1e-5)
