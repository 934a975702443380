"""The runner: what is missing of a suite, batch by batch, one JSON file a cell.

A batch is a few worlds of one task and estimator with all their fits, so that a killed run
loses little; crl.bench.lanes computes it. Any number of runs, shards and workers may share
a results folder: each batch is leased, each cell is published whole or not at all.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from crl.bench.lanes import Hardware, call_peer, fit_lanes, make_problem
from crl.bench.records import Clock, failure, peak_bytes, provenance
from crl.bench.store import Store, StoreError, is_done
from crl.bench.suite import Cell, Suite, build, canonical, cells, key_of, parse
from crl.check import check_task
from crl.core import Estimator

log = logging.getLogger("crl.bench")

# Lanes a batch and device. A CPU works them off one by one, so few, that a kill loses
# little; an accelerator needs many to be busy.
LANES = {"cpu": 8, "other": 64}


class Batch(NamedTuple):
    """Worlds of one task and estimator that are computed together."""

    task: str
    estimator: str
    worlds: tuple[int, ...]
    size: int  # worlds of a full batch; smaller ones are padded to it: one compilation


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM: stop, what is published stays."""


class Summary(NamedTuple):
    """What a run did. ``failures``: (task, estimator, sentence), one entry a cause."""

    computed: int
    failed: int
    diverged: int
    failures: list[tuple[str, str, str]]


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
        self.suite, self.store, self.retry_failed = suite, store, retry_failed
        devices = jax.local_devices() if devices is None else devices
        self.hardware = Hardware(tuple(devices), backend)
        self.x64 = bool(jax.config.jax_enable_x64)
        self._built = functools.cache(lambda spec: build(json.loads(spec)))
        self.problem = functools.cache(lambda task: make_problem(suite.tasks[task]))
        self.dry_run = functools.cache(self._dry_run)
        self.made_by = functools.cache(lambda: provenance(self.hardware.devices))

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
        devices = self.hardware.devices
        lanes = LANES.get(devices[0].platform, LANES["other"]) * len(devices)
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
        clock = Clock()
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
        built, problem = self.build(batch.task, batch.estimator), self.problem(batch.task)
        lanes = [(cell.world, cell.fit) for cell in todo]
        where = batch.size, self.hardware
        if isinstance(built, Estimator):
            folder, label = self._checkpoint(batch, todo), f"{batch.task} · {batch.estimator}"
            found = fit_lanes(problem, built, lanes, *where, folder, label)
        else:
            found = call_peer(problem, built, lanes, *where)
        for lane, record in found:
            yield Cell(batch.task, batch.estimator, *lane), record

    def _publish(self, cell: Cell, record: dict, clock: Clock, num_cells: int) -> None:
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
            "peak_bytes": peak_bytes(self.hardware.devices),
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
        rest = runner.hardware.backend, runner.retry_failed, path
        futures = {
            client.submit(_on_worker, config, root, b, *rest, pure=False): b for b in batches
        }
        for future in as_completed(futures):
            batch = futures[future]
            try:
                results += bar.done(batch, future.result())
            except StoreError:
                raise
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


def _agreed(flags: list[bool]) -> list[bool]:
    """What process 0 sees, on every process: all must compute the same together."""
    if jax.process_count() == 1:
        return flags
    return np.asarray(multihost_utils.broadcast_one_to_all(np.array(flags))).tolist()


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
