import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from crl.numerics.bge import local_log_density, local_score, scatter

D, N = 3, 20


@pytest.fixture(scope="module")
def scores():
    """Of 21 rows: all local scores of the first 20, of all, and the density of the last."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N + 1, D)) @ rng.normal(size=(D, D)) + 0.3
    masks = np.array(list(itertools.product([False, True], repeat=D)))  # (8, d)

    def table(fn):
        return jax.vmap(jax.vmap(fn, (None, 0)), (0, None))(masks, jnp.arange(D))  # (8, d)

    @jax.jit
    def all_of(x):
        fewer, more = scatter(x[:-1]), scatter(x)
        return (
            table(lambda mask, j: local_score(fewer, mask, j)),
            table(lambda mask, j: local_score(more, mask, j)),
            table(lambda mask, j: local_log_density(fewer, mask, j, x[-1:])[0]),
        )

    with jax.enable_x64(True):
        found = [np.asarray(a) for a in all_of(jnp.asarray(x))]
    index = {tuple(np.nonzero(mask)[0]): i for i, mask in enumerate(masks)}
    return x, index, *found


def graph_score(scores, *parents):
    _, index, table, _, _ = scores
    return sum(table[index[pa], j] for j, pa in enumerate(parents))


def test_bge_of_a_complete_graph_is_the_evidence_of_the_gaussian(scores):
    """The product over rows of the multivariate t that the rows before predict."""
    x = scores[0][:-1]
    mean, mean_rows, freedom, matrix = np.zeros(D), 1.0, D + 2.0, 0.5 * np.eye(D)
    evidence = 0.0
    for row in x:
        dof = freedom - D + 1
        shape = matrix * (mean_rows + 1) / (mean_rows * dof)
        evidence += scipy.stats.multivariate_t.logpdf(row, mean, shape, dof)
        delta = row - mean
        matrix = matrix + mean_rows / (mean_rows + 1) * np.outer(delta, delta)
        mean = mean + delta / (mean_rows + 1)
        mean_rows, freedom = mean_rows + 1, freedom + 1
    np.testing.assert_allclose(graph_score(scores, (), (0,), (0, 1)), evidence, rtol=1e-10)


def test_bge_is_one_for_markov_equivalent_graphs_and_another_for_the_collider(scores):
    chain = graph_score(scores, (), (0,), (1,))  # 0 -> 1 -> 2
    fork = graph_score(scores, (1,), (), (1,))  # 0 <- 1 -> 2
    back = graph_score(scores, (1,), (2,), ())  # 0 <- 1 <- 2
    np.testing.assert_allclose([fork, back], chain, rtol=1e-12)
    assert abs(graph_score(scores, (), (0, 2), ()) - chain) > 0.1  # 0 -> 1 <- 2


def test_the_predictive_density_is_what_one_more_row_adds_to_the_score(scores):
    _, index, fewer, more, density = scores
    valid = [(i, j) for pa, i in index.items() for j in range(D) if j not in pa]
    for i, j in valid:
        np.testing.assert_allclose(density[i, j], more[i, j] - fewer[i, j], rtol=1e-10)


def test_densities_of_new_rows_take_one_solve():
    # Two batched solves side by side took both threads of a machine of two cores, each for
    # the other's work, and a suite stood still: a race, so that the program is looked at.
    with jax.default_device(jax.devices("cpu")[0]):
        rows = scatter(jax.random.normal(jax.random.key(0), (20, 3)))
        parents, new = jnp.array([True, False, True]), jnp.ones((5, 3))
        program = jax.jit(local_log_density).lower(rows, parents, 1, new).compile()
    assert program.as_text().count("getrf") == 1
