"""The bound of iVAE is the likelihood where that has a closed form; the sources come out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

import crl
from crl.combinators import restarts
from crl.core import Task, draw
from crl.dgp.mixings import xtanh_mlp
from crl.dgp.segments import ivae_sources, modulated_sources
from crl.dgp.sources import gaussian
from crl.ica.ivae import Normals, cubature, divergence, elbo, ivae, triangular
from crl.metrics.latents import mcc
from crl.metrics.likelihood import held_out_log_prob

D, P, N = 2, 3, 5


@pytest.fixture(scope="module")
def linear_model():
    """x = z W' + noise with its prior, posterior and log density, in numpy and float64."""
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(P, D)), rng.normal(size=(N, P))
    mean, scale, noise = rng.normal(size=(N, D)), rng.uniform(0.5, 2, (N, D)), np.full(P, 0.3)
    precision = w.T @ w / 0.3**2 + np.stack([np.diag(1 / s**2) for s in scale])
    covariance = np.linalg.inv(precision)
    posterior = np.einsum("nij,nj->ni", covariance, x @ w / 0.3**2 + mean / scale**2)
    log_prob = [
        multivariate_normal(w @ m, w @ np.diag(s**2) @ w.T + np.diag(noise**2)).logpdf(row)
        for row, m, s in zip(x, mean, scale)
    ]
    return w, x, (mean, np.log(scale)), np.log(noise), posterior, covariance, log_prob


def bound(model, mean, covariance):
    w, x, prior, log_noise = model[:4]
    q = Normals(jnp.asarray(mean), jnp.asarray(np.linalg.cholesky(covariance)))
    return elbo(lambda z: z @ w.T, log_noise, x, q, prior, cubature(D, x.dtype))


def test_bound_is_the_log_likelihood_at_the_true_posterior(linear_model):
    *_, mean, covariance, log_prob = linear_model
    with jax.enable_x64(True):
        np.testing.assert_allclose(bound(linear_model, mean, covariance), log_prob, rtol=1e-10)


def test_bound_lies_below_by_the_divergence_from_the_true_posterior(linear_model):
    """A diagonal posterior of the right precisions loses the correlation, wherever it is."""
    *_, mean, covariance, log_prob = linear_model
    precision = np.linalg.inv(covariance)
    diagonal = np.stack([np.diag(1 / np.diag(a)) for a in precision])
    log_ratio = np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(diagonal)[1]
    lost = (log_ratio + np.trace(precision @ diagonal, axis1=1, axis2=2) - D) / 2
    with jax.enable_x64(True):
        value = bound(linear_model, mean, diagonal)
    assert (lost > 0.01).all()
    np.testing.assert_allclose(value, log_prob - lost, rtol=1e-10)


def test_divergence_equals_its_average_over_draws():
    rng = np.random.default_rng(1)
    mean, log_scale = rng.normal(size=(2, 1, D)), rng.normal(size=(1, D))
    entries = jnp.asarray(rng.normal(size=(1, D * (D + 1) // 2)), jnp.float32)
    factor = np.asarray(triangular(entries, D), np.float64)[0]
    assert factor[0, 1] == 0 and (np.diag(factor) > 0).all()
    z = mean[0, 0] + rng.normal(size=(200_000, D)) @ factor.T
    q = multivariate_normal(mean[0, 0], factor @ factor.T)
    p = multivariate_normal(mean[1, 0], np.diag(np.exp(2 * log_scale[0])))
    expected = np.mean(q.logpdf(z) - p.logpdf(z))
    value = divergence(Normals(mean[0], factor[None]), mean[1], log_scale)
    np.testing.assert_allclose(value[0], expected, rtol=0.01)


def test_refuses_environments_too_few_for_the_rank_condition():
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    data = crl.as_data(x, env=np.arange(60) // 10)
    ivae(2).validate(data)
    ivae(3, "scale").validate(data)
    with pytest.raises(ValueError, match="at least 7 environments for num_latents=3 with 2"):
        ivae(3).validate(data)
    with pytest.raises(ValueError, match="p >= num_latents = 4"):
        ivae(4, "scale").validate(data)


@pytest.mark.parametrize(
    "options", [{"prior": "mixture"}, {"posterior": "low rank"}, {"learning_rate": 0.0}]
)
def test_refuses_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ivae(2, **options)


ALIKE = modulated_sources(gaussian(), xtanh_mlp(), rank=1)


@pytest.mark.slow
@pytest.mark.parametrize("dgp, holds", [(ivae_sources(), True), (ALIKE, False)])
def test_recovers_the_sources_of_its_preset_but_not_those_modulated_alike(dgp, holds):
    train, test = draw(Task(dgp, 1000, 200, {}), jax.random.key(0))
    estimator = restarts(ivae(5, "scale"), 2, held_out_log_prob)
    fit = crl.fit(estimator, jax.random.key(1), train.data)
    claims = crl.readout(estimator, fit.state, test.data)
    assert (mcc(claims, test) > 0.95) == holds
    assert (claims.diag["least_modulation"] > 0.1) == holds


@pytest.mark.slow
def test_log_prob_lies_below_the_log_density_of_x():
    """By the change of variables p(x | e) is p(z | e) / |det J|: x has no noise."""
    dgp = ivae_sources()
    world = dgp.init(jax.random.key(0))
    train, test = (
        dgp.sample(jax.random.key(1 + i), world, n) for i, n in enumerate((1000, 100))
    )
    jacobian = jax.vmap(jax.jacfwd(lambda z: dgp.mix(world, z)))(test.truth.z)
    law = norm(scale=np.asarray(world.scale)[np.asarray(test.data.env)])
    log_density = law.logpdf(test.truth.z).sum(1) - np.linalg.slogdet(np.asarray(jacobian))[1]
    estimator = ivae(5, "scale")
    fit = crl.fit(estimator, jax.random.key(1), train.data)
    claims = crl.readout(estimator, fit.state, test.data)
    gap = np.mean(log_density) - held_out_log_prob(claims, test)
    assert 0 < gap < 1  # nats, of the five latents together
