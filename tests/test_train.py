"""The host loop: chunks, traces, convergence, divergence, resume, signals, streams."""

import functools
import logging
import os
import pathlib
import signal
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import as_data, explode, pca, regression

import crl
from crl import feed, loop, train
from crl.core import Estimator, Readout
from crl.dgp.latent import mixed_sources
from crl.dgp.mixings import linear
from crl.dgp.sources import laplace, uniform

KEY = jax.random.key(0)
DATA = as_data(jax.random.normal(jax.random.key(1), (40, 5)))
THREE = as_data(DATA.x[:39], num_envs=3)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def after_step(monkeypatch):
    """Calls a function once, right after the checkpoint of a given step was written."""

    def at(step, call):
        real = train._save

        def saving(directory, identity, done, *rest):
            real(directory, identity, done, *rest)
            if done == step:
                call()

        monkeypatch.setattr(train, "_save", saving)

    yield at


def plain_loop(estimator, num_steps, batch_of):
    """The steps by hand, batch t from ``batch_of(key, t)``: the state and the losses."""
    state, losses = estimator.init(jax.random.fold_in(KEY, 2**31 - 1), DATA), []
    step = jax.jit(estimator.step)
    for t in range(num_steps):
        key_batch, key_step = jax.random.split(jax.random.fold_in(KEY, t))
        state, info = step(key_step, state, batch_of(key_batch, t))
        losses.append(info["loss"])
    return state, losses


def test_fit_is_the_plain_loop_over_steps():
    fit = crl.fit(regression(12), KEY, DATA, chunk_size=5)
    state, losses = plain_loop(regression(12), 12, lambda key, t: DATA)
    np.testing.assert_allclose(fit.state, state.w, rtol=1e-5)
    np.testing.assert_allclose(fit.trace["loss"], losses, rtol=1e-5)
    assert fit.num_steps == 12 and not fit.converged and not fit.diverged


@pytest.mark.parametrize("tol", [None, 1e-3])
def test_the_chunk_size_changes_no_bit(tol):
    estimator = regression(70, tol=tol)
    fits = [crl.fit(estimator, KEY, DATA, chunk_size=size) for size in (23, 70)]
    assert_same(*fits)
    assert fits[0].trace["loss"].shape == (70,)


def test_a_fit_stops_when_the_estimator_has_converged():
    fit = crl.fit(regression(10_000, tol=1e-3), KEY, DATA, chunk_size=30)
    done = int(fit.num_steps)
    assert fit.converged and done < 200
    assert np.isfinite(fit.trace["loss"][:done]).all()
    assert np.isnan(fit.trace["loss"][done:]).all() and len(fit.trace["loss"]) == 10_000


def test_a_closed_form_estimator_has_no_steps():
    fit = crl.fit(pca(2), KEY, DATA)
    assert fit.num_steps == 0 and fit.trace == {}
    np.testing.assert_allclose(fit.state @ fit.state.T, np.eye(2), atol=1e-5)


def test_a_lane_that_turns_nan_has_stopped_and_the_others_go_on():
    x = jnp.ones((3, 4, 2)) * jnp.array([-1.0, 1.0, -1.0])[:, None, None]
    data = jax.vmap(as_data)(x)
    for backend in ("shard_map", "vmap"):
        fit = crl.fit_replicas(
            explode(9, at=5), jax.random.split(KEY, 3), data, chunk_size=4, backend=backend
        )
        np.testing.assert_array_equal(fit.state[::2], [9, 9])
        np.testing.assert_array_equal(fit.num_steps, [9, 5, 9])
        np.testing.assert_array_equal(fit.diverged, [False, True, False])
        np.testing.assert_array_equal(np.isnan(fit.trace["loss"]).sum(1), [0, 4, 0])


@pytest.mark.parametrize("tells", [False, True])
def test_the_step_whose_loss_went_wrong_leaves_no_trace(tells):
    estimator = explode(6, at=3)
    if tells:
        estimator = estimator._replace(converged=lambda count: count > 99)
    fit = crl.fit(estimator, KEY, as_data(jnp.ones((4, 2))))
    assert fit.diverged and fit.num_steps == 3
    np.testing.assert_array_equal(fit.trace["loss"], [0, 1, 2] + 3 * [np.nan])


