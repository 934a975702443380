import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crl
from crl import loop
from crl.core import grouped
from crl.dgp import mixings, sources
from crl.dgp.latent import mixed_sources
from crl.ica.fastica import NONLINEARITIES, fastica
from crl.metrics.latents import amari, amari_distance, mcc, mean_correlation
from crl.testing import check_estimator

D, N = 5, 20_000
SYMMETRIC, PRECISE = fastica(D), fastica(D, tol=1e-8)  # compiled once each
LONG = fastica(D, num_steps=500)


def as_data(x):
    return grouped(jnp.asarray(x))


@pytest.fixture(scope="module")
def laplace():
    dgp = mixed_sources(sources.laplace(), mixings.linear(10.0), D)
    return dgp.sample(jax.random.key(1), dgp.init(jax.random.key(0)), N)


def fitted(estimator, data, seed=0):
    fit = crl.fit(estimator, jax.random.key(seed), data)
    return fit, crl.readout(estimator, fit.state, data)


@pytest.mark.parametrize(
    "algorithm, nonlinearity",
    [("symmetric", name) for name in NONLINEARITIES] + [("deflation", "cube")],
)
def test_fastica_recovers_laplace_sources(laplace, algorithm, nonlinearity):
    """1 - MCC of about (d - 1) / 2 * ISR; the worst, cube by deflation, is 2 * 6 / n."""
    is_default = (algorithm, nonlinearity) == ("symmetric", "logcosh")
    estimator = SYMMETRIC if is_default else fastica(D, algorithm, nonlinearity)
    fit, readout = fitted(estimator, laplace.data)
    assert fit.converged and readout.diag["converged"] == 1
    assert mcc(readout, laplace) > 1 - 3 * 2 * 6 / N
    assert amari(readout, laplace) < 0.02
    np.testing.assert_allclose(np.cov(readout.z.T), np.eye(D), atol=1e-4)
    # One matrix for all rows: x - mean = z A' where there are as many latents as columns.
    assert readout.jacobian.shape == (1, D, D)
    np.testing.assert_allclose(readout.jacobian[0] @ readout.unmixing, np.eye(D), atol=1e-4)


def test_fastica_separates_sub_and_super_gaussian_sources():
    mixed = sources.alternating([sources.laplace(), sources.uniform()])
    dgp = mixed_sources(mixed, mixings.linear(3.0, num_observed=8), D)
    sample = dgp.sample(jax.random.key(2), dgp.init(jax.random.key(1)), N)
    _, readout = fitted(SYMMETRIC, sample.data)
    assert mcc(readout, sample) > 0.999
    assert readout.unmixing.shape == (D, 8)


@pytest.mark.parametrize(
    "nonlinearity",
    [pytest.param(g, marks=[pytest.mark.slow] * (g != "logcosh")) for g in NONLINEARITIES],
)
@pytest.mark.parametrize("algorithm", ["symmetric", "deflation"])
def test_agrees_with_scikit_learn_and_picard(laplace, algorithm, nonlinearity):
    """Amari distance of the unmixings below 1e-4 at tol 1e-8, float64, from the same start.

    Which source deflation finds first, and so its errors, depends on the start.
    """
    from picard import picard
    from sklearn.decomposition import FastICA

    x = np.asarray(laplace.data.x, np.float64)
    estimator = fastica(D, algorithm, nonlinearity, tol=1e-8)
    with jax.enable_x64(True):
        fit, readout = fitted(estimator, as_data(x))
        start = loop.start(estimator, jax.random.key(0), as_data(x)).state
        first = np.asarray(start.rotation @ start.whitening.whitener)
    ours = np.asarray(readout.unmixing)
    # Our first unmixing in the coordinates that scikit-learn whitens to.
    u, scales, _ = np.linalg.svd((x - x.mean(0)).T, full_matrices=False)
    whitener = np.sqrt(N) * (u * np.sign(u[0]) / scales).T
    peer = FastICA(
        algorithm={"symmetric": "parallel"}.get(algorithm, algorithm),
        fun=nonlinearity,
        tol=1e-8,
        max_iter=1000,
        w_init=first @ np.linalg.inv(whitener),
    ).fit(x)
    assert fit.converged
    assert amari_distance(ours @ np.linalg.inv(peer.components_)) < 1e-4  # 2.4e-6 seen
    if (algorithm, nonlinearity) == ("symmetric", "logcosh"):
        whitener, rotation, _ = picard(x.T, ortho=True, tol=1e-10, random_state=0)
        assert amari_distance(ours @ np.linalg.inv(rotation @ whitener)) < 1e-4


def test_order_and_signs_do_not_depend_on_the_seed(laplace):
    one, two = (fitted(PRECISE, laplace.data, seed)[1] for seed in (0, 1))
    np.testing.assert_allclose(one.unmixing, two.unmixing, atol=1e-3)


