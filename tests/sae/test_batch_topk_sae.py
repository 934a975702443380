import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.core import grouped
from crl.sae.autoencoder import encode
from crl.sae.batch_topk_sae import RATE, batch_topk_sae, nth_largest


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_nth_largest_is_that_of_a_sort(dtype):
    values = jnp.asarray(np.random.default_rng(0).exponential(size=(7, 30)), dtype)
    values = values.at[2:].set(jnp.round(values[2:], 1)).at[0].set(0)
    in_order = -np.sort(-np.asarray(values).ravel())
    nth = jax.jit(nth_largest, static_argnums=1)
    for n in (1, 5, 60, 180, 210):
        assert nth(values, n) == in_order[n - 1]


def test_a_batch_keeps_k_n_activations_and_the_threshold_follows_the_smallest():
    estimator = batch_topk_sae(12, 3, population_control=False, batch_size=40)
    data = grouped(jax.random.normal(jax.random.key(1), (40, 6)) + 2)
    state = estimator.init(jax.random.key(0), data)
    step, smallest = jax.jit(estimator.step), []
    for i in range(3):
        training = state.training
        pre = np.asarray(encode(training.params, data.x / training.scale))
        smallest.append(-np.sort(-pre.ravel())[3 * 40 - 1])
        state, _ = step(jax.random.key(i), state, data)
    mean = smallest[0]
    for value in smallest[1:]:
        mean += RATE * (value - mean)
    np.testing.assert_allclose(state.threshold, mean, rtol=1e-5)

    fitted = estimator.finish(jax.random.key(2), state, data)
    codes = np.asarray(estimator.readout(fitted, data).codes / fitted.scale)
    assert codes[codes > 0].min() >= fitted.threshold
    # So the rows differ in how many atoms they hold, k in the mean.
    assert 2 < (codes > 0).sum(1).mean() < 4 and np.ptp((codes > 0).sum(1)) > 1
