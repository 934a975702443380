import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import linear_sum_assignment

from crl.core import Readout, Sample, Truth, grouped
from crl.metrics import stability

RNG = np.random.default_rng(0)
N, M, P = 400, 7, 4
Z = RNG.standard_normal((N, 3))
NOTHING = Sample(grouped(jnp.zeros((N, 1))), Truth())  # stability needs no truth


def latents(*fits):
    return Readout(z=jnp.asarray(np.stack(fits), jnp.float32)), NOTHING


def atoms():
    a = RNG.normal(size=(M, P))
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def dictionaries(*fits):
    return Readout(dictionary=jnp.asarray(np.stack(fits), jnp.float32)), NOTHING


def mean_of_best_pairs(score):
    return score[linear_sum_assignment(-score)].mean()


def test_stability_of_latents_is_the_mean_over_pairs_of_fits():
    fits = [Z, -2 * Z[:, [1, 2, 0]], Z + RNG.standard_normal((N, 3))]
    pairs = list(itertools.combinations(fits, 2))
    corr = [np.abs(np.corrcoef(a.T, b.T)[:3, 3:]) for a, b in pairs]
    expected = np.mean([mean_of_best_pairs(c) for c in corr])
    assert stability.pairwise_mcc(*latents(*fits)) == pytest.approx(expected, abs=1e-5)
    centred = [(a - a.mean(0), b - b.mean(0)) for a, b in pairs]
    size = [np.sqrt((np.sum(a**2) + np.sum(b**2)) / 2) for a, b in centred]
    rotations = [scipy.linalg.orthogonal_procrustes(a, b)[0] for a, b in centred]
    distance = [np.linalg.norm(a @ q - b) for (a, b), q in zip(centred, rotations)]
    expected = np.mean(np.divide(distance, size))
    assert stability.pairwise_rigid(*latents(*fits)) == pytest.approx(expected, abs=1e-5)


def test_fits_that_collapse_are_unstable_in_either_order():
    flat = np.full((N, 3), 0.1)
    one_dead = np.c_[np.full(N, 0.1), Z[:, 1:]]
    for order in (slice(None), slice(None, None, -1)):
        half_dead = latents(*[Z, one_dead][order])
        assert stability.pairwise_mcc(*half_dead) == pytest.approx(2 / 3, abs=1e-5)
        collapsed = latents(*[Z, flat][order])
        assert stability.pairwise_mcc(*collapsed) == 0
        assert stability.pairwise_rigid(*collapsed) == pytest.approx(np.sqrt(2), rel=1e-5)
    assert np.isnan(stability.pairwise_rigid(*latents(flat, flat)))


def test_a_single_fit_and_fits_with_nan_have_no_stability():
    broken = np.where(np.arange(N)[:, None] == 3, np.nan, Z)
    for metric in (stability.pairwise_mcc, stability.pairwise_rigid):
        assert np.isnan(metric(*latents(Z)))
        assert np.isnan(metric(*latents(Z, broken)))
        assert np.isnan(metric(*latents(broken, Z)))
    for metric in (stability.pw_mcc, stability.pw_mcc_above_chance):
        assert np.isnan(metric(*dictionaries(atoms())))


def test_pw_mcc_is_the_mean_over_pairs_and_corrects_chance():
    fits = [atoms(), atoms(), atoms()]
    expected = np.mean(
        [mean_of_best_pairs(a @ b.T) for a, b in itertools.combinations(fits, 2)]
    )
    assert stability.pw_mcc(*dictionaries(*fits)) == pytest.approx(expected, rel=1e-5)
    same = dictionaries(fits[0], fits[0][::-1])
    assert stability.pw_mcc(*same) == pytest.approx(1, rel=1e-5)
    assert stability.pw_mcc_above_chance(*same) == pytest.approx(1, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("m", "p", "worlds"), [(6, 3, 400), (32, 16, 40)])
def test_random_dictionaries_are_at_chance(m, p, worlds):
    pairs = jax.random.normal(jax.random.key(1), (worlds, 2, m, p))

    def over_worlds(metric):
        return jax.jit(jax.vmap(lambda a: metric(Readout(dictionary=a), NOTHING)))(pairs)

    # One pair has a standard deviation of 2 / m or less in above_chance, the estimate of
    # chance 0.05 / sqrt(m): four of both together.
    sd = np.hypot(2 / m / np.sqrt(worlds), 0.05 / np.sqrt(m))
    assert abs(over_worlds(stability.pw_mcc_above_chance).mean()) < 4 * sd
    assert over_worlds(stability.pw_mcc).mean() > 0.3  # chance is far from 0
