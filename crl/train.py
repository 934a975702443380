"""Fitting: chunks of compiled steps (crl.loop), driven from the host.

Between two chunks there is room for what a compiled loop must not do: progress, a log line, a
checkpoint, an early stop.
"""

import contextlib
import functools
import math
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl import checkpoint as disk
from crl import feed, loop, parallel
from crl.check import all_finite, check_data, check_estimator, check_key
from crl.core import PER_ROW, Data, Estimator, PyTree, Readout, accept, keep, take_rows
from crl.feed import Feed, Fresh, Stream, hold_out
from crl.loop import Lane
from crl.progress import on_signals, progress

RESUME = 75  # exit code of a fit that a signal stopped: EX_TEMPFAIL, "run me again"


class Fit(NamedTuple):
    """A finished fit, or with a leading axis r everywhere, a batch of replicas.

    The state is what ``finish`` left: all that readout needs, on its devices; the rest is
    numpy. ``trace`` holds the info of each step that the estimator might have made, NaN
    after it stopped. The state of a fit that diverged is not to be read.
    """

    state: PyTree
    trace: dict[str, np.ndarray]  # (num_steps,) each
    num_steps: np.ndarray  # () steps done
    converged: np.ndarray  # () bool; False too where the estimator cannot tell
    diverged: np.ndarray  # () bool


class Recipe(NamedTuple):
    """A factory with the options that all replicas share; equal by content, so that the
    same call finds its compiled program."""

    factory: Callable
    args: tuple
    options: tuple[tuple[str, object], ...]

    def build(self, swept: Mapping[str, Array]) -> Estimator:
        """The estimator with further options, which may be traced."""
        return self.factory(*self.args, **dict(self.options), **swept)


def _recipe(estimator: Estimator | Callable) -> Estimator | Recipe:
    if isinstance(estimator, Estimator) or not callable(estimator):
        return estimator
    args, options = (), {}
    while isinstance(estimator, functools.partial):
        args = estimator.args + args
        options = {**estimator.keywords, **options}
        estimator = estimator.func
    return Recipe(estimator, args, tuple(sorted(options.items())))


def _build(recipe: Estimator | Recipe, swept: Mapping[str, Array]) -> Estimator:
    return recipe.build(swept) if isinstance(recipe, Recipe) else recipe


class _Programs(NamedTuple):
    """The compiled pieces of one fit, or of a batch of replicas; these are padded.

    options: those swept, () or (r,) each; {} for a finished estimator.
    """

    start: Callable  # (options, key, data, state or None) -> lane
    advance: Callable  # (options, key, lane, source, count) -> (lane, trace); donates lane
    finish: Callable | None  # (options, key, lane, data) -> lane; None: nothing to do


@functools.lru_cache(maxsize=128)
def _programs(recipe, has_end, how: Feed, num, rows, replicas) -> _Programs:
    """rows: devices that the rows of a batch go over, or None. replicas: (backend, devices,
    whether they share the data), or None for one fit."""

    def begin(options, key, data, state):
        return loop.start(_build(recipe, options), key, data, state)

    def batch(key, source, i):
        return parallel.spread_rows(how(key, source, i), rows)

    def forward(options, key, lane, source, count):
        estimator = _build(recipe, options)
        return loop.advance(estimator, key, lane, source, count, num=num, batch=batch)

    def end(options, key, lane, data):
        return loop.finish(_build(recipe, options), key, lane, data)

    if replicas is None:

        def compiled(fn, shared=(), **options):
            return jax.jit(fn, **options)

        of_data = of_source = of_end = ()
    else:
        backend, devices, shares_data = replicas
        compiled = functools.partial(parallel.map_local, backend=backend, devices=devices)
        of_data, of_source, of_end = ((2,), (3, 4), (3,)) if shares_data else ((), (4,), ())
    return _Programs(
        compiled(begin, shared=of_data),
        compiled(forward, shared=of_source, donate_argnums=(2,)),
        compiled(end, shared=of_end) if has_end else None,
    )


