import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from crl.core import Readout, Sample, Truth, grouped
from crl.metrics.decisions import false_decisions, hidden_cause_auroc


def test_false_decisions_count_what_is_decided_and_is_no_edge_of_the_graph():
    graph = jnp.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    sample = Sample(grouped(jnp.zeros((4, 3))), Truth(graph=graph))
    decided = jnp.array([[0, 1, 1], [0, 0, 0], [0, 1, 0]], bool)  # 2 -> 1 is turned
    assert false_decisions(Readout(other={"decided": decided}), sample) == 2
    assert false_decisions(Readout(other={"decided": graph > 0}), sample) == 0


def test_auroc_of_hidden_causes_compares_pairs_that_no_edge_joins():
    graph = jnp.array([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    hidden = jnp.zeros((4, 4), int).at[0, 1].set(1).at[0, 2].set(1).at[1, 3].set(1)
    hidden = hidden + hidden.T
    sample = Sample(None, Truth(graph=graph, other={"confounded": hidden}))
    score = np.random.default_rng(0).normal(size=(4, 4))
    score = np.round(score + score.T, 1)
    claims = Readout(other={"hidden_z": jnp.asarray(score, jnp.float32)})
    pairs, label = [(0, 2), (1, 3), (0, 3), (1, 2)], [1, 1, 0, 0]  # neither 0, 1 nor 2, 3
    expected = roc_auc_score(label, [score[pair] for pair in pairs])
    np.testing.assert_allclose(hidden_cause_auroc(claims, sample), expected, rtol=1e-6)
    nothing = sample.truth._replace(other={"confounded": 0 * hidden})
    assert np.isnan(hidden_cause_auroc(claims, Sample(None, nothing)))
