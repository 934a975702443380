"""Float options may be traced, so that a sweep over worlds compiles once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.dgp import combinators, mixings, sources
from crl.dgp.intervened import intervened_scm
from crl.dgp.latent import mixed_sources
from crl.dgp.scm import multi_environment_scm
from crl.dgp.superposition import superposition


def of(source=None, mixing=None):
    return mixed_sources(source or sources.uniform(), mixing or mixings.linear(), 2)


# name: (a DGP for one value of the option, a value)
OPTIONS = {
    "linear(condition)": (lambda v: of(mixing=mixings.linear(v)), 5.0),
    "near_isometric(eta)": (lambda v: of(mixing=mixings.near_isometric(v)), 0.2),
    "flat_torus(span)": (lambda v: of(mixing=mixings.flat_torus(v)), 3.0),
    "flat_torus(width)": (lambda v: of(mixing=mixings.flat_torus(width=v)), 3.0),
    "leaky_relu_mlp(slope)": (lambda v: of(mixing=mixings.leaky_relu_mlp(2, v)), 0.3),
    "student_t(df)": (lambda v: of(sources.student_t(v)), 4.0),
    "gamma(shape)": (lambda v: of(sources.gamma(v)), 2.0),
    "generalized_normal(alpha)": (lambda v: of(sources.generalized_normal(v)), 3.0),
    "gaussian_mixture(scales)": (
        lambda v: of(sources.gaussian_mixture(scales=(v, 2 * v), weights=(1.0, v))),
        0.4,
    ),
    "superposition(zipf)": (lambda v: superposition(3, 5, 2, zipf=v), 0.7),
    "superposition(pairing)": (lambda v: superposition(3, 5, 2, pairing=v), 0.7),
    "superposition(mean_norm)": (lambda v: superposition(3, 5, 2, mean_norm=v), 0.7),
    "superposition(noise)": (lambda v: superposition(3, 5, 2, noise=v), 0.7),
    "multi_environment_scm(mean_shift)": (
        lambda v: multi_environment_scm(2, mechanism="linear", mean_shift=v),
        0.5,
    ),
    "multi_environment_scm(changed)": (
        lambda v: multi_environment_scm(4, mechanism="linear", changed=v),
        0.7,
    ),
    "multi_environment_scm(edges_per_node)": (
        lambda v: multi_environment_scm(2, mechanism="linear", edges_per_node=v),
        0.5,
    ),
    "scale_free(edges_per_node)": (
        lambda v: multi_environment_scm(2, "scale_free", v, mechanism="linear"),
        1.0,
    ),
    "noisy(scale)": (lambda v: combinators.noisy(of(), v), 0.5),
    "confounded(loading)": (
        lambda v: combinators.confounded(multi_environment_scm(2, mechanism="linear"), 1, v),
        0.7,
    ),
    "selected(strength)": (
        lambda v: combinators.selected(of(), v, num_candidates=50),
        3.0,
    ),
    "intervened_scm(strength)": (
        lambda v: intervened_scm(2, "scale", mechanism="linear", strength=v),
        3.0,
    ),
    "perturbed(eta)": (lambda v: combinators.perturbed(of(), v), 0.5),
}


def draw(make, value):
    key, dgp = jax.random.key(0), make(value)
    return dgp.sample(key, dgp.init(key), 4)


@pytest.mark.parametrize("name", OPTIONS)
def test_option_may_be_traced(name):
    make, value = OPTIONS[name]
    shapes = jax.eval_shape(lambda v: draw(make, v), jnp.float32(value))
    assert shapes.data.x.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_traced_option_makes_the_world_of_its_value(name):
    make, value = OPTIONS[name]
    traced = jax.jit(jax.vmap(lambda v: draw(make, v)))(jnp.float32([value, value / 2]))
    plain = jax.jit(lambda: draw(make, value))()
    for a, b in zip(jax.tree.leaves(traced), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-5)
    x = traced.data.x
    assert name.startswith("scale_free") or not np.array_equal(x[0], x[1])


@pytest.mark.parametrize("make", [sources.student_t, sources.generalized_normal])
def test_density_of_a_traced_law_is_that_of_its_value(make):
    grid = jnp.linspace(-3, 3, 7)
    traced = jax.jit(lambda v: make(v).log_prob(grid))(4.0)
    np.testing.assert_allclose(traced, make(4.0).log_prob(grid), rtol=1e-5)
