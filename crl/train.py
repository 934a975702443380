"""Fitting: chunks of compiled steps, driven from the host.

``start``, ``advance`` and ``finish`` are pure and compose with jit, vmap and the maps of
``crl.parallel``; ``fit`` drives them in chunks, and between two chunks there is room for
what a compiled loop must not do: progress, a log line, a checkpoint, an early stop.
Step t uses ``fold_in(key, t)``, so a resumed fit equals an uninterrupted one bit for bit.
"""

import contextlib
import functools
import itertools
import logging
import math
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from crl import parallel
from crl.check import all_finite, check_data, check_key, check_num_steps, check_step
from crl.checkpoint import digest, digest_of_program, restore, save
from crl.core import Data, Estimator, PyTree, Readout, accept, keep

log = logging.getLogger("crl")


class Lane(NamedTuple):
    """One fit in flight: with the key and the data, all that a resumed run needs."""

    state: PyTree
    step: Array  # () int32, steps done
    diverged: Array  # () bool: frozen before the step that went wrong; see ``attempt``
    converged: Array  # () bool: the estimator said that further steps change nothing


class Fit(NamedTuple):
    """A finished fit, or with a leading axis r everywhere, a batch of replicas.

    The state is on its devices, the rest is numpy. ``trace`` holds the info of each step
    that the estimator might have made, NaN after it stopped.
    """

    state: PyTree
    trace: dict[str, np.ndarray]  # (num_steps,) each
    num_steps: np.ndarray  # () steps done
    converged: np.ndarray  # () bool; False too where the estimator cannot tell
    diverged: np.ndarray  # () bool


class Stream(NamedTuple):
    """Data that does not fit in memory, read batch by batch, in place of a Data.

    ``read(start, num)`` returns the batches of steps start..start+num-1 as a Data whose
    leaves have a further leading axis ``num``; it depends on nothing but its arguments,
    which is what makes a resumed run exact. The last chunk may ask for batches past the
    last step. ``example`` is one batch, and all that init, finish and validate see.
    """

    example: Data
    read: Callable[[int, int], Data]


def start(estimator: Estimator, key: Array, data: Data) -> Lane:
    """A lane before its first step."""
    check_num_steps(estimator.num_steps)
    # A Python number may stand for an array.
    state = jax.tree.map(jnp.asarray, estimator.init(jax.random.fold_in(key, 2**31 - 1), data))
    zero = jnp.zeros((), jnp.int32)
    return Lane(state, zero, _has_nan(state), jnp.zeros((), bool))


def attempt(
    estimator: Estimator, key: Array, lane: Lane, data: Data
) -> tuple[Lane, dict[str, Array]]:
    """One further step of a lane, even of one that has stopped, and its info.

    A step goes wrong when the new state holds NaN or the info is not finite; inf in a
    state is legitimate, such as the score of what was not yet tried. A wrong step is not
    taken: the lane keeps its last good state, marked diverged, and the info is NaN.
    """
    step_key = jax.random.fold_in(key, lane.step)
    state, info = estimator.step(step_key, lane.state, data)
    check_step(lane.state, state, info)
    info = {k: _as_float(v) for k, v in info.items()}
    bad = _has_nan(state) | ~_is_finite(info)
    info = {k: jnp.where(bad, jnp.nan, v) for k, v in info.items()}
    converged = info.get("converged", jnp.zeros(())) > 0  # NaN is not
    step = jnp.where(bad, lane.step, lane.step + 1)
    return Lane(select(bad, lane.state, state), step, bad, converged), info


def advance(
    estimator: Estimator, key: Array, lane: Lane, data: Data, num: int, streamed: bool = False
) -> tuple[Lane, dict[str, Array]]:
    """At most ``num`` further steps, never past ``estimator.num_steps``.

    Returns the lane and info of each step, (num,), NaN where no step was made. With
    ``streamed``, the leaves of data have a leading axis ``num``: one batch a step.
    """

    def one(lane, i):
        batch = jax.tree.map(lambda a: a[i], data) if streamed else data
        return attempt(estimator, key, lane, batch)

    def is_active(lane):
        return ~lane.diverged & ~lane.converged & (lane.step < estimator.num_steps)

    shapes = dict(jax.eval_shape(one, lane, 0)[1])
    if shapes.pop("converged", None) is not None:
        # Stops at convergence, where a scan would pay for all the steps.
        def body(carry):
            i, lane, trace = carry
            lane, info = one(lane, i)
            return i + 1, lane, {k: v.at[i].set(info[k]) for k, v in trace.items()}

        trace = {k: jnp.full((num, *v.shape), jnp.nan, v.dtype) for k, v in shapes.items()}
        _, lane, trace = jax.lax.while_loop(
            lambda c: (c[0] < num) & is_active(c[1]), body, (0, lane, trace)
        )
        return lane, trace

    def scanned(lane, i):
        new, info = one(lane, i)
        active = is_active(lane)
        info = {k: jnp.where(active, v, jnp.nan) for k, v in info.items()}
        return select(active, new, lane), info

    return jax.lax.scan(scanned, lane, jnp.arange(num))


