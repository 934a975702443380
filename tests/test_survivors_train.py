"""What went unnoticed when it was wrong: the last key of a fit, its last NaN, its data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import as_data, regression

import crl
from crl.check import check_data
from crl.core import Estimator, Readout
from crl.feed import hold_out

KEY = jax.random.key(0)
DATA = as_data(jax.random.normal(jax.random.key(1), (12, 3)))


def draws(num_steps):
    """An estimator whose fitted state is what each of its functions drew from its key."""

    def init(key, data):
        return {"init": jax.random.uniform(key), "step": jnp.zeros(num_steps), "at": 0}

    def step(key, state, batch):
        drawn = state["step"].at[state["at"]].set(jax.random.uniform(key))
        return {**state, "step": drawn, "at": state["at"] + 1}, {}

    def finish(key, state, data):
        return {**state, "finish": jax.random.uniform(key)}

    return Estimator(init, step, lambda fitted, data: Readout(z=data.x), num_steps, finish)


def test_init_finish_and_every_step_have_a_key_of_their_own():
    found = crl.fit(draws(5), KEY, DATA).state
    numbers = [found["init"], found["finish"], *found["step"], jax.random.uniform(KEY)]
    assert len(np.unique(np.asarray(numbers))) == 8


def nan_in_finish():
    """NaN where the first entry of x is positive, and nowhere before the end."""
    sound = regression(3)

    def finish(key, state, data):
        return jnp.where(data.x[0, 0] > 0, jnp.nan, state.w)

    return sound._replace(finish=finish)


def test_a_fit_that_finish_turns_to_nan_has_diverged():
    signs = jnp.array([1.0, -1.0, 1.0])
    data = jax.vmap(lambda sign: DATA._replace(x=DATA.x.at[0, 0].set(sign)))(signs)
    keys = jax.random.split(KEY, 3)
    fit = crl.fit_replicas(nan_in_finish(), keys, data)
    assert fit.diverged.tolist() == [True, False, True]
    assert (fit.num_steps == 3).all()
    alone = crl.fit(nan_in_finish(), keys[0], jax.tree.map(lambda a: a[0], data))
    assert alone.diverged


@pytest.mark.filterwarnings("ignore:step . of")
@pytest.mark.parametrize(
    "other",
    [
        DATA._replace(x=DATA.x.at[0, 0].add(1e-3)),
        DATA._replace(
            given={**DATA.given, "count": DATA.given["count"] + 0, "graph": jnp.eye(3)}
        ),
        DATA._replace(aux={"y": DATA.x[:, :1]}),
    ],
    ids=["x", "given", "aux"],
)
def test_a_fit_never_resumes_on_other_data(tmp_path, other):
    crl.fit(regression(4), KEY, DATA, checkpoint=tmp_path, chunk_size=2)
    with pytest.raises(ValueError, match="other data"):
        crl.fit(regression(8), KEY, other, checkpoint=tmp_path, chunk_size=2)


def test_rows_held_out_stay_with_their_environment():
    x = jnp.arange(120.0)[:, None] * jnp.ones(2)
    data = as_data(x, 3)  # 40 rows each
    rest = hold_out(data, 0.1)
    check_data(rest._replace(held=None))
    check_data(rest.held)
    for part in (rest, rest.held):
        np.testing.assert_array_equal(part.env, part.x[:, 0] // 40)
    rows = np.concatenate([rest.x[:, 0], rest.held.x[:, 0]])
    np.testing.assert_array_equal(np.sort(rows), np.arange(120))
    np.testing.assert_array_equal(rest.held.given["count"], [4, 4, 4])
