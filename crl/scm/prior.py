"""What is known of a graph beforehand, as facts of the dataset.

given['required'] (d, d): 1 where i -> j is known to be there; given['forbidden'] (d, d): 1
where it is known to be absent; given['tier'] (d,): a number for each variable, and none
causes a variable of a lower tier. Each may be missing.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import Data
from crl.numerics.graphs import strongest_dag, topological_order, transitive_closure


class Prior(NamedTuple):
    """Prior knowledge on d variables."""

    required: Array  # (d, d) bool, edges that are there
    allowed: Array  # (d, d) bool, edges that may be there; required ones are among them
    before: Array  # (d, d) bool, [i, j]: i comes before j in every order


def prior(data: Data) -> Prior:
    """The prior knowledge in ``data.given``; where there is none, all is allowed."""
    d = data.x.shape[1]
    none = jnp.zeros((d, d), bool)
    required = data.given.get("required", none).astype(bool)
    forbidden = data.given.get("forbidden", none).astype(bool)
    tier = data.given.get("tier", jnp.zeros(d, jnp.int32))
    before = transitive_closure(required | (tier[:, None] < tier))
    allowed = ~forbidden & ~before.T & ~jnp.eye(d, dtype=bool)
    return Prior(required, allowed, before)


def graph_above(score: Array, threshold: float, known: Prior) -> tuple[Array, Array]:
    """The DAG (d, d) bool of edges with a score (d, d) above ``threshold``; its order (d,).

    The strongest first, and none that would close a cycle; required edges before all.
    """
    kept = jnp.where(known.allowed & (score > threshold), score, 0)
    graph = strongest_dag(jnp.where(known.required, jnp.inf, kept))
    return graph, topological_order(graph | known.before)


def check_prior(who: str, data: Data) -> None:
    """Raise a ValueError for prior knowledge that no graph satisfies."""
    d, given = data.x.shape[1], data.given
    if not {"required", "forbidden", "tier"} & set(given):
        return
    for name, shape in (("required", (d, d)), ("forbidden", (d, d)), ("tier", (d,))):
        value = np.asarray(given.get(name, np.zeros(shape)))
        if value.shape != shape:
            raise ValueError(
                f"{who} needs given[{name!r}] of shape {shape}, got {value.shape}: one row "
                "and one column for each column of x (tier: one number)"
            )
        if not np.isfinite(value).all() or (
            name != "tier" and not np.isin(value, (0, 1)).all()
        ):
            words = "finite numbers" if name == "tier" else "0 and 1"
            raise ValueError(f"{who} needs given[{name!r}] of {words}, got {value.tolist()}")
    required = np.asarray(given.get("required", np.zeros((d, d)))) > 0
    forbidden = np.asarray(given.get("forbidden", np.zeros((d, d)))) > 0
    tier = np.asarray(given.get("tier", np.zeros(d)))
    _refuse(who, required & forbidden, "edges to be required or forbidden", "are both")
    _refuse(
        who,
        required & (tier[:, None] > tier),
        "tiers in which required edges run upwards or level",
        "are required, from a higher tier to a lower",
    )
    closure = np.asarray(transitive_closure(required | (tier[:, None] < tier)))
    _refuse(who, required & closure.T, "required edges without cycles", "lie on one")


def refuse_prior(who: str, data: Data) -> None:
    """Raise a ValueError for prior knowledge that the estimator ``who`` would not read."""
    known = sorted({"required", "forbidden", "tier"} & set(data.given))
    if known:
        raise ValueError(
            f"{who} reads no prior knowledge, got given {', '.join(map(repr, known))}: leave "
            "it out, or use a method that takes it, such as direct_lingam or notears"
        )


def _refuse(who: str, edges: np.ndarray, wanted: str, trouble: str) -> None:
    if edges.any():
        named = ", ".join(f"{i} -> {j}" for i, j in np.argwhere(edges)[:5])
        raise ValueError(
            f"{who} needs {wanted}, got {edges.sum()} that {trouble}: {named}: change given"
        )
