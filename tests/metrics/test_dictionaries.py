import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from crl.core import MissingClaim, Readout, Truth
from crl.metrics import dictionaries as metrics

RNG = np.random.default_rng(0)
N, M, P = 50, 7, 4


def atoms(m=M, p=P):
    a = RNG.normal(size=(m, p)).astype(np.float32)
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def codes(m=M):
    return (RNG.uniform(size=(N, m)) * (RNG.uniform(size=(N, m)) < 0.3)).astype(np.float32)


def scipy_match(a, b):
    cosine = a @ b.T
    rows, columns = linear_sum_assignment(-cosine)
    return rows, columns, cosine[rows, columns]


@pytest.mark.parametrize("k", [5, 7, 9])
def test_dictionary_mcc_is_scipys_assignment(k):
    true = atoms()
    est = np.concatenate([true[::-1], atoms(2)])[:k] + 0.2 * RNG.normal(size=(k, P))
    est = est.astype(np.float32)
    unit = est / np.linalg.norm(est, axis=1, keepdims=True)
    _, _, cosine = scipy_match(unit, true)
    got = metrics.dictionary_mcc(Readout(dictionary=est), Truth(dictionary=true))
    np.testing.assert_allclose(got["mcc"], cosine.sum() / M, rtol=1e-5)
    np.testing.assert_allclose(got["share_above_95"], (cosine > 0.95).sum() / M)


def test_order_and_scale_are_free_but_sign_is_not():
    true = atoms()
    truth = Truth(dictionary=true)
    moved = Readout(dictionary=3 * true[RNG.permutation(M)])
    np.testing.assert_allclose(metrics.dictionary_mcc(moved, truth)["mcc"], 1, rtol=1e-6)
    assert metrics.dictionary_mcc(Readout(dictionary=-true), truth)["mcc"] < 0.9


def test_dead_atoms_count_as_zero_and_nan_stays_nan():
    true = atoms()
    truth = Truth(dictionary=true)
    dead = np.concatenate([true[:5], np.zeros((2, P), np.float32)])
    got = metrics.dictionary_mcc(Readout(dictionary=dead), truth)
    np.testing.assert_allclose([got["mcc"], got["share_above_95"]], 5 / 7, rtol=1e-6)
    broken = true.copy()
    broken[0, 0] = np.nan
    got = metrics.dictionary_mcc(Readout(dictionary=broken), truth)
    assert np.isnan(got["mcc"]) and np.isnan(got["share_above_95"])


def test_support_f1_is_the_brute_force_count():
    true, est, c_true, c_est = atoms(), atoms(9), codes(), codes(9)
    rows, columns, _ = scipy_match(est, true)
    target = np.zeros((N, 9), bool)
    target[:, rows] = c_true[:, columns] > 0
    hits = (target & (c_est > 0)).sum()
    got = metrics.support_f1(
        Readout(dictionary=est, codes=c_est), Truth(dictionary=true, codes=c_true)
    )
    precision, recall = hits / (c_est > 0).sum(), hits / (c_true > 0).sum()
    np.testing.assert_allclose(got["precision"], precision, rtol=1e-6)
    np.testing.assert_allclose(got["recall"], recall, rtol=1e-6)
    np.testing.assert_allclose(got["f1"], 2 / (1 / precision + 1 / recall), rtol=1e-6)


def test_fvu_l0_and_dead_fraction_by_hand():
    x = RNG.normal(size=(N, P)).astype(np.float32) + 5
    mean_only = Readout(x=np.broadcast_to(x.mean(0), x.shape))
    np.testing.assert_allclose(metrics.fvu(mean_only, Truth(x=x)), 1, rtol=1e-5)
    half = Readout(x=(x + x.mean(0)) / 2)
    np.testing.assert_allclose(metrics.fvu(half, Truth(x=x)), 0.25, rtol=1e-5)
    constant = np.full_like(x, 0.1)  # its mean is off by rounding, which is no variance
    assert np.isnan(metrics.fvu(half, Truth(x=constant)))
    constant[:, 0] = x[:, 0]
    assert metrics.fvu(Readout(x=constant), Truth(x=constant)) == 0
    c = np.array([[1.0, 0, 0, -2], [0, 0, 0, 3]], np.float32)
    np.testing.assert_allclose(metrics.l0(Readout(codes=c), Truth()), 1.5)
    np.testing.assert_allclose(metrics.dead_fraction(Readout(codes=c), Truth()), 0.5)


