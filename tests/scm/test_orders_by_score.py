"""score_matching and nogam, and what they share."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.core import grouped
from crl.dgp.scm import log_density, multi_environment_scm
from crl.numerics.graphs import topological_order
from crl.scm import additive
from crl.scm.nogam import nogam
from crl.scm.prior import prior
from crl.scm.score_matching import score_matching

N, D = 200, 4
METHODS = {"score_matching": score_matching, "nogam": nogam}


@cache
def drawing(mechanism, noise="gaussian", n=N):
    dgp = multi_environment_scm(D, mechanism=mechanism, num_envs=1, noise=noise)

    @jax.jit
    def draw(key):
        key_world, key_rows = jax.random.split(key)
        sample = dgp.sample(key_rows, dgp.init(key_world), n)
        return sample.data.x, sample.truth.graph

    return draw


def world(seed, mechanism="gp", noise="gaussian", n=N):
    """x (n, 4) and its graph, about one edge a variable."""
    return map(np.asarray, drawing(mechanism, noise, n)(jax.random.key(seed)))


@cache
def fitting(name):
    return jax.jit(lambda data: METHODS[name]().init(jax.random.key(0), data))


def fit(name, x, **given):
    """In one program for one shape of x: what is not given says nothing."""
    d = x.shape[1]
    nothing = {"required": np.zeros((d, d)), "forbidden": np.zeros((d, d))}
    nothing["tier"] = np.zeros(d)
    given = {k: jnp.asarray(v, jnp.float32) for k, v in (nothing | given).items()}
    data = grouped(jnp.asarray(x), **given)
    METHODS[name]().validate(data)
    return fitting(name)(data)


def edges_turned(name, seeds, **law):
    """The share of true edges that run against the order."""
    turned = []
    for seed in seeds:
        x, graph = world(seed, **law)
        place = np.argsort(fit(name, x).order)
        turned += [place[i] > place[j] for i, j in np.argwhere(graph)]
    return np.mean(turned)


# --- by definition, with dense inverses in float64 -----------------------------------------


def dense(z, ridge):
    """The kernel of rows z (n, d), its squared bandwidth and (K + ridge I)^-1."""
    squared = np.sum((z[:, None] - z) ** 2, 2)
    width = np.median(squared)
    gram = np.exp(-squared / (2 * width))
    return gram, width, np.linalg.inv(gram + ridge * np.eye(len(z)))


def score_by_definition(z, ridge=0.01):
    """The score and its slope (n, d) of rows z (n, d)."""
    gram, width, inverse = dense(z, ridge)
    gap = z[:, None] - z  # (n, n, d)
    score = -inverse @ np.sum(gap / width * gram[..., None], 1)
    bend = np.sum((gap**2 / width**2 - 1 / width) * gram[..., None], 1)
    return score, inverse @ bend - score**2


def rest_of(x, y, ridge=0.1):
    """What kernel regression of y (n,) on x (n, p) leaves of each row that it has not seen."""
    gram, _, _ = dense(x, ridge)
    error = np.empty(len(y))
    for i in range(len(y)):
        seen = np.arange(len(y)) != i
        weights = np.linalg.solve(
            gram[np.ix_(seen, seen)] + ridge * np.eye(seen.sum()), y[seen]
        )
        error[i] = y[i] - gram[i, seen] @ weights
    return error


def leaf_costs(name, z):
    """What each column of z (n, m) costs as a leaf."""
    score, slope = score_by_definition(z)
    if name == "score_matching":
        return np.var(slope, 0)
    costs = []
    for j in range(z.shape[1]):
        noise = rest_of(np.delete(z, j, 1), z[:, j])
        error = rest_of(noise[:, None], score[:, j] - score[:, j].mean())
        costs.append(np.mean(error**2))
    return np.array(costs)


def order_by_definition(name, x):
    z = (x.astype(float) - x.mean(0)) / x.std(0)
    left, order = list(range(x.shape[1])), []
    while len(left) > 1:
        order.append(left.pop(np.argmin(leaf_costs(name, z[:, left]))))
    return left + order[::-1]


@pytest.mark.parametrize(
    "name, seeds",
    [("score_matching", range(2)), pytest.param("nogam", range(3), marks=pytest.mark.slow)],
)
def test_the_order_is_that_of_the_definition(name, seeds):
    for seed in seeds:
        x, _ = world(seed)
        assert fit(name, x).order.tolist() == order_by_definition(name, x)


def test_score_and_slope_are_those_of_dense_inverses_in_double_precision():
    x, _ = world(0)
    z = ((x - x.mean(0)) / x.std(0)).T

    @jax.jit
    def estimate(z):
        everything = jnp.ones(D, bool)
        kernel = additive.gaussian_kernel(additive.squared_distances(z, everything), 0.01)
        error = additive.left_out_error(kernel, z[0])
        return additive.score(z, kernel), additive.score_slope(z, kernel), error

    rows = np.asarray(z, float).T
    # In float32 the condition of the kernel matrix, 200 / .01, leaves errors of .01.
    with jax.enable_x64(True):
        score, slope, error = estimate(jnp.asarray(rows.T))
    expected_score, expected_slope = score_by_definition(rows)
    np.testing.assert_allclose(score.T, expected_score, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(slope.T, expected_slope, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(error, rest_of(rows, rows[:, 0], 0.01), rtol=1e-6, atol=1e-6)


def test_of_a_leaf_alone_the_slope_of_the_true_score_is_the_same_everywhere():
    """The rule of SCORE on the density itself: 0 -> 1 -> 2 and 0 -> 2, Gaussian noises."""
    dgp = multi_environment_scm(3, [[0, 1, 1], [0, 0, 1], [0, 0, 0]], mechanism="gp")

    @jax.jit
    def slopes(key):
        key_world, key_rows = jax.random.split(key)
        world = dgp.init(key_world)
        x = dgp.sample(key_rows, world, 100).data.x[:100]
        density = lambda x: log_density("gp", world, 0, x)  # noqa: E731
        return jax.vmap(lambda x: jnp.diagonal(jax.hessian(density)(x)))(x)

    slope = slopes(jax.random.key(0))
    np.testing.assert_allclose(slope[:, 2], -1, atol=1e-5)
    assert np.all(np.var(slope[:, :2], 0) > 0.1)


# --- what they find, and what they cannot --------------------------------------------------


def test_units_of_the_columns_say_nothing():
    scale = np.array([1, 1000, 1e-3, 5], np.float32)
    for seed in range(5):
        x, _ = world(seed)
        one, other = fit("score_matching", x), fit("score_matching", x * scale + 7)
        np.testing.assert_array_equal(one.order, other.order)
        np.testing.assert_array_equal(one.graph, other.graph)


def test_gaussian_noise_tells_the_order_of_nonlinear_mechanisms_and_of_no_linear_ones():
    """40 worlds, 164 edges: an order by chance turns half of them, with a deviation of .04."""
    assert edges_turned("score_matching", range(40)) < 0.25
    assert edges_turned("score_matching", range(40), mechanism="linear") > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["gumbel", "laplace"])
def test_noise_that_is_not_gaussian_asks_for_nogam(noise):
    """40 worlds, 164 edges; a difference by chance has a deviation of .04 at most."""
    by = {name: edges_turned(name, range(40), noise=noise) for name in METHODS}
    assert by["nogam"] < by["score_matching"] - 0.06, by


@pytest.mark.slow
def test_nogam_cannot_order_linear_mechanisms_with_gaussian_noise():
    assert edges_turned("nogam", range(40), mechanism="linear") > 0.4
    assert edges_turned("nogam", range(40)) < 0.15


# --- the edges -----------------------------------------------------------------------------


@jax.jit
def edges(x, order):
    z = jnp.asarray((x - x.mean(0)) / x.std(0)).T
    known = prior(grouped(x))
    basis = jax.vmap(additive.spline_basis, (0, None))(z, 8)
    flat = basis.reshape(-1, x.shape[0])
    response = flat @ (z[3] / jnp.linalg.norm(z[3]))
    mask = jnp.array([True, True, False, False])
    tested = additive.p_values(flat @ flat.T, response, mask, x.shape[0])
    return additive.additive_graph(z, order, known, 1e-3, 8), basis, tested


def unexplained(y, functions):
    """The residual sum of squares of y (n,) on a constant and functions (m, n)."""
    a = np.concatenate([np.ones((1, len(y))), functions]).T
    return np.sum((y - a @ np.linalg.lstsq(a, y, rcond=None)[0]) ** 2)


def test_p_values_are_those_of_nested_least_squares():
    stats = pytest.importorskip("scipy.stats")
    for seed in range(3):
        x, _ = world(seed, "linear")
        _, basis, tested = edges(x, jnp.arange(D))
        y, basis = x[:, 3].astype(float), np.asarray(basis, float)
        rest, free = unexplained(y, np.concatenate(basis[:2])), N - 17
        for i in (0, 1):
            f = (unexplained(y, basis[1 - i]) - rest) / 8 / (rest / free)
            assert tested[i] == pytest.approx(stats.f.sf(f, 8, free), rel=1e-2, abs=1e-6)


def test_splines_are_natural_and_orthonormal():
    x = np.sort(np.random.default_rng(0).normal(size=N)).astype(np.float32)
    basis = np.asarray(additive.spline_basis(jnp.asarray(x), 8), float)
    np.testing.assert_allclose(basis @ basis.T, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(basis.mean(1), 0, atol=1e-5)
    outside = x < np.quantile(x, 0.02)  # all of them are straight lines there
    line = np.polynomial.polynomial.polyfit(x[outside], basis[:, outside].T, 1)
    fitted = line[0][:, None] + line[1][:, None] * x[outside]
    np.testing.assert_allclose(basis[:, outside], fitted, atol=1e-4)
    few = np.asarray(additive.spline_basis(jnp.asarray(x > 0, jnp.float32), 8), float)
    assert np.linalg.norm(few, axis=1).round(4).tolist() == [1] + 7 * [0]


@pytest.mark.slow
def test_no_edge_is_found_among_independent_columns_more_often_than_the_level():
    """6 tests a world at level 1e-3, 300 worlds: 1.8 expected, 8 or more in 3 of 10,000."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        x = rng.exponential(size=(N, D)).astype(np.float32)
        found += int(edges(x, jnp.arange(D))[0].sum())
    assert found < 8


