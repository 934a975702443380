"""What every estimator keeps: a list of properties, each a function of a ``Trial``.

The properties of ``FAST`` share one compiled fit and otherwise look at shapes, so that they
cost a few CPU seconds an estimator; those of ``SLOW`` compile it anew. Each has an error
planted in tests/test_testing.py that it catches.
"""

import functools
import inspect
import re
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl import loop, parallel, train
from crl.check import check_task, difference
from crl.combinators import best_checkpoint, restarts
from crl.core import PER_ROW, Data, Estimator, Readout, Sample, Task, draw, merit, metric
from crl.feed import Stream, draw_batch, hold_out
from crl.testing import guesses
from crl.testing.tools import assert_close, assert_same, numbers, stacked

NUM_STEPS = 3  # enough for optimisers with momentum to show hidden state

# Floats that set shapes, as ints do, and so are static.
STATIC = ("holdout",)


def check_estimator(estimator: Estimator | Callable[..., Estimator], task: Task) -> None:
    """Raise an AssertionError naming the first property that the estimator breaks.

    estimator: best its factory with what it needs, ``functools.partial(tcl, num_latents=3)``,
    whose float options are then traced; an Estimator has none left. task: an easy one for
    it, on which the fit must beat knowing nothing.
    """
    t = Trial(estimator, task)
    for holds in (*FAST, *SLOW):
        holds(t)


class Trial:
    """One estimator on one task, with what the properties look at, computed once."""

    def __init__(self, estimator: Estimator | Callable[..., Estimator], task: Task):
        self.factory = None if isinstance(estimator, Estimator) else estimator
        self.task = task
        self.traces = []  # an entry for each time that Python has run the step
        self.estimator = self._counted(self.factory() if self.factory else estimator)
        self.key = jax.random.key(1)
        self.train, self.test = _draw(task.dgp, task.num_train, task.num_test)

    def _counted(self, estimator):
        def step(*args):
            self.traces.append(None)
            return estimator.step(*args)

        return estimator._replace(step=step)

    @functools.cached_property
    def fit(self) -> train.Fit:
        """The fit whose claims are judged."""
        return train.fit(self.estimator, self.key, self.train.data)

    @functools.cached_property
    def claims(self) -> Readout:
        """Its claims on the test rows."""
        return train.readout(self.estimator, self.fit.state, self.test.data)

    @functools.cached_property
    def shapes(self) -> dict:
        """Of all that it makes of float32 data with x64, keys watched."""
        with jax.enable_x64(True), jax.debug_key_reuse(True):
            data = (_cast(s.data, jnp.float32) for s in (self.train, self.test))
            return _shapes(self.estimator, *data)

    @functools.cached_property
    def short(self) -> Estimator:
        """The estimator with a few steps only."""
        return self.estimator._replace(num_steps=min(NUM_STEPS, self.estimator.num_steps))


@functools.lru_cache(maxsize=8)
def _draw(dgp, num_train, num_test) -> tuple[Sample, Sample]:
    task = Task(dgp, num_train, num_test, {})
    return jax.jit(functools.partial(draw, task))(jax.random.key(0))


@functools.lru_cache(maxsize=8)
def _scale(metric, dgp, num_train, num_test) -> guesses.Scale:
    test = _draw(dgp, num_train, num_test)[1]
    return guesses.scale(metric, test, jax.random.key(2))


def _merits(t: Trial, claims: Readout) -> dict[str, tuple[float, guesses.Scale]]:
    """The merit of claims under each metric that judges, and what to measure it by."""
    found = {}
    for name, judge in t.task.metrics.items():
        if getattr(judge, "best", None) is not None:
            value = jax.jit(judge)(claims._replace(diag=None), t.test)
            size = t.task.num_train, t.task.num_test
            found[name] = float(merit(judge, value)), _scale(judge, t.task.dgp, *size)
    return found


# --- fast: shapes, and one compiled fit ---------------------------------------------------


def fits_its_task(t: Trial) -> None:
    """The dry run passes: every metric finds the claim that it needs."""
    check_task(t.task, t.estimator)
    t.estimator.validate(t.train.data)


def uses_no_key_twice(t: Trial) -> None:
    """Draws from one key are the same draw: init, step and finish split theirs."""
    try:
        _ = t.shapes
    except jax.errors.KeyReuseError as error:
        raise AssertionError(f"a key is used twice: {error}") from error


