import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_worlds import NOISES, linear_world

import crl
from crl.core import grouped
from crl.scm.direct_lingam import direct_lingam


def matrix(d, *edges):
    found = np.zeros((d, d), np.int32)
    for i, j in edges:
        found[i, j] = 1
    return found


@jax.jit
def fitted(data):
    return direct_lingam().init(jax.random.key(0), data)


def fit(x, **given):
    """In one program for one shape of x: what is not given says nothing."""
    d = x.shape[1]
    nothing = {"required": matrix(d), "forbidden": matrix(d), "tier": np.zeros(d)}
    given = {
        name: jnp.asarray(value, jnp.float32) for name, value in (nothing | given).items()
    }
    data = grouped(jnp.asarray(x), **given)
    direct_lingam().validate(data)
    return fitted(data)


def entropy(u):
    u = (u - u.mean()) / u.std()
    even, odd = np.mean(np.log(np.cosh(u))) - 0.37457, np.mean(u * np.exp(-(u**2) / 2))
    return -79.047 * even**2 - 7.4129 * odd**2


def order_by_definition(x):
    """DirectLiNGAM with a loop over pairs, in float64."""
    x, left, order = x.astype(float), list(range(x.shape[1])), []
    rest = lambda a, b: a - np.cov(a, b)[0, 1] / np.var(b, ddof=1) * b  # noqa: E731
    while left:
        cost = {}
        for i in left:
            a, cost[i] = x[:, i], 0.0
            for j in left:
                if i != j:
                    b = x[:, j]
                    gain = entropy(b) + entropy(rest(a, b)) - entropy(a) - entropy(rest(b, a))
                    cost[i] += min(0, gain) ** 2
        first = min(cost, key=cost.get)
        left.remove(first)
        order.append(first)
        for j in left:
            x[:, j] = rest(x[:, j], x[:, first])
    return order


@pytest.mark.parametrize("noise", ["exponential", "uniform"])
def test_the_order_is_that_of_the_definition(noise):
    for seed in range(3):
        x, _ = linear_world(seed, 4, 300, noise)
        assert fit(x).order.tolist() == order_by_definition(x)


@pytest.mark.slow
def test_graph_and_weights_are_the_true_ones_at_many_rows():
    x, weights = linear_world(0, 4, 30_000, "exponential")
    out = fit(x)
    np.testing.assert_array_equal(out.graph, weights != 0)
    np.testing.assert_allclose(out.weights, weights, atol=0.03)


def test_units_of_the_columns_say_nothing():
    x, _ = linear_world(1, 4, 300, "exponential")
    scale = np.array([1, 1000, 1e-3, 5], np.float32)
    one, other = fit(x), fit(x * scale + 7)
    np.testing.assert_array_equal(one.graph, other.graph)
    np.testing.assert_allclose(other.weights, one.weights * scale / scale[:, None], rtol=1e-2)


def test_gaussian_noise_leaves_the_order_to_chance_and_a_low_negentropy():
    """The control: about half of the edges are turned round."""
    turned, diag = {}, {}
    for noise in ("gaussian", "exponential"):
        worlds = [linear_world(seed, 4, 300, noise, edges_per_node=0.5) for seed in range(40)]
        fits = [fit(x) for x, _ in worlds]
        edges = [(np.argsort(f.order), np.argwhere(w)) for f, (_, w) in zip(fits, worlds)]
        turned[noise] = np.mean([p[i] > p[j] for p, found in edges for i, j in found])
        diag[noise] = np.median([f.diag["second_negentropy"] for f in fits])
    assert 0.3 < turned["gaussian"] < 0.7 and turned["exponential"] < 0.02
    assert diag["gaussian"] < 0.02 < 0.1 < diag["exponential"]


