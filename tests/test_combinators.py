"""Estimators made of estimators, checked against their parts done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import as_data, explode, pca, regression

import crl
from crl.combinators import best_checkpoint, minibatch, restarts, then
from crl.core import Data, Estimator, Readout

KEY = jax.random.key(0)
DATA = as_data(jax.random.normal(jax.random.key(1), (40, 5)), num_envs=2)
ONE = as_data(DATA.x)


def rotation(num_steps=3):
    """Scales the codes by their largest entry, one step a direction; claims all it can."""

    def init(key, data):
        return jnp.ones(data.x.shape[1])

    def step(key, scale, data):
        return jnp.max(jnp.abs(data.x), axis=0), {"loss": jnp.zeros(())}

    def readout(scale, data):
        return Readout(
            z=data.x / scale,
            x=data.x,
            graph=jnp.eye(len(scale)),
            unmixing=jnp.diag(1 / scale),
            jacobian=jnp.broadcast_to(jnp.diag(scale), (3, len(scale), len(scale))),
            log_prob=data.x[:, 0],
            diag={"scale": scale[0]},
        )

    return Estimator(init, step, readout, num_steps)


# --- then -------------------------------------------------------------------------------


def test_then_is_the_second_stage_fitted_on_the_codes_of_the_first():
    both = then(pca(2), rotation())
    out = crl.readout(both, crl.fit(both, KEY, ONE).state, ONE)

    first = crl.fit(pca(2), KEY, ONE)
    codes = crl.readout(pca(2), first.state, ONE)
    inner = Data(codes.z, ONE.env, ONE.aux)
    second = crl.readout(rotation(), crl.fit(rotation(), KEY, inner).state, inner)
    np.testing.assert_allclose(out.z, second.z, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out.graph, second.graph)
    assert out.diag["postprocess_steps"] == 3 and not out.diag["postprocess_diverged"]
    assert out.diag["rank"] == 2 and out.diag["scale"] == second.diag["scale"]


def test_then_claims_on_observations_are_about_observations():
    both = then(pca(2), rotation())
    out = crl.readout(both, crl.fit(both, KEY, ONE).state, ONE)
    # The second stage reconstructs codes; x is the first stage's, in data space.
    assert out.x.shape == ONE.x.shape and out.log_prob is None
    # z is linear in x here, so the chained unmixing and Jacobian are exact.
    np.testing.assert_allclose(ONE.x @ out.unmixing.T, out.z, atol=1e-5)
    # The one row of a linear stage stands for all: three rows, as of the other stage.
    assert out.jacobian.shape == (3, 5, 2)
    for jacobian in out.jacobian:
        np.testing.assert_allclose(out.z @ jacobian.T, out.x, atol=1e-5)
    twice = then(pca(3), pca(2))
    out = crl.readout(twice, crl.fit(twice, KEY, ONE).state, ONE)
    assert out.jacobian.shape == (1, 5, 2)
    np.testing.assert_allclose(out.jacobian[0], out.unmixing.T, atol=1e-5)


def test_then_steps_the_first_stage_and_leaves_the_second_zero_until_finish():
    both = then(regression(30), rotation())
    data = ONE
    state = both.init(KEY, data)
    state, _ = both.step(KEY, state, data)
    assert both.num_steps == 30 and not np.any(state.postprocess.state)
    state = both.finish(KEY, state, data)
    assert np.all(np.asarray(state.postprocess.state) > 0)


@pytest.mark.parametrize("sign", [-1, 1])
def test_then_tells_when_the_second_stage_diverges(sign):
    identity = pca(2)._replace(readout=lambda v, data: Readout(z=data.x))
    both = then(identity, explode(9, at=4))  # diverges where x[0, 0] > 0
    data = as_data(sign * jnp.ones((40, 5)))
    out = crl.readout(both, crl.fit(both, KEY, data).state, data)
    assert out.diag["postprocess_diverged"] == (sign == 1)
    assert out.diag["postprocess_steps"] == (4 if sign == 1 else 9)


def test_then_needs_a_first_stage_that_claims_codes():
    silent = pca(2)._replace(readout=lambda v, data: Readout(x=data.x))
    with pytest.raises(ValueError, match="claims z or codes, got neither"):
        crl.fit(then(silent, rotation()), KEY, ONE)


def test_then_validates_as_its_first_stage():
    def validate(data):
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        crl.fit(then(pca(2)._replace(validate=validate), rotation()), KEY, ONE)


# --- minibatch --------------------------------------------------------------------------


def spy():
    """Its state is what the last step saw."""

    def init(key, data):
        return jnp.zeros((4,)), jnp.zeros((4,), jnp.int32)

    def step(key, state, data):
        return (data.x[:, 0], data.env), {"rows": jnp.float32(len(data.x))}

    return Estimator(init, step, lambda s, d: Readout(z=d.x), 200)


def test_a_minibatch_has_equally_many_rows_of_each_environment_in_order():
    data = as_data(jnp.arange(80.0).reshape(40, 2), num_envs=2)
    estimator = minibatch(spy(), 4, num_envs=2)
    step = jax.jit(estimator.step)
    seen = []
    for t in range(200):
        (x, env), info = step(jax.random.key(t), estimator.init(KEY, data), data)
        assert env.tolist() == [0, 0, 1, 1] and info["rows"] == 4
        assert (np.asarray(x) // 40 == env).all()
        seen.append(x)
    # 800 draws over 40 rows: all are seen; a row is missed with probability 40 e^-20.
    assert len(np.unique(seen)) == 40


def test_minibatch_steps_reach_what_full_batches_reach():
    full = crl.fit(regression(400), KEY, ONE).state
    mini = crl.fit(minibatch(regression(400), 20), KEY, ONE).state
    loss = jax.jit(lambda w: jnp.mean((ONE.x @ w - 1) ** 2))
    assert loss(mini) < 1.15 * loss(full)  # 1.06 seen with this key


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: minibatch(spy(), 0), "positive multiple"),
        (lambda: minibatch(spy(), 5, num_envs=2), "multiple of num_envs=2, got 5"),
        (
            lambda: crl.fit(minibatch(spy(), 4), KEY, DATA),
            "40 rows of 2: pass num_envs",
        ),
        (lambda: restarts(spy(), 0, near(1)), "num >= 1"),
        (lambda: restarts(spy(), 2, near(1), holdout=0.0), "holdout in"),
        (lambda: restarts(spy(), 2, near(1), holdout=0.9), "holdout in"),
        (lambda: best_checkpoint(spy(), near(1), every=0), "every >= 1"),
        (
            lambda: crl.fit(restarts(spy(), 2, near(1), holdout=0.02), KEY, ONE),
            "at least 50 rows per environment to hold out 0.02",
        ),
    ],
)
def test_a_wrong_call_is_answered_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# --- restarts ---------------------------------------------------------------------------


def wells(num_steps=60):
    """Descends (w^2 - 1)^2: ends at -1 or 1, as the initial sign has it."""

    def init(key, data):
        return jax.random.normal(key, ())

    def step(key, w, data):
        loss, grad = jax.value_and_grad(lambda w: (w * w - 1) ** 2)(w)
        return w - 0.05 * grad, {"loss": loss, "converged": jnp.abs(grad) < 1e-4}

    return Estimator(init, step, lambda w, d: Readout(z=d.x * w), num_steps)


def near(w):
    """A score: minus the distance of the state's z from w x."""
    return lambda out, data: -jnp.mean((out.z - w * data.x) ** 2)