def keeps_form_and_dtype(t: Trial) -> None:
    """A step keeps the form of the state; floats have the dtype of the data, also with x64."""
    with jax.enable_x64(True):
        double = _shapes(t.estimator, *(_cast(s.data, jnp.float64) for s in (t.train, t.test)))
    for dtype, shapes in ((jnp.float32, t.shapes), (jnp.float64, double)):
        words = f"{jnp.dtype(dtype).name} data with x64"
        changed = difference(shapes["state"], shapes["after"])
        assert not changed, f"{words}: step changes the state: {changed}"
        wrong = {k: v.shape for k, v in shapes["info"].items() if v.shape != ()}
        assert not wrong, f"info must hold scalars, got shapes {wrong}"
        for part in ("fitted", "claims"):
            for path, leaf in jax.tree_util.tree_leaves_with_path(shapes[part]):
                if jnp.issubdtype(leaf.dtype, jnp.floating):
                    name = part + jax.tree_util.keystr(path)
                    assert leaf.dtype == dtype, f"{words}, but {name} is {leaf.dtype}"
        stop = shapes["converged"]
        assert stop.shape == () and stop.dtype == bool, (
            f"converged must return one bool, got {stop.dtype} of shape {stop.shape}"
        )


def floats_may_be_traced(t: Trial) -> None:
    """Every float option of the factory may be traced: a sweep over it compiles once."""
    options = _float_options(t.factory) if t.factory else {}
    if not options:
        return

    def trace(names):
        scalar = jax.ShapeDtypeStruct((), t.train.data.x.dtype)

        def whole(traced):
            data = t.train.data, t.test.data
            return _run(t.factory(**traced), *data, jax.random.key(0))

        return jax.eval_shape(whole, dict.fromkeys(names, scalar))

    try:
        traced = trace(options)
    except Exception:
        for name in options:  # which one is it?
            try:
                trace([name])
            except Exception as error:
                line = str(error).strip().split("\n")[0]
                raise AssertionError(f"the option {name} cannot be traced: {line}") from error
        raise
    changed = difference(t.shapes["claims"], traced["claims"])
    assert not changed, f"with traced options the claims change: {changed}"


def beats_knowing_nothing(t: Trial) -> None:
    """On its easiest world the fit is better than any guess of ``crl.testing.guesses``."""
    assert not t.fit.diverged, "the fit diverged on its easiest world"
    for name, (ours, of) in _merits(t, t.claims).items():
        assert ours > of.nothing, (
            f"{name}: of merit {ours:.3f}, no better than knowing nothing ({of.nothing:.3f}; "
            f"perfect is {of.perfect:.3f})"
        )


def fits_the_same_twice(t: Trial) -> None:
    """The key decides: a second fit finds the compiled program, and gives the same bits."""
    first, traces = t.fit, len(t.traces)
    again = train.fit(t.estimator, t.key, t.train.data)
    num = len(t.traces) - traces
    assert not num, f"the second fit traced the step {num} times more"
    assert_same(first.state, again.state, "the same key and data gave another fit: fitted")


def reads_out_row_by_row(t: Trial) -> None:
    """readout works on rows not fitted on, and a row's claim depends on that row alone."""
    assert isinstance(t.claims, Readout), f"readout returned {type(t.claims).__name__}"
    claims = {k: v for k, v in t.claims._asdict().items() if v is not None}
    assert claims, "readout claims nothing: every field is None"
    x = np.array(t.test.data.x)
    x[1::2] = 3 * x[1::2][::-1] + 1
    others = t.test.data._replace(x=jnp.asarray(x))
    beside = train.readout(t.estimator, t.fit.state, others)
    for name in PER_ROW:
        if name in claims:
            rows = claims[name].shape[0]
            assert rows == len(x), f"readout.{name} must have one row per datum, got {rows}"
            assert_close(
                claims[name][::2],
                getattr(beside, name)[::2],
                f"readout.{name} of a row depends on the other rows",
            )


def an_empty_query_changes_nothing(t: Trial) -> None:
    """Where nothing is set by do(), the counterfactual is x as it was, to rounding."""
    data = t.test.data
    if t.claims.counterfactual is None or "do_mask" not in data.aux:
        return
    aux = {**data.aux, "do_mask": jnp.zeros_like(data.aux["do_mask"])}
    answer = train.readout(t.estimator, t.fit.state, data._replace(aux=aux)).counterfactual
    gap, size = (float(jnp.max(jnp.abs(a))) for a in (answer - data.x, data.x))
    assert gap <= 8 * jnp.finfo(data.x.dtype).eps * size, (
        f"nothing is set, yet the counterfactual differs from x by {gap:.2g}: leave alone "
        "what no cause reaches, the error of an inverted mechanism is no effect"
    )


