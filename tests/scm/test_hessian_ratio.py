import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.core import grouped
from crl.dgp.mechanisms import push
from crl.dgp.scm import multi_environment_scm
from crl.metrics.graphs import order_divergence
from crl.scm.hessian_ratio import critical_point, hessian_ratio
from crl.scm.precision_ratio import precision_ratio
from crl.train import fit, readout


def worlds(num, num_nodes, n, **options):
    """Worlds of a DGP, with a sample of each."""
    dgp = multi_environment_scm(num_nodes, **options)
    draw = jax.jit(lambda key: dgp.sample(jax.random.fold_in(key, 1), dgp.init(key), n))
    make = jax.jit(dgp.init)
    return [(make(key), draw(key)) for key in jax.random.split(jax.random.key(0), num)]


def test_the_point_where_all_gradients_vanish_is_found():
    centre = jnp.array([0.7, -0.4])
    turn = jnp.array([[1.0, 0.3], [-0.5, 1.0]])

    def ratios(u):
        v = turn @ (u - centre) + 0.2 * (u - centre) ** 3
        return jnp.stack([v[0] ** 2 - 2 * v[1] ** 2, jnp.cosh(v[0]) + v[1] ** 2])

    rows = jax.random.normal(jax.random.key(0), (200, 2), jnp.float32)
    point, gradient = jax.jit(lambda u: critical_point(ratios, u))(rows)
    np.testing.assert_allclose(point, centre, atol=1e-3)
    assert gradient < 1e-3
    # The control: gradients without a common zero leave one that is not small.
    _, gradient = jax.jit(lambda u: critical_point(lambda u: ratios(u) + u[0], u))(rows)
    assert gradient > 0.3


@pytest.mark.slow
def test_untrained_it_is_the_closed_form_of_gaussian_laws():
    """The network starts as almost nothing, and the Hessian does not depend on the point."""
    ((_, sample),) = worlds(1, 3, 20_000, mechanism="linear")
    method, key = hessian_ratio(num_steps=1), jax.random.key(0)
    found = method.finish(key, method.init(key, sample.data), sample.data)
    exact = precision_ratio(threshold=0).init(key, sample.data)
    np.testing.assert_allclose(
        np.where(exact.weights != 0, found.slopes, 0), exact.weights, atol=0.05
    )


@pytest.mark.slow
def test_one_edge_is_directed_in_most_of_12_worlds_and_without_change_at_random():
    """10,000 rows an environment."""

    def wrong(change):
        found = []
        for _, sample in worlds(12, 2, 10_000, change=change):
            done = fit(METHOD, jax.random.key(0), sample.data)
            out = readout(METHOD, done.state, sample.data)
            found.append((int(order_divergence(out, sample)), out.diag))
        return found

    found = wrong("independent")
    # A coin has at most 2 wrong with probability .019.
    assert sum(w for w, _ in found) <= 2
    assert np.median([diag["least_change"] for _, diag in found]) > 0.5
    assert np.median([diag["ratio_gap"] for _, diag in found]) > 0.1
    control = wrong("none")
    assert sum(w for w, _ in control) >= 3
    assert np.median([diag["least_change"] for _, diag in control]) < 0.1


METHOD = hessian_ratio()


@pytest.mark.slow
def test_the_point_is_that_of_noises_at_their_mode():
    errors = []
    for world, sample in worlds(8, 2, 10_000):
        done = fit(METHOD, jax.random.key(0), sample.data)
        true = push("general", world.mechanisms, jnp.zeros(2))
        errors.append(
            np.linalg.norm((done.state.critical_point - true) / sample.data.x.std(0))
        )
    assert np.median(errors) < 0.3


def test_what_has_no_ratio_and_options_out_of_range_are_refused():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)), jnp.float32)
    with pytest.raises(ValueError, match="hessian_ratio needs at least 3 environments"):
        METHOD.validate(grouped(x, (20, 20)))
    for options, words in [
        ({"width": 0}, "width an integer >= 1, got 0"),
        ({"decay": -1.0}, "decay >= 0"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
    ]:
        with pytest.raises(ValueError, match=f"hessian_ratio needs {words}"):
            hessian_ratio(**options)