@pytest.mark.parametrize("best", [-1, 1])
def test_the_restart_with_the_best_score_wins(best):
    estimator = restarts(wells(), 8, near(best))
    fit = crl.fit(estimator, KEY, ONE)
    ends = np.sign(fit.state.lanes.state)
    assert {-1, 1} == set(ends.tolist())  # both wells were found
    out = crl.readout(estimator, fit.state, ONE)
    np.testing.assert_allclose(out.z, best * ONE.x, atol=1e-3)
    assert fit.converged and fit.num_steps < 60
    np.testing.assert_allclose(out.diag["score"], 0, atol=1e-5)


def fragile():
    """NaN for the restarts that start below zero, unless all do."""

    def init(key, data):
        w = jax.random.normal(key, ())
        return jnp.where(w < 0, jnp.nan, w)

    return wells()._replace(init=init)


def test_restarts_that_diverge_lose_and_the_fit_goes_on():
    estimator = restarts(fragile(), 8, near(-1))
    fit = crl.fit(estimator, KEY, ONE)
    out = crl.readout(estimator, fit.state, ONE)
    assert not fit.diverged and 0 < out.diag["num_diverged"] < 8
    np.testing.assert_allclose(out.z, ONE.x, atol=1e-3)


def test_the_fit_diverges_when_all_restarts_do():
    def init(key, data):
        return jnp.float32(jnp.nan)

    at_once = crl.fit(restarts(wells()._replace(init=init), 3, near(1)), KEY, ONE)
    later = crl.fit(restarts(explode(9, at=4), 3, near(1)), KEY, as_data(jnp.ones((20, 2))))
    assert at_once.diverged and later.diverged
    assert later.num_steps == 4


