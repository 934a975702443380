"""The runner: batches of cells to devices, one JSON file a cell.

Cells of one task and estimator run together as lanes: their worlds are drawn, fitted and
judged by programs that are compiled once. A batch is a few worlds with all their fits, so
that a killed run loses little. The numbers depend on the keys alone, which derive from
hashes of the cell, never on batch, shard or number of devices.
"""

import contextlib
import functools
import hashlib
import json
import logging
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from crl.bench.records import (
    failure,
    flat,
    numbers,
    outcome,
    peak_bytes,
    pictures,
    provenance,
    thin,
)
from crl.bench.store import Store, StoreError, is_done
from crl.bench.suite import Cell, Suite, build, canonical, cells, key_of, parse, stable_hash
from crl.check import check_data, check_task
from crl.core import Estimator, PyTree, Sample, Task, split
from crl.parallel import map_replicas
from crl.train import fit_replicas

log = logging.getLogger("crl.bench")

# Lanes a batch and device. A CPU works them off one by one, so few, that a kill loses
# little; an accelerator needs many to be busy.
LANES = {"cpu": 8, "other": 64}
# Steps from which on a fit is checkpointed between chunks. A shorter one is cheaper to
# repeat after a kill than to save.
CHECKPOINT_AFTER = 10_000


class Batch(NamedTuple):
    """Worlds of one task and estimator that are computed together."""

    task: str
    estimator: str
    worlds: tuple[int, ...]
    size: int  # worlds of a full batch; smaller ones are padded to it: one compilation


class Problem(NamedTuple):
    """One task as built objects, with the programs that draw and judge its lanes."""

    task: Task
    draw: Callable  # (world ()) -> (train, test): Samples
    score: Callable  # (readout, truth) -> metrics
    stability: Callable  # (stacked readouts) -> metrics


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM: stop, what is published stays."""


class Summary(NamedTuple):
    """What a run did. ``failures``: (task, estimator, sentence), one entry a cause."""

    computed: int
    failed: int
    diverged: int
    failures: list[tuple[str, str, str]]


class _Compiling:
    """Seconds that this process has spent tracing and compiling."""

    def __init__(self):
        self.total = 0.0
        self.spans = deque(maxlen=1000)  # (begin, seconds)
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, **kwargs) -> None:
        if not event.startswith("/jax/core/compile/"):
            return
        begin = time.perf_counter() - seconds
        # A trace reports itself after those inside it, which must not count twice.
        while self.spans and self.spans[-1][0] >= begin:
            self.total -= self.spans.pop()[1]
        self.spans.append((begin, seconds))
        self.total += seconds


_compiling = _Compiling()


class _Clock:
    """Seconds since it was made: compiling, running, and of this process's CPU time."""

    def __init__(self):
        self.begin = self._now()

    def read(self) -> dict[str, float]:
        took, cpu, compiling = (b - a for a, b in zip(self.begin, self._now()))
        run = max(0.0, took - compiling)
        return {k: round(v, 3) for k, v in dict(compile=compiling, run=run, cpu=cpu).items()}

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), _compiling.total


