import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from crl.dgp.scm import multi_environment_scm
from crl.numerics import mixtures
from crl.scm import monotone

N = 150  # rows per environment
CHAIN = jnp.array([[0, 1], [0, 0]])


@pytest.fixture(scope="module")
def rows():
    dgp = multi_environment_scm(2, graph=CHAIN)
    world = jax.jit(dgp.init)(jax.random.key(0))
    return jax.jit(dgp.sample, static_argnums=2)(jax.random.key(1), world, N).data


@pytest.fixture(scope="module")
def problem(rows):
    """A small local fit, 3 features of one parent, as the arrays of the convex problem."""
    basis = jax.jit(monotone.make_basis)(jax.random.key(2), rows.x)
    columns = jax.jit(monotone.normalized)(basis, rows.x)
    z, u = np.array(columns.z), np.array(columns.u)
    x = z[:, 1]
    h = np.tanh((x[:, None] - basis.centre[1]) / basis.width[1])
    dh = (1 - h**2) / basis.width[1]
    feature = np.exp(-((u[:, :1] - [-1, 0, 1]) ** 2) / 2)
    feature = feature - feature.mean(0)
    arrays = (jnp.asarray(a) for a in (x, h, dh, z[:, :1], feature))
    phi, slope, ridge = monotone.design(*arrays)
    member = jax.nn.one_hot(rows.env, 3)
    start = jnp.zeros(phi.shape[1]).at[phi.shape[1] - slope.shape[1]].set(1)
    return phi, slope, ridge, member, start


def _objective(theta, phi, slope, ridge, env):
    """The same objective and its gradient, written again in float64 numpy."""
    s, ds = phi @ theta, slope @ theta[-slope.shape[1] :]
    if (ds <= 0).any():
        return np.inf, np.zeros_like(theta)
    value = 0.5 * (s[env == 0] ** 2).sum() - np.log(ds).sum() + 0.5 * ridge @ theta**2
    grad = phi[env == 0].T @ s[env == 0] + ridge * theta
    grad[-slope.shape[1] :] -= slope.T @ (1 / ds)
    for e in (1, 2):
        r = s[env == e] - s[env == e].mean()
        value += 0.5 * len(r) * np.log(np.mean(r**2))
        grad += (phi[env == e] - phi[env == e].mean(0)).T @ r / np.mean(r**2)
    return value, grad


def test_newton_finds_the_minimum_that_scipy_finds(problem, rows):
    phi, slope, ridge, member, start = problem
    theta, *_ = jax.jit(monotone.solve)(*problem)
    exact = [np.asarray(a, np.float64) for a in (phi, slope, ridge)]
    args = (*exact, np.array(rows.env))
    found = scipy.optimize.minimize(
        _objective, np.asarray(start, np.float64), args, jac=True, method="BFGS",
        options={"maxiter": 2000, "gtol": 1e-5},
    )  # fmt: skip
    ours = _objective(np.asarray(theta, np.float64), *args)[0]
    # A Newton step that promises .05 nats is the last; it leaves far less behind.
    assert ours - found.fun < 0.01
    s = np.array(phi @ theta)
    assert np.abs(s - exact[0] @ found.x).max() < 0.05
    value = monotone.objective(
        theta, phi @ theta, slope @ theta[-slope.shape[1] :], ridge, member
    )
    np.testing.assert_allclose(value, ours, rtol=1e-5)


def _mixture_objective(theta, phi, slope, ridge, env, noise):
    """The mixture objective and its gradient, written again in float64 numpy."""
    s, ds = phi @ theta, slope @ theta[-slope.shape[1] :]
    if (ds <= 0).any():
        return np.inf, np.zeros_like(theta)
    weight, mean, sd = (a[env] for a in noise)
    part = weight / sd * np.exp(-(((s[:, None] - mean) / sd) ** 2) / 2) / np.sqrt(2 * np.pi)
    density = part.sum(1)
    value = -np.log(density).sum() - np.log(ds).sum() + 0.5 * ridge @ theta**2
    pull = (part * (s[:, None] - mean) / sd**2).sum(1) / density
    grad = phi.T @ pull + ridge * theta
    grad[-slope.shape[1] :] -= slope.T @ (1 / ds)
    return value, grad