def keeps_only_what_readout_reads(t: Trial) -> None:
    """Every array of the fitted state matters to a claim: finish drops the others."""
    leaves, form = jax.tree_util.tree_flatten_with_path(t.fit.state)

    def matters(i, leaf):
        changed = [v for _, v in leaves]
        changed[i] = leaf
        claims = train.readout(t.estimator, form.unflatten(changed), t.test.data)
        pairs = zip(numbers(t.claims), numbers(claims))
        return any(not np.array_equal(a, b, equal_nan=True) for (_, a), (_, b) in pairs)

    for i, (path, leaf) in enumerate(leaves):
        if leaf.size < 2 or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue  # a count is no burden
        value = np.asarray(leaf)
        others = [np.zeros_like(value), np.ones_like(value)]
        if value.dtype != bool:  # what is compared with a threshold may pass it one way only
            others += [3 * value[::-1] + 1, np.full_like(value, 99)]
        assert any(matters(i, other) for other in others), (
            f"no claim depends on fitted{jax.tree_util.keystr(path)} of shape {leaf.shape}: "
            "let finish return what readout needs, and no more"
        )


# --- slow: programs of their own ----------------------------------------------------------


def replicas_equal_a_loop(t: Trial) -> None:
    """Every backend of fit_replicas, vmap included, gives the claims of a loop over keys."""
    keys = jax.random.split(t.key, 3)
    alone = [train.fit(t.short, key, t.train.data).state for key in keys]
    data = stacked([t.train.data] * len(keys))
    for backend in ("shard_map", "pmap", "vmap"):
        fit = train.fit_replicas(t.short, keys, data, backend=backend)
        for i, expected in enumerate(alone):
            state = jax.tree.map(lambda a, i=i: a[i], jax.device_get(fit.state))
            # Not the states: parameters that the data hardly determine may differ.
            claims = [
                train.readout(t.estimator, s, t.test.data)._replace(diag=None)
                for s in (expected, state)
            ]
            assert_close(*claims, f"backend {backend} differs from a loop:")


def a_sweep_equals_a_loop(t: Trial) -> None:
    """Options given as traced numbers mean what they mean in the factory."""
    options = _float_options(t.factory) if t.factory else {}
    options = {k: v for k, v in options.items() if v is not None}
    if not options:
        return

    def factory(**given):
        return t.factory(**given)._replace(num_steps=t.short.num_steps)

    keys = jax.random.split(t.key, 2)
    swept = {k: jnp.full(2, v, t.train.data.x.dtype) for k, v in options.items()}
    fit = train.fit_replicas(factory, keys, t.train.data, options=swept, shared=True)
    state = jax.tree.map(lambda a: a[1], jax.device_get(fit.state))
    alone = train.fit(t.short, keys[1], t.train.data).state
    claims = [
        train.readout(t.estimator, s, t.test.data)._replace(diag=None) for s in (alone, state)
    ]
    assert_close(*claims, "a sweep over options differs from a loop:")


def resumed_equals_uninterrupted(t: Trial) -> None:
    """A fit saved to disk, restored and continued ends bit for bit as one left alone."""
    if t.estimator.num_steps < 2:
        return
    longer = t.estimator._replace(num_steps=min(2 * NUM_STEPS, t.estimator.num_steps))
    with tempfile.TemporaryDirectory() as directory:
        options = dict(checkpoint=directory, chunk_size=1)
        train.fit(t.short, t.key, t.train.data, **options)
        resumed = train.fit(longer, t.key, t.train.data, **options)
    alone = train.fit(longer, t.key, t.train.data, chunk_size=1)
    assert_same(alone.state, resumed.state, "after a resume another fit: fitted")
    assert_same(alone.trace, resumed.trace, "after a resume another trace:")


def learns_nothing_from_noise(t: Trial) -> None:
    """Fitted to noise in place of x, the claims are no good: knowledge comes from data.

    The control of ``beats_knowing_nothing``: an estimator that passes both has learnt, and
    was not told the world by its factory, nor its metric by the shape of an answer.
    """
    merits = []
    for key in jax.random.split(jax.random.fold_in(t.key, 3), 3):
        key_noise, key_fit = jax.random.split(key)
        x = t.train.data.x
        noise = t.train.data._replace(x=jax.random.normal(key_noise, x.shape, x.dtype))
        state = train.fit(t.estimator, key_fit, noise).state
        merits.append(_merits(t, train.readout(t.estimator, state, t.test.data)))
    for name, (_, of) in merits[0].items():
        # A small graph may be guessed once; three guesses do not come out half right.
        ours = np.nanmean([each[name][0] for each in merits])
        assert not ours > (of.nothing + of.perfect) / 2, (
            f"{name}: of merit {ours:.3f} from noise, where knowing nothing has "
            f"{of.nothing:.3f}: the truth reaches the estimator by another way than the data"
        )


