"""Networks start as their docstrings say."""

import jax
import jax.numpy as jnp
import pytest

from crl.nets.mlp import mlp, residual_mlp


def start_rms(net, width=64):
    """The rms output of a fresh network on standard normal inputs."""
    x = jax.random.normal(jax.random.key(0), (256, width))
    params = jax.jit(net.init)(jax.random.key(1), x)
    return float(jnp.sqrt(jnp.mean(net.apply(params, x) ** 2)))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_mlp_starts_with_outputs_of_the_size_of_its_inputs(depth):
    assert 0.7 < start_rms(mlp(64, depth=depth)) < 1.4


def test_residual_mlp_starts_as_almost_nothing():
    assert start_rms(residual_mlp(64)) < 0.005
