"""Invariant causal prediction claims a variable that is no cause at most alpha of the time.

Where the target's equation is the same in every environment, its true causes pass the test
of invariance with probability at least 1 - alpha; what all sets that pass have in common is
then a subset of the causes (Peters, Buhlmann and Meinshausen, JRSS B 2016, theorem 1). The
bound holds whatever else the environments change, and however few rows there are.

Claims of nothing would keep it, too, so causes have to be found, and the true set has to be
rejected nearly as often as the level allows: half as often at least, since tests that are
corrected for their number (Bonferroni) lose less than that by being dependent.

In the control environments shift the noise of the target itself. Its effect, a near copy,
hides the shift: sets with the effect are as good as invariant, and it is claimed as a cause.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.dgp.intervened import intervened_scm
from crl.scm.icp import icp, invariance, moments
from crl.theory.claim import Claim, Row, slack

TARGET = 2
# 0 -> 2 <- 1, 2 -> 3; 0 -> 1 -> 3.
GRAPH = np.array([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
# What the environments shift, one variable each.
SHIFTED = {"others": (0, 1, 3), "target": (2,)}


def invariant_prediction() -> Claim:
    """ICP's false claims are no more frequent than alpha, and it finds causes."""

    def points(levels, sizes, num_worlds):
        return [
            {"alpha": alpha, "num_rows": n, "shifted": "others", "num_worlds": num_worlds}
            for alpha in levels
            for n in sizes
        ]

    return Claim(
        statement=(
            "P(claimed causes are causes) >= 1 - alpha, if the target's equation is the same "
            "in every environment, whatever else they change."
        ),
        reference="Peters, Buhlmann and Meinshausen, JRSS B 2016, theorem 1",
        points=points((0.01, 0.05, 0.2, 0.5), (20, 100, 1000), 1000),
        small=points((0.05, 0.5), (100,), 200),
        measure=_measure,
        predict=lambda key, point: {"true_rejected": point["alpha"]},
        margins=_margins,
        control=lambda point: point | {"shifted": "target"},
        broken="the same equation of the target: environments shift its noise",
    )


def _margins(rows: list[Row]) -> dict[str, float]:
    """Shares within four standard errors of their bounds; causes found where rows are many."""

    def error(row):
        alpha = row["alpha"]
        return 4 * (alpha * (1 - alpha) / row["num_worlds"]) ** 0.5

    def within(name):
        return min(slack(r[name], r["alpha"] + error(r)) for r in rows)

    many = max(r["num_rows"] for r in rows)
    return {
        "false claims": within("false_claims"),
        "true set rejected": within("true_rejected"),
        "and not much less": min(r["true_rejected"] - r["alpha"] / 2 + error(r) for r in rows),
        "causes found": min(r["recall"] for r in rows if r["num_rows"] == many) - 0.5,
    }


def _measure(key: Array, point: Row) -> dict[str, float]:
    keys = jax.random.split(key, point["num_worlds"])
    settings = point["shifted"], point["num_rows"]
    claimed, p_value = map(np.asarray, _tested(*settings, point["alpha"], keys))
    is_cause = GRAPH[:, TARGET] > 0
    return {
        "false_claims": np.mean(claimed[:, ~is_cause].any(1)),
        "true_rejected": np.mean(p_value <= point["alpha"]),
        "recall": np.mean(claimed[:, is_cause]),
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _tested(shifted: str, n: int, alpha: float, keys: Array) -> tuple[Array, Array]:
    """In each world the claimed causes (worlds, d), and the p value of the true ones."""
    d = len(GRAPH)
    dgp = intervened_scm(
        d,
        "shift",
        np.eye(d)[list(SHIFTED[shifted])],
        GRAPH,
        mechanism="linear",
        dtype=jnp.float64,
    )

    def one(key):
        key_world, key_sample = jax.random.split(key)
        world = dgp.init(key_world)
        # The effect is nearly a function of what is seen.
        world = world._replace(sd=world.sd.at[:, 3].set(0.1))
        data = dgp.sample(key_sample, world, n).data
        true = jnp.asarray(GRAPH[:, TARGET] > 0)
        p_value = invariance(moments(data), true, TARGET)
        return icp(TARGET, alpha).init(key, data).is_cause, p_value

    return jax.lax.map(one, keys)
