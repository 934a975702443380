"""Lanes: the cells of one task and estimator, drawn, fitted and judged together.

A lane is a world and the number of a fit on it. Lanes go through programs that are compiled
once; the numbers depend on the keys alone, which derive from hashes of the DGP, the world
and the fit, never on which lanes are together, nor on the number of devices.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crl.bench.records import failure, flat, numbers, outcome, pictures, thin
from crl.bench.suite import build, stable_hash
from crl.check import check_data
from crl.core import Data, Estimator, PyTree, Sample, Task, split
from crl.parallel import map_replicas
from crl.train import fit_replicas

# Steps from which on a fit is checkpointed between chunks. A shorter one is cheaper to
# repeat after a kill than to save.
CHECKPOINT_AFTER = 10_000

# A world, and the number of a fit on it; None asks for the comparison of all its fits.
LaneId = tuple[int, int | None]


class Problem(NamedTuple):
    """One task of a suite as built objects, with the programs that draw and judge it."""

    task: Task
    fits: int  # on each world
    seed: int  # of its worlds: tasks and estimators with one DGP share them
    draw: Callable  # (world ()) -> (train, test): Samples
    score: Callable  # (readout, truth) -> metrics
    compare: Callable  # (stacked readouts) -> stability metrics


class Hardware(NamedTuple):
    """Where lanes run; see ``crl.parallel.map_replicas``."""

    devices: tuple[jax.Device, ...]
    backend: str = "shard_map"

    def map(self, fn: Callable, *, on_first: bool = False) -> Callable:
        devices = self.devices[:1] if on_first else self.devices
        return map_replicas(fn, backend=self.backend, devices=devices)


def make_problem(config) -> Problem:
    """config: a task of ``Suite.tasks``; see there."""
    metrics = {k: build(v) for k, v in config.metrics.items()}
    stability = {k: build(v) for k, v in config.stability.items()}
    task = Task(build(config.dgp), config.num_train, config.num_test, metrics, stability)
    num, seed = task.num_train + task.num_test, stable_hash(config.dgp)

    def draw(world):
        init_key, sample_key = jax.random.split(world_key(seed, world))
        sample = task.dgp.sample(sample_key, task.dgp.init(init_key), num)
        return split(sample, num, task.num_train)

    def score(readout, truth):
        return flat({k: metric(readout, truth) for k, metric in metrics.items()})

    def compare(readouts):
        return flat({k: metric(readouts) for k, metric in stability.items()})

    return Problem(task, config.fits, seed, draw, score, compare)


def world_key(seed: int, world: jax.Array) -> jax.Array:
    """The key of a world; seed: ``Problem.seed``."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), world)


def fit_lanes(
    problem: Problem,
    estimator: Estimator,
    todo: Sequence[LaneId],
    num_worlds: int,
    hardware: Hardware,
    checkpoint: Path | None = None,
    label: str = "",
) -> Iterator[tuple[LaneId, dict]]:
    """The record of each lane in ``todo``, from fits of our estimator over the devices.

    num_worlds: worlds of a full batch, to which the lanes are padded. checkpoint: folder
    for the steps of long fits. A world whose data the estimator refuses is a failure.
    """
    worlds = sorted({world for world, _ in todo})
    train, test = _draw(problem, worlds, num_worlds, hardware)
    on_host = jax.device_get(train.data)
    for i, world in enumerate(worlds):
        try:
            data = jax.tree.map(lambda a: a[i], on_host)  # noqa: B023
            check_data(data)
            estimator.validate(data)
        except ValueError as error:
            refused = [lane for lane in todo if lane[0] == world]
            yield from ((lane, failure(error)) for lane in refused)
            todo = [lane for lane in todo if lane not in refused]
    if not todo:
        return

    compared = sorted({world for world, fit in todo if fit is None})
    lanes = {lane for lane in todo if lane[1] is not None}
    lanes = sorted(lanes | {(w, f) for w in compared for f in range(problem.fits)})
    full = _padded(lanes, num_worlds * problem.fits)
    train, test = _take((train, test), np.array([worlds.index(world) for world, _ in full]))
    fit = fit_replicas(
        estimator,
        _fit_keys(problem.seed, jnp.asarray(full, jnp.int32)),
        train.data,
        backend=hardware.backend,
        devices=hardware.devices,
        checkpoint=checkpoint if estimator.num_steps > CHECKPOINT_AFTER else None,
        label=label,
    )

    # One device: batched SVDs inside metrics may hang on forced host devices.
    first = hardware.devices[0]
    judge = hardware.map(_judge(estimator, problem.score), on_first=True)
    metrics, readouts = judge(jax.device_put(fit.state, first), jax.device_put(test, first))
    metrics, diag, diverged, num_steps, converged = jax.device_get(
        (metrics, readouts.diag or {}, fit.diverged, fit.num_steps, fit.converged)
    )
    readouts = readouts._replace(diag=None)
    may_converge = _may_converge(estimator, on_host)
    for i, lane in enumerate(lanes):
        if lane not in todo:
            continue
        record = outcome({k: v[i] for k, v in metrics.items()}, bool(diverged[i]))
        record["num_steps"] = int(num_steps[i])
        record["converged"] = bool(converged[i]) if may_converge else None
        record["trace"] = thin({k: v[i] for k, v in fit.trace.items()})
        record["diag"] = numbers({k: v[i] for k, v in diag.items()})
        if lane == (0, 0) and not diverged[i]:
            record["pictures"] = pictures(*_take((readouts, test.truth), np.array(i)))
        yield lane, record
    if compared:  # last, so that a metric which fails here costs no fit
        # Worlds in front, fits next; padded to the full size like the lanes.
        at = {lane: i for i, lane in enumerate(lanes)}
        index = [
            [at[w, f] for f in range(problem.fits)] for w in _padded(compared, num_worlds)
        ]
        compare = hardware.map(problem.compare, on_first=True)
        values = jax.device_get(compare(_take(readouts, np.array(index))))
        for i, world in enumerate(compared):
            bad = any(diverged[j] for j in index[i])
            yield (world, None), outcome({k: v[i] for k, v in values.items()}, bad)


