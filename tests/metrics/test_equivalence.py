"""Distances between classes of graphs and between their effects, against brute force.

What a set of variables is worth for adjustment is read off exact covariances of linear
Gaussian SCMs with random weights; classes are found by listing all DAGs.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.core import Readout, Sample, Truth, grouped
from crl.metrics.graphs import ancestor_aid, cpdag_shd, sid
from crl.numerics.graphs import cpdag

D = 4
RNG = np.random.default_rng(0)


def dags(d):
    """All DAGs on d variables, (543 for d = 4, d, d)."""
    pairs = list(itertools.permutations(range(d), 2))
    found = []
    for bits in itertools.product((0, 1), repeat=len(pairs)):
        g = np.zeros((d, d), int)
        g[tuple(np.array(pairs).T)] = bits
        if not np.linalg.matrix_power(g, d).any() and not (g * g.T).any():
            found.append(g)
    return np.stack(found)


def v_structures(g):
    joined = g | g.T
    return frozenset(
        (i, j, k)
        for j in range(len(g))
        for i, k in itertools.combinations(np.flatnonzero(g[:, j]), 2)
        if not joined[i, k]
    )


@pytest.fixture(scope="module")
def classes():
    """All DAGs on four variables, and the members of the class of each."""
    graphs, members = dags(D), {}
    names = [((g | g.T).tobytes(), v_structures(g)) for g in graphs]
    for g, name in zip(graphs, names):
        members.setdefault(name, []).append(g)
    return graphs, [np.stack(members[name]) for name in names]


def random_dag(d, p=0.5):
    order = RNG.permutation(d)
    return np.triu(RNG.random((d, d)) < p, 1).astype(int)[order][:, order]


def law(g):
    """Total effects [i, j] and covariance of a linear Gaussian SCM with random weights."""
    effects = np.linalg.inv(np.eye(len(g)) - g * RNG.uniform(0.5, 1.5, g.shape))
    return effects, effects.T @ np.diag(RNG.uniform(0.5, 2, len(g))) @ effects


def adjusted(cov, i, j, others):
    """The coefficient of x_i in the regression of x_j on x_i and others."""
    x = [i, *others]
    return np.linalg.solve(cov[np.ix_(x, x)], cov[x, j])[0]


@functools.cache
def judge(metric):
    def one(g, g0):
        sample = Sample(grouped(jnp.zeros((2, len(g0)))), Truth(graph=g0))
        return metric(Readout(graph=g), sample)

    return jax.jit(jax.vmap(one))


def test_the_cpdag_holds_the_arrows_that_all_dags_of_the_class_share(classes):
    graphs, members = classes
    want = np.stack([m.any(0) for m in members])
    found = np.asarray(jax.jit(jax.vmap(cpdag))(graphs))
    assert len(graphs) == 543 and len(np.unique(found, axis=0)) == 185  # Gillispie 2002
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(jax.jit(jax.vmap(cpdag))(found), want)


def test_the_distance_of_classes_is_zero_within_a_class_alone(classes):
    graphs, members = classes
    pairs = RNG.integers(len(graphs), size=(2, 200))
    claims = np.stack([RNG.choice(members[k]) for k in pairs[0]])
    within = judge(cpdag_shd)(claims, graphs[pairs[0]])
    assert (within == 0).all()
    a, b = (np.stack([members[k].any(0) for k in p]) for p in pairs)
    differ = a != b
    want = np.triu(differ | differ.transpose(0, 2, 1)).sum((1, 2))
    np.testing.assert_array_equal(judge(cpdag_shd)(claims, graphs[pairs[1]]), want)


@pytest.mark.parametrize("d", [4, 5])
def test_sid_counts_the_regressions_on_claimed_parents_that_miss_the_effect(d):
    pairs = [(random_dag(d), random_dag(d, RNG.choice([0.3, 0.6]))) for _ in range(60)]
    want = []
    for g, g0 in pairs:
        effects, cov = law(g0)
        wrong = 0
        for i, j in itertools.permutations(range(d), 2):
            parents = np.flatnonzero(g[:, i])
            claimed = 0 if j in parents else adjusted(cov, i, j, parents)
            wrong += abs(claimed - effects[i, j]) > 1e-9
        want.append(wrong)
    found = judge(sid)(*map(np.stack, zip(*pairs)))
    np.testing.assert_array_equal(found, want)


def test_ancestor_aid_is_the_share_of_effects_that_a_dag_or_a_class_misses(classes):
    graphs, members = classes
    picks, g0s = RNG.integers(len(graphs), size=60), [random_dag(D) for _ in range(60)]
    claims, want = [], []
    for k, g0 in zip(picks, g0s):
        effects, cov = law(g0)
        for claim, class_ in ((graphs[k], graphs[k][None]), (members[k].any(0), members[k])):
            _, own = law(graphs[k])
            arrow = claim * (1 - claim.T)
            ancestor = np.linalg.matrix_power(arrow + np.eye(D), D) > 0
            wrong = 0
            for i, j in itertools.permutations(range(D), 2):
                # What each member makes of one covariance that all of them can have.
                effect = [
                    0 if m[j, i] else adjusted(own, i, j, np.flatnonzero(m[:, i]))
                    for m in class_
                ]
                others = [a for a in range(D) if ancestor[a, i] and a != i]
                if np.abs(effect).max() < 1e-9:
                    wrong += abs(effects[i, j]) > 1e-9
                elif np.ptp(effect) > 1e-9:  # the class does not say
                    wrong += 1
                else:
                    wrong += abs(adjusted(cov, i, j, others) - effects[i, j]) > 1e-9
            claims.append((claim, g0))
            want.append(wrong / (D * (D - 1)))
    found = judge(ancestor_aid)(*map(np.stack, zip(*claims)))
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_a_supergraph_has_no_wrong_effects_and_a_reversed_edge_has():
    chain = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    full, reverse = np.triu(np.ones((3, 3), int), 1), chain.T
    claims = np.stack([full, reverse, 0 * chain]), np.stack([chain] * 3)
    np.testing.assert_array_equal(judge(sid)(*claims), [0, 6, 3])
    np.testing.assert_allclose(judge(ancestor_aid)(*claims), [0, 1, 0.5])


def test_distances_of_effects_are_undefined_for_cycles():
    cycle = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    line = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    dag = np.triu(cycle)
    claims = np.stack([cycle, dag, line]), np.stack([dag, cycle, dag])
    assert np.isnan(judge(sid)(*claims)).all()
    np.testing.assert_array_equal(np.isnan(judge(ancestor_aid)(*claims)), [1, 1, 0])


def test_sid_and_ancestor_aid_are_those_of_gadjid():
    gadjid = pytest.importorskip("gadjid")
    for d in (6, 12):
        g, g0 = (np.stack([random_dag(d, 0.4) for _ in range(60)]) for _ in range(2))
        g[::2] = g0[::2] * (RNG.random((30, d, d)) < 0.8)  # and some that are near
        lines = np.asarray(jax.vmap(cpdag)(g)).astype(int)
        coded = np.where(lines & lines.transpose(0, 2, 1), 2 * np.triu(lines), lines)
        for metric, reference, claims, sent, part in (
            (sid, gadjid.sid, g, g, 1),
            (ancestor_aid, gadjid.ancestor_aid, g, g, 0),
            (ancestor_aid, gadjid.ancestor_aid, lines, coded, 0),
        ):
            want = [
                reference(a.astype("int8"), b.astype("int8"), "from row to column")[part]
                for a, b in zip(g0, sent)
            ]
            np.testing.assert_allclose(judge(metric)(claims, g0), want, rtol=1e-5)
