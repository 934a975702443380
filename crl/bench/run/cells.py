"""Cells: the single numbers of a suite, and the name that each has in a results folder."""

import hashlib
import json
from typing import Any, NamedTuple

from crl.bench.run.decode import DecodeError, decode, encode
from crl.bench.run.records import check_counts
from crl.bench.run.sources import digests
from crl.bench.run.specs import references
from crl.bench.run.suite import Suite, TaskConfig

SCHEMA = 2


class Cell(NamedTuple):
    """One number of the plan. ``fit`` None: stability over all fits of the world."""

    task: str
    estimator: str
    world: int
    fit: int | None


class PlannedCell(NamedTuple):
    """A cell and its name in the store."""

    key: str
    task: str
    estimator: str
    world: int
    fit: int | None


class Plan(NamedTuple):
    """A suite and its cells, as a results folder keeps them."""

    suite: str
    tasks: dict[str, TaskConfig]
    cells: list[PlannedCell]
    schema: int = SCHEMA


def plan_from_json(raw: dict[str, Any]) -> Plan:
    """The plan; DecodeError for what is none, in one sentence."""
    plan = decode(Plan, raw, "plan")
    for cell in plan.cells:
        check_counts(cell.world, cell.fit)
    for task in plan.tasks.values():
        for bounds in task.expect.values():
            for bound in bounds.values():
                if not bound.says_something():
                    raise DecodeError(f"expected a bound, got {tuple(bound)}")
    return plan


def cells(suite: Suite) -> list[Cell]:
    """Every cell of the suite, a world's fits together, then its stability."""
    plan = []
    for name, task in suite.tasks.items():
        for estimator in task.estimators:
            for world in range(task.worlds):
                plan += [Cell(name, estimator, world, fit) for fit in fits(task)]
    return plan


def fits(task: TaskConfig) -> list[int | None]:
    """The fits on each world, then None for their stability if the task asks for it."""
    return [*range(task.fits), *([None] if task.stability else [])]


def make_plan(suite: Suite, x64: bool) -> Plan:
    """The plan of a suite."""
    keyed = [PlannedCell(key_of(suite, cell, x64), *cell) for cell in cells(suite)]
    return Plan(suite.suite, suite.tasks, keyed)


def canonical(value: Any) -> str:
    """JSON that depends on the content alone."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"))


def stable_hash(value: Any) -> int:
    """32 bits of a JSON value, the same in every process: for ``jax.random.fold_in``."""
    digest = hashlib.blake2b(canonical(value).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def key_of(suite: Suite, cell: Cell, x64: bool) -> str:
    """The content address of a cell: what its number depends on, and nothing else.

    Covers the specs, sizes, seeds, precision and the source of all that the specs import;
    not the versions of the libraries, which a cell records. Names, notes and expectations
    are free to change, and more worlds, fits or stability metrics leave the finished fits
    valid. The stability of fits depends on ``metrics`` too: where those fail there are no
    fits.
    """
    task = suite.tasks[cell.task]
    estimator = task.estimators[cell.estimator]
    metrics = [task.metrics] if cell.fit is not None else [task.metrics, task.stability]
    specs = [task.dgp, estimator, *(each for by_name in metrics for each in by_name.values())]
    content = {
        "schema": SCHEMA,
        "dgp": task.dgp,
        "estimator": estimator,
        "metrics": metrics,
        "num_train": task.num_train,
        "num_test": task.num_test,
        "world": cell.world,
        "fit": cell.fit if cell.fit is not None else ["all", task.fits],
        "dtype": "float64" if x64 else "float32",
        "code": digests(set().union(*map(references, specs))),
    }
    return hashlib.blake2b(canonical(content).encode(), digest_size=16).hexdigest()
