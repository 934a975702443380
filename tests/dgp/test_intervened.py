"""What each kind of intervention changes, and that nothing else changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from crl.dgp.intervened import INTERVENTIONS, intervened_scm

CHAIN = np.eye(3, k=1, dtype=int)  # 0 -> 1 -> 2
N = 2000


@functools.cache
def drawn(intervention):
    dgp = intervened_scm(3, intervention, graph=CHAIN, mechanism="linear")

    @jax.jit
    def draw(key):
        world = dgp.init(key)
        return world, dgp.sample(jax.random.fold_in(key, 1), world, N)

    world, sample = draw(jax.random.key(0))
    return world, sample, np.asarray(sample.data.x, float).reshape(-1, N, 3)


KINDS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in ("perfect", "do")))
    for name in INTERVENTIONS
]


def slope(x, i, j):
    return np.polyfit(x[:, i], x[:, j], 1)[0]


@pytest.mark.parametrize("name", KINDS)
def test_what_is_not_a_target_keeps_its_mechanism_and_its_noise(name):
    """Slopes have standard errors under .06 where the cause varies; five of them."""
    world, _, x = drawn(name)
    w = np.asarray(world.mechanisms.linear)
    for e, target in enumerate(np.asarray(world.target)):
        for i, j in ((0, 1), (1, 2)):
            if not target[j] and not (name == "do" and target[i]):
                noise = x[e, :, j] - w[i, j] * x[e, :, i]
                assert abs(slope(x[e], i, j) - w[i, j]) < 0.3
                assert stats.kstest(noise, "norm").pvalue > 1e-4


@pytest.mark.parametrize("name", KINDS)
def test_targets_are_changed_as_the_kind_says(name):
    """Environment 2 intervenes on the middle of 0 -> 1 -> 2."""
    world, (data, truth), x = drawn(name)
    np.testing.assert_array_equal(truth.targets, np.eye(4, 3, -1))
    np.testing.assert_array_equal(data.given["target"], truth.targets)
    w, y = float(world.mechanisms.linear[0, 1]), x[2]
    if name == "do":
        assert (y[:, 1] == 2).all() and truth.log_prob is None
        return
    other = float(world.changed.linear[0, 1])
    assert (other not in (0, w)) == (name == "soft")
    # The standard normal that should be left once the change is undone.
    noise = {
        "perfect": y[:, 1] - 2,
        "shift": y[:, 1] - w * y[:, 0] - 2,
        "scale": (y[:, 1] - w * y[:, 0]) / 2,
        "soft": y[:, 1] - other * y[:, 0],
    }[name]
    assert stats.kstest(noise, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(y[:, 0], noise)[0, 1]) < 5 / N**0.5


@pytest.mark.parametrize("name", [kind for kind in KINDS if kind.values[0] != "do"])
def test_the_density_of_linear_worlds_is_the_gaussian_one(name):
    world, (_, truth), x = drawn(name)
    claimed = np.asarray(truth.log_prob).reshape(-1, N)
    for e in range(4):
        target = np.asarray(world.target[e]) > 0
        w = np.where(target, world.changed.linear, world.mechanisms.linear)
        effects = np.linalg.inv(np.eye(3) - w)
        mean, sd = np.asarray(world.mean[e], float), np.asarray(world.sd[e], float)
        law = stats.multivariate_normal(mean @ effects, (effects.T * sd**2) @ effects)
        np.testing.assert_allclose(claimed[e], law.logpdf(x[e]), rtol=1e-3, atol=1e-3)


def test_targets_may_be_several_and_unknown():
    targets = np.array([[1, 0, 1], [0, 0, 0]])
    dgp = intervened_scm(3, "shift", targets, mechanism="linear", known_targets=False)
    data, truth = jax.jit(lambda key: dgp.sample(key, dgp.init(key), 4))(jax.random.key(0))
    assert set(data.given) == {"count"} and data.given["count"].shape == (3,)
    np.testing.assert_array_equal(truth.targets[1:], targets)


def test_the_factory_refuses_what_makes_no_intervention():
    with pytest.raises(ValueError, match=r"has intervention 'perfect', 'do', .* got 'hard'"):
        intervened_scm(3, "hard")
    with pytest.raises(ValueError, match=r"targets of shape \(environments, 3\)"):
        intervened_scm(3, targets=jnp.eye(2))
    with pytest.raises(ValueError, match="needs strength > 0, got 0"):
        intervened_scm(3, "scale", strength=0.0)