def fit(
    estimator: Estimator,
    key: Array,
    data: Data | Stream | Fresh,
    *,
    devices: Sequence[jax.Device] | None = None,
    state: PyTree | None = None,
    chunk_size: int = 500,
    checkpoint: str | os.PathLike | None = None,
    label: str = "",
) -> Fit:
    """Fit one estimator to one dataset.

    key: typed PRNG key. data: a Data; a Stream, read while the chunk before is computed; or
    Fresh rows of a world. devices: spreads the rows of every batch over them, for any
    estimator; the numbers stay those of one device up to the order of sums. state: a state
    of the estimator to start from, in place of ``init``.

    chunk_size: steps per compiled call at most, fewer where those of a stream come to more
    than 64 MB. Between two calls the host looks in: a progress bar on a terminal, a line of
    the logger "crl" elsewhere, both with ``label``.

    checkpoint: a directory of this fit alone, written after every chunk. A fit that finds
    its own steps there resumes from the newest intact one and ends bit for bit as if it
    had never stopped, with more steps too where the estimator's schedule is none of them.
    Steps of another key, other data or another estimator (any number in its program) are
    refused with a ValueError. SIGTERM or SIGUSR1 stops the fit after the chunk in flight,
    with SystemExit(RESUME): run the same again to go on.

    Raises ValueError, before anything is compiled, for data the estimator cannot use.
    """
    check_estimator(estimator)
    check_key(key)
    example = data if isinstance(data, Data) else getattr(data, "example", data)
    check_data(example)
    estimator.validate(example)
    feed.check_holdout(example, estimator.holdout, isinstance(data, Data))
    example = hold_out(example, estimator.holdout)
    size = estimator.batch_size
    if not isinstance(data, Data):
        size = size or len(example.x)
    rows = parallel.row_devices(devices, min(size or len(example.x), len(example.x)))
    how, source, chunk_bytes = feed.from_memory(size), None, 0
    if isinstance(data, Stream):
        how = feed.from_stream(size)
        chunk_bytes = size * feed.bytes_per_row(example)
    elif isinstance(data, Fresh):
        how, source = feed.from_world(data.dgp, size), (data.world, example)
    num = chunk_length(estimator.num_steps, chunk_size, chunk_bytes)
    identity = {}
    if checkpoint is not None:
        identity = _identity(estimator, {}, key, example, state, source, how)
    is_full = size is None or size >= len(example.x)
    example = parallel.place_data(example, rows, spread=is_full)
    key, state, source = parallel.on_all_devices((key, state, source), rows)
    sources = _endlessly(example if source is None else source)
    if isinstance(data, Stream):
        place = functools.partial(parallel.place_chunk, devices=rows)

        def sources(done):
            held = parallel.on_all_devices(example.held, rows)
            for chunk in feed.chunks(data, done, estimator.num_steps, num, size, place):
                yield chunk, held

    programs = _programs(estimator, estimator.finish is not keep, how, num, rows, None)
    job = _Job({}, key, example, state, estimator.num_steps, num, identity, label)
    return _drive(programs, job, sources, checkpoint, lambda tree: tree, lambda tree: tree)


