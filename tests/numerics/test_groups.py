import jax
import jax.numpy as jnp
import numpy as np

from crl.numerics.groups import centred, group_means, standardised


def test_moments_within_groups_are_those_of_numpy_group_by_group():
    rng, group = np.random.default_rng(0), np.repeat([0, 1, 2], [5, 30, 1])
    x = (rng.normal(size=(36, 2)) * (1 + group[:, None]) + group[:, None]).astype("float32")
    member = jax.nn.one_hot(group, 3)
    for a in (x, x[:, 0]):
        scaled, sd = jax.jit(standardised)(jnp.asarray(a), member)
        for g in range(2):
            rows = a[group == g]
            np.testing.assert_allclose(group_means(a, member)[g], rows.mean(0), rtol=1e-5)
            near = dict(atol=1e-5)
            np.testing.assert_allclose(
                centred(a, member)[group == g], rows - rows.mean(0), **near
            )
            np.testing.assert_allclose(sd[g], rows.std(0), rtol=1e-4)
            want = (rows - rows.mean(0)) / rows.std(0)
            np.testing.assert_allclose(scaled[group == g], want, atol=1e-3)
        # A single row is its own mean, and no division by its zero deviation makes it NaN.
        np.testing.assert_allclose(scaled[group == 2], 0, atol=1e-2)
