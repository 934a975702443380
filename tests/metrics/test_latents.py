import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy import optimize, stats
from sklearn.linear_model import LinearRegression

from crl.core import MissingClaim, Readout, Sample, Truth, grouped, merit
from crl.metrics import latents

RNG = np.random.default_rng(0)
N = 400
Z = RNG.standard_normal((N, 3))
EST = np.c_[Z @ RNG.standard_normal((3, 4)) + 0.3 * RNG.standard_normal((N, 4))]


def both(z_est, z=Z):
    z_est, z = jnp.asarray(z_est, jnp.float32), jnp.asarray(z, jnp.float32)
    return Readout(z=z_est), Sample(grouped(z), Truth(z=z))


def by_scipy(z_est, z, correlation):
    corr = np.abs([[correlation(a, b)[0] for b in z.T] for a in z_est.T])
    i, j = optimize.linear_sum_assignment(-corr)
    return corr[i, j].sum() / z.shape[1]


def test_mcc_equals_scipy():
    ties = np.round(EST, 0)
    assert latents.mcc(*both(EST)) == pytest.approx(by_scipy(EST, Z, stats.pearsonr), abs=1e-5)
    expected = by_scipy(ties, Z, stats.spearmanr)
    assert latents.mcc_spearman(*both(ties)) == pytest.approx(expected, abs=1e-5)


def test_mcc_worst_is_the_least_correlation_of_the_matched_pairs():
    corr = np.abs(np.corrcoef(EST.T, Z.T)[:4, 4:])
    matched = corr[optimize.linear_sum_assignment(-corr)]
    assert latents.mcc_worst(*both(EST)) == pytest.approx(matched.min(), abs=1e-5)
    assert latents.mcc_worst(*both(EST[:, :2])) == 0  # a latent has no match


def test_mcc_held_out_equals_scipy_and_noise_scores_zero_on_average():
    chosen = np.corrcoef(EST[::2].T, Z[::2].T)[:4, 4:]
    corr = np.corrcoef(EST[1::2].T, Z[1::2].T)[:4, 4:] * np.sign(chosen)
    expected = corr[optimize.linear_sum_assignment(-np.abs(chosen))].mean()
    assert latents.mcc_held_out(*both(EST)) == pytest.approx(expected, abs=1e-5)

    noise = jnp.asarray(RNG.standard_normal((200, N, 3)), jnp.float32)
    sample = both(EST)[1]
    scores = jax.vmap(lambda z: latents.mcc_held_out(Readout(z=z), sample))(noise)
    # Mean of 200 scores of standard deviation about (3 N / 2)^-1/2 = .041: five sigma.
    assert abs(scores.mean()) < 5 * 0.041 / np.sqrt(200)
    assert jax.vmap(lambda z: latents.mcc(Readout(z=z), sample))(noise).mean() > 0.04


def test_the_truth_scores_what_the_metrics_say_is_best_and_noise_has_less_merit():
    truth, noise = both(Z), both(RNG.standard_normal((N, 3)))
    for metric in (
        *(latents.mcc, latents.mcc_spearman, latents.mcc_held_out, latents.procrustes),
        *(latents.affine_r2, latents.affine_r2_explained),
    ):
        best, worse = metric(*truth), metric(*noise)
        assert best == pytest.approx(metric.best, abs=1e-5), metric.__name__
        assert merit(metric, worse) < merit(metric, best) - 0.5, metric.__name__
    assert latents.num_dead(*truth) == latents.num_dead.best == 0


def test_dead_and_missing_latents_count_as_zero():
    constant = np.full(N, 1e3) + 1e-4 * RNG.standard_normal(N)  # float32 keeps no trace
    pair = both(np.c_[Z[:, 0], constant, -3 * Z[:, 2]])
    assert latents.mcc(*pair) == pytest.approx(2 / 3, abs=1e-5)
    assert latents.mcc_spearman(*pair) < 0.75
    assert latents.num_dead(*pair) == 1
    assert latents.affine_r2_explained(*pair) == pytest.approx(2 / 3, abs=1e-4)
    assert latents.mcc(*both(Z[:, :1])) == pytest.approx(1 / 3, abs=1e-5)


def test_undefined_is_nan():
    flat = np.c_[Z[:, :2], np.ones(N)]
    for metric in (
        latents.mcc,
        latents.mcc_spearman,
        latents.mcc_held_out,
        latents.affine_r2,
        latents.affine_r2_explained,
    ):
        assert np.isnan(metric(*both(Z, flat))), metric.__name__
    tenth = np.c_[Z[:, :2], np.full(N, 0.1)]  # its mean is off by rounding
    for group in latents.GROUPS:
        assert np.isnan(latents.align(group, both(Z)[0].z, tenth)[1]), group
    broken = Z.copy()
    broken[3, 1] = np.nan
    for metric in (latents.mcc, latents.mcc_held_out, latents.procrustes):
        assert np.isnan(metric(*both(broken)))