def fit_replicas(
    estimator: Estimator | Callable[..., Estimator],
    keys: Array,
    data: Data,
    *,
    options: Mapping[str, Array] | None = None,
    shared: bool = False,
    state: PyTree | None = None,
    backend: str = "shard_map",
    devices: Sequence[jax.Device] | None = None,
    chunk_size: int = 500,
    checkpoint: str | os.PathLike | None = None,
    label: str = "",
) -> Fit:
    """Fit r replicas at once in one compiled program, spread over the devices.

    keys: (r,) typed PRNG keys. data: leaves (r, n, ...), one dataset per key, or with
    ``shared`` one Data for all. options: float options of a factory by name, (r,) each; the
    estimator is then the factory, ``functools.partial(topk_sae, 512, 8)`` say, and a sweep
    over them compiles once. state: where to start in place of ``init``, leaves (r, ...).
    backend and devices as in ``crl.parallel.map_replicas``, the rest as in ``fit``. Every
    field of the Fit has the leading axis r; each replica converges or diverges by itself,
    and the fit ends when all have stopped. A checkpoint resumes on any number of devices,
    but under ``jax.distributed`` on the same number of processes.
    """
    check_key(keys, ndim=1)
    if not isinstance(data, Data):
        raise ValueError(
            f"expected a Data{'' if shared else ' whose leaves have the leading axis r'}, got "
            f"{type(data).__name__}: only crl.fit takes a Stream or Fresh"
        )
    recipe, options = _recipe(estimator), _swept(estimator, options, len(keys))
    per_replica = {"keys": keys, "options": options, "state": state}
    num_lanes = parallel.num_replicas(per_replica | ({} if shared else {"data": data}))
    devices = parallel.check_devices(backend, devices)
    built = _check_lanes(recipe, options, data, shared, num_lanes)
    how = feed.from_memory(built.batch_size)
    num = chunk_length(built.num_steps, chunk_size)
    if checkpoint is not None and jax.process_count() > 1:
        checkpoint = os.path.join(checkpoint, f"process{jax.process_index()}")
    replicas = (backend, devices, shared)
    programs = _programs(recipe, built.finish is not keep, how, num, None, replicas)
    options, keys, state = parallel.own_share((options, keys, state))
    if not shared:
        data = parallel.own_share(data)
    num_own, identity = len(keys), {}
    if checkpoint is not None:
        identity = _identity(recipe, options, keys, data, state)
    if built.holdout:
        part = functools.partial(hold_out, share=built.holdout)
        data = part(data) if shared else jax.vmap(part)(data)

    def pad(tree):
        return parallel.place(tree, backend, devices)

    def unpad(tree):
        return parallel.cut(tree, num_own)

    data = parallel.share(data, backend, devices, num_own) if shared else pad(data)
    job = _Job(
        pad(options), pad(keys), data, pad(state), built.num_steps, num, identity, label
    )
    out = _drive(programs, job, _endlessly(data), checkpoint, pad, unpad)
    return parallel.gather(out, num_lanes)


def _swept(estimator, options, num_lanes) -> dict[str, Array]:
    """The swept options as arrays (r,)."""
    if options and isinstance(estimator, Estimator):
        raise ValueError(
            f"expected a factory to sweep {', '.join(options)}, got an Estimator: pass "
            "functools.partial(factory, ...) without calling it"
        )
    swept = {name: jnp.asarray(value) for name, value in (options or {}).items()}
    for name, value in swept.items():
        if value.shape != (num_lanes,) or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(
                f"expected {name} as floats of shape ({num_lanes},), one per key, got shape "
                f"{value.shape} and dtype {value.dtype}: integers set shapes and are not swept"
            )
    return swept


def _check_lanes(recipe, options, data, shared, num_lanes) -> Estimator:
    """The estimator of the first replica, after a look at the data and options of all."""
    built = [
        _build(recipe, {name: float(v[i]) for name, v in options.items()})
        for i in range(num_lanes if options else 1)
    ]
    first = built[0]
    check_estimator(first)
    # Lanes have one shape; where they share the environments too, one look serves all.
    env = np.asarray(jax.device_get(data.env))
    alike = shared or (all_finite(data.x) and bool(np.all(env == env[:1])))
    for i in range(1 if shared or (alike and first.validate is accept) else num_lanes):
        lane = data if shared else jax.tree.map(operator.itemgetter(i), data)
        try:
            if i == 0 or not alike:
                check_data(lane)
                feed.check_holdout(lane, first.holdout)
            first.validate(lane)
        except ValueError as error:
            if shared:
                raise
            raise ValueError(f"replica {i} of {num_lanes}: {error}") from error
    return first


def _endlessly(source) -> Callable[[int], Iterator]:
    def sources(done):
        while True:
            yield source

    return sources


class _Job(NamedTuple):
    """What there is to do: one fit, or replicas with a leading axis, padded."""

    options: dict[str, Array]  # those swept
    key: Array
    data: Data
    state: PyTree | None
    num_steps: int
    chunk: int  # steps per compiled call
    identity: dict[str, str]  # see ``_identity``; {} without a checkpoint
    label: str


