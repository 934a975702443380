"""What a task draws: one world, rows to fit on, and other rows to judge on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.core import DGP, Sample, Task, Truth, draw, grouped, merit, metric


def marked(shift):
    """Rows of a world's number and a number of their own; ``shift`` tells the law."""

    def sample(key, world, n):
        own = jax.random.uniform(key, (2 * n,)) + shift
        return Sample(grouped(jnp.stack([jnp.full(2 * n, world), own], 1), (n, n)), Truth())

    return sample


def test_rows_to_judge_on_are_further_rows_of_the_world_that_was_fitted():
    dgp = DGP(jax.random.uniform, marked(0))
    train, test = draw(Task(dgp, 5, 7, {}), jax.random.key(0))
    assert train.data.given["count"].tolist() == [5, 5]
    assert test.data.given["count"].tolist() == [7, 7]
    worlds, rows = np.concatenate([train.data.x, test.data.x]).T
    assert len(np.unique(worlds)) == 1 and len(np.unique(rows)) == 24


def test_rows_to_judge_on_follow_the_law_held_out_where_there_is_one():
    dgp = DGP(jax.random.uniform, marked(0), held_out=marked(10))
    train, test = draw(Task(dgp, 5, 7, {}), jax.random.key(0))
    assert train.data.x[:, 1].max() < 1 and test.data.x[:, 1].min() >= 10
    assert len(np.unique(np.concatenate([train.data.x, test.data.x])[:, 0])) == 1


@pytest.mark.parametrize(
    "best, good, bad",
    [
        (1.0, 0.9, 0.2),
        (0.0, 0.1, 3.0),
        (0.0, -0.1, 3.0),
        (np.inf, -5.0, -7.0),
        (-np.inf, 2.0, 4.0),
    ],
)
def test_merit_is_larger_for_the_better_value(best, good, bad):
    judge = metric(best=best)(lambda claims, sample: 0.0)
    assert merit(judge, good) > merit(judge, bad)
