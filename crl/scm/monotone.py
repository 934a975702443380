"""Fits of one causal mechanism: a monotone map to noise, linear in its parameters.

The mechanism of variable x given its parents c is modelled by its inverse

    s = a_0(c) + x a_1(c) + sum_k h_k(x) a_{1+k}(c),    h_k(x) = tanh((x - t_k) / w_k),

one map shared by all environments, in which the noise s is Gaussian with variance 1 and
mean 0 in the base environment and free variance and mean in the others. The coefficient
functions a(c) lie in a reproducing kernel space (Nystroem features), so s and ds/dx are
linear in the parameters, the penalised likelihood is convex up to the log-variances, and
-log ds/dx is its own barrier against non-monotone maps: a few Newton steps solve it.
The score is the leave-one-out log loss in closed form, one Newton step per left-out row.

Where the Gaussian law does not do, a mixture takes its place in every environment, the base
included; its EM steps alternate with Newton steps for the map.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import jax.scipy.special as special
from jax import Array

from crl.numerics import mixtures
from crl.numerics.linalg import dot
from crl.numerics.mixtures import Mixture

_LEVELS = (0.03, 0.2, 0.5, 0.8, 0.97)  # quantiles at which the sigmoids sit
_NUM_SIGMOIDS = len(_LEVELS)
_NUM_KNOTS = 128  # of the map from a column to its normal scores
_NUM_LANDMARKS = 64
_NUM_ROWS = 3000  # up to which the kernel has its full reach
_NUM_MODULATED = 16  # kernel features that modulate each sigmoid
_MAX_NEWTON = 10
_MAX_ROUNDS = 10  # of a Newton step and EM steps
_NUM_EM = 10
_CLEARLY = 2.0  # standard errors by which a mixture must predict better than a Gaussian law
_HALF_LOG_2PI = 0.9189385


class Basis(NamedTuple):
    """What the features are built from; fixed by the training rows."""

    mean: Array  # (d,) of x
    sd: Array  # (d,)
    knots: Array  # (d, q) quantiles of the standardised columns
    centre: Array  # (d, k) of the sigmoids
    width: Array  # (d, k)
    landmarks: Array  # (m, d) kernel coordinates of m random rows
    reach: Array  # () of the kernel, in units of normal scores


class Columns(NamedTuple):
    """Rows seen through a basis."""

    z: Array  # (n, d) standardised
    u: Array  # (n, d) normal scores, the kernel coordinates


class Law(NamedTuple):
    """A fitted law of one variable given its parents."""

    parents: Array  # (c,) int32; d where a slot is empty
    weight: Array  # (m, 2 + k) kernel weights of the coefficient functions
    constant: Array  # (2 + k,) their constants
    linear: Array  # (c,) linear effect of the standardised parents on s
    noise: Mixture  # (E, K) of s; mean 0 and variance 1 in the base environment


class LocalFit(NamedTuple):
    """A law, its leave-one-out loss per row and their mean, in nats of standardised x."""

    law: Law
    loss: Array  # (n,)
    score: Array  # ()


def make_basis(key: Array, x: Array) -> Basis:
    """The basis of training rows x, (n, d)."""
    n = x.shape[0]
    mean, sd = jnp.mean(x, 0), jnp.std(x, 0)
    z = jnp.sort((x - mean) / sd, axis=0)

    def quantile(level):
        return z[jnp.clip(jnp.round(level * n - 0.5).astype(int), 0, n - 1)]

    level = jnp.asarray(_LEVELS, x.dtype)
    centre = quantile(level).T  # (d, k)
    gap = jnp.diff(centre, axis=1)
    middle = (centre[:, 2:] - centre[:, :-2]) / 2
    width = 0.8 * jnp.concatenate([gap[:, :1], middle, gap[:, -1:]], 1)
    knots = quantile((jnp.arange(_NUM_KNOTS) + 0.5) / _NUM_KNOTS).T
    rows = jax.random.randint(key, (_NUM_LANDMARKS,), 0, n)
    landmarks = normal_scores(knots, (x[rows] - mean) / sd)
    # As bandwidths for two parents narrow with the rows; 1 serves as long as they are few.
    reach = jnp.asarray(min(1.0, (_NUM_ROWS / n) ** (1 / 6)), x.dtype)
    return Basis(mean, sd, knots, centre, jnp.maximum(width, 0.02), landmarks, reach)


def normalized(basis: Basis, x: Array) -> Columns:
    """Rows x (n, d) through the basis; constant kernel coordinates beyond its knots."""
    z = (x - basis.mean) / basis.sd
    return Columns(z, normal_scores(basis.knots, z))


def normal_scores(knots: Array, z: Array) -> Array:
    """Columns z (n, d) mapped by their training quantiles (d, q) to standard normal."""
    level = (jnp.arange(knots.shape[1], dtype=z.dtype) + 0.5) / knots.shape[1]
    score = special.ndtri(level)
    return jax.vmap(lambda z, knots: jnp.interp(z, knots, score), (1, 0), 1)(z, knots)


def fit_law(
    basis: Basis,
    columns: Columns,
    env: Array,
    node: Array,
    parents: Array,
    num_envs: int,
    num_features: int,
    is_mixture: Array,
) -> LocalFit:
    """Fit the law of variable ``node`` given ``parents``, (c,) int32 padded with d.

    is_mixture: () bool, whether noise may be other than Gaussian: five times the work.
    """
    z = columns.z
    x, h, dh = _sigmoids(basis, node, z[:, node])
    x_pa = jnp.take(z, parents, axis=1, mode="fill", fill_value=0)  # (n, c)

    # Nystroem features: the leading directions of the kernel on the landmarks.
    kernel = _kernel(columns.u, basis, parents)  # (n, m)
    gram = _kernel(basis.landmarks, basis, parents)
    size, direction = jnp.linalg.eigh(gram + 1e-4 * jnp.eye(gram.shape[0], dtype=z.dtype))
    size, direction = size[::-1][:num_features], direction[:, ::-1][:, :num_features]
    project = direction * jnp.maximum(size, 1e-4) ** -0.5  # (m, r)
    project = jnp.where(jnp.any(parents < z.shape[1]), project, 0)
    feature = dot(kernel, project)
    offset = jnp.mean(feature, 0)
    feature = feature - offset

    phi, slope, ridge = design(x, h, dh, x_pa, feature)
    member = jax.nn.one_hot(env, num_envs, dtype=z.dtype)  # (n, E)
    start = jnp.zeros(phi.shape[1], z.dtype).at[phi.shape[1] - slope.shape[1]].set(1)  # s = x
    theta, loss, *gaussian = solve(phi, slope, ridge, member, start)
    fit = theta, loss, mixtures.normal(*gaussian)

    theta, loss, noise = jax.lax.cond(
        is_mixture,
        lambda: better(fit, solve_mixture(phi, slope, ridge, member, theta), _CLEARLY),
        lambda: fit,
    )

    # From features to kernel values, so that a law needs nothing but itself.
    c, r, k = x_pa.shape[1], num_features, h.shape[1]
    shift, effect, w0, scale, w1, rest = jnp.split(
        theta, [1, 1 + c, 1 + c + r, 2 + c + r, 2 + c + 2 * r]
    )
    rest = rest.reshape(k, -1)  # (k, 1 + modulated)
    wk = jnp.zeros((k, r), z.dtype).at[:, : rest.shape[1] - 1].set(rest[:, 1:])
    w = jnp.concatenate([w0[None], w1[None], wk])  # (2 + k, r)
    constant = jnp.concatenate([shift, scale, rest[:, 0]]) - dot(w, offset)
    law = Law(parents, dot(project, w.T), constant, effect, noise)
    return LocalFit(law, loss, jnp.mean(loss))


def better(a: tuple, b: tuple, errors: float) -> tuple:
    """Fit b of (parameters, losses, noise) where its gain exceeds that many standard errors,
    else a."""
    gain = a[1] - b[1]
    second = jnp.mean(gain) > errors * jnp.std(gain) / len(gain) ** 0.5
    return jax.tree.map(lambda a, b: jnp.where(second, b, a), a, b)


def coefficients(law: Law, basis: Basis, columns: Columns) -> Array:
    """The coefficient functions a(c) at each row, (n, 2 + k)."""
    a = dot(_kernel(columns.u, basis, law.parents), law.weight) + law.constant
    x_pa = jnp.take(columns.z, law.parents, axis=1, mode="fill", fill_value=0)
    return a.at[:, 0].add(dot(x_pa, law.linear))


def to_noise(a: Array, basis: Basis, node: Array, x: Array) -> tuple[Array, Array]:
    """Noise s and slope ds/dx at standardised x (n,), given coefficients a."""
    x, h, dh = _sigmoids(basis, node, x)
    s = a[:, 0] + x * a[:, 1] + jnp.sum(h * a[:, 2:], 1)
    return s, a[:, 1] + jnp.sum(dh * a[:, 2:], 1)


def from_noise(a: Array, basis: Basis, node: Array, s: Array) -> Array:
    """The x (n,) whose noise is s, by bisection within 3 sd of the training range."""
    low = jnp.full_like(s, basis.knots[node, 0] - 3)
    high = jnp.full_like(s, basis.knots[node, -1] + 3)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        above = to_noise(a, basis, node, middle)[0] > s
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, high = jax.lax.fori_loop(0, 30, halve, (low, high))
    return (low + high) / 2


def noises(basis: Basis, law: Law, columns: Columns, env: Array) -> tuple[Array, Array]:
    """Noises s and log densities of x in units of its sd, (n, d) each."""
    member = jax.nn.one_hot(env, law.noise.mean.shape[1], dtype=columns.z.dtype)

    def noise(law, node):
        a = coefficients(law, basis, columns)
        s, slope = to_noise(a, basis, node, columns.z[:, node])
        log_s = mixtures.local(law.noise, s, member).log_p
        # Beyond the training range the map may bend; a floor keeps the log defined.
        log_x = log_s + jnp.log(jnp.maximum(slope, 1e-4))
        return s, log_x

    return jax.vmap(noise, out_axes=1)(law, jnp.arange(columns.z.shape[1]))


def counterfactual(
    basis: Basis,
    law: Law,
    order: Array,
    columns: Columns,
    s: Array,
    mask: Array,
    value: Array,
) -> Array:
    """Rows x (n, d) as they had been under do(x_i = value_i where mask_i), noises s the same.

    Action and prediction, node by node in the causal order (d,); ``noises`` is the abduction
    (Pearl, Causality, theorem 7.1.7). mask, value: (n, d), value in the units of x.
    """
    value = (value - basis.mean) / basis.sd

    def assign(now, i):
        own = jax.tree.map(lambda leaf: leaf[i], law)
        # What no cause reaches stays as it was observed, to the last bit.
        moved = jnp.take(
            now.z != columns.z, own.parents, axis=1, mode="fill", fill_value=False
        )
        z = from_noise(coefficients(own, basis, now), basis, i, s[:, i])
        z = jnp.where(jnp.any(moved, 1), z, columns.z[:, i])
        z = now.z.at[:, i].set(jnp.where(mask[:, i], value[:, i], z))
        return Columns(z, normal_scores(basis.knots, z)), None

    now, _ = jax.lax.scan(assign, columns, order)
    return now.z * basis.sd + basis.mean


def _sigmoids(basis: Basis, node: Array, x: Array) -> tuple[Array, Array, Array]:
    width = basis.width[node]
    h = jnp.tanh((x[:, None] - basis.centre[node]) / width)  # (n, k)
    return x, h, (1 - h**2) / width


def _kernel(u: Array, basis: Basis, parents: Array) -> Array:
    """Between rows u (n, d) and the landmarks, seen through the parents, (n, m)."""
    # Half additive over the parents, half a product: main effects first, interactions
    # where they pay.
    filled = parents < u.shape[1]
    u = jnp.take(u, parents, axis=1, mode="fill", fill_value=0)
    v = jnp.take(basis.landmarks, parents, axis=1, mode="fill", fill_value=0)
    sq = ((u[:, None, :] - v[None, :, :]) / basis.reach) ** 2  # (n, m, c)
    count = jnp.maximum(jnp.sum(filled), 1).astype(u.dtype)
    additive = jnp.sum(jnp.where(filled, jnp.exp(-sq / 2), 0), -1) / count
    return additive / 2 + jnp.exp(-jnp.sum(sq, -1) / (2 * 1.5**2)) / 2


def design(
    x: Array, h: Array, dh: Array, x_pa: Array, feature: Array
) -> tuple[Array, Array, Array]:
    """phi (n, P) with s = phi theta, slope (n, Q) with ds/dx = slope theta[-Q:], ridge."""
    n, dtype = x.shape[0], x.dtype
    one, modulated = jnp.ones((n, 1), dtype), feature[:, :_NUM_MODULATED]
    by_sigmoid = jnp.concatenate([one, modulated], 1)  # (n, 1 + modulated)

    def outer(h):
        return (h[:, :, None] * by_sigmoid[:, None, :]).reshape(n, -1)

    phi = jnp.concatenate(
        [one, x_pa, feature, x[:, None], x[:, None] * feature, outer(h)], axis=1
    )
    slope = jnp.concatenate([one, feature, outer(dh)], axis=1)
    sizes = [(1, 1e-3), (x_pa.shape[1], 0.1), (feature.shape[1], 0.25), (1, 1e-3)]
    sizes += [(feature.shape[1], 1.0)]
    sizes += [(1, 0.2), (modulated.shape[1], 1.0)] * h.shape[1]
    ridge = jnp.concatenate([jnp.full(num, value, dtype) for num, value in sizes])
    return phi, slope, ridge + 1e-3


def objective(theta: Array, s: Array, ds: Array, ridge: Array, member: Array) -> Array:
    """The penalised negative log-likelihood in nats, noise means and variances profiled.

    s, ds: (n,) noises and slopes at the parameters theta. member: (n, E) one-hot.
    """
    count = jnp.sum(member, 0)
    _, var = _noise_law(s, member, count)
    fit = 0.5 * jnp.sum(count * jnp.log(var)) + 0.5 * jnp.sum(s**2 * member[:, 0])
    return fit - jnp.sum(jnp.log(ds)) + 0.5 * jnp.sum(ridge * theta**2)


def _noise_law(s, member, count):
    # The base environment fixes the gauge: its noise has mean 0 and variance 1.
    base = jnp.arange(member.shape[1]) == 0
    mean = jnp.where(base, 0, dot(s, member) / count)
    var = dot((s - dot(member, mean)) ** 2, member) / count
    return mean, jnp.where(base, 1, var)


def solve(
    phi: Array, slope: Array, ridge: Array, member: Array, start: Array
) -> tuple[Array, Array, Array, Array]:
    """Minimise ``objective`` by Newton's method from ``start``, where ds > 0.

    phi: (n, P), slope: (n, Q) as ``design`` makes them. member: (n, E) one-hot.
    Returns theta (P,), leave-one-out losses (n,) in nats, noise mean and variance (E,).
    A loss is the row's own at the solution plus g_i' H^-1 g_i, at most 2, with g_i its
    gradient and H the Hessian at fixed variances: one Newton step without the row.
    """
    num_slope, num_envs = slope.shape[1], member.shape[1]
    num_params, dtype = phi.shape[1], phi.dtype
    count = jnp.sum(member, 0)  # (E,)
    base = jnp.arange(num_envs) == 0
    mean = jnp.where(base[:, None], 0, dot(member.T, phi) / count[:, None])  # (E, P)
    second = jnp.stack(
        [dot((phi * member[:, e, None]).T, phi) / count[e] for e in range(num_envs)]
    )
    moment = second - mean[:, :, None] * mean[:, None, :]  # (E, P, P)

    def curvature(theta, ds):
        """Gradient, factor of the Hessian at fixed variances, profile directions."""
        v = dot(moment, theta)  # (E, P)
        q = dot(v, theta)
        weight = jnp.where(base, count, count / q)
        grad = dot(weight, v) + ridge * theta
        grad = grad.at[-num_slope:].add(-dot(1 / ds, slope))
        hessian = jnp.tensordot(weight, moment, 1, precision="highest") + jnp.diag(ridge)
        barrier = dot((slope / ds[:, None] ** 2).T, slope)
        hessian = hessian.at[-num_slope:, -num_slope:].add(barrier)
        factor, unit = _factored(hessian)
        profile = (jnp.sqrt(2 * count) / q)[1:, None] * v[1:]  # (E - 1, P)
        return grad, factor, unit, profile

    def step(carry):
        i, theta, s, ds, *_ = carry
        grad, factor, unit, profile = curvature(theta, ds)
        rhs = jnp.concatenate([grad[None], profile]) * unit
        solved = linalg.cho_solve((factor, True), rhs.T).T * unit  # (E, P)
        inner = jnp.eye(num_envs - 1, dtype=dtype) - dot(solved[1:], profile.T)
        # The exact Hessian is the factored one less the profile directions (Woodbury);
        # where that is not positive definite, the bound at fixed variances serves.
        small = jnp.linalg.cholesky(inner - 1e-3 * jnp.eye(num_envs - 1, dtype=dtype))
        gain = linalg.cho_solve((small, True), dot(profile, solved[0]))
        newton = solved[0] + dot(gain, solved[1:])
        move = jnp.where(jnp.all(jnp.isfinite(newton)), newton, solved[0])
        d_s, d_ds = dot(phi, move), dot(slope, move[-num_slope:])

        def value(a):
            return objective(theta - a * move, s - a * d_s, ds - a * d_ds, ridge, member)

        alpha = _step_length(value, ds, d_ds)
        # The decrease expected, in nats; after one below .05 nothing more is to be seen.
        left = jnp.where(alpha > 0, dot(grad, move), 0)
        moved = theta - alpha * move, s - alpha * d_s, ds - alpha * d_ds
        return i + 1, *moved, left, factor, unit

    s, ds = dot(phi, start), dot(slope, start[-num_slope:])
    square = jnp.eye(num_params, dtype=dtype)
    carry = (0, start, s, ds, jnp.array(jnp.inf, dtype), square, jnp.diagonal(square))
    _, theta, s, ds, _, factor, unit = jax.lax.while_loop(
        lambda c: (c[0] < _MAX_NEWTON) & (c[4] > 0.05), step, carry
    )

    noise_mean, noise_var = _noise_law(s, member, count)
    residual = s - dot(member, noise_mean)
    q = dot(member, noise_var)
    loss = 0.5 * residual**2 / q + 0.5 * jnp.log(q) - jnp.log(ds) + _HALF_LOG_2PI
    # Leaving a row out moves theta by H^-1 g_i, and its own loss by g_i' H^-1 g_i.
    g = phi * (residual / q)[:, None]
    g = g.at[:, -num_slope:].add(-slope / ds[:, None])
    # The Hessian is that of the last step, which was too small to change it.
    half = linalg.solve_triangular(factor, jnp.diag(unit), lower=True)  # H^-1 = half' half
    correction = jnp.sum(dot(g, half.T) ** 2, 1)
    return theta, loss + jnp.minimum(correction, 2), noise_mean, noise_var


def _factored(hessian: Array) -> tuple[Array, Array]:
    """Cholesky factor of the Hessian scaled to a unit diagonal, and the scale (P,)."""
    # Unit diagonal before factoring: float32 then survives collinear features.
    unit = jax.lax.rsqrt(jnp.diagonal(hessian))
    scaled = hessian * unit[:, None] * unit
    return jnp.linalg.cholesky(scaled + 1e-6 * jnp.eye(len(unit), dtype=unit.dtype)), unit


def _step_length(value: Callable, ds: Array, d_ds: Array) -> Array:
    """The best of six lengths of a step, up to 1, that keep ds - a d_ds positive."""
    farthest = jnp.min(jnp.where(d_ds > 0, 0.95 * ds / jnp.maximum(d_ds, 1e-30), 1))
    tried = jnp.minimum(farthest, 1) * jnp.array([1, 0.6, 0.3, 0.1, 0.03, 0], ds.dtype)
    return tried[jnp.nanargmin(jax.vmap(value)(tried))]


def mixture_objective(
    theta: Array, s: Array, ds: Array, ridge: Array, noise: Mixture, member: Array
) -> Array:
    """``objective`` with the noises' laws given."""
    log_p = mixtures.local(noise, s, member).log_p
    return -jnp.sum(log_p) - jnp.sum(jnp.log(ds)) + 0.5 * jnp.sum(ridge * theta**2)