def test_a_state_that_turns_nan_in_silence_is_seen_at_the_end_of_the_chunk():
    def step(key, count, data):
        return jnp.where(count >= 3, jnp.nan, count + 1), {}

    fit = crl.fit(explode(20, at=0)._replace(step=step), KEY, DATA, chunk_size=5)
    assert fit.diverged and fit.num_steps == 5


def test_a_nan_made_by_finish_marks_the_fit():
    estimator = regression(3)._replace(finish=lambda key, state, data: state.w / 0 * 0)
    assert crl.fit(estimator, KEY, DATA).diverged


def test_finish_has_a_key_that_no_step_and_no_init_has():
    def finish(key, state, data):
        return jax.random.key_data(key)

    estimator = regression(5)._replace(
        finish=finish, init=lambda key, data: jax.random.key_data(key)
    )
    estimator = estimator._replace(step=lambda key, state, data: (state, {}))
    kept = estimator._replace(finish=lambda key, state, data: state)
    keys = [crl.fit(e, KEY, DATA).state.tolist() for e in (estimator, kept)]
    steps = [jax.random.key_data(jax.random.fold_in(KEY, t)).tolist() for t in range(5)]
    assert keys[0] != keys[1] and not any(k in steps for k in keys)


def test_inf_in_a_state_is_legitimate_but_not_in_the_loss():
    def grows(info):
        def step(key, state, data):
            return state * 1e20, info(state * 1e20)

        return Estimator(lambda key, data: jnp.ones(()), step, lambda s, d: Readout(z=d.x), 4)

    for info in (lambda state: {}, lambda state: {"size": state}):
        silent = crl.fit(grows(info), KEY, DATA)
        assert silent.state == np.inf and not silent.diverged and silent.num_steps == 4
    told = crl.fit(grows(lambda state: {"loss": state}), KEY, DATA)
    assert told.diverged and told.num_steps == 1


def test_the_guard_costs_less_than_three_percent_of_the_bytes_of_a_step():
    from crl.sae.topk_sae import topk_sae

    def bytes_of(fn, *args):
        return jax.jit(fn).lower(*args).compile().cost_analysis()["bytes accessed"]

    estimator = topk_sae(64, 4, batch_size=32)
    data = as_data(jnp.ones((32, 16)))
    lane = jax.eval_shape(lambda k, d: loop.start(estimator, k, d), KEY, data)
    step = bytes_of(estimator.step, KEY, lane.state, data)
    guarded = bytes_of(lambda *a: loop.attempt(estimator, *a), KEY, lane, data)
    assert guarded <= 1.03 * step


def test_fitting_twice_compiles_once():
    # The step is traced for its shapes, then for the loop; the second fit traces nothing.
    step = chex.assert_max_traces(regression(20).step, n=2)
    estimator = regression(20)._replace(step=step)
    for key in jax.random.split(KEY, 2):
        crl.fit(estimator, key, DATA, chunk_size=10)


def test_replicas_fit_as_they_do_alone():
    keys = jax.random.split(KEY, 3)
    data = jax.vmap(as_data)(jax.random.normal(jax.random.key(2), (3, 40, 5)))
    estimator = regression(70, tol=1e-3)
    together = crl.fit_replicas(estimator, keys, data, chunk_size=23)
    assert len(set(together.num_steps.tolist())) > 1
    for i in range(3):
        one, lane = jax.tree.map(lambda a, i=i: a[i], (data, together))
        assert_same(crl.fit(estimator, keys[i], one, chunk_size=23), lane)


def test_a_state_that_holds_the_data_does_not_cost_the_caller_the_data():
    # Lanes are donated from chunk to chunk; what the caller passed must survive that.
    def step(key, state, data):
        return {**state, "count": state["count"] + 1}, {}

    def init(key, data):
        return {"x": data.x, "key": key, "count": jnp.zeros(())}

    estimator = Estimator(init, step, lambda s, d: Readout(z=s["x"]), 6)
    data = jax.vmap(as_data)(jnp.ones((1, 4, 2)))
    keys = jax.random.split(KEY, 1)
    one = jax.tree.map(lambda a: a[0], data)
    crl.fit(estimator, KEY, one, chunk_size=2)
    for backend in ("shard_map", "pmap", "vmap"):
        crl.fit_replicas(estimator, keys, data, backend=backend, chunk_size=2)
    assert float(data.x.sum() + one.x.sum()) == 16 and keys.shape == (1,)