def finish(estimator: Estimator, key: Array, lane: Lane, data: Data) -> Lane:
    """The lane after the estimator's ``finish``; a NaN there marks it diverged."""
    key = jax.random.fold_in(key, 2**31 - 2)
    state = estimator.finish(key, lane.state, data)
    return lane._replace(state=state, diverged=lane.diverged | _has_nan(state))


def run(estimator: Estimator, key: Array, data: Data) -> Lane:
    """A whole fit as one pure function, for use inside jit; no progress, no trace."""
    lane = start(estimator, key, data)
    if estimator.num_steps:
        lane, _ = advance(estimator, key, lane, data, estimator.num_steps)
    return finish(estimator, key, lane, data)


def _has_nan(tree: PyTree) -> Array:
    leaves = [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return jnp.any(jnp.stack([jnp.any(jnp.isnan(a)) for a in leaves] or [jnp.zeros((), bool)]))


def _is_finite(info: dict[str, Array]) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(v)) for v in info.values()] or [True]))


def _as_float(value: Array) -> Array:
    value = jnp.asarray(value)
    # Only floats can say "undefined" (NaN), which the trace needs.
    is_float = jnp.issubdtype(value.dtype, jnp.inexact)
    return value if is_float else value.astype(jnp.float32)


def select(condition: Array, if_true: PyTree, if_false: PyTree) -> PyTree:
    """``jnp.where`` on every leaf of two trees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)


class _Programs(NamedTuple):
    """The compiled pieces of one fit, or of a batch of replicas; these are padded."""

    pad: Callable  # (tree) -> tree as the programs take it, on its devices
    start: Callable  # (key, data) -> lane
    advance: Callable  # (key, lane, data) -> (lane, trace); donates the lane
    finish: Callable | None  # (key, lane, data) -> lane; None where there is nothing to do


@functools.lru_cache(maxsize=128)
def _programs(estimator, num, streamed, backend, devices) -> _Programs:
    def forward(key, lane, data):
        return advance(estimator, key, lane, data, num, streamed)

    compiled, pad = jax.jit, lambda tree: tree
    if backend is not None:
        compiled = functools.partial(parallel.map_local, backend=backend, devices=devices)
        pad = functools.partial(parallel.place, backend=backend, devices=devices)
    has_end = estimator.finish is not keep
    return _Programs(
        pad,
        compiled(functools.partial(start, estimator)),
        compiled(forward, donate_argnums=(1,)),
        compiled(functools.partial(finish, estimator)) if has_end else None,
    )


def fit(
    estimator: Estimator,
    key: Array,
    data: Data | Stream,
    *,
    chunk_size: int = 500,
    checkpoint: str | os.PathLike | None = None,
    label: str = "",
) -> Fit:
    """Fit one estimator to one dataset.

    key: typed PRNG key. data: a Data, or a Stream that is read batch by batch, the next
    chunk while this one is computed. chunk_size: steps per compiled call; between two of
    them the host looks in: a progress bar on a terminal, a line of the logger "crl"
    elsewhere, both with ``label``.

    checkpoint: a directory of this fit alone, written after every chunk. A fit that finds
    its own steps there resumes from the newest intact one and ends bit for bit as if it
    had never stopped, with more steps too where the estimator's schedule is none of them.
    Steps of another key, other data or another estimator (any number in its program) are
    refused with a ValueError. SIGTERM or SIGUSR1 stops the fit after the chunk in flight,
    with SystemExit(RESUME): run the same again to go on.

    Raises ValueError, before anything is compiled, for data the estimator cannot use.
    """
    check_key(key)
    streamed = isinstance(data, Stream)
    example = data.example if streamed else data
    check_data(example)
    estimator.validate(example)
    num = even_chunks(estimator.num_steps, chunk_size)
    programs = _programs(estimator, num, streamed, None, None)
    read = data.read if streamed else None
    return _drive(programs, estimator, key, example, read, num, checkpoint, label)


def fit_replicas(
    estimator: Estimator,
    keys: Array,
    data: Data,
    *,
    backend: str = "shard_map",
    devices: Sequence[jax.Device] | None = None,
    chunk_size: int = 500,
    checkpoint: str | os.PathLike | None = None,
    label: str = "",
) -> Fit:
    """Fit one estimator to r datasets of one shape at once, spread over the devices.

    keys: (r,) typed PRNG keys. data: leaves (r, n, ...), one dataset per key. backend and
    devices as in ``crl.parallel.map_replicas``, the rest as in ``fit``. Every field of the
    Fit has the leading axis r; each replica converges or diverges by itself, and the fit
    ends when all have stopped. A checkpoint resumes on any number of devices, but under
    ``jax.distributed`` on the same number of processes.
    """
    check_key(keys, ndim=1)
    if not isinstance(data, Data):
        raise ValueError(
            f"expected a Data whose leaves have the leading axis r, got "
            f"{type(data).__name__}: only crl.fit takes a Stream"
        )
    num_lanes = parallel.num_replicas({"keys": keys, "data": data})
    devices = parallel.check_devices(backend, devices)
    num = even_chunks(estimator.num_steps, chunk_size)
    _check_lanes(estimator, data, num_lanes)
    if checkpoint is not None and jax.process_count() > 1:
        checkpoint = os.path.join(checkpoint, f"process{jax.process_index()}")
    programs = _programs(estimator, num, False, backend, devices)
    keys, data = parallel.own_share((keys, data))
    out = _drive(programs, estimator, keys, data, None, num, checkpoint, label)
    return parallel.gather(out, num_lanes)


def _check_lanes(estimator, data, num_lanes) -> None:
    # Lanes have one shape; where they share the environments too, one look serves all.
    env = np.asarray(jax.device_get(data.env))
    alike = all_finite(data.x) and bool(np.all(env == env[:1]))
    for i in range(1 if alike and estimator.validate is accept else num_lanes):
        lane = jax.tree.map(operator.itemgetter(i), data)
        try:
            if i == 0 or not alike:
                check_data(lane)
            estimator.validate(lane)
        except ValueError as error:
            raise ValueError(f"replica {i} of {num_lanes}: {error}") from error


RESUME = 75  # exit code of a fit that a signal stopped: EX_TEMPFAIL, "run me again"
BAR_DELAY = 1  # s before a progress bar shows: a short fit needs none
LINE_EVERY = 10  # s between two log lines, and before the first


def _drive(programs, estimator, key, data, read, num, checkpoint, label) -> Fit:
    """Steps in chunks until every lane has stopped; the one host loop there is."""
    shape, num_steps = key.shape, estimator.num_steps
    identity = _identity(estimator, key, data) if checkpoint is not None else {}

    def unpad(tree):
        return parallel.cut(tree, *shape) if shape else tree

    key, data = programs.pad((key, data))
    lane, done, traces = programs.start(key, data), 0, []
    if checkpoint is not None:
        lane, done, traces = _resumed(checkpoint, identity, num_steps, unpad(lane))
        lane = programs.pad(lane)
    head = unpad(jax.device_get(_head(lane)))
    with (
        _interruption(checkpoint is not None) as interrupted,
        _progress(label, num_steps, done) as report,
        contextlib.closing(_inputs(data, read, done, num_steps, num)) as inputs,
    ):
        while done < num_steps and not np.all(head.converged | head.diverged):
            lane, trace = programs.advance(key, lane, next(inputs))
            done = min(done + num, num_steps)
            trace, head = unpad(jax.device_get((trace, _head(lane))))  # waits for the device
            traces.append(trace)
            report(done, trace, head)
            if checkpoint is not None:
                _save(checkpoint, identity, done, unpad(lane), _join(traces, done))
            if interrupted():
                raise SystemExit(RESUME)
        if programs.finish is not None:
            lane = programs.finish(key, lane, data)
            head = unpad(jax.device_get(_head(lane)))
    return Fit(unpad(lane.state), _join(traces, num_steps), *head)


class _Head(NamedTuple):
    """What the host needs of a lane to decide and to tell."""

    num_steps: Array
    converged: Array
    diverged: Array


def _head(lane: Lane) -> _Head:
    return _Head(lane.step, lane.converged, lane.diverged)


def _join(traces: list[dict], num_steps: int) -> dict[str, np.ndarray]:
    """The chunks' traces end to end: exactly num_steps entries, NaN where none was made."""

    def join(name):
        trace = np.concatenate([t[name] for t in traces], axis=-1)[..., :num_steps]
        missing = [(0, 0)] * (trace.ndim - 1) + [(0, num_steps - trace.shape[-1])]
        return np.pad(trace, missing, constant_values=np.nan)

    return {name: join(name) for name in (traces[0] if traces else {})}


