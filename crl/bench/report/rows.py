"""Numbers of the report: cells in long form, and their spread over worlds."""

import math
from typing import NamedTuple

import numpy as np

from crl.bench.run.expect import by_world
from crl.bench.run.records import OK, Record

UNDEFINED = "undefined"  # a metric without a value in a cell that is ok


class Row(NamedTuple):
    """One number in long form; value NaN where status is not ok."""

    suite: str
    task: str
    estimator: str
    world: int
    fit: int | None  # None: over all fits of the world
    metric: str
    value: float
    status: str  # one of ``records.STATES``, or UNDEFINED


class Entry(NamedTuple):
    """One planned cell and its record, None while it is missing."""

    suite: str
    task: str
    estimator: str
    world: int
    fit: int | None
    record: Record | None


class Column(NamedTuple):
    """A metric of a task."""

    metric: str
    over_fits: bool  # it compares the fits of a world

    def title(self) -> str:
        """What stands over it."""
        return f"{self.metric} (across fits)" if self.over_fits else self.metric


class Spread(NamedTuple):
    """Over worlds, after the median over the fits of each."""

    mean: float  # counts like SHD are mostly 0: their median says too little
    median: float
    low: float  # lower quartile
    high: float  # upper quartile
    defined: int
    total: int


def long_form(entry: Entry) -> list[Row]:
    """A cell's metrics, one row each; a cell without any has one row without a metric."""
    if entry.record is None:
        return []
    status, metrics = entry.record.result.status, entry.record.result.metrics
    if not metrics:
        return [Row(*entry[:5], "", math.nan, status)] if status != OK else []
    found = []
    for name, value in metrics.items():
        state = UNDEFINED if status == OK and value is None else status
        found.append(Row(*entry[:5], name, math.nan if value is None else value, state))
    return found


def checks(entry: Entry) -> list[Row]:
    """What a fit reports of itself, ``Readout.diag`` and convergence, in the same form."""
    if entry.record is None or entry.record.result.status != OK or entry.fit is None:
        return []
    result = entry.record.result
    values = {} if result.converged is None else {"converged": float(result.converged)}
    values |= {k: math.nan if v is None else v for k, v in result.diag.items()}
    return [Row(*entry[:5], name, value, OK) for name, value in values.items()]


def column_of(row: Row) -> Column:
    """The column of the table in which a row counts."""
    return Column(row.metric, row.fit is None)


def columns_of(rows: list[Row]) -> list[Column]:
    """All columns, in the order of the task."""
    return list(dict.fromkeys(column_of(row) for row in rows if row.metric))


def values_by_world(rows: list[Row]) -> dict[int, float]:
    """The value of each world from the rows of one estimator and column."""
    return by_world((row.world, row.value) for row in rows)


def spread(worlds: dict[int, float]) -> Spread:
    """Of the values of worlds, those that are defined."""
    values = np.array([v for v in worlds.values() if np.isfinite(v)])
    low, mid, high = np.percentile(values, [25, 50, 75]) if len(values) else [math.nan] * 3
    mean = float(np.mean(values)) if len(values) else math.nan
    return Spread(mean, float(mid), float(low), float(high), len(values), len(worlds))


def paired_difference(worlds: dict[int, float], peer: dict[int, float]) -> Spread:
    """The difference to a peer over the worlds that both have."""
    return spread({w: worlds[w] - peer[w] for w in worlds if w in peer})


def best_values(entries: list[Entry]) -> dict[str, float | None]:
    """What a perfect claim has, for each metric."""
    found: dict[str, float | None] = {}
    for entry in entries:
        if entry.record is not None:
            found |= entry.record.best
    return found


def winner(medians: dict[str, float], best: float | None) -> str | None:
    """Who comes nearest to the best value; None where there is no best or no value."""
    medians = {name: value for name, value in medians.items() if np.isfinite(value)}
    if best is None or not medians:
        return None
    if math.isinf(best):
        return (max if best > 0 else min)(medians, key=medians.get)
    return min(medians, key=lambda name: abs(medians[name] - best))


def arrow(best: float | None) -> str:
    """Where a metric should go, for the head of its column."""
    if best is None:
        return ""
    if math.isinf(best):
        return " ↑" if best > 0 else " ↓"
    return f" → {best:g}"