def _drive(programs, job: _Job, sources, checkpoint, pad, unpad) -> Fit:
    """Steps in chunks until every lane has stopped; the one host loop there is."""
    num_steps, options, key = job.num_steps, job.options, job.key
    lane, done, traces = programs.start(options, key, job.data, job.state), 0, []
    if checkpoint is not None:
        lane, done, traces = _resumed(checkpoint, job.identity, num_steps, unpad(lane))
        lane = pad(lane)
    head = unpad(jax.device_get(_head(lane)))
    caught = []
    signals = ("SIGTERM", "SIGUSR1") if checkpoint is not None else ()
    with (
        on_signals(signals, caught.append),
        progress(num_steps, label=job.label, initial=done) as report,
        contextlib.closing(sources(done)) as chunks,
    ):
        while done < num_steps and not np.all(head.converged | head.diverged):
            count = min(job.chunk, num_steps - done)
            lane, trace = programs.advance(options, key, lane, next(chunks), np.int32(count))
            done += count
            trace, head = unpad(jax.device_get((trace, _head(lane))))  # waits for the device
            traces.append({k: v[..., :count] for k, v in trace.items()})
            report(done, _facts(trace, head))
            if checkpoint is not None:
                _save(checkpoint, job.identity, done, unpad(lane), _join(traces, done))
            if caught:
                raise SystemExit(RESUME)
        if programs.finish is not None:
            lane = programs.finish(options, key, lane, job.data)
            head = unpad(jax.device_get(_head(lane)))
    if caught:  # what came late still exits: the steps are saved
        raise SystemExit(RESUME)
    return Fit(unpad(lane.state), _join(traces, num_steps), *head)


class _Head(NamedTuple):
    """What the host needs of a lane to decide and to tell."""

    num_steps: Array
    converged: Array
    diverged: Array


def _head(lane: Lane) -> _Head:
    return _Head(lane.step, lane.converged, lane.diverged)


def _facts(trace: dict[str, np.ndarray], head: _Head) -> list[str]:
    """The median loss of the lanes, and how many of them have stopped."""
    losses = []
    for lane in np.atleast_2d(trace.get("loss", np.nan)):
        losses += list(lane[np.isfinite(lane)][-1:])  # of the lane's last step
    facts = [f"loss {np.median(losses):.4g}"] if losses else []
    for name in ("converged", "diverged"):
        if np.any(getattr(head, name)):
            facts.append(f"{np.mean(getattr(head, name)):.0%} {name}")
    return facts


def _join(traces: list[dict], num_steps: int) -> dict[str, np.ndarray]:
    """The chunks' traces end to end: exactly num_steps entries, NaN where none was made."""

    def join(name):
        trace = np.concatenate([t[name] for t in traces], axis=-1)
        missing = [(0, 0)] * (trace.ndim - 1) + [(0, num_steps - trace.shape[-1])]
        return np.pad(trace, missing, constant_values=np.nan)

    return {name: join(name) for name in (traces[0] if traces else {})}


def _identity(recipe, options, key, data, state, source=None, how=None) -> dict[str, str]:
    """Digests of what the numbers of a fit follow from: its inputs and its program.

    source, how: of rows drawn fresh, whose law is a part of the program.
    """

    def first(tree, has_replicas):
        return jax.tree.map(lambda a: a[0], tree) if has_replicas else tree

    own = first((options, key, state), key.ndim > 0)
    lane = first(data, data.env.ndim > 1)  # replicas may share their data

    def once(options, key, state, data, source):
        estimator = _build(recipe, options)
        data = hold_out(data, estimator.holdout)
        lane = loop.start(estimator, key, data, state)
        if estimator.num_steps:
            batch = feed.draw_batch(key, data, estimator.batch_size)
            batch = batch if source is None else how(key, source, 0)
            lane, _ = loop.attempt(estimator, key, lane, batch)
        return loop.finish(estimator, key, lane, data)

    program = disk.digest_of_program(once, *own, lane, source)
    return {"inputs": disk.digest((options, key, data, state, source)), "program": program}


def _save(directory, identity, done, lane, trace) -> None:
    shapes = {name: [v.shape, v.dtype.name] for name, v in trace.items()}
    meta = {**identity, "steps": done, "trace": shapes}
    disk.save(directory, done, {"lane": lane, "trace": trace}, meta)


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

    found = disk.restore(directory, like)
    if found is None:
        return lane, 0, []
    done, tree, _ = found
    return tree["lane"], done, [tree["trace"]]