@pytest.mark.slow
def test_most_edges_are_found_in_the_true_order_and_few_others():
    missed, false = [], []
    for seed in range(40):
        x, graph = world(seed)
        found = np.asarray(edges(x, topological_order(jnp.asarray(graph)))[0])
        missed += [not found[i, j] for i, j in np.argwhere(graph)]
        false += [found[i, j] for i, j in np.argwhere(graph == 0)]
    assert np.mean(missed) < 0.25 and np.mean(false) < 0.02


# --- at the boundary -----------------------------------------------------------------------


def matrix(*edges):
    found = np.zeros((D, D), np.int32)
    for i, j in edges:
        found[i, j] = 1
    return found


def test_prior_knowledge_is_obeyed():
    x, graph = world(1)
    i, j = np.argwhere(graph)[0]
    assert fit("score_matching", x).graph[i, j]
    assert not fit("score_matching", x, forbidden=matrix((i, j))).graph[i, j]
    out = fit("score_matching", x, tier=np.array([2, 0, 1, 5]))
    assert out.order.tolist() == [1, 2, 0, 3]
    out = fit("score_matching", x, required=matrix((2, 1), (1, 0), (0, 3)))
    assert out.order.tolist() == [2, 1, 0, 3]
    assert out.graph[2, 1] and out.graph[1, 0] and out.graph[0, 3]


@pytest.mark.parametrize("factory", METHODS.values(), ids=METHODS)
def test_bad_options_and_data_are_refused(factory):
    name = factory.__name__
    with pytest.raises(ValueError, match=f"{name} needs level < 1, a probability, got 1"):
        factory(level=1.0)
    with pytest.raises(ValueError, match=f"{name} needs ridge > 0, got 0"):
        factory(ridge=0.0)
    with pytest.raises(ValueError, match=f"{name} needs num_basis an integer >= 1, got 0"):
        factory(num_basis=0)
    x = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
    with pytest.raises(
        ValueError, match=r"coefficients, 1 \+ num_basis \(d - 1\) = 25, got 25"
    ):
        factory().validate(grouped(jnp.asarray(x[:25])))
    with pytest.raises(ValueError, match=f"{name} needs columns that vary"):
        factory().validate(grouped(jnp.asarray(x * np.array([1, 1, 0, 1], np.float32))))
    with pytest.raises(ValueError, match=f"{name} needs required edges without cycles"):
        factory().validate(grouped(jnp.asarray(x), required=matrix((0, 1), (1, 0))))
