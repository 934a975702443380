import sys

import jax
import numpy as np
import pytest

from crl.core import split
from crl.dgp.real import as_data, digits, from_arrays


def test_as_data_renames_environments_and_casts():
    data = as_data(np.arange(8).reshape(4, 2), env=["a", "a", "b", "b"], aux={"y": np.ones(4)})
    assert data.x.dtype == np.float32
    np.testing.assert_array_equal(data.env, [0, 0, 1, 1])
    assert data.aux["y"].shape == (4,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(x=np.zeros(3)), "expected x of shape"),
        (dict(x=np.zeros((3, 2)), env=[0, 1]), "expected env with 3 rows"),
        (dict(x=np.zeros((4, 2)), env=[0, 1, 0, 1]), "grouped by environment"),
        (dict(x=np.zeros((3, 2)), env=[0, 0, 1]), r"same number .* got \[2, 1\]"),
        (dict(x=np.array([[1.0, np.nan], [0, 0]])), "expected finite x"),
    ],
)
def test_as_data_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        as_data(**arguments)


def test_from_arrays_draws_rows_once_and_keeps_them_together():
    x = np.arange(20.0, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    env = np.array([7, 3] * 6 + [3] * 8)  # mixed, 6 and 14 rows
    dgp = from_arrays(x, env, aux={"time": x[:, 0]}, z=10 * x, graph=np.eye(2))
    world = dgp.init(jax.random.key(0))
    data, truth = dgp.sample(jax.random.key(1), world, 6)
    rows = np.asarray(data.x[:, 0], int)
    assert len(set(rows)) == 12  # without replacement
    np.testing.assert_array_equal(data.env, [0] * 6 + [1] * 6)
    np.testing.assert_array_equal(env[rows], [3] * 6 + [7] * 6)
    np.testing.assert_array_equal(data.aux["time"], rows)
    np.testing.assert_array_equal(truth.z[:, 0], 10 * rows)
    np.testing.assert_array_equal(truth.x, data.x)
    assert truth.graph.shape == (2, 2)
    other = dgp.sample(jax.random.key(2), world, 6).data.x[:, 0]
    assert not np.array_equal(other, rows)
    with pytest.raises(ValueError, match="at most 6 rows per environment, got n=7"):
        dgp.sample(jax.random.key(1), world, 7)


def test_from_arrays_refuses_truth_it_cannot_place():
    with pytest.raises(ValueError, match="did you mean 'graph'"):
        from_arrays(np.zeros((4, 2)), grpah=np.eye(2))
    with pytest.raises(ValueError, match="expected z with 4 rows"):
        from_arrays(np.zeros((4, 2)), z=np.zeros((3, 2)))


def test_digits_are_all_there_scaled_and_split_without_overlap():
    dgp = digits()
    sample = dgp.sample(jax.random.key(0), dgp.init(jax.random.key(0)), 1797)
    assert sample.data.x.shape == (1797, 64)
    assert sample.data.x.min() == 0 and sample.data.x.max() == 1
    np.testing.assert_array_equal(sample.data.aux["y"].sum(1), 1)
    train, test = split(sample, 1797, 1500)
    assert train.data.x.shape == (1500, 64) and test.truth.x.shape == (297, 64)
    rows = {r.tobytes() for r in np.asarray(train.data.x)}
    assert not any(r.tobytes() in rows for r in np.asarray(test.data.x))


def test_digits_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'crl\[data\]'"):
        digits()