def _inputs(data, read, done, num_steps, num):
    """What each chunk sees; of a stream the next chunk is read while one is computed."""
    if read is None:
        yield from itertools.repeat(data)

    def batches(start):
        found = read(start, num)
        shapes = {np.shape(a)[:1] for a in jax.tree.leaves(found)}
        if shapes != {(num,)}:
            raise ValueError(
                f"expected read({start}, {num}) to return {num} batches, the leading axis of "
                f"every leaf, got {sorted(shapes)}: see crl.Stream"
            )
        return found

    with ThreadPoolExecutor(1, "crl-read") as pool:
        upcoming = pool.submit(batches, done)
        for at in range(done + num, num_steps, num):
            now, upcoming = upcoming.result(), pool.submit(batches, at)
            yield now
        yield upcoming.result()


def _identity(estimator, key, data) -> dict[str, str]:
    """Digests of what the numbers of a fit follow from: its inputs and its program."""

    def once(key, data):
        lane = start(estimator, key, data)
        if estimator.num_steps:
            lane, _ = attempt(estimator, key, lane, data)
        return finish(estimator, key, lane, data)

    def lane(tree):
        return jax.tree.map(lambda a: a[0], tree) if key.shape else tree

    shapes = jax.eval_shape(lane, (key, data))
    return {"inputs": digest((key, data)), "program": digest_of_program(once, *shapes)}


