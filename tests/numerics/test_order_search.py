import itertools

import jax
import numpy as np
import pytest

from crl.numerics.order_search import optimal_dag


def _is_dag(parents):
    """parents: one set per node. Kahn: remove nodes without parents until none is left."""
    left = dict(enumerate(parents))
    while left:
        free = [i for i, p in left.items() if not p & left.keys()]
        if not free:
            return False
        for i in free:
            del left[i]
    return True


def _best_by_enumeration(table, d):
    """The least total over all DAGs whose parent sets are in the table."""
    choices = [[(p, s) for (i, p), s in table.items() if i == node] for node in range(d)]
    return min(
        sum(s for _, s in combination)
        for combination in itertools.product(*choices)
        if _is_dag([{j for j in range(d) if p >> j & 1} for p, _ in combination])
    )


@pytest.mark.parametrize("d", [3, 4])
def test_search_finds_the_best_dag_of_all_that_a_table_allows(d):
    rng = np.random.default_rng(d)
    sets = [(i, p) for i in range(d) for p in range(2**d) if not p >> i & 1]
    node, parents = np.array(sets, np.int32).T
    search = jax.jit(lambda node, score: optimal_dag(node, parents, score, d))
    for kept in (1.0, 0.5):  # a full table, and one with gaps
        for _ in range(5):
            score = rng.normal(size=len(sets)).astype(np.float32)
            use = (rng.random(len(sets)) < kept) | (parents == 0)
            table = {s: v for s, v, u in zip(sets, score.tolist(), use) if u}
            dag = search(np.where(use, node, d).astype(np.int32), score)
            assert abs(float(dag.total) - _best_by_enumeration(table, d)) < 1e-5
            # The entries returned are a DAG in the order returned, with that total.
            seen = 0
            for i in dag.order.tolist():
                assert node[dag.entry[i]] == i and use[dag.entry[i]]
                assert parents[dag.entry[i]] & ~seen == 0
                seen |= 1 << i
            assert abs(score[dag.entry].sum() - float(dag.total)) < 1e-5
