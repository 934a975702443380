import jax
import numpy as np
import scipy.stats

from crl.numerics.normality import jarque_bera


def test_jarque_bera_is_that_of_scipy_summed_over_environments():
    rng, env = np.random.default_rng(0), np.repeat([0, 1, 2], [300, 500, 400])
    x = np.stack([rng.normal(size=1200), rng.laplace(size=1200) + env], 1)
    member = jax.nn.one_hot(env, 3)
    size, p_value = jax.jit(jarque_bera)(x.astype(np.float32), member)
    statistic = np.stack([scipy.stats.jarque_bera(x[env == e], axis=0)[0] for e in range(3)])
    expected = scipy.stats.chi2.sf(np.sum(statistic, 0), 6)
    np.testing.assert_allclose(p_value, expected, rtol=1e-3, atol=1e-6)
    count = np.bincount(env)
    np.testing.assert_allclose(size, np.mean(statistic / count[:, None], 0), rtol=1e-3)
    assert p_value[0] > 0.01 > 1e-9 > p_value[1]