def test_restarts_that_diverge_after_the_others_converged_lose():
    def step(key, state, data):
        count, u = state
        good = u < 0.5  # these converge at the third step, the others diverge at the fifth
        new = jnp.where(good, jnp.minimum(count + 1, 3), count + 1)
        new = jnp.where(~good & (count >= 4), jnp.nan, new)
        return jnp.stack([new, u]), {"loss": new, "converged": good & (count >= 2)}

    def init(key, data):
        return jnp.stack([jnp.zeros(()), jax.random.uniform(key)])

    inner = Estimator(init, step, lambda state, data: Readout(z=data.x * state[0]), 20)
    fit = crl.fit(restarts(inner, 4, near(3)), KEY, ONE)
    lanes = fit.state.lanes
    assert 0 < lanes.diverged.sum() < 4 and (lanes.diverged | lanes.converged).all()
    assert fit.converged and not fit.diverged and fit.num_steps == 5
    scores = np.where(lanes.diverged, -np.inf, 0)
    np.testing.assert_allclose(fit.state.scores, scores, atol=1e-6)
    # The restarts that converged keep their part of the mean; at last they are alone.
    np.testing.assert_array_equal(fit.trace["loss"][:5], [1, 2, 3, 3.5, 3])


def test_all_restarts_diverge_without_a_word_in_info():
    silent = explode(9, at=4)
    silent = silent._replace(step=lambda *args: (explode(9, at=4).step(*args)[0], {}))
    fit = crl.fit(restarts(silent, 3, near(1)), KEY, as_data(jnp.ones((20, 2))))
    assert fit.diverged and fit.num_steps == 4


def test_without_a_score_a_restart_that_lives_is_read_out():
    estimator = restarts(fragile(), 8, lambda out, data: jnp.nan)
    fit = crl.fit(estimator, KEY, ONE)
    assert fit.state.lanes.diverged[0] and not fit.diverged
    np.testing.assert_allclose(crl.readout(estimator, fit.state, ONE).z, ONE.x, atol=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3, 0.4, 0.5])
def test_the_share_held_out_is_the_share_asked_for(share):
    sizes = []

    def score(out, held):
        sizes.append(len(held.x))
        return 0.0

    data = as_data(jnp.zeros((200, 2)), num_envs=2)
    crl.fit(restarts(pca(1), 1, score, share, num_envs=2), KEY, data)
    assert set(sizes) == {200 * share}


