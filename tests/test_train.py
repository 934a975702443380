"""The host loop: chunks, traces, convergence, divergence, resume, signals, streams."""

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
from crl import train
from crl.core import Estimator, Readout

KEY = jax.random.key(0)
DATA = as_data(jax.random.normal(jax.random.key(1), (40, 5)))


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


def test_fit_is_the_plain_loop_over_steps():
    estimator = regression(12)
    fit = crl.fit(estimator, KEY, DATA, chunk_size=5)
    step = jax.jit(estimator.step)
    w, losses = estimator.init(jax.random.fold_in(KEY, 2**31 - 1), DATA), []
    for t in range(12):
        w, info = step(jax.random.fold_in(KEY, t), w, DATA)
        losses.append(info["loss"])
    np.testing.assert_allclose(fit.state, w, rtol=1e-5)
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


def test_a_lane_that_turns_nan_is_frozen_and_the_others_go_on():
    x = jnp.ones((3, 4, 2)) * jnp.array([-1.0, 1.0, -1.0])[:, None, None]
    data = jax.vmap(as_data)(x)
    fit = crl.fit_replicas(explode(9, at=5), jax.random.split(KEY, 3), data, chunk_size=4)
    np.testing.assert_array_equal(fit.state, [9, 5, 9])
    np.testing.assert_array_equal(fit.num_steps, [9, 5, 9])
    np.testing.assert_array_equal(fit.diverged, [False, True, False])
    np.testing.assert_array_equal(np.isnan(fit.trace["loss"]).sum(1), [0, 4, 0])


@pytest.mark.parametrize("tells", [False, True])
def test_the_step_that_went_wrong_leaves_no_trace(tells):
    def step(key, count, data):
        info = {"loss": count} | ({"converged": jnp.zeros((), bool)} if tells else {})
        return jnp.where(count >= 3, jnp.nan, count + 1), info

    fit = crl.fit(explode(6, at=0)._replace(step=step), KEY, DATA)
    assert fit.diverged and fit.num_steps == 3 and fit.state == 3
    np.testing.assert_array_equal(fit.trace["loss"], [0, 1, 2] + 3 * [np.nan])


def test_inf_in_a_state_is_legitimate_but_not_in_info():
    def grows(info):
        def step(key, state, data):
            return state * 1e20, info(state * 1e20)

        return Estimator(lambda key, data: jnp.ones(()), step, lambda s, d: Readout(z=d.x), 4)

    silent = crl.fit(grows(lambda state: {}), KEY, DATA)
    assert silent.state == np.inf and not silent.diverged and silent.num_steps == 4
    told = crl.fit(grows(lambda state: {"size": state}), KEY, DATA)
    assert told.diverged and told.num_steps == 1 and told.state == np.float32(1e20)


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
        (lambda: crl.fit(returning(lambda w: ((w, w), {})), KEY, DATA), ValueError, "form of"),
        (
            lambda: crl.fit(returning(lambda w: (w, {"w": w})), KEY, DATA),
            ValueError,
            r"info to hold scalars, got w of shape \(5,\)",
        ),
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
    with (
        pytest.warns(UserWarning, match="another key or other data"),
        pytest.raises(ValueError, match=r"another key or other data.*new directory"),
    ):
        crl.fit(regression(10), jax.random.key(9), DATA, checkpoint=tmp_path)


def shifted(by):
    """Closes over an array, inside a function that is compiled by itself."""
    inner, plain = jax.jit(lambda w: w + jnp.asarray(by)), regression(10)

    def step(key, w, data):
        w, info = plain.step(key, w, data)
        return inner(w), info

    return plain._replace(step=step)


OTHERS = {
    "another rate": (regression(10), regression(10, lr=1e-4), "another estimator"),
    "another constant": (shifted(np.zeros(5)), shifted(np.eye(5)[2]), "another estimator"),
    "another finish": (
        regression(10),
        regression(10)._replace(finish=lambda key, w, data: 2 * w),
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
from crl import train
train.LINE_EVERY = 0
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
    assert train._identity(regression(100_000), KEY, DATA).items() <= meta.items()
    whole = crl.fit(regression(done), KEY, DATA, chunk_size=50)
    assert_same((tree["lane"].state, tree["trace"]), (whole.state, whole.trace))


def saved(meta):
    lane = train.start(regression(1), KEY, DATA)
    return {"lane": lane, "trace": {k: np.zeros(*v) for k, v in meta["trace"].items()}}


# --- streams ----------------------------------------------------------------------------


def stream(fail_at=None):
    """Batch t is a fixed function of t; records what was read."""
    reads = []

    def batches(start, num):
        reads.append((start, num))
        if fail_at is not None and start >= fail_at:
            raise OSError("shard 3 is gone")
        x = [jax.random.normal(jax.random.key(t), (8, 5)) for t in range(start, start + num)]
        return jax.vmap(as_data)(jnp.stack(x))

    example = jax.tree.map(lambda a: a[0], batches(0, 1))
    reads.clear()
    return crl.Stream(example, batches), reads


def test_a_stream_is_read_chunk_by_chunk_ahead_and_step_t_sees_batch_t():
    source, reads = stream()
    estimator = regression(25)
    fit = crl.fit(estimator, KEY, source, chunk_size=10)
    assert reads == [(0, 9), (9, 9), (18, 9)]
    step = jax.jit(estimator.step)
    w = estimator.init(jax.random.fold_in(KEY, 2**31 - 1), source.example)
    for t in range(25):
        batch = jax.tree.map(lambda a: a[0], source.read(t, 1))
        w, _ = step(jax.random.fold_in(KEY, t), w, batch)
    np.testing.assert_allclose(fit.state, w, rtol=1e-5)


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
    short = source._replace(read=lambda start, num: source.read(start, num - 1))
    with pytest.raises(ValueError, match=r"read\(0, 9\) to return 9 batches.*\(8,\)"):
        crl.fit(regression(25), KEY, short, chunk_size=10)


def test_a_read_error_ends_the_fit():
    source, _ = stream(fail_at=9)
    with pytest.raises(OSError, match="shard 3"):
        crl.fit(regression(25), KEY, source, chunk_size=10)


# --- progress ---------------------------------------------------------------------------


def test_progress_is_a_log_line_per_chunk_away_from_a_terminal(caplog, monkeypatch):
    monkeypatch.setattr("crl.train.LINE_EVERY", 0)
    with caplog.at_level(logging.INFO, "crl"):
        crl.fit(regression(70, tol=1e-3), KEY, DATA, chunk_size=30, label="easy")
    lines = [r.getMessage() for r in caplog.records if r.name == "crl"]
    assert lines[0].startswith("easy step 24/70, loss 0.")
    assert lines[-1].endswith("100% converged")
    monkeypatch.setattr("crl.train.LINE_EVERY", 10)  # a sweep of short fits is not told
    caplog.clear()
    with caplog.at_level(logging.INFO, "crl"):
        crl.fit(regression(70, tol=1e-3), KEY, DATA, chunk_size=30)
    assert not caplog.records


def test_progress_is_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("crl.train.BAR_DELAY", 0)
    crl.fit(regression(70), KEY, DATA, chunk_size=30, label="easy")
    assert "easy" in capsys.readouterr().err
