import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.dgp.superposition import song, superposition, z1


def draw(dgp, n, seed=0):
    key_world, key_rows = jax.random.split(jax.random.key(seed))
    world = jax.jit(dgp.init)(key_world)
    return world, jax.jit(dgp.sample, static_argnums=2)(key_rows, world, n)


def test_song_rows_are_exactly_k_unit_atoms():
    _, (data, truth) = draw(song(), 2000)
    codes, atoms = np.asarray(truth.codes), np.asarray(truth.dictionary)
    assert ((codes > 0).sum(1) == 3).all() and (codes >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(data.x, codes @ atoms, atol=1e-5)
    # E of |N(0, 1)| is sqrt(2 / pi); 6000 draws, so 0.04 is 5 standard errors.
    assert abs(codes[codes > 0].mean() - np.sqrt(2 / np.pi)) < 0.04


def test_mix_gives_the_noiseless_row():
    dgp = superposition(5, 9, 2, mean_norm=3.0)
    world, (data, truth) = draw(dgp, 50)
    x = jax.vmap(dgp.mix, (None, 0))(world, truth.codes)
    np.testing.assert_allclose(x, data.x, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(world.mean), 3.0, rtol=1e-6)


@pytest.mark.slow
def test_zipf_rates_follow_draws_without_replacement():
    n, m = 40_000, 6
    dgp = superposition(4, m, 2, zipf=1.0)
    _, (_, truth) = draw(dgp, n)
    w = 1 / np.arange(1, m + 1)
    w /= w.sum()
    # P(j in support) = w_j + sum_i w_i w_j / (1 - w_i): first or second draw.
    second = sum(w[i] / (1 - w[i]) * np.where(np.arange(m) == i, 0, w) for i in range(m))
    rate = np.asarray(truth.codes > 0).mean(0)
    np.testing.assert_allclose(rate, w + second, atol=5 * np.sqrt(0.25 / n))


@pytest.mark.slow
def test_partners_fire_together_at_the_stated_rate():
    n, m, k = 20_000, 40, 4
    both = {}
    for pairing in (0.0, 0.5):
        _, (_, truth) = draw(superposition(8, m, k, pairing=pairing), n)
        fires = np.asarray(truth.codes > 0)
        assert (fires.sum(1) == k).all()
        both[pairing] = (fires[:, 0::2] & fires[:, 1::2]).any(1).mean()
    # Without boost, P(some pair) = 1 - prod_i (m - 2i) / (m - i): no partner among k.
    chance = 1 - np.prod([(m - 2 * i) / (m - i) for i in range(k)])
    after_boost = 0.5 + 0.5 * chance
    assert abs(both[0.0] - chance) < 5 * np.sqrt(0.25 / n)
    assert abs(both[0.5] - after_boost) < 5 * np.sqrt(0.25 / n)


def test_noise_has_the_stated_standard_deviation():
    dgp = z1()
    world, (data, truth) = draw(dgp, 2000)
    residual = np.asarray(data.x - dgp.mix(world, truth.codes))
    # 128,000 draws: the standard error of the deviation is 0.05 / sqrt(2 n) = 1e-4.
    assert abs(residual.std() - 0.05) < 5e-4


def test_dtype_is_the_one_asked_for():
    _, (data, truth) = draw(superposition(4, 6, 2, zipf=0.5, pairing=0.2, noise=0.1), 10)
    assert data.x.dtype == truth.codes.dtype == truth.dictionary.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_dims=4, num_atoms=3, k=4), "1 <= k <= num_atoms, got k=4"),
        (dict(num_dims=4, num_atoms=3, k=0), "1 <= k <= num_atoms, got k=0"),
        (dict(num_dims=0, num_atoms=3, k=1), "num_dims an integer >= 1, got 0"),
        (dict(num_dims=4, num_atoms=3, k=1, pairing=0.1), "k >= 2 where it is positive"),
        (dict(num_dims=4, num_atoms=3, k=2, pairing=1.5), "0 <= pairing <= 1"),
        (dict(num_dims=4, num_atoms=3, k=2, noise=-0.1), "noise >= 0, got -0.1"),
        (dict(num_dims=4, num_atoms=3, k=1, amplitude="unifrom"), "did you mean 'uniform'"),
    ],
)
def test_errors_name_what_was_expected(options, message):
    with pytest.raises(ValueError, match=message):
        superposition(**options)