def test_held_out_rows_are_not_fitted_and_are_every_tenth_of_each_environment():
    data = as_data(jnp.arange(40.0)[:, None] * jnp.ones(2), num_envs=2)
    seen = []

    def step(key, state, data):
        return state, {"loss": jnp.sum(data.x[:, 0]), "rows": jnp.float32(len(data.x))}

    def score(out, held):
        seen.append(held.x.shape)
        return jnp.sum(held.x[:, 0]) + 0 * out.z[0, 0]

    counter = wells(2)._replace(step=step)
    for combined in (
        restarts(counter, 1, score, num_envs=2),
        best_checkpoint(counter, score, 1, num_envs=2),
    ):
        fit = crl.fit(combined, KEY, data)
        held = 9 + 19 + 29 + 39
        assert fit.trace["rows"][0] == 36 and fit.trace["loss"][0] == 780 - held
        assert crl.readout(combined, fit.state, data).diag["score"] == held
    assert set(seen) == {(4, 2)}


# --- best_checkpoint --------------------------------------------------------------------


def test_the_best_state_on_the_way_is_kept():
    # Counts 0, 1, 2, ...; the score is best at 12, looked at every 5 steps: 10 wins.
    estimator = best_checkpoint(explode(30, at=99), near(12), every=5)
    fit = crl.fit(estimator, KEY, as_data(jnp.ones((20, 2))), chunk_size=7)
    assert fit.state.best == 10 and fit.state.current == 30
    out = crl.readout(estimator, fit.state, as_data(jnp.ones((20, 2))))
    np.testing.assert_allclose(out.z, 10)
    assert out.diag["score"] == -4


def test_the_last_state_competes_and_a_nan_score_never_wins():
    def score(out, data):
        return jnp.where(out.z[0, 0] < 20, jnp.nan, out.z[0, 0])

    estimator = best_checkpoint(explode(23, at=99), score, every=5)
    fit = crl.fit(estimator, KEY, as_data(jnp.ones((20, 2))))
    assert fit.state.best == 23


def test_where_no_score_is_defined_the_last_state_is_kept():
    estimator = best_checkpoint(explode(23, at=99), lambda out, data: jnp.nan, every=5)
    fit = crl.fit(estimator, KEY, as_data(jnp.ones((20, 2))))
    assert fit.state.best == 23 and fit.state.score == -jnp.inf and not fit.diverged


def test_a_look_scores_what_will_be_read_out():
    # z = 1 until the second stage is fitted, then it is the count.
    counts = explode(12, at=99)._replace(readout=lambda c, data: Readout(z=c + 0 * data.x))
    second = Estimator(
        init=lambda key, data: jnp.ones(()),
        step=None,
        readout=lambda s, data: Readout(z=s * jnp.ones_like(data.x)),
        num_steps=0,
        finish=lambda key, s, data: data.x[0, 0],
    )
    estimator = best_checkpoint(then(counts, second), near(6), every=3)
    fit = crl.fit(estimator, KEY, as_data(jnp.ones((20, 2))))
    assert fit.state.score == 0 and fit.state.best.representation == 6
    out = crl.readout(estimator, fit.state, as_data(jnp.ones((20, 2))))
    np.testing.assert_array_equal(out.z, 6)


def test_the_winner_is_finished():
    estimator = explode(12, at=99)._replace(finish=lambda key, count, data: count + 0.5)
    fit = crl.fit(best_checkpoint(estimator, near(10), 5), KEY, as_data(jnp.ones((20, 2))))
    assert fit.state.best == 10.5


# --- together ---------------------------------------------------------------------------


def test_combinators_compose_and_replicas_map_them():
    def score(out, data):
        return -jnp.mean((out.y - 1) ** 2)

    estimator = then(restarts(minibatch(regression(15), 6), 2, score), rotation())
    data = jax.vmap(as_data)(jax.random.normal(jax.random.key(2), (2, 40, 5)))
    fit = crl.fit_replicas(estimator, jax.random.split(KEY, 2), data, chunk_size=8)
    assert fit.num_steps.tolist() == [15, 15] and not fit.diverged.any()
    assert fit.state.postprocess.step.tolist() == [3, 3]
    assert np.isfinite(fit.state.representation.scores).all()
