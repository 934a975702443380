"""What an intervention on one variable changes in the law of all: its own row, and no more.

Environments share the mechanisms x_j = f_j(x_pa(j), s_j) but that of a target i. In

    log p_e(x) - log p_0(x) = log p_e(x_i | x_pa(i)) - log p_0(x_i | x_pa(i))

every other factor cancels, so that its gradient, the difference of scores, has the support
{i} and pa(i), whether the intervention is soft or hard; and {i} alone between two hard
interventions on i, whose factors know no parents (Varici, Acarturk, Shanmugam, Kumar and
Tajer, "Score-based causal representation learning", JMLR 2025).

Of linear Gaussian models, with b_j the j-th row of D^(-1/2) (I - A), x = A x + D^(1/2) noise,
the Hessian of the same ratio is minus

    Theta_e - Theta_0 = b'_i b'_i' - b_i b_i'

(Squires, Seigal, Bhate and Uhler, ICML 2023; Buchholz et al., NeurIPS 2023): of rank 2 where
the row turns, 1 where only its length changes, and 0 where it stays. Lengths of m rows
together: rank m, since rows of an invertible matrix are independent.

The densities here are exact. With an unseen common cause the factors are no longer those of
the variables seen, and changes spread.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import DGP
from crl.dgp.intervened import intervened_scm, log_density
from crl.theory.claim import Claim, Row, slack

ZERO = 1e-8  # of singular values and of scores, relative; in float64 errors are near 1e-13
SEEN = 1e-4  # what is not zero is larger than this: a bound on accidents
NUM_POINTS = 64  # at which scores are compared


def precision_differences() -> Claim:
    """One changed row: a difference of precisions of rank 2, 1 or 0 on {i} and its parents."""

    def points(sizes, num_worlds):
        return [
            {
                "num_nodes": d,
                "intervention": intervention,
                "num_targets": num,
                "hidden": False,
                "world": world,
            }
            for d in sizes
            for intervention, num in (("perfect", 1), ("soft", 1), ("scale", 1), ("scale", 3))
            for world in range(num_worlds)
        ]

    return Claim(
        statement=(
            "Interventions on i change the precision of a linear Gaussian model on {i} and "
            "pa(i) alone, with rank 2 if the row turns, 1 if only its noise is rescaled."
        ),
        reference="Squires et al., ICML 2023; Buchholz et al., NeurIPS 2023",
        points=points((4, 8), 12),
        small=points((5,), 3),
        measure=_measure_precisions,
        predict=lambda key, point: {"off_support": 0.0},
        margins=lambda rows: {
            "rank": slack(max(abs(r["rank"] - r["rank_of_rows"]) for r in rows), 0.5),
            "off the support": slack(max(r["off_support"] for r in rows), ZERO),
            "on the support": min(r["on_support"] for r in rows) - SEEN,
        },
        control=lambda point: point | {"hidden": True},
        broken="no hidden common cause: the cause of all others is not observed",
    )


def score_differences() -> Claim:
    """One changed mechanism: a difference of scores on {i} and pa(i), {i} for hard pairs."""

    def points(sizes, kinds, num_worlds):
        return [
            {
                "num_nodes": d,
                "mechanism": kind,
                "intervention": intervention,
                "off_target": False,
                "world": world,
            }
            for d in sizes
            for kind in kinds
            for intervention in ("soft", "scale", "perfect", "hard pair")
            for world in range(num_worlds)
        ]

    return Claim(
        statement=(
            "The difference of the scores of two environments has the support {i} and pa(i) "
            "if i alone is intervened upon, {i} between two hard interventions on it."
        ),
        reference="Varici et al., JMLR 26(112), 2025",
        points=points((5, 10), ("linear", "gp", "lsnm", "general", "post_nonlinear"), 3),
        small=points((4,), ("lsnm",), 2),
        measure=_measure_scores,
        predict=lambda key, point: {"off_support": 0.0},
        margins=lambda rows: {
            "off the support": slack(max(r["off_support"] for r in rows), ZERO),
            "on the support": min(r["on_support"] for r in rows) - SEEN,
        },
        control=lambda point: point | {"off_target": True},
        broken="one target: the mechanism of its last parent changes with it",
    )


def _measure_precisions(key: Array, point: Row) -> dict[str, float]:
    """Rank, and the largest change off and the least on the support, over the largest."""
    d, intervention, num = (point[k] for k in ("num_nodes", "intervention", "num_targets"))
    key = jax.random.fold_in(key, point["world"])
    precision = np.asarray(_precisions(d, intervention, num, key))  # (2, d, d)
    support = (np.eye(d) + _graph(d))[:, -num:].any(1)  # the targets and their parents
    if point["hidden"]:
        precision = np.linalg.inv(np.linalg.inv(precision)[:, 1:, 1:])
        support = support[1:]
    difference = precision[1] - precision[0]
    relative = np.abs(difference) / np.abs(difference).max()
    values = np.linalg.svd(difference, compute_uv=False)
    return {
        "rank": int((values > ZERO * np.abs(precision).max()).sum()),
        "rank_of_rows": num * (1 if intervention == "scale" else 2),
        "off_support": (relative * ~np.outer(support, support)).max(),
        "on_support": relative.max(1)[support].min(),
    }


def _measure_scores(key: Array, point: Row) -> dict[str, float]:
    """The largest change off and the least on the support, over the largest."""
    d, intervention = point["num_nodes"], point["intervention"]
    key = jax.random.fold_in(key, point["world"])
    settings = d, point["mechanism"], intervention, point["off_target"]
    change = np.abs(np.asarray(_score_differences(*settings, key))).max(0)  # (d,)
    change /= change.max()
    support = np.eye(d)[-1] > 0
    if intervention != "hard pair":
        support |= _graph(d)[:, -1] > 0
    return {
        "off_support": (change * ~support).max(),
        "on_support": change[support].min(),
    }


def _graph(d: int) -> np.ndarray:
    """0 causes all others, each of which the next one: (d, d)."""
    graph = np.eye(d, k=1)
    graph[0, 1:] = 1
    return graph


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _precisions(d: int, intervention: str, num_targets: int, key: Array) -> Array:
    """-hess log p_e without and with the intervention, (2, d, d); the last are its targets."""
    targets = np.eye(d)[None, -num_targets:].sum(1)
    world = _scm(d, "linear", intervention, targets).init(key)

    def precision(env):
        zero = jnp.zeros(d, jnp.float64)
        return -jax.hessian(lambda x: log_density("linear", world, env, x))(zero)

    return jax.vmap(precision)(jnp.arange(2))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _score_differences(
    d: int, mechanism: str, intervention: str, off_target: bool, key: Array
) -> Array:
    """grad log p_b - grad log p_a of two environments, (points, d); d - 1 is the target.

    a is the observational one, but of a pair the first of two hard interventions.
    """
    key_world, key_x = jax.random.split(key)
    targets = np.eye(d)[[-1, -1]]
    targets[1, -2] = off_target
    pair, kind = (0, 2), intervention
    if intervention == "hard pair":
        pair, kind = (1, 2), "perfect"
    world = _scm(d, mechanism, kind, targets).init(key_world)
    # The second of a pair has a law of its own.
    world = world._replace(sd=world.sd.at[2, -1].multiply(0.5))

    def score(env, x):
        return jax.grad(lambda x: log_density(mechanism, world, env, x))(x)

    x = jax.random.normal(key_x, (NUM_POINTS, d), jnp.float64)
    return jax.vmap(lambda x: score(pair[1], x) - score(pair[0], x))(x)


def _scm(d: int, mechanism: str, intervention: str, targets: np.ndarray) -> DGP:
    return intervened_scm(
        *(d, intervention, targets, _graph(d)),
        mechanism=mechanism,
        strength=1.7,
        dtype=jnp.float64,
    )