def test_affine_r2_equals_sklearn_and_sees_both_directions():
    def sklearn_r2(a, b):
        return LinearRegression().fit(a[::2], b[::2]).score(a[1::2], b[1::2])

    pair = both(EST)
    assert latents.affine_r2(*pair) == pytest.approx(sklearn_r2(EST, Z), abs=1e-4)
    assert latents.affine_r2_explained(*pair) == pytest.approx(sklearn_r2(Z, EST), abs=1e-4)
    # Singular for least squares.
    twice_and_noise = both(np.c_[Z, Z, RNG.standard_normal((N, 2))])
    assert latents.affine_r2(*twice_and_noise) == pytest.approx(1, abs=1e-5)
    assert latents.affine_r2_explained(*twice_and_noise) < 0.8


def test_noise_has_the_held_out_r2_of_its_docstring():
    source, target = (RNG.standard_normal((300, N, k)) for k in (10, 3))
    r2 = jax.vmap(latents.linear_r2)(jnp.asarray(source), jnp.asarray(target))
    expected = -(10 + 2) / (N / 2 - 10 - 2)
    # One value has a standard deviation of about .024 (300 seen): four of the mean's.
    assert abs(r2.mean() - expected) < 4 * 0.024 / np.sqrt(300)


def test_rows_grouped_by_environment_score_as_shuffled_rows():
    """Environments of other means: a fit on some of them says nothing of the others."""
    rng = np.random.default_rng(4)
    shifts = np.repeat([0, 2.0, -3.0], N, axis=0)[:, None]
    z = rng.standard_normal((3 * N, 3)) + shifts
    z_est = np.tanh(z) + 0.2 * rng.standard_normal(z.shape)
    order = rng.permutation(len(z))
    for metric in (latents.mcc_held_out, latents.affine_r2, latents.affine_r2_explained):
        by_environment = metric(*both(z_est, z))
        shuffled = metric(*both(z_est[order], z[order]))
        # .04 is three times the largest difference seen in 20 shuffles, .013; to fit on the
        # first half of the grouped rows and judge on the second moves both R2 by .12.
        assert abs(by_environment - shuffled) < 0.04, metric.__name__


def test_amari_distance_has_the_normalisations_of_the_literature():
    p = RNG.standard_normal((5, 5))
    brute = {}
    for power in (1, 2):
        c = np.abs(p) ** power
        rows = sum(c[i, j] / c[i].max() for i in range(5) for j in range(5)) - 5
        columns = sum(c[i, j] / c[:, j].max() for i in range(5) for j in range(5)) - 5
        brute[power] = rows + columns
    assert latents.amari_distance(p) == pytest.approx(brute[1] / (2 * 5 * 4), rel=1e-5)
    picard = pytest.importorskip("picard")
    expected = picard.amari_distance(p, np.eye(5))
    assert brute[2] / (2 * 5) == pytest.approx(expected, rel=1e-6)
    assert latents.amari_distance(p, 2, "acy") == pytest.approx(expected, rel=1e-5)
    scaled = np.diag([1.0, -2, 3, 0.1, 5])[[3, 1, 0, 4, 2]]
    assert latents.amari_distance(scaled) == 0
    assert latents.amari_distance(np.ones((5, 5))) == pytest.approx(1)


def test_align_finds_the_planted_element_of_each_group():
    q = np.linalg.qr(RNG.standard_normal((3, 3)))[0]
    planted = {
        "signed_permutation": (Z * [1, -1, -1])[:, [2, 0, 1]] + 5,
        "scaled_permutation": (Z * [2, -0.1, -1])[:, [2, 0, 1]] + 5,
        "componentwise": np.sinh(Z * [1, -1, 0.5])[:, [2, 0, 1]],
        "rigid": Z @ q + 5,
        "affine": Z @ RNG.standard_normal((3, 5)) + 5,
    }
    for i, (group, z_est) in enumerate(planted.items()):
        aligned, residual = latents.align(group, jnp.asarray(z_est), jnp.asarray(Z))
        # Seen .029 for sinh through 32 knots; the others are float32 rounding.
        bound = 0.04 if group == "componentwise" else 1e-5
        assert residual < bound, group
        np.testing.assert_allclose(aligned, Z, atol=60 * bound)
        if group in ("scaled_permutation", "componentwise", "affine"):
            smaller = list(planted)[max(i - 1, 0) if group != "affine" else 3]
            assert latents.align(smaller, jnp.asarray(z_est), jnp.asarray(Z))[1] > 0.1


