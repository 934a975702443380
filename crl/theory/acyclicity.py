"""DAGMA's h: 0 on graphs without cycles and there alone, on a domain that it does not leave.

    h(W) = -log det(I - W * W)      on the W with spectral radius of W * W below 1,

so that I - W * W is an M-matrix (Bello, Aragam and Ravikumar, NeurIPS 2022, theorem 1 and
lemma 2): h >= 0, h = 0 exactly on DAGs, its gradient 2 (I - W * W)^-T * W vanishes there
and nowhere else, and h tends to infinity at the edge of the domain. W * W is nonnegative,
so that the log-determinant is a sum of positive terms over closed walks,

    h(W) = sum_k tr (W * W)^k / k;

of W itself the walks cancel. Two cycles through one variable with weights p and q have
h = -log(1 - p^2 - q^2), and of W the value -log(1 - p - q): 0 for q = -p.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.dgp.graphs import erdos_renyi
from crl.numerics.graphs import log_det_cycles
from crl.theory.claim import Claim, Row, slack

TOL = 1e-10  # relative, float64
SEEN = 1e-6  # an h above it is not 0
EDGE = 0.999, 1.001  # spectral radii on both sides of the edge of the domain


def acyclicity() -> Claim:
    """-log det(I - W * W) is 0 on DAGs alone, with its gradient and its domain."""

    def points(sizes, num_worlds):
        return [
            {"num_nodes": d, "cycles": cycles, "squared": True, "world": world}
            for d in sizes
            for cycles in ("none", "opposite", "many")
            for world in range(num_worlds)
        ]

    return Claim(
        statement=(
            "h(W) = -log det(I - W * W) is 0, and stationary, if and only if W is a DAG, and "
            "finite only where the spectral radius of W * W is below 1."
        ),
        reference="Bello, Aragam and Ravikumar, NeurIPS 2022, theorem 1 and lemma 2",
        points=points((3, 5, 10, 20), 5),
        small=points((4,), 2),
        measure=lambda key, point: _measure(_weights(key, point), point),
        predict=lambda key, point: _predict(_weights(key, point), point),
        margins=_margins,
        control=lambda point: point | {"squared": False},
        broken="nonnegative weights: of W in place of W * W closed walks cancel",
    )


def _margins(rows: list[Row]) -> dict[str, float]:
    dags = [r for r in rows if r["cycles"] == "none"]
    cyclic = [r for r in rows if r["cycles"] != "none"]
    return {
        "0 on DAGs": slack(max(abs(r["h"]) for r in dags), TOL),
        "positive on cycles": min(r["h"] for r in cyclic) - SEEN,
        "stationary on DAGs": slack(max(r["slope"] for r in dags), TOL),
        "and nowhere else": min(r["slope"] for r in cyclic) - SEEN,
        "value": slack(np.max([abs(r["h"] - r["predicted_h"]) for r in rows]), TOL),
        "gradient": slack(np.max([r["gradient_error"] for r in rows]), TOL),
        "finite inside alone": min(float(r["is_barrier"]) for r in cyclic) - 0.5,
    }


def _weights(key: Array, point: Row) -> np.ndarray:
    """W (d, d): a DAG, one with two cycles of opposite weight, or a dense one."""
    d, cycles = point["num_nodes"], point["cycles"]
    key_graph, key_weights = jax.random.split(jax.random.fold_in(key, point["world"]))
    u = np.asarray(jax.random.uniform(key_weights, (d, d), jnp.float64, -1.0, 1.0))
    weights = 0.7 * u + 0.3 * np.sign(u)  # at least .3 in size
    if cycles == "many":
        return weights * (0.7 / np.abs(np.linalg.eigvals(weights**2)).max()) ** 0.5
    if cycles == "none":
        return weights * np.asarray(erdos_renyi(key_graph, d, 2.0))
    # 0 -> 1 -> 0 with weight p = .5 a, and 0 -> 1 -> 2 -> 0 with -p.
    a, c = weights[0, 1], weights[1, 2]
    weights = np.zeros((d, d))
    weights[0, 1], weights[1, 0], weights[1, 2], weights[2, 0] = a, 0.5, c, -0.5 / c
    return weights


def _measure(weights: np.ndarray, point: Row) -> dict[str, float]:
    square = point["squared"]
    a = jnp.asarray(weights)

    def h(w):
        return _h(w**2 if square else w)

    value, slope = h(a)
    gradient = 2 * a * slope if square else slope
    # By the definition, in numpy.
    entries = weights**2 if square else weights
    inverse = np.linalg.inv(np.eye(len(weights)) - entries).T
    expected = 2 * weights * inverse if square else inverse
    radius = np.abs(np.linalg.eigvals(entries)).max()
    inside, outside = (
        h(a * (r / max(radius, SEEN)) ** (0.5 if square else 1))[0] for r in EDGE
    )
    return {
        "h": value,
        "slope": np.abs(gradient).max(),
        "gradient_error": np.abs(gradient - expected).max() / np.abs(inverse).max(),
        "is_barrier": np.isfinite(inside) and not np.isfinite(outside),
    }


def _predict(weights: np.ndarray, point: Row) -> dict[str, float]:
    """h of W * W, whatever was measured: a sum over closed walks, or its closed form."""
    if point["cycles"] == "none":
        return {"h": 0.0}
    if point["cycles"] == "opposite":
        return {"h": -np.log(1 - 2 * (weights[0, 1] * weights[1, 0]) ** 2)}
    power, total = np.eye(len(weights)), 0.0
    for k in range(1, 200):  # .7^200 is 1e-31
        power = power @ weights**2
        total += np.trace(power) / k
    return {"h": total}


_h = jax.jit(log_det_cycles)
