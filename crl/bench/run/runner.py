"""The runner: what is missing of a suite, batch by batch, one JSON file a cell.

A batch is a few worlds of one task and estimator with all their fits, so that a killed run
loses little; ``fitting`` computes it. The values of a sweep share their batches. Any number
of runs, shards and workers may share a results folder: each batch is leased, each cell is
published whole or not at all.
"""

import contextlib
import functools
import hashlib
import json
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from crl.bench.run import fitting
from crl.bench.run.cells import Cell, Plan, canonical, cells, fits, key_of, make_plan
from crl.bench.run.decode import encode
from crl.bench.run.fitting import Hardware, Team
from crl.bench.run.measure import Clock, free_programs, peak_bytes, provenance
from crl.bench.run.records import DIVERGED, FAILED, Config, Record, Result
from crl.bench.run.specs import construct, with_options
from crl.bench.run.store import Store, StoreError, is_done
from crl.bench.run.suite import Suite, parse
from crl.core import Estimator
from crl.progress import on_signals, progress

# Fits a batch and device. A CPU works them off one by one, so few, that a kill loses
# little; an accelerator needs many to be busy.
FITS = {"cpu": 8, "other": 64}


class Batch(NamedTuple):
    """Worlds of one task and one estimator, or of all values of a sweep, done together."""

    task: str
    estimators: tuple[str, ...]
    worlds: tuple[int, ...]
    size: int  # worlds of a full batch; smaller ones are padded to it: one compilation

    def label(self) -> str:
        """What a user calls it."""
        name = self.estimators[0]
        if len(self.estimators) > 1:
            name = name.partition("[")[0]
        return f"{self.task} · {name}"


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM: stop, what is published stays."""


class Tally(NamedTuple):
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
        self._constructed = functools.cache(lambda spec: construct(json.loads(spec)))
        self._made_team = functools.cache(lambda specs: fitting.make_team(json.loads(specs)))
        self.problem = functools.cache(lambda task: fitting.make_problem(suite.tasks[task]))
        self.refusal = functools.cache(self._refusal)
        self.made_by = functools.cache(lambda: provenance(self.hardware.devices))

    def key(self, cell: Cell) -> str:
        """The cell's name in the store."""
        return key_of(self.suite, cell, self.x64)

    def cells(self) -> list[Cell]:
        """All cells of the suite."""
        return cells(self.suite)

    def plan(self) -> Plan:
        """The suite and its cells with their keys."""
        return make_plan(self.suite, self.x64)

    def batches(self) -> list[Batch]:
        """The whole plan in batches of equal size; the same for every shard and resume."""
        devices = self.hardware.devices
        capacity = FITS.get(devices[0].platform, FITS["other"]) * len(devices)
        found = []
        for name, task in self.suite.tasks.items():
            for estimators in _teams(task.estimators):
                num_fits = task.worlds * task.fits * len(estimators)
                num = min(task.worlds, max(1, -(-num_fits // capacity)))
                size = -(-task.worlds // num)
                for first in range(0, task.worlds, size):
                    worlds = range(first, min(first + size, task.worlds))
                    found.append(Batch(name, estimators, tuple(worlds), size))
        return found

    def pending(self, batch: Batch) -> list[Cell]:
        """The cells of a batch that have no result yet; failures count as results."""
        task = self.suite.tasks[batch.task]
        each = [
            Cell(batch.task, estimator, world, fit)
            for estimator in batch.estimators
            for world in batch.worlds
            for fit in fits(task)
        ]
        records = [self.store.read(self.key(cell)) for cell in each]
        missing = [r is None or (self.retry_failed and not is_done(r)) for r in records]
        return [cell for cell, todo in zip(each, _agreed(missing)) if todo]

    @contextlib.contextmanager
    def lease(self, batch: Batch, wait: bool) -> Iterator[bool]:
        """Keeps other runs in the same folder off the batch; see ``Store.lease``."""
        first = Cell(batch.task, batch.estimators[0], batch.worlds[0], 0)
        leads = jax.process_index() == 0  # and holds it for all processes of this job
        taken = self.store.lease(self.key(first), wait) if leads else contextlib.nullcontext()
        with taken as ours:
            yield _agreed([bool(ours)])[0]

    def compute(self, batch: Batch) -> dict[Cell, Result]:
        """Compute and publish what a batch misses; a failure becomes the cells' result."""
        todo, done = self.pending(batch), {}
        clock = Clock()

        def publish(cell, result):
            self._publish(cell, result, clock, len(todo))
            done[cell] = result

        try:
            for cell, result in self._results(batch, todo):
                publish(cell, result)
        except StoreError:
            raise
        except Exception as error:
            for cell in todo:
                if cell not in done:
                    publish(cell, fitting.as_result(error))
        if todo:
            shutil.rmtree(self._checkpoint(batch, todo), ignore_errors=True)
            free_programs()
        return done

    def _results(self, batch: Batch, todo: list[Cell]) -> Iterator[tuple[Cell, Result]]:
        refused = {e: self.refusal(batch.task, e) for e in batch.estimators}
        for cell in todo:
            if refused[cell.estimator] is not None:
                yield cell, fitting.as_result(refused[cell.estimator])
        able = [cell for cell in todo if refused[cell.estimator] is None]
        if not able:
            return
        problem, where = self.problem(batch.task), (batch.size, self.hardware)
        sound = [name for name, error in refused.items() if error is None]
        if isinstance(self.built(batch.task, sound[0]), Estimator):
            folder, team = self._checkpoint(batch, able), self.team(batch.task, sound)
            found = fitting.fit_cells(problem, team, able, *where, folder, batch.label())
        else:
            peers = {name: self.built(batch.task, name) for name in sound}
            found = fitting.call_peers(problem, peers, able, *where)
        yield from found

    def _publish(self, cell: Cell, result: Result, clock: Clock, num_cells: int) -> None:
        task = self.suite.tasks[cell.task]
        metrics = task.metrics if cell.fit is not None else task.stability
        # Compiled programs return dicts by the alphabet; the report shows the task's order.
        ordered = {name: result.metrics[name] for name in metrics if name in result.metrics}
        record = Record(
            self.suite.suite,
            *cell,
            result._replace(metrics=ordered),
            best={name: self.problem(cell.task).best[name] for name in ordered},
            seconds=clock.read(num_cells),
            peak_bytes=peak_bytes(self.hardware.devices),
            made_by=self.made_by(),
            config=Config(
                task.dgp,
                task.estimators[cell.estimator],
                metrics,
                task.num_train,
                task.num_test,
            ),
            is_peer=self._is_peer(cell.task, cell.estimator),
        )
        if jax.process_index() == 0:  # the others have the same numbers
            self.store.publish(self.key(cell), record)

    def _checkpoint(self, batch: Batch, todo: list[Cell]) -> Path:
        # Another set of cells is another fit and must not find this one's steps.
        content = canonical([batch.size, [self.key(cell) for cell in todo]])
        name = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
        return self.store.root / "fits" / name

    def built(self, task: str, estimator: str) -> Any:
        """The estimator or peer; one object a spec, so that tasks share its programs."""
        return self._constructed(canonical(self.suite.tasks[task].estimators[estimator]))

    def team(self, task: str, estimators: Sequence[str]) -> Team:
        """Estimators of one batch as one."""
        specs = self.suite.tasks[task].estimators
        return self._made_team(json.dumps({name: specs[name] for name in estimators}))

    def _is_peer(self, task: str, estimator: str) -> bool:
        if self.refusal(task, estimator) is not None:
            return False
        return not isinstance(self.built(task, estimator), Estimator)

    def _refusal(self, task: str, estimator: str) -> Exception | None:
        """What does not fit, before anything is compiled."""
        try:
            built, problem = self.built(task, estimator), self.problem(task)
            if isinstance(built, Estimator):
                fitting.check(problem, built)
            elif not callable(built):
                raise ValueError(
                    f"expected an Estimator or a function (key, train, test) -> Readout from "
                    f"{estimator!r}, got {type(built).__name__}"
                )
        except Exception as error:
            return error
        return None


def _teams(estimators: dict[str, dict]) -> list[tuple[str, ...]]:
    """Names of estimators that differ in the values of their sweep alone, together."""
    found: dict[str, list[str]] = {}
    for name, each in estimators.items():
        swept = each.get("swept", [])
        same = canonical(with_options(each, dict.fromkeys(swept))) if swept else ""
        found.setdefault(f"{name.partition('[')[0]} {same}" if swept else name, []).append(
            name
        )
    return [tuple(names) for names in found.values()]


def run(runner: Runner, *, shard: tuple[int, int] = (0, 1), bar: bool | None = None) -> Tally:
    """Compute what is missing of a suite. Any number of runs may share a results folder.

    shard: (i, n): only every n-th batch, from the i-th. bar: a bar instead of log lines;
    default: on a terminal. Under jax.distributed the fits of each batch go over all
    processes. Raises Interrupted after SIGINT or SIGTERM; finished cells are safe then.
    """
    batches = runner.batches()[shard[0] :: shard[1]]
    runner.store.sweep()
    with _reporting(runner, batches, bar) as done:
        # Errors that a dry run finds come in the first minute and not after an hour.
        broken = [b for b in batches if runner.pending(b) and _refused(runner, b)]
        held = []
        for batch in [*broken, *(b for b in batches if b not in broken)]:
            with runner.lease(batch, wait=False) as ours:
                if ours:
                    done(batch, runner.compute(batch))
                else:
                    held.append(batch)  # another run is at it: come back last
        for batch in held:
            with runner.lease(batch, wait=True):
                done(batch, runner.compute(batch))
    _agreed([True])  # process 0 has published its last cell before anybody counts them
    return done.tally()


def _refused(runner: Runner, batch: Batch) -> bool:
    return any(runner.refusal(batch.task, estimator) for estimator in batch.estimators)


def run_on_dask(runner: Runner, address: str) -> Tally:
    """The same on a dask cluster: a batch is a task; a worker that dies loses none.

    The workers write the cells, so they must see the results folder and the suite's modules.
    """
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--dask needs dask.distributed, which is not installed: pip install 'crl[cluster]'"
        ) from error
    batches = [b for b in runner.batches() if runner.pending(b)]
    # Not canonical: a sorted config would lose the order of tasks and metrics.
    config, root = json.dumps(encode(runner.suite)), str(runner.store.root.resolve())
    with Client(address) as client, _reporting(runner, batches, None) as done:
        path = tuple(p for p in sys.path if p)
        rest = runner.hardware.backend, runner.retry_failed, path
        futures = {
            client.submit(_on_worker, config, root, b, *rest, pure=False): b for b in batches
        }
        for future in as_completed(futures):
            batch = futures[future]
            try:
                done(batch, {Cell(*c): Result(*r) for c, r in future.result()})
            except StoreError:
                raise
            except Exception as error:  # workers died under it time and again
                lost = fitting.as_result(
                    RuntimeError(f"dask gave up on this batch: {error!r}")
                )
                done(batch, dict.fromkeys(runner.pending(batch), lost))
    return done.tally()


def _on_worker(config, root, batch, backend, retry_failed, path) -> list[tuple]:
    sys.path += [p for p in path if p not in sys.path]
    results = _worker(config, root, backend, retry_failed).compute(Batch(*batch))
    return [(tuple(cell), tuple(result)) for cell, result in results.items()]


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


def _interrupt(number: int) -> None:
    raise Interrupted(signal.Signals(number).name)


class _Done:
    """Told of each finished batch, it counts and shows; see ``_reporting``."""

    def __init__(self, show: Any):
        self.show = show
        self.results: dict[Cell, Result] = {}

    def __call__(self, batch: Batch, results: dict[Cell, Result]) -> None:
        self.results |= results
        bad = sum(r.status in (FAILED, DIVERGED) for r in results.values())
        facts = [f"worlds {batch.worlds[0]}..{batch.worlds[-1]}"]
        facts += [f"{bad} failed or diverged"] if bad else []
        if results:
            self.show(len(self.results), facts, batch.label())

    def tally(self) -> Tally:
        """Counts, and one sentence for each cause of failure."""
        failed = {c: r for c, r in self.results.items() if r.status == FAILED}
        causes = {(cell.task, cell.estimator, r.error) for cell, r in failed.items()}
        diverged = sum(r.status == DIVERGED for r in self.results.values())
        return Tally(len(self.results), len(failed), diverged, sorted(causes))


@contextlib.contextmanager
def _reporting(runner: Runner, batches: list[Batch], bar: bool | None) -> Iterator[_Done]:
    """A count of what is done, shown as it grows; signals raise Interrupted meanwhile."""
    total = sum(len(runner.pending(b)) for b in batches)
    with (
        on_signals(("SIGINT", "SIGTERM"), _interrupt),
        progress(total, unit="cell", bar=bar) as show,
    ):
        yield _Done(show)