def test_align_is_least_squares_best_by_brute_force():
    import itertools

    z_est = EST[:, :3] / EST[:, :3].std(0)
    centred, target = z_est - z_est.mean(0), Z - Z.mean(0)
    signed = min(
        np.linalg.norm(centred[:, list(order)] * signs - target)
        for order in itertools.permutations(range(3))
        for signs in itertools.product([-1, 1], repeat=3)
    )
    scaled = min(
        np.sqrt(sum(1 - stats.pearsonr(z_est[:, i], Z[:, j])[0] ** 2 for j, i in enumerate(o)))
        for o in itertools.permutations(range(3))
    )
    unit = target / np.linalg.norm(target, axis=0)
    rotation, _ = scipy.linalg.orthogonal_procrustes(centred, target)
    rigid = np.linalg.norm(centred @ rotation - target)
    affine = np.linalg.norm(target - centred @ np.linalg.lstsq(centred, target)[0])
    norm = np.linalg.norm(target)
    expected = {"signed_permutation": signed, "rigid": rigid, "affine": affine}
    for group, value in expected.items():
        assert latents.align(group, z_est, Z)[1] == pytest.approx(value / norm, abs=1e-4)
    residual = latents.align("scaled_permutation", z_est, unit)[1]
    assert residual == pytest.approx(scaled / np.sqrt(3), abs=1e-4)
    assert latents.procrustes(*both(z_est)) == pytest.approx(rigid / norm, abs=1e-4)


def test_rigid_alignment_is_best_among_rotations_when_there_are_more_estimates():
    """Brute force over O(4): truth of two columns, padded with zeros to four."""
    z, a = Z[:, :2] - Z[:, :2].mean(0), EST - EST.mean(0)
    padded = np.c_[z, np.zeros((N, 2))]

    def distance(angles, reflect):
        skew = np.zeros((4, 4))
        skew[np.triu_indices(4, 1)] = angles
        q = scipy.linalg.expm(skew - skew.T) * reflect
        return np.sum((a @ q - padded) ** 2)

    best = min(
        optimize.minimize(distance, RNG.standard_normal(6), (reflect,)).fun
        for reflect in (np.ones(4), np.array([1, 1, 1, -1]))
    )
    aligned, residual = latents.align("rigid", jnp.asarray(EST), jnp.asarray(Z[:, :2]))
    assert residual == pytest.approx(np.sqrt(best) / np.linalg.norm(z), rel=1e-4)
    assert aligned.shape == (N, 2)


def golden_codes():
    """The codes of the reference table: 3 uniform factors with 5 values, noise of sd .01."""
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 5, (3000, 3)).astype(float)
    f = (factors - factors.mean(0)) / factors.std(0)

    def noise(k):
        return 0.01 * rng.standard_normal((3000, k))

    turned = f.copy()
    c = np.sqrt(0.5)
    turned[:, :2] = f[:, :2] @ [[c, -c], [c, c]]
    merged = np.c_[5 * factors[:, 0] + factors[:, 1], factors[:, 2], np.zeros(3000)]
    return factors, {
        "perfect": (f[:, [2, 0, 1]] * [2, -1, 0.5] + noise(3), 1.000, 0.980, 1.000),
        "cubed": (f**3 + noise(3), 0.945, 0.980, 0.891),
        "rotated": (turned + noise(3), 0.805, 0.789, 1.000),
        "duplicated": (np.c_[f + noise(3), f + noise(3), 100 * noise(2)], 1.000, 0.980, 1.000),
        "merged": (merged + noise(3), 0.667, 0.662, 0.660),
    }


def test_golden_table():
    """Reference values measured with scikit-learn; each within .005 (one draw, n = 3000)."""
    factors, codes = golden_codes()
    for name, (code, pearson, spearman, r2) in codes.items():
        pair = both(code, factors)
        got = [latents.mcc(*pair), latents.mcc_spearman(*pair)]
        got.append(latents.affine_r2(*pair))
        # A column of pure noise is matched too: three sigma of its correlation, over 3.
        atol = 5e-3 + (3000**-0.5 if name == "merged" else 0)
        np.testing.assert_allclose(got, [pearson, spearman, r2], atol=atol, err_msg=name)
    noise = both(np.random.default_rng(1).standard_normal((3000, 3)), factors)
    assert latents.mcc(*noise) < 0.05 and abs(latents.affine_r2(*noise)) < 0.01


def test_missing_claims_are_named():
    with pytest.raises(MissingClaim, match=r"metric amari needs readout.unmixing"):
        latents.amari(*both(Z))
    with pytest.raises(ValueError, match="align knows the groups"):
        latents.align("conformal", Z, Z)
    with pytest.raises(ValueError, match="square product"):
        latents.amari_distance(np.ones((2, 3)))
