import jax
import numpy as np

from crl.numerics.independence import independence


def test_the_independence_test_has_its_level_and_sees_what_correlations_do_not():
    """Level 5 % in 400 replicates of 3 x 100 rows: 20 expected, sd 4.4; power at least .9."""
    member = jax.nn.one_hot(np.repeat([0, 1, 2], 100), 3)
    c, s = np.random.default_rng(0).normal(size=(2, 400, 300)).astype(np.float32)
    test = jax.jit(jax.vmap(lambda s, c: independence(s, c, member)))
    rejected = np.sum(test(s, c) < 0.05)
    assert 5 < rejected < 40
    scaled = s * np.exp(0.4 * c)
    assert np.mean(test(scaled / scaled.std(1, keepdims=True), c) < 0.05) > 0.9
    assert np.mean(test((s + 0.7 * np.abs(c)), c) < 0.05) > 0.9
