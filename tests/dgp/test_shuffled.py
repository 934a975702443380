import jax
import numpy as np

from crl.core import Task, draw
from crl.dgp.scm import multi_environment_scm
from crl.dgp.shuffled import shuffled_columns


def test_shuffled_columns_keep_their_laws_and_nothing_else():
    chain = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    plain = multi_environment_scm(3, chain, mechanism="linear", num_envs=1)
    dgp = shuffled_columns(plain)
    train, test = jax.jit(lambda key: draw(Task(dgp, 4000, 4000, {}), key))(jax.random.key(0))
    before, after = np.corrcoef(test.data.x.T), np.corrcoef(train.data.x.T)
    assert abs(before[0, 1]) > 0.3 and abs(before[1, 2]) > 0.3
    assert np.abs(after - np.eye(3)).max() < 0.07
    np.testing.assert_allclose(train.data.x.std(0), test.data.x.std(0), rtol=0.08)
    np.testing.assert_array_equal(train.truth.graph, chain)
