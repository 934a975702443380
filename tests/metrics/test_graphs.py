import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from crl.core import MissingClaim, Readout, Sample, Truth, grouped
from crl.metrics.graphs import (
    ancestor_aid,
    cpdag_shd,
    edge_auprc,
    edge_auroc,
    edge_f1,
    edge_precision,
    edge_recall,
    order_divergence,
    shd,
    shd_double,
    sid,
    skeleton_shd,
)

D = 5
OFF = ~np.eye(D, dtype=bool)
METRICS = (
    *(shd, shd_double, skeleton_shd, order_divergence),
    *(edge_precision, edge_recall, edge_f1, edge_auroc, edge_auprc),
    *(cpdag_shd, sid, ancestor_aid),
)


def true(graph):
    return Sample(grouped(jnp.zeros((2, len(graph)))), Truth(graph=graph))


@pytest.fixture(scope="module")
def scored():
    """40 pairs of random graphs with every metric on them, computed in one program."""
    rng = np.random.default_rng(0)
    truth = np.triu(rng.random((40, D, D)) < 0.4, 1)
    truth = np.stack([g[p][:, p] for g in truth for p in [rng.permutation(D)]]).astype(int)
    claim = ((rng.random((40, D, D)) < 0.3) & OFF).astype(int)
    prob = np.round(rng.random((40, D, D)), 1)  # with ties
    order = np.stack([rng.permutation(D) for _ in range(40)])

    def score(g, prob, order, g0):
        claims = Readout(graph=g, edge_prob=prob, order=order)
        return {m.__name__: m(claims, true(g0)) for m in METRICS}

    result = jax.jit(jax.vmap(score))(claim, prob, order, truth)
    return claim, prob, order, truth, jax.device_get(result)


def test_distances_agree_with_a_walk_over_pairs(scored):
    claim, _, order, truth, result = scored
    for k, (g, g0) in enumerate(zip(claim, truth)):
        single = double = skeleton = against = 0
        for i, j in itertools.combinations(range(D), 2):
            a, b = (g[i, j], g[j, i]), (g0[i, j], g0[j, i])
            single += a != b
            double += int(a[0] != b[0]) + int(a[1] != b[1])
            skeleton += any(a) != any(b)
        place = {int(v): p for p, v in enumerate(order[k])}
        for i, j in itertools.permutations(range(D), 2):
            against += g0[i, j] and place[i] > place[j]
        assert result["shd"][k] == single
        assert result["shd_double"][k] == double
        assert result["skeleton_shd"][k] == skeleton
        assert result["order_divergence"][k] == against


def test_edge_scores_and_auroc_agree_with_scikit_learn(scored):
    claim, prob, _, truth, result = scored
    for k, (g, g0) in enumerate(zip(claim, truth)):
        expected = precision_recall_fscore_support(
            g0[OFF], g[OFF], average="binary", zero_division=np.nan
        )
        for name, value in zip(("precision", "recall", "f1"), expected):
            np.testing.assert_allclose(result[f"edge_{name}"][k], value, rtol=1e-5)
        if g0.any():
            auc = roc_auc_score(g0[OFF], prob[k][OFF])
            np.testing.assert_allclose(result["edge_auroc"][k], auc, rtol=1e-5)
            area = average_precision_score(g0[OFF], prob[k][OFF])
            np.testing.assert_allclose(result["edge_auprc"][k], area, rtol=1e-5)


def test_a_reversed_edge_counts_once_or_twice():
    sample = true(jnp.array([[0, 1], [0, 0]]))
    claims = Readout(graph=jnp.array([[0, 0], [1, 0]]))
    assert shd(claims, sample) == 1 and shd_double(claims, sample) == 2
    assert skeleton_shd(claims, sample) == 0


def test_scores_of_empty_graphs_are_undefined():
    empty, edge = jnp.zeros((2, 2)), jnp.array([[0, 1], [0, 0]])
    claims = Readout(graph=empty, edge_prob=empty)
    for metric in (edge_precision, edge_recall, edge_f1, edge_auroc, edge_auprc):
        assert np.isnan(metric(claims, true(empty))), metric.__name__
    assert np.isnan(edge_precision(claims, true(edge)))
    assert edge_recall(claims, true(edge)) == edge_f1(claims, true(edge)) == 0


def test_the_true_graph_scores_what_the_metrics_say_is_best():
    graph = jnp.array([[0, 1, 1], [0, 0, 0], [0, 1, 0]])
    claims = Readout(graph=graph, edge_prob=graph.astype(float), order=jnp.array([0, 2, 1]))
    for metric in METRICS:
        assert metric(claims, true(graph)) == metric.best


def test_a_missing_claim_is_named():
    with pytest.raises(MissingClaim, match=r"shd needs readout\.graph"):
        shd(Readout(), true(jnp.zeros((2, 2))))
