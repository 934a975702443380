import jax
import jax.numpy as jnp
import numpy as np

from crl.nets.flows import spline_flow


def a_flow(d, dtype=jnp.float32):
    """A flow of two layers, its parameters some way from where they start, and rows."""
    rng = np.random.default_rng(0)
    flow = spline_flow(num_layers=2, width=8, depth=1, num_bins=4)
    x = 1.5 * rng.standard_normal((50, d)).astype(dtype)
    start = jax.jit(flow.init)(jax.random.key(0), x)

    def move(a):
        return a + 0.05 * rng.standard_normal(a.shape).astype(dtype)

    return flow, start, jax.tree.map(move, start), x


def test_flows_start_as_the_identity():
    flow, start, _, x = a_flow(3)
    z, log_det = jax.jit(flow.apply)(start, x)
    np.testing.assert_allclose(z, x, atol=2e-6)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)


def test_the_inverse_of_a_flow_inverts_it():
    flow, _, params, x = a_flow(3)
    z, _ = jax.jit(flow.apply)(params, x)
    assert jnp.max(jnp.abs(z - x)) > 0.1
    np.testing.assert_allclose(jax.jit(flow.inverse)(params, z), x, atol=1e-5)


def test_log_det_is_that_of_the_jacobian():
    with jax.enable_x64(True):
        flow, _, params, x = a_flow(3, jnp.float64)

        def one(x):
            return flow.apply(params, x[None])[0][0]

        _, expected = np.linalg.slogdet(jax.jit(jax.vmap(jax.jacfwd(one)))(x))
        np.testing.assert_allclose(jax.jit(flow.apply)(params, x)[1], expected, atol=1e-10)
