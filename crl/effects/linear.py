"""What the linear estimators with instruments share: their data, fitted state and claims."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import Data, Estimator, Readout
from crl.numerics.k_class import Canonical, canonical, ranks
from crl.numerics.linalg import dot


class Linear(NamedTuple):
    """A fitted linear equation y = intercept + x coefficients."""

    coefficients: Array  # (m, q)
    intercept: Array  # (q,)
    weakest_f: Array  # () see ``closed_form``


def closed_form(
    coefficients: Callable[[Canonical, Array, Array, Array], Array],
    validate: Callable[[Data], None],
) -> Estimator:
    """The estimator of a formula: it reads aux 'y' and 'instrument', and takes no steps.

    coefficients: (problem, x, y, z) -> (m, q), x and y centred, which fits an intercept. A
    column of x that is exogenous is its own instrument: put it into both.

    Claims y, other 'effect' (m, q), and diag 'weakest_f': Cragg and Donald's F statistic of
    the direction of x that the instruments move least; below 10 they are called weak.
    """

    def init(key, data):
        del key  # closed form
        x, y, z = data.x, data.aux["y"], data.aux["instrument"]
        (n, _), k = x.shape, z.shape[1]
        mean_x, mean_y = jnp.mean(x, 0), jnp.mean(y, 0)
        x, y = x - mean_x, y - mean_y
        problem = canonical(x, y, z)
        effect = coefficients(problem, x, y, z)  # (m, q)
        explained = problem.c[-1] ** 2
        f = (n - k - 1) / k * explained / (1 - explained)
        return Linear(effect, mean_y - dot(mean_x, effect), f)

    def step(key, state, batch):
        del key, batch  # closed form
        return state, {}

    def readout(fitted, data):
        y = dot(data.x, fitted.coefficients) + fitted.intercept
        effect, f = fitted.coefficients, fitted.weakest_f
        return Readout(y=y, other={"effect": effect}, diag={"weakest_f": f})

    return Estimator(init, step, readout, 0, validate=validate)


def check_columns(who: str, data: Data, relevance: bool = False) -> None:
    """Raise a ValueError for data that ``who`` cannot use: what is missing, linear dependence.

    relevance: also for instruments that do not move every direction of x.
    """
    n, m = data.x.shape
    for name in ("y", "instrument"):
        check_column(who, data, name)
    k = data.aux["instrument"].shape[1]
    if n <= m + k + 1:
        raise ValueError(
            f"{who} needs more rows than columns of x, instruments and an intercept "
            f"together, got {n} rows for {m + k + 1}: give more rows"
        )
    rank_x, rank_z, moved = map(int, ranks(data.x, data.aux["instrument"]))
    if rank_x < m:
        raise ValueError(
            f"{who} needs linearly independent, varying columns of x, got rank {rank_x} of "
            f"{m}: drop columns that others determine"
        )
    if relevance and rank_z < m:
        raise ValueError(
            f"{who} needs at least as many instruments as columns of x, got {rank_z} linearly "
            f"independent ones for {m}: give more instruments or fewer columns"
        )
    if relevance and moved < m:
        raise ValueError(
            f"{who} needs instruments that move every direction of x, got {moved} of {m}: "
            "without relevance nothing is identified"
        )


def check_column(who: str, data: Data, name: str) -> None:
    """Raise a ValueError for an aux ``name`` that is missing, of one axis, or not finite."""
    n, value = len(data.x), data.aux.get(name)
    if value is None or np.ndim(value) != 2:
        got = "none" if value is None else f"shape {np.shape(value)}"
        raise ValueError(f"{who} needs aux[{name!r}] of shape ({n}, columns), got {got}")
    is_missing = ~np.isfinite(np.asarray(value)).all(1)
    if is_missing.any():
        raise ValueError(
            f"{who} needs finite aux[{name!r}], got NaN or inf in {is_missing.sum()} of "
            f"{n} rows: drop them"
        )
