"""The properties that every estimator keeps; see ``crl.testing.check_estimator``."""

import tempfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl import checkpoint, parallel, train
from crl.check import check_task, difference
from crl.core import PER_ROW, Data, Estimator, Readout, Task, Truth, split
from crl.testing_tools import assert_close, numbers, perfect_claims, random_claims, scalar

NUM_STEPS = 3  # enough for optimisers with momentum to show hidden state


class Trial(NamedTuple):
    """One estimator on one task, with a sample of it: what each property looks at."""

    estimator: Estimator
    task: Task
    key: Array
    train: Data
    test: Data
    truth: Truth  # of the test rows
    traces: list  # an entry for each time that Python has run the estimator's step


def trial(estimator: Estimator, task: Task, seed: int = 0) -> Trial:
    """Draw the sample on which the properties of ``estimator`` are checked."""
    world_key, sample_key, key = jax.random.split(jax.random.key(seed), 3)
    n = task.num_train + task.num_test

    @jax.jit
    def draw(world_key, sample_key):
        sample = task.dgp.sample(sample_key, task.dgp.init(world_key), n)
        return split(sample, n, task.num_train)

    traces = []

    def step(*args):
        traces.append(None)
        return estimator.step(*args)

    # One estimator for all properties, so that its programs compile once.
    counted = estimator._replace(step=step) if estimator.num_steps else estimator
    fitted, held_out = draw(world_key, sample_key)
    return Trial(counted, task, key, fitted.data, held_out.data, held_out.truth, traces)


def fits_its_task(t: Trial) -> None:
    """The dry run passes: every metric finds the claim that it needs."""
    check_task(t.task, t.estimator)
    t.estimator.validate(t.train)


def state_structure_is_constant(t: Trial) -> None:
    """init, step and finish return states of one structure, shapes and dtypes."""
    state = jax.eval_shape(t.estimator.init, t.key, t.train)
    after = {"finish": jax.eval_shape(t.estimator.finish, t.key, state, t.train)}
    if t.estimator.num_steps:
        after["step"], info = jax.eval_shape(t.estimator.step, t.key, state, t.train)
        wrong = {k: v.shape for k, v in info.items() if v.shape != ()}
        assert not wrong, f"info must hold scalars, got shapes {wrong}"
    for name, new in after.items():
        changed = difference(state, new)
        assert not changed, f"{name} changes the state: {changed}"


def second_call_does_not_retrace(t: Trial) -> None:
    """Python runs once: a second call with the same shapes finds the compiled program."""
    if not t.estimator.num_steps:
        return
    lane = _start(t.estimator, t.key, t.train)
    lane = _advance(t.estimator, t.key, lane, t.train)
    before = len(t.traces)
    _advance(t.estimator, jax.random.fold_in(t.key, 1), lane, t.train)
    again = len(t.traces) - before
    assert not again, f"the second call traced the step {again} times more"


def replicas_equal_a_loop(t: Trial) -> None:
    """Every backend of map_replicas, vmap included, gives the claims of a loop over keys."""
    keys = jax.random.split(t.key, 3)

    def one(key):
        lane = train.start(t.estimator, key, t.train)
        if t.estimator.num_steps:
            lane, _ = train.advance(t.estimator, key, lane, t.train, NUM_STEPS)
        return lane.state

    def claims(state):
        # Not the states: parameters that the data hardly determine may differ.
        return train.readout(t.estimator, state, t.test)._replace(diag=None)

    def loop(key):
        lane = _start(t.estimator, key, t.train)
        return _advance(t.estimator, key, lane, t.train) if t.estimator.num_steps else lane

    alone = [claims(loop(key).state) for key in keys]
    for backend in parallel.BACKENDS:
        states = parallel.map_replicas(one, backend=backend)(keys)
        states = jax.device_get(states)
        for i, expected in enumerate(alone):
            state = jax.tree.map(lambda a, i=i: a[i], states)
            assert_close(expected, claims(state), f"backend {backend} differs from a loop:")


def resumed_equals_uninterrupted(t: Trial) -> None:
    """A lane saved to disk, restored and continued ends bit for bit as one left alone."""
    if not t.estimator.num_steps:
        return
    lane = _advance(t.estimator, t.key, _start(t.estimator, t.key, t.train), t.train)
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.save(directory, 1, lane, {})
        _, restored, _ = checkpoint.restore(directory, lane)
    resumed = _advance(t.estimator, t.key, restored, t.train)
    alone = _advance(t.estimator, t.key, lane, t.train)
    for (path, a), b in zip(numbers(alone), (b for _, b in numbers(resumed))):
        assert np.array_equal(a, b, equal_nan=True), f"state{path} differs after a resume"


