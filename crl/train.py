"""Fitting: chunks of compiled steps, driven from the host.

``start``, ``advance`` and ``finish`` are pure and compose with jit, vmap and the maps of
``crl.parallel``; ``fit`` drives them in chunks, and between two chunks there is room for
what a compiled loop must not do: progress, a log line, a checkpoint, an early stop.
Step t uses ``fold_in(key, t)``, so a resumed fit equals an uninterrupted one bit for bit.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_data, check_key
from crl.core import Data, Estimator, PyTree, Readout, keep
from crl.parallel import map_replicas, num_replicas


class Lane(NamedTuple):
    """One fit in flight: with the key and the data, all that a resumed run needs."""

    state: PyTree
    step: Array  # () int32, steps done
    diverged: Array  # () bool: frozen before its first non-finite step
    converged: Array  # () bool: the estimator said that further steps change nothing


class Fit(NamedTuple):
    """A finished fit. ``trace`` holds info of each step, NaN after a lane stopped."""

    state: PyTree
    trace: dict[str, np.ndarray]  # (num_steps,) or (lanes, num_steps)
    num_steps: Array  # () steps done
    converged: Array  # () bool; False too where the estimator cannot tell
    diverged: Array  # () bool


class Stream(NamedTuple):
    """Data that does not fit in memory, read batch by batch, in place of a Data.

    ``read(start, num)`` returns the batches of steps start..start+num-1 as a Data whose
    leaves have a further leading axis ``num``; it depends on nothing but its arguments,
    which is what makes a resumed run exact. ``example`` is one batch, for shapes and init.
    """

    example: Data
    read: Callable[[int, int], Data]


def start(estimator: Estimator, key: Array, data: Data) -> Lane:
    """A lane before its first step."""
    state = estimator.init(jax.random.fold_in(key, 2**31 - 1), data)
    zero = jnp.zeros((), jnp.int32)
    return Lane(state, zero, _has_nan(state), jnp.zeros((), bool))


def advance(
    estimator: Estimator, key: Array, lane: Lane, data: Data, num: int, streamed: bool = False
) -> tuple[Lane, dict[str, Array]]:
    """At most ``num`` further steps, never past ``estimator.num_steps``.

    Returns the lane and info of each step, (num,), NaN where no step was made. With
    ``streamed``, the leaves of data have a leading axis ``num``: one batch a step.
    """

    def batch(i):
        return jax.tree.map(lambda a: a[i], data) if streamed else data

    def attempt(lane, i):
        step_key = jax.random.fold_in(key, lane.step)
        state, info = estimator.step(step_key, lane.state, batch(i))
        return state, {k: _as_float(v) for k, v in info.items()}

    def one(lane, i):
        state, info = attempt(lane, i)
        converged = info.pop("converged", jnp.zeros(())) > 0
        bad = _has_nan(state) | ~_is_finite(info)
        # The step that went wrong is not taken: the lane keeps its last good state.
        state = _select(bad, lane.state, state)
        step = jnp.where(bad, lane.step, lane.step + 1)
        return Lane(state, step, bad, converged & ~bad), info

    def is_active(lane):
        return ~lane.diverged & ~lane.converged & (lane.step < estimator.num_steps)

    shapes = dict(jax.eval_shape(attempt, lane, 0)[1])
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
        done = active & ~new.diverged
        info = {k: jnp.where(done, v, jnp.nan) for k, v in info.items()}
        return _select(active, new, lane), info

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


def _select(condition: Array, if_true: PyTree, if_false: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)


class _Programs(NamedTuple):
    """The compiled pieces of one fit, or of a batch of replicas."""

    start: Callable  # (key, data) -> lane
    advance: Callable  # (key, lane, data) -> (lane, trace); donates the lane
    finish: Callable | None  # (key, lane, data) -> lane; None where there is nothing to do


@functools.lru_cache(maxsize=128)
def _programs(estimator, num, streamed, backend, devices) -> _Programs:
    def forward(key, lane, data):
        return advance(estimator, key, lane, data, num, streamed)

    compile_ = jax.jit
    if backend is not None:
        compile_ = functools.partial(map_replicas, backend=backend, devices=devices)
    ends = estimator.finish is not keep
    return _Programs(
        compile_(functools.partial(start, estimator)),
        compile_(forward, donate_argnums=(1,)),
        compile_(functools.partial(finish, estimator)) if ends else None,
    )


def fit(
    estimator: Estimator,
    key: Array,
    data: Data | Stream,
    *,
    chunk_size: int = 500,
) -> Fit:
    """Fit one estimator to one dataset.

    key: typed PRNG key. data: a Data, or a Stream that is read batch by batch.
    chunk_size: steps per compiled call; between two of them the host looks in.
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
    return _drive(programs, key, example, read, estimator.num_steps, num)


def fit_replicas(
    estimator: Estimator,
    keys: Array,
    data: Data,
    *,
    backend: str = "shard_map",
    devices: Sequence[jax.Device] | None = None,
    chunk_size: int = 500,
) -> Fit:
    """Fit one estimator to r datasets of one shape at once, spread over the devices.

    keys: (r,) typed PRNG keys. data: leaves (r, n, ...), one dataset per key. backend and
    devices as in ``crl.parallel.map_replicas``; every field of the Fit has the leading
    axis r, and each replica converges or diverges by itself.
    """
    check_key(keys)
    num_lanes = num_replicas((keys, data))
    for i in range(num_lanes):
        lane = jax.tree.map(lambda a: a[i], data)  # noqa: B023
        check_data(lane)
        estimator.validate(lane)
    devices = None if devices is None else tuple(devices)
    num = even_chunks(estimator.num_steps, chunk_size)
    programs = _programs(estimator, num, False, backend, devices)
    return _drive(programs, keys, data, None, estimator.num_steps, num)


def _drive(programs, key, data, read, num_steps, num) -> Fit:
    """Steps in chunks until every lane has stopped; the one host loop there is."""
    lane, done, traces = programs.start(key, data), 0, []
    head = _head(lane)
    while done < num_steps and not np.all(head.converged | head.diverged):
        lane, trace = programs.advance(key, lane, data if read is None else read(done, num))
        done += num
        trace, head = jax.device_get((trace, _head(lane)))
        traces.append(trace)
    if programs.finish is not None:
        lane = programs.finish(key, lane, data)
        head = _head(lane)
    return Fit(lane.state, _join(traces, num_steps), *jax.device_get(head))


class _Head(NamedTuple):
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
