"""An outcome whose effects turn is predicted by its causes as before, and by nothing else."""

import jax
import numpy as np
import pytest

from crl.dgp.spurious import spurious_effects

N = 20_000


def drawn(**options):
    dgp = spurious_effects(2, 2, 3, **options)

    @jax.jit
    def draw(key):
        world = dgp.init(key)
        return world, dgp.sample(key, world, N), dgp.held_out(key, world, N)

    world, train, test = draw(jax.random.key(0))
    b = np.asarray(world.causal)

    def moments(sample):
        """Of each environment: sd of y - <b, c>, and the slopes of each effect on y."""
        found = []
        for e in range(len(sample.data.given["count"])):
            rows = np.asarray(sample.data.env) == e
            x, y = np.asarray(sample.data.x)[rows], np.asarray(sample.data.aux["y"])[rows]
            s = x[:, 2:]
            found.append([np.std(y - x[:, :2] @ b), *(s.T @ y / (y.T @ y)).ravel()])
        return np.array(found)

    return world, moments(train), moments(test)


@pytest.mark.parametrize("change", ["effects", "noise"])
def test_the_outcome_keeps_its_causes_and_loses_its_effects(change):
    """Slopes and sd of 20,000 rows have standard errors of .035 at most; four of them."""
    world, train, test = drawn(change=change)
    scales = [0.2, 0.4**0.5, 2] if change == "noise" else [1, 1, 1]
    np.testing.assert_allclose(train[:, 0], scales, rtol=0.03)
    np.testing.assert_allclose(train[:, 1:], world.effects, atol=0.14)
    np.testing.assert_allclose(test, [[1, -1, -1]], atol=0.05)
    assert np.ptp(world.effects, 0).min() > 0.3 or change == "noise"


def test_options_out_of_range_are_refused():
    for options, words in [({"change": "all"}, "'effects'"), ({"num_envs": 0}, "num_envs")]:
        with pytest.raises(ValueError, match=f"spurious_effects .*{words}"):
            spurious_effects(**options)