def test_coherence_of_known_frames():
    angle = 2 * np.pi * np.arange(3) / 3
    mercedes = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    got = metrics.coherence(Readout(dictionary=mercedes), Truth())
    np.testing.assert_allclose([got["max"], got["mean"]], 0.5, rtol=1e-5)
    np.testing.assert_allclose(got["welch_excess"], 0, atol=1e-6)  # a tight frame
    a = atoms()
    pairs = [abs(a[i] @ a[j]) for i, j in itertools.combinations(range(M), 2)]
    got = metrics.coherence(Readout(dictionary=a), Truth())
    np.testing.assert_allclose(got["max"], max(pairs), rtol=1e-5)
    np.testing.assert_allclose(got["mean"], np.mean(pairs), rtol=1e-5)
    welch = (M - P) / (P * (M - 1))
    np.testing.assert_allclose(
        got["welch_excess"], np.mean(np.square(pairs)) - welch, atol=1e-6
    )


def test_a_single_atom_has_no_coherence():
    got = metrics.coherence(Readout(dictionary=atoms(1)), Truth())
    assert (
        sorted(got) == ["max", "mean", "welch_excess"] and np.isnan(list(got.values())).all()
    )


@pytest.mark.slow
def test_readouts_of_other_libraries_may_be_float64():
    """Called without jit on numpy arrays, no metric asks jax for a float64 (a warning)."""
    a, c = atoms().astype(float), codes().astype(float)
    readout, truth = Readout(dictionary=a, codes=c), Truth(dictionary=a, codes=c)
    assert metrics.support_f1(readout, truth)["f1"] == 1
    np.testing.assert_allclose(metrics.l0(readout, truth), (c > 0).sum(1).mean(), rtol=1e-6)
    assert metrics.dead_fraction(readout, truth) == 0
    assert metrics.coherence(readout, truth)["max"] < 1
    stacked = Readout(dictionary=np.stack([a, a]))
    np.testing.assert_allclose(metrics.pw_mcc(stacked)["pw_mcc"], 1, rtol=1e-6)


def test_pw_mcc_is_the_mean_over_pairs_and_corrects_chance():
    fits = np.stack([atoms(), atoms(), atoms()])
    pairs = [scipy_match(a, b)[2].mean() for a, b in itertools.combinations(fits, 2)]
    got = metrics.pw_mcc(Readout(dictionary=fits))
    np.testing.assert_allclose(got["pw_mcc"], np.mean(pairs), rtol=1e-5)
    same = metrics.pw_mcc(Readout(dictionary=np.stack([fits[0], fits[0][::-1]])))
    np.testing.assert_allclose([same["pw_mcc"], same["above_chance"]], 1, rtol=1e-5)
    assert np.isnan(metrics.pw_mcc(Readout(dictionary=fits[:1]))["pw_mcc"])


@pytest.mark.slow
@pytest.mark.parametrize(("m", "p", "worlds"), [(6, 3, 400), (32, 16, 40)])
def test_random_dictionaries_are_at_chance(m, p, worlds):
    pairs = jax.random.normal(jax.random.key(1), (worlds, 2, m, p))
    got = jax.jit(jax.vmap(lambda a: metrics.pw_mcc(Readout(dictionary=a))))(pairs)
    # One pair has a standard deviation of 2 / m or less in above_chance, the estimate of
    # chance 0.05 / sqrt(m): four of both together.
    sd = np.hypot(2 / m / np.sqrt(worlds), 0.05 / np.sqrt(m))
    assert abs(got["above_chance"].mean()) < 4 * sd
    assert got["pw_mcc"].mean() > 0.3  # chance is far from 0


def test_missing_truth_is_named():
    with pytest.raises(MissingClaim, match=r"needs truth\.dictionary, which is None"):
        metrics.dictionary_mcc(Readout(dictionary=jnp.eye(2)), Truth())