def test_the_map_to_a_mixture_is_the_one_that_scipy_finds(problem, rows):
    phi, slope, ridge, member, _ = problem
    theta, loss, noise = jax.jit(monotone.solve_mixture)(*problem)
    exact = [np.asarray(a, np.float64) for a in (phi, slope, ridge)]
    args = (*exact, np.array(rows.env), [np.asarray(a, np.float64) for a in noise])
    found = scipy.optimize.minimize(
        _mixture_objective, np.asarray(theta, np.float64), args, jac=True, method="BFGS",
        options={"maxiter": 2000, "gtol": 1e-5},
    )  # fmt: skip
    ours = _mixture_objective(np.asarray(theta, np.float64), *args)[0]
    # Rounds end when one gains less than .2 nats, all rows together.
    assert -1e-6 < ours - found.fun < 0.5
    # In the gauge: mean 0 and variance 1 in the base environment.
    mean, var = mixtures.moments(noise)
    np.testing.assert_allclose([mean[0], var[0]], [0, 1], atol=1e-4)
    value = monotone.mixture_objective(
        theta, phi @ theta, slope @ theta[-slope.shape[1] :], ridge, noise, member
    )
    np.testing.assert_allclose(value, ours, rtol=1e-5)
    # A left-out row is less likely than it was.
    own = value - 0.5 * ridge @ theta**2
    assert 10 < float(loss.sum() - own) < 80


@pytest.mark.slow
def test_closed_form_score_is_close_to_leaving_out_every_row(problem):
    phi, slope, ridge, member, start = problem
    theta, loss, mean, var = jax.jit(monotone.solve)(*problem)

    def row_loss(theta, mean, var, i):
        e = jnp.argmax(member[i])
        s, ds = phi[i] @ theta, slope[i] @ theta[-slope.shape[1] :]
        normal = (s - mean[e]) ** 2 / var[e] + jnp.log(var[e]) + jnp.log(2 * jnp.pi)
        return normal / 2 - jnp.log(ds)

    def without(i):
        rest = jnp.arange(len(phi) - 1)
        rest = rest + (rest >= i)
        theta, _, mean, var = monotone.solve(
            phi[rest], slope[rest], ridge, member[rest], start
        )
        return row_loss(theta, mean, var, i)

    each = jnp.arange(len(phi))
    exact = np.array(jax.jit(lambda: jax.lax.map(without, each))())
    fitted = np.array(jax.vmap(lambda i: row_loss(theta, mean, var, i))(each))
    optimism, correction = exact - fitted, np.array(loss) - fitted
    # Corrections stop at 2 nats, which one row of the 450 reaches. Over the others both
    # sum to about 22 nats, 3 % apart; without the correction it would be 0.
    inside = correction < 1.99
    assert inside.sum() >= 445
    assert abs(correction[inside].sum() / optimism[inside].sum() - 1) < 0.1
    assert np.corrcoef(correction[inside], optimism[inside])[0, 1] > 0.95


def test_score_depends_on_neither_the_order_nor_the_scale_of_columns(rows):
    def score(x, node, parent):
        basis = monotone.make_basis(jax.random.key(2), x)
        fit = monotone.fit_law(
            basis,
            monotone.normalized(basis, x),
            rows.env,
            node,
            parent,
            num_envs=3,
            num_features=8,
            is_mixture=jnp.array(True),
        )
        return fit.score

    score = jax.jit(score)
    here = score(rows.x, jnp.int32(1), jnp.array([0], jnp.int32))
    there = score(rows.x[:, ::-1] * jnp.array([100.0, 0.01]) + 5, jnp.int32(0), jnp.array([1]))
    np.testing.assert_allclose(here, there, atol=2e-4)
    alone = score(rows.x, jnp.int32(1), jnp.array([2], jnp.int32))
    assert alone > here + 0.05  # the parent matters
