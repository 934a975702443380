"""Whether what a method calls settled is so, and whether it sees what it cannot settle."""

import jax.numpy as jnp
from jax import Array

from crl.core import Readout, Sample, metric, need


@metric(best=0.0)
def false_decisions(claims: Readout, sample: Sample) -> Array:
    """The number of edges called decided, other['decided'] (d, d), that are not in the graph.

    For methods that say which orientations the data settle: the others may be wrong. Nothing
    decided scores 0 as well: look at ``shd`` beside it.
    """
    decided = need(claims, "decided", "false_decisions")
    return jnp.sum((decided > 0) & (need(sample.truth, "graph", "false_decisions") == 0))


@metric(best=1.0)
def hidden_cause_auroc(claims: Readout, sample: Sample) -> Array:
    """Area under the ROC curve of other['hidden_z'] (d, d) over pairs that no edge joins.

    The chance that a pair with a hidden common cause, truth.other['confounded'], scores higher
    than one without, ties at one half. NaN without any of either kind.
    """
    score, hidden = (
        need(record, name, "hidden_cause_auroc")
        for record, name in ((claims, "hidden_z"), (sample.truth, "confounded"))
    )
    graph = need(sample.truth, "graph", "hidden_cause_auroc")
    pair = jnp.triu_indices(len(graph), 1)
    score, hidden, edge = score[pair], hidden[pair] > 0, (graph + graph.T)[pair] > 0
    compared = (hidden & ~edge)[:, None] & ~(hidden | edge)
    wins = jnp.sign(score[:, None] - score) / 2 + 0.5
    num = jnp.sum(compared)
    won = jnp.sum(jnp.where(compared, wins, 0)) / jnp.maximum(num, 1)
    return jnp.where(num > 0, won, jnp.nan)