# --- inputs at the boundary -------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: crl.fit(regression(3), jax.random.PRNGKey(0), DATA), TypeError, "raw"),
        (lambda: crl.fit(regression(3), jax.random.split(KEY), DATA), ValueError, "one key"),
        (lambda: crl.fit(regression(3), KEY, DATA, chunk_size=0), ValueError, "chunk_size"),
        (lambda: replicas(KEY), ValueError, r"keys of shape \(r,\)"),
        (lambda: replicas(jax.random.PRNGKey(0)), TypeError, "raw"),
        (lambda: replicas(jax.random.split(KEY, 3)), ValueError, "same leading axis r"),
        (lambda: replicas(jax.random.split(KEY, 2)[:0]), ValueError, "same leading axis r"),
        (lambda: replicas(jax.random.split(KEY, 2), backend="pmapp"), ValueError, "'pmap'"),
        (lambda: replicas(jax.random.split(KEY, 2), devices=[]), ValueError, "one device"),
        (lambda: replicas(jax.random.split(KEY, 2), bad=1), ValueError, "replica 1 of 2"),
        (lambda: crl.fit(regression(-3), KEY, DATA), ValueError, "num_steps .* got -3"),
        (lambda: crl.fit(returning(lambda s: ((s, s), {})), KEY, DATA), ValueError, "form of"),
        (
            lambda: crl.fit(returning(lambda s: (s, {"w": s.w})), KEY, DATA),
            ValueError,
            r"info to hold scalars, got w of shape \(5,\)",
        ),
        (lambda: crl.fit(regression, KEY, DATA), TypeError, r"call the factory, regression\("),
        (lambda: crl.fit(regression(3, batch_size=0), KEY, DATA), ValueError, "batch_size"),
        (lambda: crl.fit(regression(3, holdout=0.9), KEY, DATA), ValueError, "holdout in"),
        (
            lambda: crl.fit(regression(3, holdout=0.01), KEY, DATA),
            ValueError,
            "at least 100 rows per environment to hold out 0.01",
        ),
        (lambda: crl.fit(regression(3, batch_size=2), KEY, THREE), ValueError, "one row for"),
    ],
)
def test_a_wrong_call_is_answered_in_one_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def returning(make):
    return regression(2)._replace(step=lambda key, w, data: make(w))


def replicas(keys, bad=None, **options):
    x = jnp.ones((2, 4, 3))
    x = x if bad is None else x.at[bad, 0, 0].set(jnp.nan)
    return crl.fit_replicas(regression(3), keys, jax.vmap(as_data)(x), **options)


def test_every_replica_is_validated_by_the_estimator():
    def validate(data):
        if float(data.x.max()) > 1:
            raise ValueError("too large")

    estimator = regression(3)._replace(validate=validate)
    data = jax.vmap(as_data)(jnp.ones((3, 4, 2)).at[2].set(5.0))
    with pytest.raises(ValueError, match="replica 2 of 3: too large"):
        crl.fit_replicas(estimator, jax.random.split(KEY, 3), data)


# --- resume -----------------------------------------------------------------------------


class Killed(Exception):
    pass


def kill():
    raise Killed


@pytest.mark.parametrize("tol", [None, 1e-3])
@pytest.mark.parametrize("many", [False, True])
def test_a_resumed_fit_equals_an_uninterrupted_one(tmp_path, after_step, tol, many):
    estimator = regression(70, tol=tol)
    call, key, data = crl.fit, KEY, DATA
    if many:
        call, key = crl.fit_replicas, jax.random.split(KEY, 3)
        data = jax.vmap(as_data)(jax.random.normal(jax.random.key(2), (3, 40, 5)))
    whole = call(estimator, key, data, chunk_size=12)
    after_step(24, kill)
    with pytest.raises(Killed):
        call(estimator, key, data, chunk_size=12, checkpoint=tmp_path)
    resumed = call(estimator, key, data, chunk_size=12, checkpoint=tmp_path)
    assert_same(resumed, whole)
    assert_same(call(estimator, key, data, chunk_size=12, checkpoint=tmp_path), whole)


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    crl.fit(regression(10), KEY, DATA, checkpoint=tmp_path)
    other = DATA._replace(x=DATA.x.at[39, 4].add(1e-3))
    for key, data in ((jax.random.key(9), DATA), (KEY, other)):
        with (
            pytest.warns(UserWarning, match="another key or other data"),
            pytest.raises(ValueError, match=r"another key or other data.*new directory"),
        ):
            crl.fit(regression(10), key, data, checkpoint=tmp_path)