def test_float32_survives_condition_number_1e4():
    dgp = mixed_sources(sources.laplace(), mixings.linear(1e4), D)
    sample = dgp.sample(jax.random.key(1), dgp.init(jax.random.key(0)), N)
    _, readout = fitted(SYMMETRIC, sample.data)
    assert readout.diag["effective_rank"] == D
    assert mcc(readout, sample) > 0.9995


def test_gaussian_sources_are_not_recovered():
    """The negative control: rotations are invisible, so MCC stays at that of a rotation.

    Mean over 8 worlds, d = 5: .69 for Haar rotations (1000 draws), .80 at five standard
    errors above.
    """
    dgp = mixed_sources(sources.gaussian(), mixings.linear(), D)
    scores, tau = [], []
    for seed in range(8):
        sample = dgp.sample(jax.random.key(seed), dgp.init(jax.random.key(seed)), N)
        _, readout = fitted(SYMMETRIC, sample.data)
        scores.append(float(mcc(readout, sample)))
        tau.append(float(readout.diag["min_tau"]))
    assert np.mean(scores) < 0.80
    assert np.max(tau) < 0.02  # Laplace has .148


def test_lanes_equal_single_fits(laplace):
    keys = jax.random.split(jax.random.key(5), 2)

    @jax.jit
    @jax.vmap
    def run(key):
        lane = loop.run(PRECISE, key, laplace.data)
        return lane.converged, PRECISE.readout(lane.state, laplace.data).unmixing

    converged, unmixing = run(keys)
    assert converged.all()
    for i in range(2):
        expected = fitted(PRECISE, laplace.data, i)[1].unmixing
        np.testing.assert_allclose(unmixing[i], expected, atol=1e-3)


def test_unconverged_fits_say_so():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, D)).astype(np.float32)
    fit, readout = fitted(fastica(D, tol=1e-12, num_steps=2), as_data(x))
    assert not fit.converged and readout.diag["converged"] == 0
    fit, readout = fitted(fastica(D, "deflation", tol=1e-12, num_steps=2), as_data(x))
    assert not fit.converged and readout.diag["converged"] == 0


def test_bad_data_and_options_are_refused(laplace):
    x = np.array(laplace.data.x)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="num_latents <= columns < rows"):
        crl.fit(fastica(D + 1), key, laplace.data)
    with pytest.raises(ValueError, match="num_latents <= columns < rows"):
        crl.fit(fastica(D), key, as_data(x[:D]))
    x[:, 2] = 7
    with pytest.raises(ValueError, match=r"effective rank 4 \(1 of 5 columns are constant"):
        crl.fit(fastica(D), key, as_data(x))
    for bad in (dict(algorithm="parallel"), dict(nonlinearity="tanh"), dict(tol=0.0)):
        with pytest.raises(ValueError, match="fastica"):
            fastica(D, **bad)


# n * ISR of symmetric FastICA, (2 gamma + tau^2) / (2 tau)^2 with gamma = E g^2 - (E s g)^2.
FLOOR = {
    ("laplace", "logcosh"): 1.257,
    ("laplace", "exp"): 1.161,
    ("laplace", "cube"): 3.250,
    ("uniform", "logcosh"): 0.595,
    ("uniform", "cube"): 0.464,
}


@pytest.mark.slow
@pytest.mark.parametrize("source, nonlinearity", FLOOR)
def test_error_of_symmetric_fastica_is_the_asymptotic_one(source, nonlinearity):
    """n (1 - MCC) 2 / (d - 1), d = 20, n = 1e5, mean of 8 seeds, within 10 % of the table.

    The mean of 8 * 380 nearly independent squared errors has relative standard error
    sqrt(2 / 3040) = .026, so the margin is about four sigma.
    """
    d, n = 20, 100_000
    dgp = mixed_sources(getattr(sources, source)(), mixings.linear(), d)
    estimator = fastica(d, nonlinearity=nonlinearity, tol=1e-8)

    @jax.jit
    def one(key):
        sample = dgp.sample(key, dgp.init(key), n)
        lane = loop.run(estimator, key, sample.data)
        z = estimator.readout(lane.state, sample.data).z
        return mean_correlation(z, sample.truth.z)

    loss = np.mean([1 - float(one(jax.random.key(seed))) for seed in range(8)])
    assert n * loss * 2 / (d - 1) == pytest.approx(FLOOR[source, nonlinearity], rel=0.1)


def test_two_cycles_are_broken():
    """50 samples of 60 rows: all converge; without midpoints 21 of them never do."""
    x = np.random.default_rng(0).laplace(size=(50, 60, D)).astype(np.float32)

    @jax.jit
    def converged(x):
        return loop.run(LONG, jax.random.key(0), grouped(x)).converged

    assert all(converged(jnp.asarray(sample)) for sample in x)


@pytest.mark.slow
def test_deflation_keeps_the_contract():
    dgp = mixed_sources(sources.laplace(), mixings.linear(5.0, num_observed=4), 3)
    task = crl.Task(dgp, 400, 100, {"mcc": mcc})
    check_estimator(fastica(3, "deflation", num_steps=30), task)
