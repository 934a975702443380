"""What a world tells of itself that went unnoticed when it was wrong."""

import jax
import numpy as np
from scipy import stats

from crl.dgp.scm import multi_environment_scm
from crl.dgp.superposition import superposition
from crl.numerics.graphs import transitive_closure


def drawn(dgp, n):
    @jax.jit
    def draw(key):
        world = dgp.init(key)
        return world, dgp.sample(jax.random.fold_in(key, 1), world, n)

    return draw(jax.random.key(0))


def test_affected_are_the_descendants_of_the_variable_that_is_set():
    chain = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    _, (data, truth) = drawn(multi_environment_scm(3, chain, mechanism="linear"), 100)
    expected = {0: [False, True, True], 1: [False, False, True], 2: [False, False, False]}
    nodes = np.argmax(np.asarray(data.aux["do_mask"]), 1)
    for node, row in zip(nodes, np.asarray(truth.affected)):
        assert row.tolist() == expected[node]
    np.testing.assert_array_equal(transitive_closure(chain)[0], expected[0])


def test_the_density_is_that_of_the_noises_over_the_volume_of_the_mixing():
    dgp = multi_environment_scm(2, mechanism="lsnm", edges_per_node=1.0)
    world, (data, truth) = drawn(dgp, 30)
    jacobian = jax.vmap(jax.jacfwd(dgp.mix, argnums=1), (None, 0))(world, truth.z)
    volume = np.log(np.abs(np.linalg.det(np.asarray(jacobian, float))))
    assert np.abs(volume).max() > 0.1  # of some rows, or there is nothing to see
    sd, mean = (np.asarray(a)[np.asarray(data.env)] for a in (world.sd, world.mean))
    noises = stats.norm.logpdf(np.asarray(truth.z, float), mean, sd).sum(1)
    np.testing.assert_allclose(truth.log_prob, noises - volume, atol=1e-3)


def test_common_atoms_come_first_and_amplitudes_do_not_depend_on_the_support():
    _, (_, truth) = drawn(superposition(4, 6, 2, zipf=1.0), 4000)
    codes = np.asarray(truth.codes)
    rate = (codes > 0).mean(0)
    assert (np.diff(rate) < 0).all(), rate
    _, (_, truth) = drawn(superposition(4, 6, 2), 4000)
    codes = np.asarray(truth.codes)
    # In U(.5, 1.5) the mean over about 1333 rows has sd .008; five of them.
    means = [column[column > 0].mean() for column in codes.T]
    np.testing.assert_allclose(means, 1.0, atol=0.04)
    first, second = np.sort(codes, axis=1)[:, -1], np.sort(codes, axis=1)[:, -2]
    # Of two independent uniform numbers the larger has mean 7/6, the smaller 5/6.
    np.testing.assert_allclose([first.mean(), second.mean()], [7 / 6, 5 / 6], atol=0.02)
    pairs = np.array([row[row > 0] for row in codes])  # by the atom's index, not by size
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 5 / 4000**0.5
