"""Numbers of the report: cells in long form, and their summaries over worlds."""

import re
from typing import Any, NamedTuple

import numpy as np

# Metrics of which less is better, by a word in their names; of all others, more is.
LESS = {
    *("shd", "sid", "amari", "mse", "rmse", "nmse", "error", "loss", "distance", "distortion"),
    *("residual", "fvu", "dead", "nll", "regret", "bits", "gap", "mmd", "wasserstein"),
    *("deviation", "divergence", "procrustes", "isometry", "rigid", "theta", "excess", "ima"),
}


class Row(NamedTuple):
    """One number in long form; value NaN where status is not ok."""

    suite: str
    task: str
    estimator: str
    world: int
    fit: int | None  # None: over all fits of the world
    metric: str
    value: float
    status: str  # ok, undefined, diverged, failed


class Entry(NamedTuple):
    """One planned cell and its record, None while it is missing."""

    suite: str
    task: str
    estimator: str
    world: int
    fit: int | None
    record: dict | None


class Summary(NamedTuple):
    """Over worlds, after the median over the fits of each."""

    mean: float  # counts like SHD are mostly 0: their median says too little
    median: float
    low: float
    high: float
    defined: int
    total: int


def long_form(entry: Entry) -> list[Row]:
    """A cell's metrics, one row each; a failed cell has one row without a metric."""
    if entry.record is None:
        return []
    status, metrics = entry.record["status"], entry.record["metrics"]
    if not metrics:
        return [Row(*entry[:5], "", np.nan, status)] if status != "ok" else []
    found = []
    for name, value in metrics.items():
        value = number(value)
        undefined = status == "ok" and not np.isfinite(value)
        found.append(Row(*entry[:5], str(name), value, "undefined" if undefined else status))
    return found


def checks(entry: Entry) -> list[Row]:
    """What a fit reports of itself, ``Readout.diag`` and convergence, in the same form."""
    record = entry.record or {}
    if record.get("status") != "ok" or entry.fit is None:
        return []
    values = mapping(record.get("diag"))
    if isinstance(record.get("converged"), bool):
        values = {"converged": float(record["converged"])} | values
    return [Row(*entry[:5], str(name), number(v), "ok") for name, v in values.items()]


def mapping(value: Any) -> dict:
    """A part of a record, or {} where a stranger has put something else."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float:
    """A finite number of a record, or NaN."""
    try:
        value = float(value) if isinstance(value, int | float) else np.nan
    except OverflowError:  # JSON has integers of any size
        return np.nan
    return value if np.isfinite(value) else np.nan


def summarize(rows: list[Row]) -> tuple[Summary, dict[int, float]]:
    """Over the rows of one task, estimator and metric; and the value of each world."""
    by_world: dict[int, list[float]] = {}
    for row in rows:
        by_world.setdefault(row.world, []).append(row.value)
    worlds = {w: _median(v) for w, v in sorted(by_world.items())}
    values = np.array([v for v in worlds.values() if np.isfinite(v)])
    low, mid, high = np.percentile(values, [25, 50, 75]) if len(values) else [np.nan] * 3
    mean = np.mean(values) if len(values) else np.nan
    return Summary(mean, mid, low, high, len(values), len(worlds)), worlds


def _median(values: list[float]) -> float:
    # A world of which a fit failed has no value: it must not look better for it.
    return float(np.median(values)) if np.all(np.isfinite(values)) else np.nan


def metrics_of(rows: list[Row]) -> list[tuple[str, bool]]:
    """(metric, whether it compares fits) in the order of the task."""
    return list(dict.fromkeys((r.metric, r.fit is None) for r in rows if r.metric))


def less_is_better(metric: str, spec: Any = "") -> bool:
    """Whether a metric counts errors, by its name and by that of the function behind it.

    metric: its name in the suite, with that of the entry. spec: of the function.
    """
    function = str(mapping(spec).get("factory", spec)).partition(":")[2]
    return not LESS.isdisjoint(re.split(r"[^a-z0-9]+", f"{metric} {function}".lower()))


def difference(worlds: dict[int, float], peer: dict[int, float]) -> Summary:
    """The paired difference to a peer, over the worlds that both have."""
    pairs = [worlds[w] - peer[w] for w in worlds if w in peer]
    rows = [Row("", "", "", i, 0, "", v, "ok") for i, v in enumerate(pairs)]
    return summarize(rows)[0]
