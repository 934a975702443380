"""The trap of simulated benchmarks: variances grow along the causal order.

In x_j = sum_i w_ij x_i + s_j with independent noises of variance 1 every variable adds its
own noise to what it inherits, so that Var x_j > Var x_i along most edges, and along each
whose |w| >= 1 where causes do not cancel. Sorting by variance then finds the order, and
methods that minimise squares (NOTEARS, DAGMA) do so unasked (Reisach, Seiler and Weichwald,
NeurIPS 2021). Linear Gaussian models say nothing of the kind: columns that are rescaled
have the same conditional independences, and variances that are all one. So do variables that
are standardised before they are passed on (Ormaniec et al., ICLR 2025).

Where the order says nothing, half of all edges run against it.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import Readout
from crl.dgp.combinators import standardized
from crl.dgp.scm import multi_environment_scm
from crl.metrics.graphs import order_divergence
from crl.metrics.sortability import varsortability
from crl.theory.claim import Claim, Row, slack

# What is done to the worlds, and the words for it.
CONTROLS = {
    "standardised": "the units of the model: every column has variance 1",
    "internal": "the units of the model: each variable is standardised as it is made",
}
NUM_ROWS = 1000


def standardisation(control: str = "standardised") -> Claim:
    """Sorting by variance finds causal orders, in raw worlds alone.

    control: what is done to the worlds there, 'standardised' columns, or 'internal'
    standardisation of each variable before it is passed on.
    """
    check_options("standardisation", one_of={"control": (control, tuple(CONTROLS))})

    def points(sizes, num_worlds):
        return [
            {"num_nodes": d, "edges_per_node": k, "scaling": "raw", "num_worlds": num_worlds}
            for d in sizes
            for k in (1.0, 2.0)
        ]

    return Claim(
        statement=(
            "Sorted by variance, raw linear worlds with equal noise variances have few edges "
            "that run backwards: less than half of the 1/2 of an order by chance."
        ),
        reference="Reisach, Seiler and Weichwald, NeurIPS 2021; Ormaniec et al., ICLR 2025",
        points=points((5, 10, 20), 200),
        small=points((6,), 60),
        measure=lambda key, point: _measure(key, **point),
        predict=lambda key, point: {},
        margins=_margins,
        control=lambda point: point | {"scaling": control},
        broken=CONTROLS[control],
    )


def _margins(rows: list[Row]) -> dict[str, float]:
    return {
        "edges backwards": slack(max(r["backwards"] for r in rows), 0.25),
        "varsortability": min(r["varsortability"] for r in rows) - 0.75,
    }


@functools.partial(
    jax.jit, static_argnames=("num_nodes", "edges_per_node", "scaling", "num_worlds")
)
def _measure(
    key: Array, num_nodes: int, edges_per_node: float, scaling: str, num_worlds: int
) -> dict[str, Array]:
    """Mean varsortability, and the share of all edges that sorting by variance reverses."""
    dgp = multi_environment_scm(
        num_nodes,
        edges_per_node=edges_per_node,
        mechanism="linear",
        scaling="internal" if scaling == "internal" else "raw",
        num_envs=1,
        dtype=jnp.float64,
    )
    if scaling == "standardised":
        dgp = standardized(dgp)

    def one(key):
        key_world, key_sample = jax.random.split(key)
        sample = dgp.sample(key_sample, dgp.init(key_world), NUM_ROWS)
        # Rounded, so that variances of 1 are ties: columns come in random order.
        order = jnp.argsort(jnp.round(jnp.var(sample.data.x, 0), 6))
        claims = Readout(order=order)
        backwards = order_divergence(claims, sample)
        return varsortability(claims, sample), backwards, jnp.sum(sample.truth.graph)

    sortable, backwards, edges = jax.lax.map(one, jax.random.split(key, num_worlds))
    return {
        "varsortability": jnp.nanmean(sortable),
        "backwards": jnp.sum(backwards) / jnp.sum(edges),
    }