def converged_means_done(t: Trial) -> None:
    """When ``converged`` says so, further steps hardly change a claim, and it stays so."""
    estimator = t.estimator
    if estimator.converged is None:
        return
    data = hold_out(t.train.data, estimator.holdout)

    @jax.jit
    def step(state, i):
        key = jax.random.fold_in(t.key, i)
        batch = draw_batch(key, data, estimator.batch_size)
        return estimator.step(jax.random.fold_in(key, 1), state, batch)[0]

    @jax.jit
    def claims(state):
        fitted = estimator.finish(t.key, state, data)
        return estimator.readout(fitted, t.test.data)._replace(diag=None)

    converged = jax.jit(estimator.converged)
    state, i = jax.jit(estimator.init)(t.key, data), 0
    while i < estimator.num_steps and not converged(state):
        state, i = step(state, i), i + 1
    assert converged(state), f"not converged on its easiest world after {i} steps"
    later = state
    for j in range(i, i + NUM_STEPS):
        later = step(later, j)
    assert converged(later), "after convergence further steps undo it"
    for (path, a), (_, b) in zip(numbers(claims(state)), numbers(claims(later)), strict=True):
        # A tolerance of the method's own is none of ours, but a few percent are too many.
        a, b = np.asarray(a, float), np.asarray(b, float)  # a claim may be yes or no
        gap, size = np.max(np.abs(b - a)), np.max(np.abs(a))
        assert gap <= 0.02 * size, (
            f"after convergence {NUM_STEPS} steps change claims{path} by {gap:.2g} of "
            f"{size:.2g}"
        )


def held_rows_are_not_learnt_from(t: Trial) -> None:
    """The loss of each step is the same whatever the rows that are held out."""
    if not t.estimator.holdout:
        return
    data = hold_out(t.train.data, t.estimator.holdout)
    other = data._replace(held=data.held._replace(x=3 * data.held.x[::-1] + 1))
    traces = [train.fit(t.short, t.key, d).trace for d in (data, other)]
    losses = [trace.get("loss", np.zeros(0)) for trace in traces]
    # A score of these rows may end the fit, and change its other diagnostics.
    both = np.isfinite(losses[0]) & np.isfinite(losses[1])
    assert_same(*(v[both] for v in losses), "a step learns from the rows held out: loss")


@metric(best=jnp.inf)
def _smallness(claims: Readout, sample: Sample) -> Array:
    """A score that any readout has."""
    del sample
    leaves = jax.tree.leaves(claims._replace(diag=None, other=None))
    floats = [v for v in leaves if v.dtype.kind == "f"]
    return -sum(jnp.mean(jnp.abs(v)) for v in floats)


def combinators_nest(t: Trial) -> None:
    """Restarts of its best checkpoints claim what it claims."""
    if not t.estimator.num_steps:
        return
    nested = restarts(best_checkpoint(t.short, _smallness, every=2), 2, _smallness)
    fit = train.fit(nested, t.key, t.train.data)
    assert not fit.diverged, "restarts of its best checkpoints diverge"
    claims = train.readout(nested, fit.state, t.test.data)
    # They add the scores of the restarts.
    changed = difference(*(c._replace(diag=None, other=None) for c in (t.claims, claims)))
    assert not changed, f"restarts of its best checkpoints claim something else: {changed}"


def streams_feed_it(t: Trial) -> None:
    """A Stream gives the fit that memory gives when it reads what memory holds."""
    if not t.estimator.num_steps:
        return
    data = hold_out(t.train.data, t.estimator.holdout)

    def read(start, num, size):
        keys = jax.random.split(jax.random.key(start), num)
        batches = [draw_batch(key, data._replace(held=None), size) for key in keys]
        return jax.device_get(stacked(batches))

    streamed = train.fit(t.short, t.key, Stream(data, read), chunk_size=2)
    memory = train.fit(t.short, t.key, data)
    changed = difference(memory.state, streamed.state)
    assert not changed, f"fed by a Stream, another fitted state: {changed}"
    assert streamed.diverged == memory.diverged, "fed by a Stream the fit diverges"
    if t.estimator.batch_size is None:  # then each step of both has seen all rows
        claims = [
            train.readout(t.estimator, f.state, t.test.data)._replace(diag=None)
            for f in (memory, streamed)
        ]
        assert_close(*claims, "fed by a Stream, another claim:")


