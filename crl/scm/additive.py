"""What the learners of additive noise models share: x_j = f_j(x_pa(j)) + z_j.

They read the causal order from the score, the gradient s(x) of log p: a leaf, which causes
none of the variables left, is told by what its score is like; it is taken off, then a leaf
of the rest. The edges come by regression in that order. How a leaf is told is the method's
own. Columns are standardised first, so that units say nothing.

The score and the diagonal of its Jacobian are those of Stein's identities under a Gaussian
kernel (Li and Turner, ICLR 2018; to second order Rolland et al., ICML 2022): memory n^2,
time n^3 for each variable taken.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import betainc

from crl.check import check_options, is_concrete
from crl.core import Data, Estimator, Readout
from crl.numerics.linalg import dot, unit_rows
from crl.scm.linear import check_linear, standardised
from crl.scm.prior import Prior, prior

_NUM_MEDIAN = 256  # rows, evenly spaced, among which the median distance is taken


class Fitted(NamedTuple):
    """The graph of an additive noise model."""

    graph: Array  # (d, d) int32
    order: Array  # (d,) int32, causes first


def by_leaves(who: str, cost: Callable, ridge: float, level: float, num_basis: int):
    """The estimator ``who`` that takes leaves by their cost, and prunes; closed form.

    cost: (z (d, n), is_left (d,) bool, num_left) -> (d,), least for a leaf of those left.
    """
    check_options(
        who,
        at_least_one={"num_basis": num_basis},
        positive={"ridge": ridge, "level": level},
    )
    if is_concrete(level) and level >= 1:
        raise ValueError(f"{who} needs level < 1, a probability, got {level}")

    def init(key, data):
        del key  # closed form
        z, _ = standardised(data.x)
        known = prior(data)
        order = leaves_last(functools.partial(cost, z), known.before)
        return Fitted(additive_graph(z, order, known, level, num_basis), order)

    def step(key, state, batch):
        del key, batch  # closed form
        return state, {}

    def readout(fitted, data):
        del data
        return Readout(graph=fitted.graph, order=fitted.order)

    def validate(data):
        _check_rows(who, data, num_basis)
        check_linear(who, data)

    return Estimator(init, step, readout, 0, validate=validate)


def _check_rows(who: str, data: Data, num_basis: int) -> None:
    n, d = data.x.shape
    num_coefficients = 1 + num_basis * (d - 1)
    if n <= num_coefficients:
        raise ValueError(
            f"{who} needs more rows than a regression on all other columns has coefficients, "
            f"1 + num_basis (d - 1) = {num_coefficients}, got {n}: give more rows, fewer "
            "columns or a smaller num_basis"
        )


# --- the order ------------------------------------------------------------------------------


def leaves_last(cost: Callable, before: Array) -> Array:
    """The causal order (d,) int32, causes first, by taking one leaf after the other.

    cost: (is_left (d,) bool, num_left) -> (d,), least for a leaf of the variables left.
    before: (d, d) bool, [i, j] where i is known to come before j.
    """
    d = len(before)

    def take_one(count, carry):
        order, is_left = carry
        is_candidate = is_left & ~jnp.any(before & is_left, 1)
        each = jnp.where(is_candidate, cost(is_left, d - count), jnp.inf)
        leaf = jnp.argmin(each).astype(jnp.int32)
        return order.at[d - 1 - count].set(leaf), is_left.at[leaf].set(False)

    start = jnp.zeros(d, jnp.int32), jnp.ones(d, bool)
    order, is_left = jax.lax.fori_loop(0, d - 1, take_one, start)
    return order.at[0].set(jnp.argmax(is_left).astype(jnp.int32))


class Kernel(NamedTuple):
    """A Gaussian kernel between rows, exp(-|x - y|^2 / (2 width))."""

    gram: Array  # (n, n)
    width: Array  # () squared bandwidth: the median of squared distances
    factor: Array  # (n, n) Cholesky's of gram + ridge I


def squared_distances(z: Array, is_in: Array) -> Array:
    """Between all rows, (n, n), of the variables of z (d, n) that are in ``is_in`` (d,)."""
    n = z.shape[1]

    def add(i, total):
        # Not by inner products: what cancels in them is what the ridge would blow up.
        return total + jnp.where(is_in[i], (z[i][:, None] - z[i]) ** 2, 0)

    return jax.lax.fori_loop(0, len(z), add, jnp.zeros((n, n), z.dtype))


def gaussian_kernel(squared: Array, ridge: float) -> Kernel:
    """The kernel of squared distances (n, n) between rows."""
    n = len(squared)
    step = -(-n // _NUM_MEDIAN)
    width = jnp.median(squared[::step, ::step])
    gram = jnp.exp(-squared / (2 * width))
    factor = jnp.linalg.cholesky(gram + ridge * jnp.eye(n, dtype=gram.dtype))
    return Kernel(gram, width, factor)


def score(z: Array, kernel: Kernel) -> Array:
    """The gradient of log p at each row, (d, n), of the variables z (d, n) of the kernel.

    E[h s + grad h] = 0 for the kernel functions h. Variables outside the kernel: no meaning.
    """

    def slope(z_i):
        return jnp.sum((z_i[:, None] - z_i) * kernel.gram, 1) / kernel.width

    return -_solve(kernel, jax.lax.map(slope, z))


def score_slope(z: Array, kernel: Kernel) -> Array:
    """The diagonal of the Jacobian of the score at each row, d^2 log p / dx_j^2, (d, n).

    E[h d^2 p / p] = E[d^2 h], and d^2 p / p is d^2 log p + s^2.
    """

    def bend(z_i):
        gap = (z_i[:, None] - z_i) ** 2 / kernel.width - 1
        return jnp.sum(gap * kernel.gram, 1) / kernel.width

    return _solve(kernel, jax.lax.map(bend, z)) - score(z, kernel) ** 2


def left_out_error(kernel: Kernel, y: Array) -> Array:
    """What kernel ridge regression on all other rows leaves unexplained of each row of y (n,).

    Without an intercept. Exact: no row is left out in fact (Allen 1974).
    """
    n = len(y)
    root = solve_triangular(kernel.factor, jnp.eye(n, dtype=y.dtype), lower=True)
    return dot(root.T, dot(root, y)) / jnp.sum(root**2, 0)


def _solve(kernel: Kernel, rows: Array) -> Array:
    """(gram + ridge I)^-1 r of each r in rows (d, n)."""
    return cho_solve((kernel.factor, True), rows.T).T


# --- the edges ------------------------------------------------------------------------------


def additive_graph(
    z: Array, order: Array, known: Prior, level: float, num_basis: int
) -> Array:
    """The edges (d, d) int32 into each variable from those before it in ``order`` (d,).

    z: (d, n) standardised rows. An edge i -> j stays where an F test at that level says that
    x_j depends on a spline of x_i beside splines of all others before j; and where it is
    required. An effect of i that shows together with another cause alone is missed.
    """
    n = z.shape[1]
    basis = jax.vmap(spline_basis, (0, None))(z, num_basis)  # (d, m, n)
    position = jnp.argsort(order)
    mask = known.allowed & (position[:, None] < position)  # [i, j]: i may cause j
    flat = basis.reshape(-1, n)
    gram = dot(flat, flat.T)  # (d m, d m)
    response = dot(flat, unit_rows(z).T)  # (d m, d)
    p_value = jax.vmap(p_values, (None, 1, 1, None), 1)(gram, response, mask, n)
    return ((mask & (p_value < level)) | known.required).astype(jnp.int32)


def spline_basis(x: Array, num_basis: int) -> Array:
    """Orthonormal natural cubic splines of x (n,), all of mean 0, (num_basis, n).

    Knots at num_basis + 1 quantiles of x; linear beyond the outer ones. Functions that do
    not differ on the values of x are 0: of k distinct values at most k - 1 are not.
    """
    knots = jnp.quantile(x, jnp.linspace(0.02, 0.98, num_basis + 1, dtype=x.dtype))
    last, inner = knots[-1], knots[:-1]
    tiny = jnp.finfo(x.dtype).tiny
    cube = jnp.maximum(x - inner[:, None], 0) ** 3 - jnp.maximum(x - last, 0) ** 3
    bent = cube / jnp.maximum(last - inner, tiny)[:, None]  # (m, n)
    rows = jnp.concatenate([x[None], bent[:-1] - bent[-1]])
    rows = unit_rows(rows - jnp.mean(rows, 1, keepdims=True))
    _, size, basis = jnp.linalg.svd(rows, full_matrices=False)
    is_kept = size > 1e-5 * size[0]
    return jnp.where(is_kept[:, None], basis, 0)


def p_values(gram: Array, response: Array, mask: Array, n: int) -> Array:
    """Of the F tests that each variable's functions have no effect on a target, (d,).

    gram: (d m, d m) of the functions, orthonormal within a variable or 0. response: (d m,)
    with the target of norm 1. mask: (d,) the variables to regress on; others: no meaning.
    """
    d, eps = len(mask), jnp.finfo(gram.dtype).eps
    m = len(gram) // d
    is_in = jnp.repeat(mask, m) & (jnp.diagonal(gram) > 0.5)
    inside = is_in[:, None] & is_in
    eye = jnp.eye(d * m, dtype=gram.dtype)
    factor = jnp.linalg.cholesky(jnp.where(inside, gram, eye) + d * m * eps * eye)
    inverse = cho_solve((factor, True), eye)
    response = jnp.where(is_in, response, 0)
    effect = dot(inverse, response)  # (d m,)
    # Without the functions of a variable, the residual sum of squares grows by b' V^-1 b,
    # with b their effects and V their block of the inverse.
    own = effect.reshape(d, m, 1)
    blocks = inverse.reshape(d, m, d, m)[jnp.arange(d), :, jnp.arange(d)]  # (d, m, m)
    growth = jnp.sum(own * jnp.linalg.solve(blocks, own), (1, 2))
    rest = jnp.maximum(1 - dot(response, effect), eps)
    num = jnp.sum(is_in.reshape(d, m), 1).astype(gram.dtype)
    free = jnp.maximum(n - 1 - jnp.sum(num), 1)
    # P(F > f) with f = (growth / num) / (rest / free).
    return betainc(free / 2, jnp.maximum(num, 1) / 2, rest / (rest + growth))