def _save(directory, identity, done, lane, trace) -> None:
    shapes = {name: [v.shape, v.dtype.name] for name, v in trace.items()}
    meta = {**identity, "steps": done, "trace": shapes}
    save(directory, done, {"lane": lane, "trace": trace}, meta)


def _resumed(directory, identity, num_steps, lane: Lane) -> tuple[Lane, int, list[dict]]:
    """(lane, steps done, traces) of the newest step saved, or of the beginning."""

    def like(meta):
        if meta.get("inputs") != identity["inputs"]:
            raise ValueError("it was saved by a fit with another key or other data")
        if meta["program"] != identity["program"]:
            raise ValueError("it was saved by another estimator, or by one with other options")
        if meta["steps"] > num_steps:
            raise ValueError(f"it has more than the {num_steps} steps of this estimator")
        trace = {name: np.zeros(*described) for name, described in meta["trace"].items()}
        return {"lane": lane, "trace": trace}

    found = restore(directory, like)
    if found is None:
        return lane, 0, []
    done, tree, _ = found
    return tree["lane"], done, [tree["trace"]]


@contextlib.contextmanager
def _interruption(enabled: bool):
    """A function that says whether SIGTERM or SIGUSR1 came; what comes late still exits."""
    # Only the main thread may set handlers; elsewhere signals keep their meaning.
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    caught = []
    names = [s for s in ("SIGTERM", "SIGUSR1") if hasattr(signal, s)]
    before = {
        s: signal.signal(s, lambda number, _: caught.append(number))
        for s in (getattr(signal, name) for name in names)
    }
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        raise SystemExit(RESUME)


@contextlib.contextmanager
def _progress(label: str, num_steps: int, done: int):
    """A function (steps done, trace, head) that tells: a bar on a terminal, else a line."""
    bar = None
    if num_steps and sys.stderr.isatty():
        bar = tqdm(desc=label, total=num_steps, initial=done, delay=BAR_DELAY, leave=False)

    told = time.monotonic()

    def report(done, trace, head):
        nonlocal told
        if bar is None:
            if time.monotonic() - told < LINE_EVERY or not log.isEnabledFor(logging.INFO):
                return
            told = time.monotonic()
        facts = []
        for losses in np.atleast_2d(trace.get("loss", np.nan)):
            facts += list(losses[np.isfinite(losses)][-1:])  # of the lane's last step
        facts = [f"loss {np.median(facts):.4g}"] if facts else []
        for name in ("converged", "diverged"):
            if np.any(getattr(head, name)):
                facts.append(f"{np.mean(getattr(head, name)):.0%} {name}")
        if bar is None:
            log.info("%s", ", ".join([f"{label} step {done}/{num_steps}".strip(), *facts]))
        else:
            bar.set_postfix_str(", ".join(facts), refresh=False)
            bar.update(done - bar.n)

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()


def even_chunks(num_steps: int, chunk_size: int) -> int:
    """The chunk length <= chunk_size that splits num_steps most evenly: one compilation."""
    if chunk_size < 1:
        raise ValueError(f"expected chunk_size >= 1 steps, got {chunk_size}")
    return math.ceil(num_steps / max(1, math.ceil(num_steps / chunk_size)))


def readout(estimator: Estimator, state: PyTree, data: Data) -> Readout:
    """What the fitted estimator claims about data, the training rows or others."""
    return _readout(estimator, state, data)


@functools.partial(jax.jit, static_argnums=0)
def _readout(estimator: Estimator, state: PyTree, data: Data) -> Readout:
    return estimator.readout(state, data)
