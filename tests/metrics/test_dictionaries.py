import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from crl.core import MissingClaim, Readout, Sample, Truth, grouped
from crl.metrics import dictionaries as metrics

RNG = np.random.default_rng(0)
N, M, P = 50, 7, 4


def atoms(m=M, p=P):
    a = RNG.normal(size=(m, p)).astype(np.float32)
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def codes(m=M):
    return (RNG.uniform(size=(N, m)) * (RNG.uniform(size=(N, m)) < 0.3)).astype(np.float32)


def seen(x=None, **truth):
    x = np.zeros((N, P), np.float32) if x is None else x
    return Sample(grouped(jnp.asarray(x)), Truth(**truth))


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
    claims, sample = Readout(dictionary=est), seen(dictionary=true)
    np.testing.assert_allclose(
        metrics.dictionary_mcc(claims, sample), cosine.sum() / M, rtol=1e-5
    )
    share = metrics.share_above_95(claims, sample)
    np.testing.assert_allclose(share, (cosine > 0.95).sum() / M)
    assert 0 < share < 1


def test_order_and_scale_are_free_but_sign_is_not():
    true = atoms()
    sample = seen(dictionary=true)
    moved = Readout(dictionary=3 * true[RNG.permutation(M)])
    np.testing.assert_allclose(metrics.dictionary_mcc(moved, sample), 1, rtol=1e-6)
    assert metrics.dictionary_mcc(Readout(dictionary=-true), sample) < 0.9


def test_the_truth_scores_what_the_metrics_say_is_best():
    x, d, c = RNG.normal(size=(N, P)).astype(np.float32), atoms(), codes()
    both = Readout(x=x, dictionary=d, codes=c), seen(x, dictionary=d, codes=c)
    for metric in (
        *(metrics.dictionary_mcc, metrics.share_above_95, metrics.fvu, metrics.dead_fraction),
        *(metrics.support_f1, metrics.support_precision, metrics.support_recall),
    ):
        assert metric(*both) == pytest.approx(metric.best, abs=1e-6), metric.__name__
    # A dictionary is as coherent, and its codes as dense, as it must be.
    assert {m.best for m in (*COHERENCE, metrics.l0)} == {None}


def test_dead_atoms_count_as_zero_and_nan_stays_nan():
    true = atoms()
    sample = seen(dictionary=true)
    dead = np.concatenate([true[:5], np.zeros((2, P), np.float32)])
    broken = true.copy()
    broken[0, 0] = np.nan
    for metric in (metrics.dictionary_mcc, metrics.share_above_95):
        got = metric(Readout(dictionary=dead), sample)
        np.testing.assert_allclose(got, 5 / 7, rtol=1e-6)
        assert np.isnan(metric(Readout(dictionary=broken), sample))


def test_support_f1_is_the_brute_force_count():
    true, est, c_true, c_est = atoms(), atoms(9), codes(), codes(9)
    rows, columns, _ = scipy_match(est, true)
    target = np.zeros((N, 9), bool)
    target[:, rows] = c_true[:, columns] > 0
    hits = (target & (c_est > 0)).sum()
    both = Readout(dictionary=est, codes=c_est), seen(dictionary=true, codes=c_true)
    precision, recall = hits / (c_est > 0).sum(), hits / (c_true > 0).sum()
    assert precision < recall  # of nine claimed atoms two are without a match
    np.testing.assert_allclose(metrics.support_precision(*both), precision, rtol=1e-6)
    np.testing.assert_allclose(metrics.support_recall(*both), recall, rtol=1e-6)
    f1 = 2 / (1 / precision + 1 / recall)
    np.testing.assert_allclose(metrics.support_f1(*both), f1, rtol=1e-6)


def test_supports_without_an_active_code_are_undefined():
    none, some = Readout(dictionary=atoms(), codes=np.zeros((N, M))), codes()
    true = seen(dictionary=none.dictionary, codes=some)
    assert np.isnan(metrics.support_precision(none, true))
    assert metrics.support_recall(none, true) == metrics.support_f1(none, true) == 0
    empty = seen(dictionary=none.dictionary, codes=none.codes)
    assert np.isnan(metrics.support_recall(none, empty))
    assert np.isnan(metrics.support_f1(none, empty))


def test_fvu_l0_and_dead_fraction_by_hand():
    x = RNG.normal(size=(N, P)).astype(np.float32) + 5
    mean_only = Readout(x=np.broadcast_to(x.mean(0), x.shape))
    np.testing.assert_allclose(metrics.fvu(mean_only, seen(x)), 1, rtol=1e-5)
    half = Readout(x=(x + x.mean(0)) / 2)
    np.testing.assert_allclose(metrics.fvu(half, seen(x)), 0.25, rtol=1e-5)
    constant = np.full_like(x, 0.1)  # its mean is off by rounding, which is no variance
    assert np.isnan(metrics.fvu(half, seen(constant)))
    constant[:, 0] = x[:, 0]
    assert metrics.fvu(Readout(x=constant), seen(constant)) == 0
    c = np.array([[1.0, 0, 0, -2], [0, 0, 0, 3]], np.float32)
    np.testing.assert_allclose(metrics.l0(Readout(codes=c), seen()), 1.5)
    np.testing.assert_allclose(metrics.dead_fraction(Readout(codes=c), seen()), 0.5)


COHERENCE = metrics.max_coherence, metrics.mean_coherence, metrics.welch_excess


def test_coherence_of_known_frames():
    angle = 2 * np.pi * np.arange(3) / 3
    mercedes = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    got = [metric(Readout(dictionary=mercedes), seen()) for metric in COHERENCE]
    np.testing.assert_allclose(got, [0.5, 0.5, 0], atol=1e-6)  # a tight frame
    a = atoms()
    pairs = [abs(a[i] @ a[j]) for i, j in itertools.combinations(range(M), 2)]
    got = [metric(Readout(dictionary=a), seen()) for metric in COHERENCE]
    welch = np.mean(np.square(pairs)) - (M - P) / (P * (M - 1))
    np.testing.assert_allclose(got, [max(pairs), np.mean(pairs), welch], atol=1e-5)


def test_a_single_atom_has_no_coherence():
    for metric in COHERENCE:
        assert np.isnan(metric(Readout(dictionary=atoms(1)), seen()))


@pytest.mark.slow
def test_readouts_of_other_libraries_may_be_float64():
    """Called without jit on numpy arrays, no metric asks jax for a float64 (a warning)."""
    a, c = atoms().astype(float), codes().astype(float)
    both = Readout(dictionary=a, codes=c), seen(dictionary=a, codes=c)
    assert metrics.support_f1(*both) == 1
    np.testing.assert_allclose(metrics.l0(*both), (c > 0).sum(1).mean(), rtol=1e-6)
    assert metrics.dead_fraction(*both) == 0
    assert metrics.max_coherence(*both) < 1


def test_missing_truth_is_named():
    with pytest.raises(MissingClaim, match=r"needs truth\.dictionary, which is None"):
        metrics.dictionary_mcc(Readout(dictionary=jnp.eye(2)), seen())