class Runner:
    """Computes batches of a suite into a store; keeps what is compiled between them."""

    def __init__(
        self,
        suite: Suite,
        store: Store,
        *,
        devices: Sequence[jax.Device] | None = None,
        backend: str = "shard_map",
        retry_failed: bool = False,
    ):
        self.suite, self.store, self.backend = suite, store, backend
        self.devices = tuple(jax.local_devices() if devices is None else devices)
        self.retry_failed = retry_failed
        self.x64 = bool(jax.config.jax_enable_x64)
        self._built = functools.cache(lambda spec: build(json.loads(spec)))
        self.problem = functools.cache(self._problem)
        self.dry_run = functools.cache(self._dry_run)
        self.made_by = functools.cache(lambda: provenance(self.devices))

    def key(self, cell: Cell) -> str:
        """The cell's name in the store."""
        return key_of(self.suite, cell, self.x64)

    def cells(self) -> list[Cell]:
        """The whole plan."""
        return cells(self.suite)

    def plan(self) -> dict:
        """The plan as JSON: the resolved suite, and its cells, each after its key."""
        keyed = [[self.key(cell), *cell] for cell in self.cells()]
        return {**self.suite.to_dict(), "cells": keyed}

    def batches(self) -> list[Batch]:
        """The whole plan in batches of equal size; the same for every shard and resume."""
        kind = self.devices[0].platform
        lanes = LANES.get(kind, LANES["other"]) * len(self.devices)
        found = []
        for name, task in self.suite.tasks.items():
            num = max(1, -(-task.worlds * task.fits // lanes))
            size = -(-task.worlds // num)
            for estimator in task.estimators:
                for first in range(0, task.worlds, size):
                    worlds = range(first, min(first + size, task.worlds))
                    found.append(Batch(name, estimator, tuple(worlds), size))
        return found

    def pending(self, batch: Batch) -> list[Cell]:
        """The cells of a batch that have no result yet; failures count as results."""
        task = self.suite.tasks[batch.task]
        fits = [*range(task.fits), *([None] if task.stability else [])]
        each = [
            Cell(batch.task, batch.estimator, w, fit) for w in batch.worlds for fit in fits
        ]
        records = [self.store.read(self.key(cell)) for cell in each]
        missing = [r is None or (self.retry_failed and not is_done(r)) for r in records]
        return [cell for cell, todo in zip(each, _agreed(missing)) if todo]

    @contextlib.contextmanager
    def lease(self, batch: Batch, wait: bool):
        """Keeps other runs in the same folder off the batch; see ``Store.lease``."""
        first = Cell(batch.task, batch.estimator, batch.worlds[0], 0)
        leads = jax.process_index() == 0  # and holds it for all processes of this job
        taken = self.store.lease(self.key(first), wait) if leads else contextlib.nullcontext()
        with taken as ours:
            yield _agreed([bool(ours)])[0]

    def compute(self, batch: Batch) -> list[dict]:
        """Compute and publish what a batch misses; a failure becomes the cells' record."""
        todo, done = self.pending(batch), {}
        clock = _Clock()
        try:
            for cell, record in self._results(batch, todo):
                self._publish(cell, record, clock, len(todo))
                done[cell] = record
        except StoreError:
            raise
        except Exception as error:
            for cell in todo:
                if cell not in done:
                    done[cell] = failure(error)
                    self._publish(cell, done[cell], clock, len(todo))
        if todo:
            shutil.rmtree(self._checkpoint(batch, todo), ignore_errors=True)
        return [{**cell._asdict(), **record} for cell, record in done.items()]

    def _results(self, batch: Batch, todo: list[Cell]) -> Iterator[tuple[Cell, dict]]:
        if not todo:
            return
        error = self.dry_run(batch.task, batch.estimator)
        if error:
            raise error
        if isinstance(self.build(batch.task, batch.estimator), Estimator):
            yield from self._fit(batch, todo).items()
        else:
            yield from self._call_peer(batch, todo)

    def _publish(self, cell: Cell, record: dict, clock: _Clock, num_cells: int) -> None:
        task = self.suite.tasks[cell.task]
        config = {
            "dgp": task.dgp,
            "estimator": task.estimators[cell.estimator],
            "metrics": task.metrics if cell.fit is not None else task.stability,
            "num_train": task.num_train,
            "num_test": task.num_test,
        }
        # Compiled programs return dicts by the alphabet; the report shows the task's order.
        at = {name: i for i, name in enumerate(config["metrics"])}

        def position(item):
            return min(
                (i for n, i in at.items() if f"{item[0]}.".startswith(f"{n}.")), default=0
            )

        record = {**record, "metrics": dict(sorted(record["metrics"].items(), key=position))}
        whole = {
            **{"suite": self.suite.name, **cell._asdict(), **record},
            "seconds": {**clock.read(), "cells": num_cells},
            "peak_bytes": peak_bytes(self.devices),
            "made_by": self.made_by(),
            "config": config,
        }
        if jax.process_index() == 0:  # the others have the same numbers
            self.store.publish(self.key(cell), whole)

    def _checkpoint(self, batch: Batch, todo: list[Cell]) -> Path:
        # Another set of lanes is another fit and must not find this one's steps.
        content = canonical([batch.size, [self.key(cell) for cell in todo]])
        name = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
        return self.store.root / "fits" / name

    def build(self, task: str, estimator: str) -> Any:
        """The estimator or peer; one object a spec, so that tasks share its programs."""
        return self._built(canonical(self.suite.tasks[task].estimators[estimator]))

    def _dry_run(self, task: str, estimator: str) -> Exception | None:
        """What does not fit, before anything is compiled."""
        try:
            built, problem = self.build(task, estimator), self.problem(task)
            if isinstance(built, Estimator):
                check_task(problem.task, built)
            elif not callable(built):
                raise ValueError(
                    f"expected an Estimator or a function (key, train, test) -> Readout from "
                    f"{estimator!r}, got {type(built).__name__}"
                )
        except Exception as error:
            return error
        return None

    def _problem(self, name: str) -> Problem:
        config = self.suite.tasks[name]
        metrics = {k: build(v) for k, v in config.metrics.items()}
        stability = {k: build(v) for k, v in config.stability.items()}
        task = Task(build(config.dgp), config.num_train, config.num_test, metrics, stability)
        num = task.num_train + task.num_test
        seed = stable_hash(config.dgp)

        def draw(world):
            init_key, sample_key = jax.random.split(world_key(seed, world))
            sample = task.dgp.sample(sample_key, task.dgp.init(init_key), num)
            return split(sample, num, task.num_train)

        def score(readout, truth):
            return flat({k: metric(readout, truth) for k, metric in metrics.items()})

        def compare(readouts):
            return flat({k: metric(readouts) for k, metric in stability.items()})

        return Problem(task, draw, score, compare)

    def _draw(self, batch: Batch, worlds: Sequence[int]) -> tuple[Sample, Sample]:
        mapped = map_replicas(
            self.problem(batch.task).draw, backend=self.backend, devices=self.devices
        )
        return mapped(jnp.asarray(_padded(worlds, batch.size), jnp.int32))

    def _fit(self, batch: Batch, todo: list[Cell]) -> dict[Cell, dict]:
        """Our estimators: lanes over the devices."""
        config, problem = self.suite.tasks[batch.task], self.problem(batch.task)
        estimator = self.build(batch.task, batch.estimator)
        found: dict[Cell, dict] = {}
        folder = self._checkpoint(batch, todo)
        worlds = sorted({cell.world for cell in todo})
        train, test = self._draw(batch, worlds)
        on_host = jax.device_get(train.data)
        for i, world in enumerate(worlds):
            try:
                data = jax.tree.map(lambda a: a[i], on_host)  # noqa: B023
                check_data(data)
                estimator.validate(data)
            except ValueError as error:
                found |= {c: failure(error) for c in todo if c.world == world}
        todo = [cell for cell in todo if cell not in found]
        if not todo:
            return found
        compared = sorted({cell.world for cell in todo if cell.fit is None})
        lanes = {(c.world, c.fit) for c in todo if c.fit is not None}
        lanes = sorted(lanes | {(w, f) for w in compared for f in range(config.fits)})
        full = _padded(lanes, batch.size * config.fits)
        rows = np.array([worlds.index(world) for world, _ in full])
        train, test = _take((train, test), rows)
        keys = _fit_keys(stable_hash(config.dgp), jnp.asarray(full, jnp.int32))
        fit = fit_replicas(
            estimator,
            keys,
            train.data,
            backend=self.backend,
            devices=self.devices,
            checkpoint=folder if estimator.num_steps > CHECKPOINT_AFTER else None,
            label=f"{batch.task} · {batch.estimator}",
        )
        # One device: batched SVDs inside metrics may hang on forced host devices.
        judge = map_replicas(
            _judge(estimator, problem.score), backend=self.backend, devices=self.devices[:1]
        )
        state = jax.device_put(fit.state, self.devices[0])
        metrics, readouts = judge(state, jax.device_put(test, self.devices[0]))
        metrics, diag, diverged, num_steps, converged = jax.device_get(
            (metrics, readouts.diag or {}, fit.diverged, fit.num_steps, fit.converged)
        )
        readouts = readouts._replace(diag=None)
        for i, (world, number) in enumerate(lanes):
            cell = Cell(batch.task, batch.estimator, world, number)
            if cell not in todo:
                continue
            record = outcome({k: v[i] for k, v in metrics.items()}, bool(diverged[i]))
            record |= {"num_steps": int(num_steps[i]), "converged": bool(converged[i])}
            record["trace"] = thin({k: v[i] for k, v in fit.trace.items()})
            record["diag"] = numbers({k: v[i] for k, v in diag.items()})
            if (world, number) == (0, 0) and not diverged[i]:
                record["pictures"] = pictures(*_take((readouts, test.truth), np.array(i)))
            found[cell] = record
        if compared:
            compare = map_replicas(
                problem.stability, backend=self.backend, devices=self.devices[:1]
            )
            # Worlds in front, fits next; padded to the full size like the lanes.
            at = {lane: i for i, lane in enumerate(lanes)}
            index = [
                [at[w, f] for f in range(config.fits)] for w in _padded(compared, batch.size)
            ]
            stacked = _take(readouts, np.array(index))
            values = jax.device_get(compare(stacked))
            for i, world in enumerate(compared):
                bad = any(diverged[j] for j in index[i])
                cell = Cell(batch.task, batch.estimator, world, None)
                found[cell] = outcome({k: v[i] for k, v in values.items()}, bad)
        return found

    def _call_peer(self, batch: Batch, todo: list[Cell]) -> Iterator[tuple[Cell, dict]]:
        """Other libraries: host functions (key, train, test) -> Readout, cell by cell."""
        config, problem = self.suite.tasks[batch.task], self.problem(batch.task)
        peer, readouts = self.build(batch.task, batch.estimator), {}
        worlds = sorted({cell.world for cell in todo})
        samples = jax.device_get(self._draw(batch, worlds))
        score, compare = _jitted(problem.score), _jitted(problem.stability)
        seed = stable_hash(config.dgp)

        def call(world, number):
            i = worlds.index(world)
            train, test = jax.tree.map(lambda a: a[i], samples)
            key = _fit_keys(seed, jnp.asarray([[world, number]], jnp.int32))[0]
            begin = time.perf_counter()
            readout = peer(key, train.data, test.data)
            readouts[world, number] = readout, time.perf_counter() - begin, test.truth

        def one(cell):
            fits = range(config.fits) if cell.fit is None else [cell.fit]
            for number in fits:
                if (cell.world, number) not in readouts:
                    call(cell.world, number)
            if cell.fit is None:
                each = [readouts[cell.world, f][0]._replace(diag=None) for f in fits]
                stacked = jax.tree.map(lambda *a: np.stack(a), *each)
                return outcome(jax.device_get(compare(stacked)), False)
            readout, seconds, truth = readouts[cell.world, cell.fit]
            claims = readout._replace(diag=None)
            record = outcome(jax.device_get(score(claims, truth)), False)
            record |= {"peer_seconds": round(seconds, 4), "diag": numbers(readout.diag or {})}
            if (cell.world, cell.fit) == (0, 0):
                record["pictures"] = pictures(readout, truth)
            return record

        for cell in todo:
            try:
                record = one(cell)
            except Exception as error:
                record = failure(error)
            yield cell, record | {"peer": True}


def run(
    runner: Runner, *, shard: tuple[int, int] = (0, 1), progress: bool | None = None
) -> Summary:
    """Compute what is missing of a suite. Any number of runs may share a results folder.

    shard: (i, n): only every n-th batch, from the i-th. progress: a bar instead of log
    lines; default: on a terminal. Under jax.distributed the lanes of each batch go over all
    processes. Raises Interrupted after SIGINT or SIGTERM; finished cells are safe then.
    """
    batches = runner.batches()[shard[0] :: shard[1]]
    results: list[dict] = []
    runner.store.sweep()
    with _stop_on_signals(), _Progress(batches, runner, progress) as bar:
        # Errors that a dry run finds come in the first minute and not after an hour.
        broken = [b for b in batches if runner.pending(b) and runner.dry_run(*b[:2])]
        held = []
        for batch in [*broken, *(b for b in batches if b not in broken)]:
            with runner.lease(batch, wait=False) as ours:
                if ours:
                    results += bar.done(batch, runner.compute(batch))
                else:
                    held.append(batch)  # another run is at it: come back last
        for batch in held:
            with runner.lease(batch, wait=True):
                results += bar.done(batch, runner.compute(batch))
    return summarize(results)


def run_on_dask(runner: Runner, address: str) -> Summary:
    """The same on a dask cluster: a batch is a task; a worker that dies loses none.

    The workers write the cells, so they must see the results folder and the suite's modules.
    """
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--dask needs dask.distributed, which is not installed: pip install 'crl[cluster]'"
        ) from error
    results: list[dict] = []
    batches = [b for b in runner.batches() if runner.pending(b)]
    config, root = canonical(runner.suite.to_dict()), str(runner.store.root.resolve())
    with _stop_on_signals(), Client(address) as client, _Progress(batches, runner) as bar:
        path = tuple(p for p in sys.path if p)
        futures = {
            client.submit(
                *(_on_worker, config, root, batch, runner.backend, runner.retry_failed, path),
                pure=False,
                retries=3,
            ): batch
            for batch in batches
        }
        for future in as_completed(futures):
            batch = futures[future]
            try:
                results += bar.done(batch, future.result())
            except Exception as error:  # workers died under it time and again
                fields = failure(RuntimeError(f"dask gave up on this batch: {error!r}"))
                lost = [c._asdict() | fields for c in runner.pending(batch)]
                results += bar.done(batch, lost)
    return summarize(results)


def _on_worker(config, root, batch, backend, retry_failed, path) -> list[dict]:
    sys.path += [p for p in path if p not in sys.path]
    return _worker(config, root, backend, retry_failed).compute(Batch(*batch))


@functools.lru_cache(maxsize=4)
def _worker(config: str, root: str, backend: str, retry_failed: bool) -> Runner:
    # Kept between batches, so that a worker compiles once.
    suite = parse(json.loads(config))
    return Runner(suite, Store(root), backend=backend, retry_failed=retry_failed)


def world_key(seed: int, world: jax.Array) -> jax.Array:
    """The key of a world; seed: hash of the DGP's spec. Estimators share their worlds."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), world)


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


def _agreed(flags: list[bool]) -> list[bool]:
    """What process 0 sees, on every process: all must compute the same together."""
    if jax.process_count() == 1:
        return flags
    return np.asarray(multihost_utils.broadcast_one_to_all(np.array(flags))).tolist()


@jax.jit
def _take(tree: PyTree, rows: jax.Array) -> PyTree:
    # One program, where indexing leaf by leaf compiles one for each shape.
    return jax.tree.map(lambda a: a[rows], tree)


def _padded(items: Sequence, num: int) -> list:
    return [*items, *[items[-1]] * (num - len(items))]


@contextlib.contextmanager
def _stop_on_signals():
    """SIGINT and SIGTERM raise Interrupted in the main thread."""

    def stop(number, frame):
        raise Interrupted(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """A bar on a terminal, a log line per batch elsewhere."""

    def __init__(self, batches: list[Batch], runner: Runner, bar: bool | None = None):
        self.total = sum(len(runner.pending(b)) for b in batches)
        self.count, self.bar = 0, None
        if sys.stderr.isatty() if bar is None else bar:
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, unit="cell", dynamic_ncols=True)

    def done(self, batch: Batch, results: list[dict]) -> list[dict]:
        """Report a finished batch; returns its results."""
        self.count += len(results)
        bad = sum(r["status"] != "ok" for r in results)
        name = f"{batch.task} · {batch.estimator}"
        if self.bar is not None:
            self.bar.set_description(name)
            self.bar.update(len(results))
        elif results:
            worlds = f"worlds {batch.worlds[0]}..{batch.worlds[-1]}"
            note = f", {bad} failed or diverged" if bad else ""
            log.info("[%d/%d] %s, %s%s", self.count, self.total, name, worlds, note)
        return results

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.close()


def summarize(results: list[dict]) -> Summary:
    """Counts, and one sentence for each cause of failure."""
    failed = [r for r in results if r["status"] == "failed"]
    causes = {(r["task"], r["estimator"], r["error"]) for r in failed}
    diverged = sum(r["status"] == "diverged" for r in results)
    return Summary(len(results), len(failed), diverged, sorted(causes))