def solve_mixture(
    phi: Array, slope: Array, ridge: Array, member: Array, start: Array
) -> tuple[Array, Array, Mixture]:
    """Minimise ``mixture_objective`` over theta and the mixtures, from ``start``.

    Shapes as in ``solve``; column 0 of phi is 1. Returns theta, leave-one-out losses (n,)
    and the mixtures. The base environment's has mean 0 and variance 1. A left-out row
    moves its own s and ds by one Newton step, at which its loss is evaluated, at most 5
    nats above that of the fit together with its part in the mixtures: where laws have
    edges, the quadratic of ``solve`` is too hopeful.
    """
    num_slope = slope.shape[1]

    def in_gauge(theta, s, ds, noise):
        mean, var = (a[0] for a in mixtures.moments(noise))
        sd = jnp.sqrt(var)
        noise = Mixture(noise.weight, (noise.mean - mean) / sd, noise.sd / sd)
        return theta.at[0].add(-mean) / sd, (s - mean) / sd, ds / sd, noise

    def newton(theta, s, ds, noise):
        at = mixtures.local(noise, s, member)
        # Convex enough to factor; where the density has its tails, log p is not concave.
        curvature = jnp.maximum(at.curvature, 0.1 * at.bound)
        grad = dot(at.slope, phi) + ridge * theta
        grad = grad.at[-num_slope:].add(-dot(1 / ds, slope))
        hessian = dot((phi * curvature[:, None]).T, phi) + jnp.diag(ridge)
        barrier = dot((slope / ds[:, None] ** 2).T, slope)
        hessian = hessian.at[-num_slope:, -num_slope:].add(barrier)
        return at, curvature, grad, *_factored(hessian)

    def step(carry):
        i, (theta, s, ds, noise), before, _ = carry
        *_, grad, factor, unit = newton(theta, s, ds, noise)
        move = linalg.cho_solve((factor, True), grad * unit) * unit
        d_s, d_ds = dot(phi, move), dot(slope, move[-num_slope:])

        def value(a):
            moved = theta - a * move, s - a * d_s, ds - a * d_ds
            return mixture_objective(*moved, ridge, noise, member)

        alpha = _step_length(value, ds, d_ds)
        s, ds = s - alpha * d_s, ds - alpha * d_ds
        noise = mixtures.expectation_maximisation(noise, s, member, _NUM_EM)
        now = in_gauge(theta - alpha * move, s, ds, noise)
        after = mixture_objective(*now[:3], ridge, now[3], member)
        return i + 1, now, after, before - after

    s, ds = dot(phi, start), dot(slope, start[-num_slope:])
    now = in_gauge(start, s, ds, mixtures.fit_mixture(s, member))
    value = mixture_objective(*now[:3], ridge, now[3], member)
    carry = (0, now, value, jnp.full_like(value, jnp.inf))
    _, now, *_ = jax.lax.while_loop(lambda c: (c[0] < _MAX_ROUNDS) & (c[3] > 0.2), step, carry)

    theta, s, ds, noise = now
    at, curvature, _, factor, unit = newton(*now)
    half = linalg.solve_triangular(factor, jnp.diag(unit), lower=True)  # H^-1 = half' half
    loss = -at.log_p - jnp.log(ds)
    s_out, ds_out = _left_out(
        *(dot(phi, half.T), dot(slope, half[:, -num_slope:].T)),
        *(s, ds, at.slope, curvature),
    )
    out = -mixtures.local(noise, s_out, member).log_p - jnp.log(ds_out)
    correction = jnp.maximum(out - loss, 0) + mixtures.optimism(noise, at, member)
    return theta, loss + jnp.minimum(correction, 5), noise


def _left_out(
    a: Array, b: Array, s: Array, ds: Array, slope: Array, curvature: Array
) -> tuple[Array, Array]:
    """Noise and slope (n,) of each row at the fit without it, by one Newton step.

    a, b: (n, P), with A = (a, b)'(a, b) the inverse Hessian as (s, ds) of the row see it;
    slope, curvature: of its -log p. The row's own Hessian K is taken out of A:
    (A^-1 - K)^-1 = (I - A K)^-1 A.
    """
    aa, ab, bb = jnp.sum(a * a, 1), jnp.sum(a * b, 1), jnp.sum(b * b, 1)
    g, h = slope, -1 / ds
    # (I - A K) y = A (g, h), two equations.
    r, t = aa * g + ab * h, ab * g + bb * h
    k, barrier = curvature, 1 / ds**2
    det = (1 - aa * k) * (1 - bb * barrier) - ab**2 * k * barrier
    det = jnp.maximum(det, 0.02)
    move_s = ((1 - bb * barrier) * r + ab * barrier * t) / det
    move_ds = (ab * k * r + (1 - aa * k) * t) / det
    return s + move_s, jnp.maximum(ds + move_ds, 0.1 * ds)