def reads_out_held_out_rows(t: Trial) -> None:
    """readout works on rows not fitted on, and a row's claim depends on that row alone."""
    state = _start(t.estimator, t.key, t.train).state
    n = t.test.x.shape[0]
    whole = train.readout(t.estimator, state, t.test)
    part = train.readout(t.estimator, state, jax.tree.map(lambda a: a[::2], t.test))
    assert isinstance(whole, Readout), f"readout returned {type(whole).__name__}"
    claims = {k: v for k, v in whole._asdict().items() if v is not None}
    assert claims, "readout claims nothing: every field is None"
    for name in PER_ROW:
        if name in claims:
            assert claims[name].shape[0] == n, f"readout.{name} must have one row per datum"
            assert_close(
                claims[name][::2],
                getattr(part, name),
                f"readout.{name} of a row depends on the other rows",
            )


def keeps_dtype(t: Trial) -> None:
    """float32 data give float32 claims, under x64 too; float64 data give float64."""

    def cast(a, dtype):
        return a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a

    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            data = jax.tree.map(lambda a, d=dtype: cast(a, d), t.train)
            state = jax.eval_shape(t.estimator.init, jax.random.key(0), data)
            if t.estimator.num_steps:
                # Optimisers may hold constants in the default dtype; what a step carries
                # on must not drift towards it.
                new, _ = jax.eval_shape(t.estimator.step, jax.random.key(0), state, data)
                changed = difference(state, new)
                assert not changed, f"with x64, step changes the state: {changed}"
            new = jax.eval_shape(t.estimator.finish, jax.random.key(0), state, data)
            changed = difference(state, new)
            assert not changed, f"with x64, finish changes the state: {changed}"
            claims = jax.eval_shape(t.estimator.readout, state, data)._replace(diag=None)
            for path, leaf in jax.tree_util.tree_leaves_with_path(claims):
                if jnp.issubdtype(leaf.dtype, jnp.floating):
                    name = jax.tree_util.keystr(path)
                    assert leaf.dtype == dtype, (
                        f"{jnp.dtype(dtype).name} data, but readout{name} is {leaf.dtype}"
                    )


def beats_random_claims(t: Trial) -> None:
    """On its easiest world the fit scores better than claims drawn at random."""
    result = train.fit(t.estimator, t.key, t.train)
    assert not result.diverged, "the fit diverged on its easiest world"
    for name, (ours, random, best) in _scores(t, result).items():
        assert abs(ours - best) < abs(random - best), (
            f"{name}: {ours:.3f}, no better than random claims ({random:.3f})"
        )


def learns_nothing_from_noise(t: Trial) -> None:
    """Fitted to noise in place of x, the claims are no good: knowledge comes from data.

    The control of ``beats_random_claims``: an estimator that passes both has learnt, and
    was not told the world by its factory, nor its metric by the shape of an answer.
    """
    scores = []
    for key in jax.random.split(t.key, 3):
        noise = t.train._replace(x=jax.random.normal(key, t.train.x.shape, t.train.x.dtype))
        scores.append(_scores(t, train.fit(t.estimator, t.key, noise)))
    for name in t.task.metrics:
        # A small graph may be guessed once; three guesses do not come out half right.
        ours, random, best = np.mean([score[name] for score in scores], axis=0)
        assert abs(ours - best) > 0.5 * abs(random - best), (
            f"{name}: {ours:.3f} from noise, where random claims score {random:.3f}: the "
            "truth reaches the estimator by another way than the data"
        )


ESTIMATOR_PROPERTIES = (
    fits_its_task,
    state_structure_is_constant,
    second_call_does_not_retrace,
    replicas_equal_a_loop,
    resumed_equals_uninterrupted,
    reads_out_held_out_rows,
    keeps_dtype,
    beats_random_claims,
    learns_nothing_from_noise,
)


# --- pieces -----------------------------------------------------------------------------

_start = jax.jit(train.start, static_argnums=0)


def _advance(estimator, key, lane, data):
    return _advance_jit(estimator, key, lane, data, NUM_STEPS)[0]


_advance_jit = jax.jit(train.advance, static_argnums=(0, 4))


def _scores(t: Trial, fit: train.Fit) -> dict[str, tuple[float, float, float]]:
    """Each metric's value for the fit, for random claims, and at its best."""
    out = train.readout(t.estimator, fit.state, t.test)
    # One guess at a small graph may be right; eight are not on average.
    guesses = [random_claims(k, out, t.test) for k in jax.random.split(t.key, 8)]
    found = {}
    for name, metric in t.task.metrics.items():
        score = jax.jit(metric)
        random = float(np.mean([scalar(score(guess, t.truth)) for guess in guesses]))
        best = scalar(score(perfect_claims(t.truth), t.truth))
        found[name] = scalar(score(out, t.truth)), random, best
    return found
