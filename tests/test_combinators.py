"""Estimators made of estimators, checked against their parts done by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import as_data, explode, pca, regression

import crl
from crl import feed
from crl.combinators import best_checkpoint, descend, edge_confidence, restarts, then
from crl.core import Estimator, Readout, grouped, metric
from crl.feed import resample

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
    inner = ONE._replace(x=codes.z)
    second = crl.readout(rotation(), crl.fit(rotation(), KEY, inner).state, inner)
    np.testing.assert_allclose(out.z, second.z, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out.graph, second.graph)
    assert out.diag["postprocess.steps"] == 3 and not out.diag["postprocess.diverged"]
    assert out.diag["representation.rank"] == 2
    assert out.diag["postprocess.scale"] == second.diag["scale"]


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


def test_then_steps_the_first_stage_and_fits_the_second_in_finish():
    both = then(regression(30, batch_size=8, holdout=0.1), rotation())
    assert (both.num_steps, both.batch_size, both.holdout) == (30, 8, 0.1)
    fit = crl.fit(both, KEY, ONE)
    assert fit.trace["loss"].shape == (30,)
    assert fit.state.postprocess.step == 3 and np.all(fit.state.postprocess.state > 0)


def test_then_keeps_the_diagnostics_of_both_stages_apart():
    both = then(rotation(), rotation())
    diag = crl.readout(both, crl.fit(both, KEY, ONE).state, ONE).diag
    largest = np.abs(ONE.x[:, 0]).max()
    np.testing.assert_allclose(diag["representation.scale"], largest, rtol=1e-6)
    np.testing.assert_allclose(diag["postprocess.scale"], 1, rtol=1e-6)


def test_the_second_stage_holds_out_the_codes_of_the_rows_held_out():
    seen = []

    @metric(best=0.0)
    def score(claims, sample):
        seen.append(sample.data.x.shape)
        return jnp.zeros(())

    both = then(pca(2)._replace(holdout=0.25), restarts(rotation(), 1, score))
    crl.fit(both, KEY, ONE)
    assert set(seen) == {(10, 2)}


@pytest.mark.parametrize("sign", [-1, 1])
def test_then_tells_when_the_second_stage_diverges(sign):
    identity = pca(2)._replace(readout=lambda v, data: Readout(z=data.x))
    both = then(identity, explode(9, at=4))  # diverges where x[0, 0] > 0
    data = as_data(sign * jnp.ones((40, 5)))
    out = crl.readout(both, crl.fit(both, KEY, data).state, data)
    assert out.diag["postprocess.diverged"] == (sign == 1)
    assert out.diag["postprocess.steps"] == (4 if sign == 1 else 9)


def test_then_needs_a_first_stage_that_claims_codes():
    silent = pca(2)._replace(readout=lambda v, data: Readout(x=data.x))
    with pytest.raises(ValueError, match="claims z or codes, got neither"):
        crl.fit(then(silent, rotation()), KEY, ONE)


def test_then_validates_as_its_first_stage():
    def validate(data):
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        crl.fit(then(pca(2)._replace(validate=validate), rotation()), KEY, ONE)


# --- descend ----------------------------------------------------------------------------


class Descent(NamedTuple):
    params: jax.Array
    opt: optax.OptState
    target: jax.Array


def test_descend_writes_the_gradient_step_of_optax():
    optimizer = optax.adam(0.1)

    def loss(params, state, key, batch):
        noise = jax.random.normal(key, params.shape)
        value = jnp.mean((batch.x @ params - state.target) ** 2) + params @ noise
        return value, {"size": jnp.sum(params**2)}

    params = jnp.ones(5)
    state = Descent(params, optimizer.init(params), jnp.float32(2))
    new, info = descend(loss, optimizer)(KEY, state, ONE)
    value, grads = jax.value_and_grad(lambda p: loss(p, state, KEY, ONE)[0])(params)
    updates, opt = optimizer.update(grads, state.opt, params)
    np.testing.assert_allclose(new.params, params + updates, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), new.opt, opt)
    assert new.target == 2 and info["size"] == 5
    np.testing.assert_allclose(info["loss"], value, rtol=1e-6)


# --- wrong calls ------------------------------------------------------------------------


def unmarked(claims, sample):
    return jnp.zeros(())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: restarts(wells(), 0, near(1)), "restarts needs num an integer >= 1, got 0"),
        (lambda: best_checkpoint(wells(), near(1), every=0), "every an integer >= 1"),
        (
            lambda: crl.fit(restarts(wells()._replace(holdout=0.02), 2, near(1)), KEY, ONE),
            "at least 50 rows per environment to hold out 0.02",
        ),
        (
            lambda: crl.fit(restarts(wells(), 2, unmarked), KEY, ONE),
            "mark it with @crl.metric",
        ),
        (
            lambda: crl.fit(restarts(wells(), 2, metric(0.0)(lambda c, s: c.z)), KEY, ONE),
            r"score to return a scalar, got shape \(4, 5\)",
        ),
        (lambda: edge_confidence(correlated(), 0), "edge_confidence needs num an integer"),
        (lambda: edge_confidence(correlated(), 9, 0), "needs at_once an integer >= 1, got 0"),
        (
            lambda: crl.fit(edge_confidence(pca(2), 2), KEY, ONE),
            "expected an estimator that claims a graph, got none",
        ),
        (
            lambda: crl.fit(
                edge_confidence(correlated(), 2), KEY, ONE._replace(aux={"time": ONE.x[:, 0]})
            ),
            r"independent rows, got aux\['time'\]",
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

    def well(w):
        return (w * w - 1) ** 2

    def step(key, w, data):
        loss, grad = jax.value_and_grad(well)(w)
        return w - 0.05 * grad, {"loss": loss}

    return Estimator(
        init,
        step,
        lambda w, d: Readout(z=d.x * w),
        num_steps,
        converged=lambda w: jnp.abs(jax.grad(well)(w)) < 1e-4,
    )


def near(w):
    """A score: the distance of the claimed z from w x."""

    @metric(best=0.0)
    def distance(claims, sample):
        return jnp.mean((claims.z - w * sample.data.x) ** 2)

    return distance


@metric(best=1.0)
def undefined(claims, sample):
    return jnp.nan


@pytest.mark.parametrize("best", [-1, 1])
def test_the_restart_with_the_best_score_wins(best):
    estimator = restarts(wells(), 8, near(best))
    fit = crl.fit(estimator, KEY, ONE)
    assert len(np.unique(np.round(fit.state.scores, 3))) == 2  # both wells were found
    out = crl.readout(estimator, fit.state, ONE)
    np.testing.assert_allclose(out.z, best * ONE.x, atol=1e-3)
    assert fit.converged and fit.num_steps < 60
    np.testing.assert_allclose(out.diag["score"], 0, atol=1e-5)
    assert out.other["scores"].shape == (8,) and out.diag["num_without_score"] == 0


def test_a_likelihood_without_bound_is_better_the_larger():
    @metric(best=jnp.inf)
    def larger(claims, sample):
        return jnp.mean(claims.z / sample.data.x)

    estimator = restarts(wells(), 8, larger)
    out = crl.readout(estimator, crl.fit(estimator, KEY, ONE).state, ONE)
    np.testing.assert_allclose(out.z, ONE.x, atol=1e-3)


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
    assert not fit.diverged and 0 < out.diag["num_without_score"] < 8
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
        count, u, _ = state
        good = u < 0.5  # these converge at the third step, the others diverge at the fifth
        new = jnp.where(good, jnp.minimum(count + 1, 3), count + 1)
        loss = jnp.where(~good & (count >= 4), jnp.nan, new)
        return jnp.stack([new, u, good & (count >= 2)]), {"loss": loss}

    def init(key, data):
        return jnp.stack([jnp.zeros(()), jax.random.uniform(key), jnp.zeros(())])

    inner = Estimator(
        init,
        step,
        lambda state, data: Readout(z=data.x * state[0]),
        20,
        converged=lambda state: state[2] > 0,
    )
    fit = crl.fit(restarts(inner, 4, near(3)), KEY, ONE)
    assert 0 < fit.state.has_score.sum() < 4
    assert fit.converged and not fit.diverged and fit.num_steps == 5
    np.testing.assert_allclose(fit.state.scores[fit.state.has_score], 0, atol=1e-6)
    # The restarts that converged keep their part of the mean; at last they are alone.
    np.testing.assert_array_equal(fit.trace["loss"][:5], [1, 2, 3, 3.5, 3])


def test_all_restarts_diverge_without_a_word_in_info():
    silent = explode(9, at=4)
    silent = silent._replace(step=lambda *args: (explode(9, at=4).step(*args)[0], {}))
    fit = crl.fit(restarts(silent, 3, near(1)), KEY, as_data(jnp.ones((20, 2))))
    assert fit.diverged


def test_without_a_score_a_restart_that_lives_is_read_out():
    estimator = restarts(fragile(), 8, undefined)
    fit = crl.fit(estimator, KEY, ONE)
    assert not fit.state.has_score.any() and not fit.diverged
    np.testing.assert_allclose(crl.readout(estimator, fit.state, ONE).z, ONE.x, atol=1e-3)


def test_held_out_rows_are_not_fitted_and_are_every_tenth_of_each_environment():
    data = as_data(jnp.arange(40.0)[:, None] * jnp.ones(2), num_envs=2)
    seen = []

    def step(key, state, data):
        return state, {"loss": jnp.sum(data.x[:, 0]), "rows": jnp.float32(len(data.x))}

    @metric(best=jnp.inf)
    def score(claims, sample):
        seen.append(sample.data.x.shape)
        return jnp.sum(sample.data.x[:, 0]) + 0 * claims.z[0, 0]

    counter = wells(2)._replace(step=step)
    for combined in (restarts(counter, 1, score), best_checkpoint(counter, score, 1)):
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
    assert fit.state.fitted == 10
    out = crl.readout(estimator, fit.state, as_data(jnp.ones((20, 2))))
    np.testing.assert_allclose(out.z, 10)
    assert out.diag["score"] == 4


def test_the_last_state_competes_and_a_nan_score_never_wins():
    @metric(best=jnp.inf)
    def score(claims, sample):
        return jnp.where(claims.z[0, 0] < 20, jnp.nan, claims.z[0, 0])

    estimator = best_checkpoint(explode(23, at=99), score, every=5)
    fit = crl.fit(estimator, KEY, as_data(jnp.ones((20, 2))))
    assert fit.state.fitted == 23


def test_where_no_score_is_defined_the_last_state_is_kept():
    estimator = best_checkpoint(explode(23, at=99), undefined, every=5)
    fit = crl.fit(estimator, KEY, as_data(jnp.ones((20, 2))))
    assert fit.state.fitted == 23 and fit.state.score == -jnp.inf and not fit.diverged


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
    assert fit.state.score == 0 and fit.state.fitted.representation == 6
    out = crl.readout(estimator, fit.state, as_data(jnp.ones((20, 2))))
    np.testing.assert_array_equal(out.z, 6)


def test_the_winner_is_finished():
    estimator = explode(12, at=99)._replace(finish=lambda key, count, data: count + 0.5)
    fit = crl.fit(best_checkpoint(estimator, near(10), 5), KEY, as_data(jnp.ones((20, 2))))
    assert fit.state.fitted == 10.5


# --- edge_confidence --------------------------------------------------------------------


def correlated(num_steps=4, **options):
    """An edge i -> j, i < j, where a noisy average over steps of their products is large.

    Steps see batches and draw noise of their own: nothing of a fit may be forgotten.
    """

    def init(key, data):
        d = data.x.shape[1]
        return 0.1 * jax.random.normal(key, (d, d), data.x.dtype)

    def step(key, state, batch):
        x = batch.x - batch.x.mean(0)
        noise = 0.1 * jax.random.normal(key, state.shape, state.dtype)
        return state + x.T @ x / len(x) + noise, {"loss": jnp.sum(state)}

    def readout(state, data):
        return Readout(graph=jnp.triu(jnp.abs(state) / num_steps > 0.1, 1).astype(int))

    return Estimator(init, step, readout, num_steps, **options)


@pytest.mark.parametrize(
    ("learner", "at_once"),
    [(correlated(), None), (correlated(batch_size=30, holdout=0.1), 3)],
    ids=["all rows, one by one", "batches, three at once"],
)
def test_edge_confidence_is_a_loop_of_fits_over_the_same_resamples(learner, at_once):
    confident = edge_confidence(learner, 8, at_once)
    fit = crl.fit(confident, KEY, DATA)
    found = crl.readout(confident, fit.state, DATA).edge_prob

    data = feed.hold_out(DATA, learner.holdout)
    key = jax.random.fold_in(jax.random.fold_in(KEY, 2**31 - 2), 8)
    graphs = []
    for each in jax.random.split(key, 8):
        key_rows, key_fit = jax.random.split(each)
        alone = crl.fit(learner, key_fit, resample(key_rows, data))
        graphs.append(crl.readout(learner, alone.state, DATA).graph)
    np.testing.assert_allclose(found, np.mean(graphs, 0), atol=1e-6)
    assert 0 < np.mean((found > 0) & (found < 1))  # some edges are in doubt


def test_edge_confidence_claims_all_else_as_the_fit_on_all_rows():
    confident, fit = edge_confidence(correlated(), 2), crl.fit(correlated(), KEY, DATA)
    both = crl.fit(confident, KEY, DATA)
    np.testing.assert_array_equal(both.state.fitted, fit.state)
    np.testing.assert_array_equal(both.trace["loss"], fit.trace["loss"])
    out = crl.readout(confident, both.state, DATA)
    np.testing.assert_array_equal(out.graph, crl.readout(correlated(), fit.state, DATA).graph)


def test_a_resample_draws_the_rows_of_each_environment_from_it():
    """Of 300 rows 1 - 1/e are drawn at least once: 190 +- 8, five standard errors of it."""
    x = np.arange(400.0, dtype=np.float32)[:, None]
    held = grouped(1000 + x[:20], [10, 10])
    drawn = resample(KEY, grouped(x, [100, 300])._replace(held=held))
    np.testing.assert_array_equal(drawn.given["count"], [100, 300])
    np.testing.assert_array_equal(drawn.env, np.repeat([0, 1], [100, 300]))
    base, other = np.asarray(drawn.x[:100, 0]), np.asarray(drawn.x[100:, 0])
    assert base.max() < 100 <= other.min() and other.max() < 400
    assert abs(len(set(other)) - 300 * (1 - np.exp(-1))) < 40
    assert drawn.held.x.min() >= 1000 and drawn.held.env.tolist() == [0] * 10 + [1] * 10


def test_replicates_that_diverge_do_not_count():
    # Diverges where the first row drawn is one of those above zero: about half of them.
    fragile = explode(9, at=4)._replace(readout=lambda c, data: Readout(graph=jnp.eye(5)))
    confident = edge_confidence(fragile, 20)
    data = as_data(DATA.x.at[0].set(-1))  # all rows: lives
    fit = crl.fit(confident, KEY, data)
    out = crl.readout(confident, fit.state, data)
    assert not fit.diverged and 0 < out.diag["num_lost"] < 20
    np.testing.assert_array_equal(out.edge_prob, np.eye(5))


# --- together ---------------------------------------------------------------------------


def looks(estimator):
    """The score of every step on its held-out rows, in the trace."""

    def step(key, state, batch):
        state, info = estimator.step(key, state, batch)
        return state, {**info, "judged_on": jnp.sum(batch.held.x)}

    return estimator._replace(step=step)


def test_over_a_stream_all_looks_are_at_the_same_held_rows():
    held = as_data(jnp.full((3, 5), 2.0))
    example = as_data(ONE.x[:8])._replace(held=held)

    def read(start, num, size):
        keys = jax.random.split(jax.random.key(start), num)
        return jax.vmap(lambda key: as_data(jax.random.normal(key, (size, 5))))(keys)

    estimator = best_checkpoint(looks(regression(12, batch_size=4)), near(0), every=2)
    fit = crl.fit(estimator, KEY, crl.Stream(example, read), chunk_size=5)
    assert fit.trace["judged_on"].tolist() == [30.0] * 12 and not fit.diverged


def test_combinators_compose_and_replicas_map_them():
    @metric(best=0.0)
    def score(claims, sample):
        return jnp.mean((claims.y - 1) ** 2)

    estimator = then(restarts(regression(15, batch_size=6), 2, score), rotation())
    data = jax.vmap(as_data)(jax.random.normal(jax.random.key(2), (2, 40, 5)))
    fit = crl.fit_replicas(estimator, jax.random.split(KEY, 2), data, chunk_size=8)
    assert fit.num_steps.tolist() == [15, 15] and not fit.diverged.any()
    assert fit.state.postprocess.step.tolist() == [3, 3]
    assert np.isfinite(fit.state.representation.scores).all()