def splits_its_work(t: Trial) -> None:
    """Over several devices each multiplies its share of the rows of a batch, and no more.

    Looks at the compiled text of a step, for estimators with a batch size, where there are
    two devices or more.
    """
    devices = tuple(jax.local_devices())
    if len(devices) < 2 or not t.estimator.num_steps or t.estimator.batch_size is None:
        return
    share = 53  # a prime: not the size of anything else
    size = share * len(devices)
    estimator = t.estimator._replace(batch_size=size)
    data = hold_out(t.train.data, estimator.holdout)

    def batch(key, data, i):
        return parallel.spread_rows(draw_batch(key, data, size), devices)

    def step(key, lane, data):
        return loop.advance(estimator, key, lane, data, 1, batch=batch)

    lane = jax.jit(functools.partial(loop.start, estimator))(t.key, data)
    args = parallel.on_all_devices((t.key, lane, data), devices)
    sizes = _sizes_in_products(jax.jit(step).lower(*args).compile().as_text())
    assert size not in sizes, (
        f"of a batch of {size} rows each of {len(devices)} devices multiplies all, not its "
        f"{share}: a step that orders or draws rows itself gathers them everywhere"
    )
    assert share in sizes, f"no device multiplies its {share} rows: {sorted(sizes)}"


SHAPES = (fits_its_task, uses_no_key_twice, keeps_form_and_dtype, floats_may_be_traced)
FAST = (
    *SHAPES,
    beats_knowing_nothing,
    fits_the_same_twice,
    reads_out_row_by_row,
    an_empty_query_changes_nothing,
    keeps_only_what_readout_reads,
)
SLOW = (
    replicas_equal_a_loop,
    a_sweep_equals_a_loop,
    resumed_equals_uninterrupted,
    learns_nothing_from_noise,
    converged_means_done,
    held_rows_are_not_learnt_from,
    combinators_nest,
    streams_feed_it,
    splits_its_work,
)


# --- pieces -------------------------------------------------------------------------------


def _run(estimator: Estimator, train_data: Data, test_data: Data, key: Array) -> dict:
    """All that an estimator makes of data, one step included; for ``eval_shape``."""
    key_init, key_batch, key_step, key_finish = jax.random.split(key, 4)
    data = hold_out(train_data, estimator.holdout)
    state = jax.tree.map(jnp.asarray, estimator.init(key_init, data))
    after, info = state, {}
    if estimator.num_steps:
        batch = draw_batch(key_batch, data, estimator.batch_size)
        after, info = estimator.step(key_step, state, batch)
    fitted = estimator.finish(key_finish, after, data)
    converged = estimator.converged(after) if estimator.converged else jnp.array(False)
    return {
        "state": state,
        "after": after,
        "info": jax.tree.map(jnp.asarray, info),
        "fitted": jax.tree.map(jnp.asarray, fitted),
        "claims": estimator.readout(fitted, test_data)._replace(diag=None),
        "converged": jnp.asarray(converged),
    }


def _shapes(estimator: Estimator, train_data: Data, test_data: Data) -> dict:
    run = functools.partial(_run, estimator)
    return jax.eval_shape(run, train_data, test_data, jax.random.key(0))


def _sizes_in_products(text: str) -> set[int]:
    """All sizes of axes of the operands and results of matrix products in compiled text."""
    shapes = dict(re.findall(r"(%[\w.-]+) = \w+\[([\d,]*)\]", text))
    sizes = set()
    for result, operands in re.findall(r"(%[\w.-]+) = [^\n]*? dot\(([^)]*)\)", text):
        for name in (result, *re.findall(r"%[\w.-]+", operands)):
            sizes |= {int(n) for n in shapes.get(name, "").split(",") if n}
    return sizes


def _cast(tree, dtype):
    def cast(a):
        return a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a

    return jax.tree.map(cast, tree)


def _float_options(factory: Callable) -> dict[str, float | None]:
    """The factory's float options and their defaults, None where there is none."""
    found = {}
    for name, option in inspect.signature(factory).parameters.items():
        default = None if option.default is inspect.Parameter.empty else option.default
        is_float = isinstance(default, float) or option.annotation in (float, "float")
        if is_float and name not in STATIC and option.kind is not option.VAR_KEYWORD:
            found[name] = default
    return found
