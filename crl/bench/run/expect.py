"""What a suite expects of its numbers, beside what they are."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from crl.bench.run.cells import Plan
from crl.bench.run.records import Record
from crl.bench.run.suite import Bound, TaskConfig

MET, MISSED, PENDING = "met", "missed", "not run yet"


class Finding(NamedTuple):
    """One expectation of a task, judged."""

    task: str
    estimator: str
    metric: str
    bound: Bound
    state: str  # MET, MISSED, or PENDING while cells are missing
    observed: float  # the statistic over the worlds that have a value
    lost: int  # worlds that have none: a fit failed or diverged, or the metric is undefined
    worlds: int  # looked at
    full_worlds: int  # for which the bound was meant

    def sentence(self) -> str:
        """What was observed, what was expected."""
        lost = f", {self.lost} of {self.worlds} worlds without a value" if self.lost else ""
        part = f", on {self.worlds} of {self.full_worlds} worlds" if self.is_part() else ""
        return (
            f"{self.task} · {self.estimator}: {self.bound.of} {self.metric} is "
            f"{self.observed:.5g}{lost}{part}; expected {words(self.bound)}"
        )

    def is_part(self) -> bool:
        """Whether fewer worlds were looked at than the bound was meant for."""
        return self.worlds < self.full_worlds


def judge(plan: Plan, records: Mapping[str, Record]) -> list[Finding]:
    """All expectations of a plan, the misses first. records: by key."""
    found = []
    for name, task in plan.tasks.items():
        for estimator, bounds in task.expect.items():
            for metric, bound in bounds.items():
                over_fits = metric in task.stability
                own = [
                    records.get(cell.key)
                    for cell in plan.cells
                    if cell[1:3] == (name, estimator) and (cell.fit is None) == over_fits
                ]
                found.append(_judged(name, task, estimator, metric, bound, own))
    return sorted(found, key=lambda finding: (MISSED, PENDING, MET).index(finding.state))


def _judged(
    name: str,
    task: TaskConfig,
    estimator: str,
    metric: str,
    bound: Bound,
    records: list[Record | None],
) -> Finding:
    values = by_world((r.world, value_of(r, metric)) for r in records if r is not None)
    worlds = np.array(list(values.values()))
    good = worlds[np.isfinite(worlds)]
    state = MET if holds(bound, worlds) else MISSED
    if not records or None in records:
        state = PENDING
    observed = statistic(bound, good) if len(good) else math.nan
    full, lost = task.full_worlds or task.worlds, len(worlds) - len(good)
    return Finding(name, estimator, metric, bound, state, observed, lost, len(worlds), full)


def value_of(record: Record, metric: str) -> float:
    """A metric of a cell; NaN where it has none."""
    value = record.result.metrics.get(metric)
    return math.nan if value is None else value


def by_world(pairs: Iterable[tuple[int, float]]) -> dict[int, float]:
    """One value a world from (world, value) of its fits: their median.

    A world of which a fit has no value has none: it must not look better for it.
    """
    fits: dict[int, list[float]] = {}
    for world, value in pairs:
        fits.setdefault(world, []).append(value)
    return {
        world: float(np.median(values)) if np.all(np.isfinite(values)) else math.nan
        for world, values in sorted(fits.items())
    }


def holds(bound: Bound, worlds: np.ndarray) -> bool:
    """Whether a bound is kept. worlds: (w,); NaN lies on the wrong side, whichever it is."""
    low = bound._replace(at_most=None)
    high = bound._replace(at_least=None)
    return (
        bound.at_least is None
        or statistic(low, np.where(np.isnan(worlds), -np.inf, worlds)) >= bound.at_least
    ) and (
        bound.at_most is None
        or statistic(high, np.where(np.isnan(worlds), np.inf, worlds)) <= bound.at_most
    )


def statistic(bound: Bound, worlds: np.ndarray) -> float:
    """The number over worlds of which a bound speaks; of both sides' worst, the lower one."""
    if not len(worlds):
        return math.nan
    if bound.of == "worst":
        return float(np.min(worlds) if bound.at_least is not None else np.max(worlds))
    return float(np.mean(worlds) if bound.of == "mean" else np.median(worlds))


def words(bound: Bound) -> str:
    """A bound in words."""
    if bound.at_least is None:
        return f"at most {bound.at_most:.5g}"
    if bound.at_most is None:
        return f"at least {bound.at_least:.5g}"
    return f"{bound.at_least:.5g} to {bound.at_most:.5g}"
