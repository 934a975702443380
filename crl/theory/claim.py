"""Theorems as objects: a sweep, a measurement, a prediction, a verdict and a control.

A claim is checked in float64 by ``verify``. Its control repeats the same measurement
with one assumption broken; a verdict that holds there too has shown nothing.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from crl.check import check_key

Point = dict[str, Any]  # one setting of the sweep: numbers and strings by name
Row = dict[str, Any]  # a point, what was measured there, and predicted_<name>


class Claim(NamedTuple):
    """A theorem that can fail, built by a factory like estimators: ``module:factory``.

    Every point is measured with the same key, so that points which differ in one number
    share their worlds; a claim over several worlds has a ``world`` in its points and
    folds it into the key.
    """

    statement: str
    reference: str  # paper and number of the theorem, or where it is derived
    points: Sequence[Point]  # the sweep
    small: Sequence[Point]  # a sweep of seconds, for tests and a first look
    measure: Callable  # (key, point) -> {name: scalar}
    predict: Callable  # (key, point) -> {name: scalar}: what theory says of some of these
    margins: Callable  # (rows) -> {check: slack}; see ``slack``
    control: Callable  # (point) -> the point with one assumption broken
    broken: str  # which one


class Verdict(NamedTuple):
    """What ``verify`` found. ``margin`` is the smallest of ``margins``; > 0: it holds."""

    rows: list[Row]
    margins: dict[str, float]
    margin: float
    holds: bool
    control_rows: list[Row]
    control_margins: dict[str, float]
    control_fails: bool  # as it must
    seconds: float


def slack(deviation: float, tolerance: float) -> float:
    """How much of a tolerance is left: 1 = exact, 0 = all used up, < 0 = violated."""
    return 1.0 - abs(float(deviation)) / tolerance


def rate(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent b of y ~ x^b, by least squares on the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def verify(claim: Claim, key: Array, small: bool = False) -> Verdict:
    """Measure a claim and its control on the whole sweep, or on the small one, in float64.

    A margin that is NaN violates the claim.
    """
    check_key(key)
    begin = time.perf_counter()
    points = claim.small if small else claim.points

    def sweep(points):
        rows = []
        for point in points:
            measured = jax.device_get(claim.measure(key, point))
            predicted = jax.device_get(claim.predict(key, point))
            row = point | measured | {f"predicted_{k}": v for k, v in predicted.items()}
            rows.append({k: v.item() if hasattr(v, "item") else v for k, v in row.items()})
        return rows, {k: float(v) for k, v in claim.margins(rows).items()}

    with jax.enable_x64(True):
        rows, margins = sweep(points)
        control_rows, control_margins = sweep([claim.control(p) for p in points])
    margin = float(np.min(list(margins.values())))
    return Verdict(
        rows=rows,
        margins=margins,
        margin=margin,
        holds=margin > 0,
        control_rows=control_rows,
        control_margins=control_margins,
        control_fails=not np.min(list(control_margins.values())) > 0,
        seconds=time.perf_counter() - begin,
    )