def chunk_length(num_steps: int, chunk_size: int, step_bytes: int = 0) -> int:
    """Steps per compiled call: the length that splits num_steps most evenly.

    At most ``chunk_size`` of them, and at most ``feed.CHUNK_BYTES`` of batches, which take
    ``step_bytes`` each.
    """
    if chunk_size < 1:
        raise ValueError(f"expected chunk_size >= 1 steps, got {chunk_size}")
    if step_bytes:
        chunk_size = max(1, min(chunk_size, feed.CHUNK_BYTES // step_bytes))
    return math.ceil(num_steps / max(1, math.ceil(num_steps / chunk_size)))


def readout(
    estimator: Estimator, fitted: PyTree, data: Data, *, batch_size: int | None = None
) -> Readout:
    """What the fitted estimator claims about data, the training rows or others.

    fitted: ``Fit.state`` of one fit; see ``readout_replicas`` for many. batch_size: rows
    looked at in one go, for data whose claims do not fit on the device: claims per row then
    are numpy arrays end to end, ``diag`` the mean over batches, all else that of the first.
    """
    n = len(data.x)
    if batch_size is None or batch_size >= n:
        return _readout(estimator, fitted, data)
    if batch_size < 1:
        raise ValueError(f"expected batch_size >= 1 rows, got {batch_size}")
    found = []
    for first in range(0, n, batch_size):
        # The last batch is filled up with its last row: one compilation for all.
        rows = np.minimum(np.arange(first, first + batch_size), n - 1)
        found.append(jax.device_get(_readout(estimator, fitted, take_rows(data, rows))))
    claims = {
        name: np.concatenate([getattr(f, name) for f in found])[:n]
        for name in PER_ROW
        if getattr(found[0], name, None) is not None
    }
    diag = found[0].diag
    if diag is not None:
        diag = {name: np.mean([f.diag[name] for f in found], axis=0) for name in diag}
    return found[0]._replace(**claims, diag=diag)


@functools.partial(jax.jit, static_argnums=0)
def _readout(estimator: Estimator, fitted: PyTree, data: Data) -> Readout:
    return estimator.readout(fitted, data)


def readout_replicas(
    estimator: Estimator | Callable[..., Estimator],
    fitted: PyTree,
    data: Data,
    *,
    options: Mapping[str, Array] | None = None,
    shared: bool = False,
    backend: str = "shard_map",
    devices: Sequence[jax.Device] | None = None,
) -> Readout:
    """What each of r fits claims: ``fitted`` is ``Fit.state`` of ``fit_replicas``.

    Arguments as there; the claims stay on the devices that have the fits.
    """
    num = parallel.num_replicas(fitted)
    recipe, options = _recipe(estimator), _swept(estimator, options, num)
    devices = parallel.check_devices(backend, devices)
    read = _replica_readout(recipe, shared, backend, devices)
    share = parallel.own_share((options, fitted))
    out = read(*share, data if shared else parallel.own_share(data))
    return parallel.gather(out, num)


@functools.lru_cache(maxsize=128)
def _replica_readout(recipe, shared, backend, devices):
    def read(options, fitted, data):
        return _build(recipe, options).readout(fitted, data)

    return parallel.map_local(
        read, backend=backend, devices=devices, shared=(2,) if shared else ()
    )


def save(directory: str | os.PathLike, fitted: PyTree) -> None:
    """Keep a fitted model: ``Fit.state``, with a digest of every array."""
    disk.save(directory, 0, fitted)


def load(directory: str | os.PathLike, estimator: Estimator, data: Data) -> PyTree:
    """A model that ``save`` kept, for ``readout``.

    data: rows like those it was fitted on, of which only shapes are used. Nothing that is
    read is executed. Raises ValueError for a model of another estimator, a damaged one, or
    an empty directory.
    """
    like = jax.eval_shape(
        lambda key, data: (
            loop.finish(estimator, key, loop.start(estimator, key, data), data).state
        ),
        jax.random.key(0),
        hold_out(data, estimator.holdout),
    )
    found = disk.restore(directory, like)
    if found is None:
        raise ValueError(f"expected a model in {directory}, got none: crl.save keeps one")
    return found[1]
