"""Mixings x = f(z): linear, near-isometric, exactly isometric and invertible networks.

Each acts on one point; batch by ``vmap``, Jacobian by ``jacfwd``.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options, is_concrete
from crl.core import PyTree
from crl.numerics.fixed_point import fixed_point
from crl.numerics.linalg import dot


class Mixing(NamedTuple):
    """A mixing of d latents into p observations, and its inverse on the image."""

    init: Callable  # (key, num_latents, dtype) -> params
    forward: Callable[[PyTree, Array], Array]  # (params, z (d,)) -> x (p,)
    inverse: Callable[[PyTree, Array], Array]  # (params, x (p,)) -> z (d,)
    matrix: Callable[[PyTree], Array] | None = None  # (params) -> A (p, d), for linear ones


def linear(condition: float = 1.0, num_observed: int | None = None) -> Mixing:
    """x = A z with a random A of exactly this condition number.

    A = U diag(s) V' with Haar U, V and singular values s from 1 down to 1/condition, evenly
    spaced in their logarithm. ``condition=1`` is a random orthogonal matrix (orthonormal
    columns for num_observed > num_latents): an isometry.
    """
    if is_concrete(condition) and not 1 <= condition < math.inf:
        raise ValueError(f"linear needs condition >= 1, got {condition}")

    def init(key, num_latents, dtype):
        p = num_latents if num_observed is None else num_observed
        if p < num_latents:
            raise ValueError(
                f"linear needs num_observed >= num_latents = {num_latents}, got {p}"
            )
        ku, kv = jax.random.split(key)
        u = jax.random.orthogonal(ku, p, dtype=dtype)[:, :num_latents]
        v = jax.random.orthogonal(kv, num_latents, dtype=dtype)
        smallest = -jnp.log(jnp.asarray(condition, dtype))
        log_s = jnp.linspace(0, smallest, num_latents, dtype=dtype)
        return dot(u * jnp.exp(log_s), v.T)  # (p, d)

    def forward(a, z):
        return dot(a, z)

    def inverse(a, x):
        return jnp.linalg.lstsq(a, x)[0]

    return Mixing(init, forward, inverse, lambda a: a)


class Map(NamedTuple):
    """A random smooth map h of R^d into itself."""

    init: Callable  # (key, d, dtype) -> params
    apply: Callable[[PyTree, Array], Array]  # (params, z (d,)) -> h(z) (d,)


def perturbation_map(kind: str) -> Map:
    """Random maps h with Lipschitz constant at most 1, so that id + eta h inverts for eta < 1.

    "mlp": h(z) = W2 tanh(W1 z + b) with 4 d units. "quadratic": h(z)_i = z' B_i z, whose
    Lipschitz constant is 1 on the ball |z| <= 2 sqrt d (standardised latents have |z| about
    sqrt d) and grows beyond it.
    """
    if kind not in _MAPS:
        raise ValueError(f"the perturbations are {' and '.join(_MAPS)}, got {kind!r}")
    return _MAPS[kind]


def _init_mlp(key, d, dtype):
    k1, k2, kb = jax.random.split(key, 3)
    # Pre-activations of about unit variance keep tanh nonlinear; W2 takes up the rest.
    w1 = jax.random.normal(k1, (4 * d, d), dtype) / math.sqrt(d)
    w2 = jax.random.normal(k2, (d, 4 * d), dtype)
    b = jax.random.normal(kb, (4 * d,), dtype)
    return w1, w2 / (jnp.linalg.norm(w1, 2) * jnp.linalg.norm(w2, 2)), b


def _apply_mlp(params, z):
    w1, w2, b = params
    hidden = jnp.tanh(dot(w1, z) + b)
    return dot(w2, hidden)


def _init_quadratic(key, d, dtype):
    b = jax.random.normal(key, (d, d, d), dtype)
    b = (b + b.mT) / 2
    # The rows of the Jacobian are 2 B_i z, so |J| <= 2 |z| |B| with B flattened to (d d, d).
    return b / (4 * math.sqrt(d) * jnp.linalg.norm(b.reshape(-1, d), 2))


def _apply_quadratic(b, z):
    return dot(dot(b, z), z)


_MAPS = {
    "mlp": Map(_init_mlp, _apply_mlp),
    "quadratic": Map(_init_quadratic, _apply_quadratic),
}


def near_isometric(eta: float = 0.1, perturbation: str = "mlp") -> Mixing:
    """x = Q z + eta h(z) with orthogonal Q, in as many dimensions as there are latents.

    perturbation: the kind of h, see ``perturbation_map``; "quadratic" is injective on its
    ball alone. The same key gives the same Q and h for every eta, and eta may be traced.
    The inverse is a fixed-point iteration, z <- Q'(x - eta h(z)).

    Source: the perturbed model x = A s + eta h(s) of Buchholz & Schoelkopf (ICML 2024).
    """
    h = perturbation_map(perturbation)
    if is_concrete(eta) and not 0 <= eta < 1:
        raise ValueError(f"near_isometric needs 0 <= eta < 1 to be invertible, got {eta}")

    def init(key, num_latents, dtype):
        kq, kh = jax.random.split(key)
        q = jax.random.orthogonal(kq, num_latents, dtype=dtype)
        return q, h.init(kh, num_latents, dtype)

    def forward(params, z):
        q, params = params
        return dot(q, z) + eta * h.apply(params, z)

    def inverse(params, x):
        q, params = params

        def g(z):
            return dot(q.T, x - eta * h.apply(params, z))

        return fixed_point(g, g(jnp.zeros_like(x)))

    return Mixing(init, forward, inverse)


def flat_torus(span: float = 5.0, width: float = 2 * math.sqrt(3)) -> Mixing:
    """An exact, nonlinear isometry of R^d into R^2d: each latent winds around its circle.

    x = Q concat_i r (cos(z_i / r), sin(z_i / r)) with random orthogonal Q. ``width`` is the
    length of the interval the latents live on, symmetric about 0 (default: that of
    standardised uniform sources), and ``span`` the angle in rad that it covers, so
    r = width / span. Injective while span < 2 pi; latents beyond the interval, such as
    those with unbounded support, wind further and may overlap. The inverse is atan2.
    """
    check_options("flat_torus", positive={"width": width})
    if is_concrete(span) and not 0 < span < 2 * math.pi:
        raise ValueError(f"flat_torus needs 0 < span < 2 pi rad to be injective, got {span}")
    r = width / span

    def init(key, num_latents, dtype):
        return jax.random.orthogonal(key, 2 * num_latents, dtype=dtype)

    def forward(q, z):
        circles = r * jnp.concatenate([jnp.cos(z / r), jnp.sin(z / r)])  # (2d,)
        return dot(q, circles)

    def inverse(q, x):
        cos, sin = jnp.split(dot(q.T, x), 2)
        return r * jnp.arctan2(sin, cos)

    return Mixing(init, forward, inverse)


def leaky_relu_mlp(num_layers: int = 3, slope: float = 0.2) -> Mixing:
    """An invertible network of square layers with leaky ReLUs between them.

    Weights are uniform on [-1, 1] with unit-norm columns, drawn from the better-conditioned
    quarter of random matrices, as in the synthetic data of iVAE (Khemakhem et al. 2020)
    and CL-ICA (Zimmermann et al. 2021). slope: of the leaky ReLU, in (0, 1]; num_layers
    counts the linear layers, 1 is linear. From x alone such a mixing is not identifiable.
    """
    check_options("leaky_relu_mlp", at_least_one={"num_layers": num_layers})
    if is_concrete(slope) and not 0 < slope <= 1:
        raise ValueError(f"leaky_relu_mlp needs 0 < slope <= 1, got {slope}")

    def inverse_unit(y):
        return jnp.where(y >= 0, y, y / slope)

    return _network(num_layers, lambda z: jax.nn.leaky_relu(z, slope), inverse_unit)


def xtanh_mlp(num_layers: int = 3, slope: float = 0.1) -> Mixing:
    """``leaky_relu_mlp`` with the smooth units tanh(z) + slope z between its layers.

    slope > 0. The inverse is Newton's iteration, unit by unit. Source: Khemakhem et al.
    (2020).
    """
    check_options(
        "xtanh_mlp", at_least_one={"num_layers": num_layers}, positive={"slope": slope}
    )

    def unit(z):
        return jnp.tanh(z) + slope * z

    def inverse_unit(y):
        # Odd, and concave above 0, where Newton climbs to the root from below.
        size = jnp.abs(y)

        def newton(z):
            return z + (size - unit(z)) / (slope + 1 - jnp.tanh(z) ** 2)

        return jnp.sign(y) * fixed_point(newton, size / (1 + slope))

    return _network(num_layers, unit, inverse_unit)


def _network(num_layers: int, unit: Callable, inverse_unit: Callable) -> Mixing:
    """Random square layers of good condition with units between them."""

    def init(key, num_latents, dtype):
        # Rejection below the 25th percentile, by one batched SVD: the first of those kept.
        num = 64 * num_layers
        w = jax.random.uniform(key, (num, num_latents, num_latents), dtype, -1, 1)
        w = w / jnp.linalg.norm(w, axis=1, keepdims=True)
        s = jnp.linalg.svd(w, compute_uv=False)
        condition = s[:, 0] / s[:, -1]
        is_bad = condition > jnp.quantile(condition, 0.25)
        return w[jnp.argsort(is_bad, stable=True)[:num_layers]]  # (layers, d, d)

    def forward(w, z):
        for i in range(num_layers):
            z = dot(w[i], unit(z) if i else z)
        return z

    def inverse(w, x):
        for i in reversed(range(num_layers)):
            x = jnp.linalg.solve(w[i], x)
            x = inverse_unit(x) if i else x
        return x

    return Mixing(init, forward, inverse)


def leaky_tanh_mlp(num_layers: int = 2, slope: float = 0.1) -> Mixing:
    """An invertible network of square layers, each x <- tanh(M x) + slope M x.

    The entries of M are uniform on [0, 1] if that gives |det M| >= .1, and standard normal
    otherwise, drawn until it does: the mixing of CauCA (Liang et al., NeurIPS 2023), whose
    number of nonlinearities is ``num_layers``. slope: positive; what is left of the gradient
    where tanh is flat. The inverse is Newton's iteration.
    """
    if num_layers < 1:
        raise ValueError(f"leaky_tanh_mlp needs num_layers >= 1, got {num_layers}")
    if not isinstance(slope, jax.core.Tracer) and not slope > 0:
        raise ValueError(f"leaky_tanh_mlp needs slope > 0 to be invertible, got {slope}")

    def init(key, num_latents, dtype):
        key_first, key_other = jax.random.split(key)
        shape = (num_layers, 1, num_latents, num_latents)
        first = jax.random.uniform(key_first, shape, dtype)
        # Less than one in ten of the normal ones is refused in any dimension.
        other = jax.random.normal(key_other, (num_layers, 24, *shape[2:]), dtype)
        drawn = jnp.concatenate([first, other], axis=1)
        is_regular = jnp.abs(jnp.linalg.det(drawn)) >= 0.1
        return drawn[jnp.arange(num_layers), jnp.argmax(is_regular, axis=1)]  # (layers, d, d)

    def forward(w, z):
        for matrix in w:
            z = dot(matrix, z)
            z = jnp.tanh(z) + slope * z
        return z

    def inverse(w, x):
        for matrix in reversed(w):
            x = jnp.linalg.solve(matrix, _inverse_leaky_tanh(x, slope))
        return x

    return Mixing(init, forward, inverse)


def _inverse_leaky_tanh(y: Array, slope: float) -> Array:
    def newton(_, z):
        tanh = jnp.tanh(z)
        return z - (tanh + slope * z - y) / (1 - tanh**2 + slope)

    # The start lies between 0 and the root, where |y| is a concave function of |z|: tangents
    # climb to the root and never pass it.
    return jax.lax.fori_loop(0, 16, newton, y / (1 + slope))
