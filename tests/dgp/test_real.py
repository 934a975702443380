import sys

import jax
import numpy as np
import pytest

from crl.check import as_data, check_data
from crl.core import Task, draw
from crl.dgp.real import digits, from_arrays


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
        (dict(x=np.array([[1.0, np.nan], [0, 0]])), "expected finite x"),
    ],
)
def test_as_data_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        as_data(**arguments)


MIXED = np.array([7, 3] * 8 + [3] * 16)  # interleaved environments of 8 and 24 rows
ROWS = np.arange(32.0, dtype=np.float32)


def interleaved(**options):
    x = ROWS[:, None] * np.ones(3, np.float32)
    aux, given = {"time": ROWS}, {"graph": np.eye(3)}
    return from_arrays(x, MIXED, aux, given, z=10 * x, graph=np.eye(3), **options)


def test_no_row_is_ever_in_both_parts_though_environments_are_interleaved():
    """One world, many draws: what is fitted on and what is judged on stay apart."""
    dgp = interleaved()
    world = dgp.init(jax.random.key(0))

    def rows(law, n):
        draws = [law(jax.random.key(i), world, n).data for i in range(20)]
        for data in draws:
            values = np.asarray(data.x[:, 0], int)
            np.testing.assert_array_equal(MIXED[values], np.repeat([3, 7], n))
            assert len(set(values)) == 2 * n  # without replacement
        return {int(v) for data in draws for v in data.x[:, 0]}

    fitted, judged = rows(dgp.sample, 4), rows(dgp.held_out, 2)
    assert not fitted & judged
    # A quarter of 8 and of 24 rows; 20 draws of a sixth of the rest miss some of it.
    assert len(judged) == 2 + 6 and 20 <= len(fitted) <= 24
    other = dgp.init(jax.random.key(1))
    apart = {int(v) for v in dgp.held_out(jax.random.key(0), other, 2).data.x[:, 0]}
    assert not apart <= judged  # another world sets others apart


def test_all_that_belongs_to_a_row_stays_with_it():
    dgp = interleaved()
    train, test = draw(Task(dgp, 6, 2, {}), jax.random.key(0))
    for sample, n in ((train, 6), (test, 2)):
        data, truth = sample
        check_data(data)
        rows = np.asarray(data.x[:, 0], int)
        np.testing.assert_array_equal(data.env, np.repeat([0, 1], n))
        np.testing.assert_array_equal(data.given["count"], [n, n])
        np.testing.assert_array_equal(data.given["graph"], np.eye(3))
        np.testing.assert_array_equal(data.aux["time"], rows)
        np.testing.assert_array_equal(truth.z[:, 0], 10 * rows)
        assert truth.graph.shape == (3, 3)


def test_the_share_to_judge_on_is_an_option():
    dgp = interleaved(test=0.5)
    world = dgp.init(jax.random.key(0))
    dgp.held_out(jax.random.key(0), world, 4)
    with pytest.raises(
        ValueError, match="at most 4 rows per environment to judge on, got n=5"
    ):
        dgp.held_out(jax.random.key(0), world, 5)
    with pytest.raises(ValueError, match="at most 4 rows per environment to fit on, got n=5"):
        dgp.sample(jax.random.key(0), world, 5)
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="0 < test < 1"):
            interleaved(test=share)
    with pytest.raises(ValueError, match=r"two rows or more .* \[3, 1\] rows"):
        from_arrays(np.zeros((4, 2)), env=[0, 0, 0, 1])


def test_from_arrays_refuses_truth_it_cannot_place():
    with pytest.raises(ValueError, match="did you mean 'graph'"):
        from_arrays(np.zeros((4, 2)), grpah=np.eye(2))
    with pytest.raises(ValueError, match="expected z with 4 rows"):
        from_arrays(np.zeros((4, 2)), z=np.zeros((3, 2)))


def test_digits_are_scaled_and_no_image_is_fitted_and_judged_on():
    dgp = digits()
    train, test = draw(Task(dgp, 1348, 449, {}), jax.random.key(0))
    x = np.concatenate([train.data.x, test.data.x])
    assert x.shape == (1797, 64) and x.min() == 0 and x.max() == 1
    assert len({row.tobytes() for row in x}) == 1797  # no image comes twice
    np.testing.assert_array_equal(train.data.aux["y"].sum(1), 1)


def test_digits_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'crl\[data\]'"):
        digits()