def test_direct_lingam_equals_lingam():
    """Order, graph and weights on the same arrays, 20 worlds and more."""
    lingam = pytest.importorskip("lingam")
    for seed in range(8):
        for noise in set(NOISES) - {"gaussian"}:
            x, _ = linear_world(seed, 6, 300, noise)
            theirs = lingam.DirectLiNGAM().fit(x.astype(float))
            out = fit(x)
            assert out.order.tolist() == list(theirs.causal_order_)
            expected = theirs.adjacency_matrix_.T
            np.testing.assert_array_equal(out.graph, expected != 0)
            np.testing.assert_allclose(out.weights, expected, atol=1e-3)


# --- prior knowledge ----------------------------------------------------------------------


def test_prior_knowledge_decides_where_the_data_cannot():
    """Gaussian noise, whose order is chance, with the order given by tiers or by edges."""
    for seed in range(5):
        x, _ = linear_world(seed, 4, 300, "gaussian", edges_per_node=1)
        assert fit(x, tier=np.array([2, 0, 1, 5])).order.tolist() == [1, 2, 0, 3]
        out = fit(x, required=matrix(4, (2, 1), (1, 0), (0, 3)))
        assert out.order.tolist() == [2, 1, 0, 3]


def test_required_edges_are_there_and_forbidden_ones_are_not():
    x, weights = linear_world(1, 4, 300, "exponential")
    i, j = np.argwhere(weights)[0]
    plain = fit(x)
    assert plain.graph[i, j] == 1
    out = fit(x, forbidden=matrix(4, (i, j)))
    assert out.graph[i, j] == 0 and out.weights[i, j] == 0
    noise = np.random.default_rng(0).exponential(size=(300, 4)).astype(np.float32)
    assert fit(noise).graph.sum() == 0
    out = fit(noise, required=matrix(4, (3, 0), (0, 1)))
    np.testing.assert_array_equal(out.graph, matrix(4, (3, 0), (0, 1)))
    assert np.all(np.abs(out.weights) < 0.2) and out.weights[3, 0] != 0


@pytest.mark.parametrize(
    "given, words",
    [
        ({"required": matrix(3, (0, 1), (1, 2), (2, 0))}, "without cycles.*0 -> 1, 1 -> 2"),
        ({"required": matrix(3, (1, 1))}, "without cycles.*1 -> 1"),
        (
            {"required": matrix(3, (0, 1)), "forbidden": matrix(3, (0, 1))},
            "required or forbidden, got 1 that are both: 0 -> 1",
        ),
        (
            {"required": matrix(3, (0, 1)), "tier": np.array([1, 0, 0])},
            "from a higher tier to a lower: 0 -> 1",
        ),
        (
            {"required": matrix(3, (0, 2), (2, 1)), "tier": np.array([1, 0, 1])},
            "from a higher tier to a lower: 2 -> 1",
        ),
        ({"forbidden": matrix(2)}, r"given\['forbidden'\] of shape \(3, 3\), got \(2, 2\)"),
        ({"forbidden": 2 * matrix(3, (0, 1))}, r"given\['forbidden'\] of 0 and 1"),
        ({"tier": np.array([0, np.nan, 1])}, r"given\['tier'\] of finite numbers"),
    ],
)
def test_prior_knowledge_that_no_graph_satisfies_is_refused(given, words):
    x, _ = linear_world(0, 3, 100, "uniform")
    with pytest.raises(ValueError, match=f"direct_lingam needs .*{words}"):
        fit(x, **given)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x: x[:3], r"more rows than columns, got x of shape \(3, 3\)"),
        (lambda x: np.c_[x, np.full(100, 1.1)], r"constant ones: \[3\]"),
        (lambda x: np.c_[x, 3 - 2 * x[:, 0]], "column 3 equal to column 0 up to scale"),
        (lambda x: np.c_[x, x.sum(1)], r"some that others determine \(rank 3 of 4\)"),
    ],
)
def test_columns_that_cannot_be_regressed_are_refused(change, words):
    x, _ = linear_world(0, 3, 100, "uniform")
    with pytest.raises(ValueError, match=f"direct_lingam needs .*{words}"):
        crl.fit(
            direct_lingam(), jax.random.key(0), grouped(jnp.asarray(change(x), jnp.float32))
        )