def call_peer(
    problem: Problem,
    peer: Callable,
    todo: Sequence[LaneId],
    num_worlds: int,
    hardware: Hardware,
) -> Iterator[tuple[LaneId, dict]]:
    """The record of each lane in ``todo``, one by one, from another library.

    peer: a host function (key, train, test) -> Readout.
    """
    worlds, readouts = sorted({world for world, _ in todo}), {}
    samples = jax.device_get(_draw(problem, worlds, num_worlds, hardware))
    score, compare = _jitted(problem.score), _jitted(problem.compare)

    def call(lane):
        train, test = jax.tree.map(lambda a: a[worlds.index(lane[0])], samples)
        key = _fit_keys(problem.seed, jnp.asarray([lane], jnp.int32))[0]
        begin = time.perf_counter()
        readout = peer(key, train.data, test.data)
        readouts[lane] = readout, time.perf_counter() - begin, test.truth

    def one(world, fit):
        lanes = [(world, f) for f in (range(problem.fits) if fit is None else [fit])]
        for lane in lanes:
            if lane not in readouts:
                call(lane)
        if fit is None:
            each = [readouts[lane][0]._replace(diag=None) for lane in lanes]
            stacked = jax.tree.map(lambda *a: np.stack(a), *each)
            return outcome(jax.device_get(compare(stacked)), False)
        readout, seconds, truth = readouts[world, fit]
        claims = readout._replace(diag=None)
        record = outcome(jax.device_get(score(claims, truth)), False)
        record |= {"peer_seconds": round(seconds, 4), "diag": numbers(readout.diag or {})}
        if (world, fit) == (0, 0):
            record["pictures"] = pictures(readout, truth)
        return record

    for lane in todo:
        try:
            record = one(*lane)
        except Exception as error:
            record = failure(error)
        yield lane, record | {"peer": True}


def _may_converge(estimator: Estimator, lanes: Data) -> bool:
    """Whether the estimator tells convergence: its fits else run all their steps."""
    if not estimator.num_steps:
        return False
    key, data = jax.random.key(0), jax.tree.map(lambda a: a[0], lanes)
    state = jax.eval_shape(estimator.init, key, data)
    return "converged" in jax.eval_shape(estimator.step, key, state, data)[1]


def _draw(
    problem: Problem, worlds: Sequence[int], num_worlds: int, hardware: Hardware
) -> tuple[Sample, Sample]:
    return hardware.map(problem.draw)(jnp.asarray(_padded(worlds, num_worlds), jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def _fit_keys(seed: int, lanes: jax.Array) -> jax.Array:
    """Keys of fits; lanes: (r, 2) world and fit."""
    salt = stable_hash("fit")

    def one(lane):
        return jax.random.fold_in(jax.random.fold_in(world_key(seed, lane[0]), salt), lane[1])

    return jax.vmap(one)(lanes)


@functools.lru_cache(maxsize=128)
def _judge(estimator: Estimator, score: Callable) -> Callable:
    def judge(state, test):
        readout = estimator.readout(state, test.data)
        return score(readout, test.truth), readout

    return judge


@functools.lru_cache(maxsize=128)
def _jitted(fn: Callable) -> Callable:
    return jax.jit(fn)


@jax.jit
def _take(tree: PyTree, rows: jax.Array) -> PyTree:
    # One program, where indexing leaf by leaf compiles one for each shape.
    return jax.tree.map(lambda a: a[rows], tree)


def _padded(items: Sequence, num: int) -> list:
    return [*items, *[items[-1]] * (num - len(items))]