def shifted(by):
    """Closes over an array, inside a function that is compiled by itself."""
    inner, plain = jax.jit(lambda w: w + jnp.asarray(by)), regression(10)

    def step(key, state, data):
        state, info = plain.step(key, state, data)
        return state._replace(w=inner(state.w)), info

    return plain._replace(step=step)


OTHERS = {
    "another rate": (regression(10), regression(10, lr=1e-4), "another estimator"),
    "another constant": (shifted(np.zeros(5)), shifted(np.eye(5)[2]), "another estimator"),
    "another finish": (
        regression(10),
        regression(10)._replace(finish=lambda key, state, data: 2 * state.w),
        "another estimator",
    ),
    "fewer steps": (regression(10), regression(5), "more than the 5 steps"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_of_another_estimator_is_refused(tmp_path, case):
    before, after, sentence = OTHERS[case]
    crl.fit(before, KEY, DATA, checkpoint=tmp_path)
    with (
        pytest.warns(UserWarning, match=sentence),
        pytest.raises(ValueError, match=sentence + ".*new directory"),
    ):
        crl.fit(after, KEY, DATA, checkpoint=tmp_path)


def test_a_fit_may_be_resumed_for_more_steps(tmp_path):
    crl.fit(regression(10), KEY, DATA, checkpoint=tmp_path)
    longer = crl.fit(regression(25), KEY, DATA, checkpoint=tmp_path)
    assert_same(longer, crl.fit(regression(25), KEY, DATA))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_ends_the_fit_at_the_next_chunk_and_leaves_a_checkpoint(
    tmp_path, after_step, name
):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    after_step(24, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stopped:
        crl.fit(regression(70), KEY, DATA, chunk_size=12, checkpoint=tmp_path)
    assert stopped.value.code == 75 and signal.getsignal(number) == before
    assert max(int(p.name) for p in tmp_path.iterdir()) == 24


CHILD = """
import logging, sys
import crl
from crl import progress
progress.LINE_EVERY = 0
sys.path.insert(0, sys.argv[1])
from test_train import DATA, KEY, regression
logging.getLogger("crl").setLevel(logging.INFO)
logging.getLogger("crl").addHandler(logging.StreamHandler(sys.stdout))
crl.fit(regression(100_000), KEY, DATA, chunk_size=50, checkpoint=sys.argv[2])
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, train.RESUME),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_process_stopped_from_outside_leaves_what_it_had_done(tmp_path, number, code):
    here = pathlib.Path(__file__).parent
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(here), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(here.parent)},
    )
    with child:
        try:
            for done in (50, 100):  # the first step is on disk when the second is told
                assert f"step {done}/" in child.stdout.readline()
            child.send_signal(number)
            child.communicate(timeout=120)
        finally:
            child.kill()
    assert child.returncode == code
    done, tree, meta = crl.checkpoint.restore(tmp_path, saved)
    # The digests of the program and its inputs are those of this process.
    assert train._identity(regression(100_000), {}, KEY, DATA, None).items() <= meta.items()
    whole = crl.fit(regression(done), KEY, DATA, chunk_size=50)
    assert_same((tree["lane"].state.w, tree["trace"]), (whole.state, whole.trace))


def saved(meta):
    lane = loop.start(regression(1), KEY, DATA)
    return {"lane": lane, "trace": {k: np.zeros(*v) for k, v in meta["trace"].items()}}


# --- streams ----------------------------------------------------------------------------


def stream(fail_at=None):
    """Batch t is a fixed function of t; records what was read."""
    reads = []

    def batches(start, num, size):
        reads.append((start, num))
        if fail_at is not None and start >= fail_at:
            raise OSError("shard 3 is gone")
        keys = [jax.random.key(t) for t in range(start, start + num)]
        x = [jax.random.normal(key, (size, 5)) for key in keys]
        return jax.vmap(as_data)(jnp.stack(x))

    example = jax.tree.map(lambda a: a[0], batches(0, 1, 8))
    reads.clear()
    return crl.Stream(example, batches), reads


def test_a_stream_is_read_chunk_by_chunk_ahead_and_step_t_sees_batch_t():
    source, reads = stream()
    fit = crl.fit(regression(25, batch_size=6), KEY, source, chunk_size=10)
    assert reads == [(0, 9), (9, 9), (18, 9)]

    def batch(key, t):
        return jax.tree.map(lambda a: a[0], source.read(t, 1, 6))

    state, losses = plain_loop(regression(25), 25, batch)
    np.testing.assert_allclose(fit.trace["loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(fit.state, state.w, rtol=1e-5)


def test_without_a_batch_size_a_step_sees_as_many_rows_as_the_example_has():
    source, _ = stream()
    assert_same(
        crl.fit(regression(5), KEY, source), crl.fit(regression(5, batch_size=8), KEY, source)
    )


def test_a_chunk_of_a_stream_is_sized_in_bytes(monkeypatch):
    # A row takes 6 * 4 bytes, a batch of 8 rows 192.
    monkeypatch.setattr(feed, "CHUNK_BYTES", 5 * 192)
    source, reads = stream()
    crl.fit(regression(25), KEY, source)
    assert reads[0] == (0, 5)


def test_a_stream_brings_the_rows_that_are_held_out():
    source, _ = stream()
    with pytest.raises(ValueError, match=r"example.held"):
        crl.fit(watching(holdout=0.1), KEY, source)
    held = as_data(100 + jnp.ones((2, 5)))
    example = source.example._replace(held=held)
    fit = crl.fit(watching(holdout=0.1), KEY, source._replace(example=example))
    assert fit.trace["held"].tolist() == [101.0] * 4


def test_a_streamed_fit_resumes_exactly(tmp_path, after_step):
    source, reads = stream()
    whole = crl.fit(regression(25), KEY, source, chunk_size=10)
    after_step(9, kill)
    with pytest.raises(Killed):
        crl.fit(regression(25), KEY, source, chunk_size=10, checkpoint=tmp_path)
    reads.clear()
    resumed = crl.fit(regression(25), KEY, source, chunk_size=10, checkpoint=tmp_path)
    assert_same(resumed, whole)
    assert reads[0] == (9, 9)


def test_a_short_read_is_refused():
    source, _ = stream()
    short = source._replace(read=lambda start, num, size: source.read(start, num - 1, size))
    with pytest.raises(ValueError, match=r"read\(0, 9, 8\) .* \(9, 8, ...\), got \[\(8, 8\)"):
        crl.fit(regression(25), KEY, short, chunk_size=10)


def test_a_read_error_ends_the_fit():
    source, _ = stream(fail_at=9)
    with pytest.raises(OSError, match="shard 3"):
        crl.fit(regression(25), KEY, source, chunk_size=10)


# --- batches ----------------------------------------------------------------------------


def watching(num_steps=4, **options):
    """Its info tells of the batch: the first and last entry of x, rows, and what is held."""

    def step(key, state, batch):
        held = batch.x if batch.held is None else batch.held.x
        info = {
            "first": batch.x[0, 0],
            "last": batch.x[-1, 0],
            "rows": jnp.float32(len(batch.x)),
            "in_base": jnp.sum(batch.env == 0),
            "sum": jnp.sum(batch.x[:, 0]),
            "counted": batch.given["count"][0],
            "held": jnp.mean(held[:, 0]),
        }
        return state + 1, info

    def readout(count, data):
        return Readout(z=data.x * count)

    return Estimator(lambda key, data: jnp.zeros(()), step, readout, num_steps, **options)


def numbered(*sizes):
    """x[i] = i in environments of these sizes."""
    n = sum(sizes)
    return crl.core.grouped(jnp.arange(n, dtype=jnp.float32)[:, None], sizes)


def test_a_batch_has_its_share_of_each_environment_and_only_rows_of_it():
    data = numbered(30, 10, 20)
    found = jax.vmap(lambda key: feed.draw_batch(key, data, 8))(jax.random.split(KEY, 400))
    assert (found.env == np.array([0, 0, 0, 1, 1, 1, 2, 2])).all()
    assert (found.given["count"] == np.array([3, 3, 2])).all()
    starts = np.array([0, 30, 40, 60])
    row, env = np.asarray(found.x[..., 0]), np.asarray(found.env)
    assert (starts[env] <= row).all() and (row < starts[env + 1]).all()
    # 1,200 draws of 30 rows, and of 10; 800 of 20: a row is missed with probability < 1e-15.
    assert len(np.unique(row)) == 60


def test_the_batch_of_a_step_depends_on_its_key_alone():
    estimator = watching(20, batch_size=4)
    fit = crl.fit(estimator, KEY, numbered(100), chunk_size=7)
    assert_same(fit, crl.fit(estimator, KEY, numbered(100)))
    assert (fit.trace["rows"] == 4).all() and len(np.unique(fit.trace["first"])) > 10
    whole = crl.fit(watching(2, batch_size=200), KEY, numbered(100))
    assert whole.trace["rows"].tolist() == [100, 100]


def test_no_step_sees_a_row_that_is_held_out():
    # Every fifth row of each environment, by its place in the data.
    data, held = numbered(10, 20), [4, 9, 14, 19, 24, 29]
    fit = crl.fit(watching(holdout=0.2), KEY, data)
    assert fit.trace["rows"][0] == 24 and fit.trace["counted"][0] == 8
    assert fit.trace["sum"][0] == sum(range(30)) - sum(held)
    assert fit.trace["held"][0] == np.mean(held)
    part = feed.hold_out(data, 0.2)
    assert part.held.x[:, 0].tolist() == held
    assert part.held.given["count"].tolist() == [2, 4] and part.held.env.tolist()[:3] == [
        0,
        0,
        1,
    ]
    drawn = crl.fit(watching(200, batch_size=2, holdout=0.2), KEY, data).trace
    assert not set(drawn["first"]) & set(held) and not set(drawn["last"]) & set(held)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.3, 0.4, 0.5])
def test_the_share_held_out_is_the_share_asked_for(share):
    part = feed.hold_out(numbered(100, 100), share)
    assert part.held.given["count"].tolist() == [100 * share] * 2
    assert len(part.x) + len(part.held.x) == 200


def test_held_rows_of_the_callers_own_are_used():
    data = numbered(10)._replace(held=numbered(4))
    fit = crl.fit(watching(holdout=0.2), KEY, data)
    assert fit.trace["rows"][0] == 10 and fit.trace["held"][0] == 1.5


def test_fresh_rows_are_drawn_for_every_step():
    dgp = mixed_sources(laplace(), linear(), 2)
    world = dgp.init(KEY)
    source = crl.Fresh(dgp, world, dgp.sample(KEY, world, 16).data)
    fit = crl.fit(watching(6, batch_size=8), KEY, source)
    assert (fit.trace["rows"] == 8).all() and len(np.unique(fit.trace["first"])) == 6
    assert_same(fit, crl.fit(watching(6, batch_size=8), KEY, source, chunk_size=4))


def test_a_checkpoint_of_fresh_rows_of_another_law_is_refused(tmp_path):
    laws = [mixed_sources(law(), linear(), 2) for law in (laplace, uniform)]
    world = laws[0].init(KEY)
    example = laws[0].sample(KEY, world, 16).data
    estimator = watching(4, batch_size=8)
    crl.fit(estimator, KEY, crl.Fresh(laws[0], world, example), checkpoint=tmp_path)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="another estimator"):
        crl.fit(estimator, KEY, crl.Fresh(laws[1], world, example), checkpoint=tmp_path)


# --- sweeps, warm starts, models --------------------------------------------------------


def test_a_sweep_of_an_option_is_a_fit_for_each_value_in_one_compilation():
    traced = []

    def factory(num_steps, lr):
        traced.append(isinstance(lr, jax.core.Tracer))
        return regression(num_steps, lr=lr)

    keys, rates = jax.random.split(KEY, 3), jnp.array([0.01, 0.1, 0.3])
    sweep = functools.partial(factory, 20)
    fit = crl.fit_replicas(sweep, keys, DATA, options={"lr": rates}, shared=True)
    num = sum(traced)
    crl.fit_replicas(
        functools.partial(factory, 20), keys, DATA, options={"lr": rates}, shared=True
    )
    assert 0 < num == sum(traced)  # another partial of the same is the same program
    for i, rate in enumerate([0.01, 0.1, 0.3]):
        alone = crl.fit(regression(20, lr=rate), keys[i], DATA)
        np.testing.assert_allclose(fit.state[i], alone.state, rtol=1e-5)
    claims = crl.readout_replicas(sweep, fit.state, DATA, options={"lr": rates}, shared=True)
    np.testing.assert_allclose(claims.z[1], DATA.x @ fit.state[1][:, None], rtol=1e-4)


@pytest.mark.parametrize("backend", ["shard_map", "pmap", "vmap"])
def test_replicas_that_share_their_data_fit_as_if_each_had_a_copy(backend):
    keys = jax.random.split(KEY, 3)
    copies = jax.tree.map(lambda a: jnp.stack([a] * 3), DATA)
    shared = crl.fit_replicas(regression(9), keys, DATA, shared=True, backend=backend)
    apart = crl.fit_replicas(regression(9), keys, copies, backend=backend)
    np.testing.assert_allclose(shared.state, apart.state, rtol=1e-5)  # another program


def test_a_sweep_asks_for_a_factory_and_floats():
    keys = jax.random.split(KEY, 2)
    for estimator, options, sentence in [
        (regression(3), {"lr": jnp.ones(2)}, "expected a factory to sweep lr"),
        (regression, {"num_steps": jnp.arange(2)}, "num_steps as floats"),
        (functools.partial(regression, 3), {"lr": jnp.ones(3)}, r"shape \(2,\)"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            crl.fit_replicas(estimator, keys, DATA, shared=True, options=options)


def test_a_fit_starts_where_it_is_told_to():
    estimator = regression(3)
    state = estimator.init(KEY, DATA)._replace(w=jnp.full(5, 7.0))
    warm = crl.fit(estimator, KEY, DATA, state=state)
    by_hand = loop.start(estimator, KEY, DATA, state)
    by_hand, _ = loop.advance(estimator, KEY, by_hand, DATA, 3)
    np.testing.assert_allclose(warm.state, by_hand.state.w, rtol=1e-6)
    assert not np.allclose(warm.state, crl.fit(estimator, KEY, DATA).state)
    both = jax.tree.map(lambda a: jnp.stack([a, a]), state)
    keys = jnp.stack([KEY, KEY])
    many = crl.fit_replicas(estimator, keys, DATA, shared=True, state=both)
    np.testing.assert_allclose(many.state, [warm.state] * 2, rtol=1e-6)


def test_a_saved_model_reads_out_as_before(tmp_path):
    fit = crl.fit(regression(9), KEY, DATA)
    crl.save(tmp_path / "model", fit.state)
    loaded = crl.load(tmp_path / "model", regression(9), DATA)
    assert_same(loaded, fit.state)
    with pytest.raises(ValueError, match=r"expected a model in .*: crl\.save keeps one"):
        crl.load(tmp_path / "nothing", regression(9), DATA)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="cannot be used"):
        crl.load(tmp_path / "model", pca(2), DATA)


def test_a_readout_in_batches_is_the_readout():
    model = pca(2)
    fitted = crl.fit(model, KEY, DATA).state
    whole, parts = (crl.readout(model, fitted, DATA, batch_size=b) for b in (None, 7))
    np.testing.assert_allclose(parts.z, whole.z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.x, whole.x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(parts.unmixing, whole.unmixing)
    assert parts.z.shape == (40, 2) and parts.diag["rank"] == 2


# --- progress ---------------------------------------------------------------------------


def test_progress_is_a_log_line_per_chunk_away_from_a_terminal(caplog, monkeypatch):
    monkeypatch.setattr("crl.progress.LINE_EVERY", 0)
    with caplog.at_level(logging.INFO, "crl"):
        crl.fit(regression(70, tol=1e-3), KEY, DATA, chunk_size=30, label="easy")
    lines = [r.getMessage() for r in caplog.records if r.name == "crl"]
    assert lines[0].startswith("easy step 24/70, loss 0.")
    assert lines[-1].endswith("100% converged")
    monkeypatch.setattr("crl.progress.LINE_EVERY", 10)  # a sweep of short fits is not told
    caplog.clear()
    with caplog.at_level(logging.INFO, "crl"):
        crl.fit(regression(70, tol=1e-3), KEY, DATA, chunk_size=30)
    assert not caplog.records


def test_progress_is_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("crl.progress.BAR_DELAY", 0)
    crl.fit(regression(70), KEY, DATA, chunk_size=30, label="easy")
    assert "easy" in capsys.readouterr().err
