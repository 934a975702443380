"""Causal mechanisms x_i = f_i(x_pa(i), s_i), strictly increasing in the noise s_i.

All kinds are one formula,

    x_i = link(loc_i(x_pa) + exp(lsc_i(x_pa)) shape(s_i, loc_i(x_pa))),

where what is not named below is loc = .6 w' x_pa + tanh net(x_pa), lsc = 0, shape = s and
link the identity:

    linear          loc = w' x_pa, |w| in U(.5, 1.2)
    anm
    lsnm            lsc = .8 tanh(net(x_pa))
    general         lsc as lsnm, shape = s + .4 tanh(1.5 s + loc)
    gp              loc = 1.5 times a Gaussian process with unit variance and the kernel
                    exp(-|x - y|^2 / 2), by random cosines
    polynomial      loc = .6 w' t + a quadratic form of t, all products of parents included
    post_nonlinear  loc = .6 w' t + tanh net(t), link(y) = y + .1 y^3

t = x_pa / (1 + (x_pa / 3)^2)^(1/2) stays within 3: the powers of powers along a path would
outgrow every number. Nets have 8 units a node, processes 64. ``general`` is neither additive
nor location-scale: the noise acts through a function whose form depends on the parents.
Every kind is a bijection between noises s and variables x, so counterfactuals are unique.
Functions act on one point (d,); batch by ``jax.vmap``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.graphs import topological_order
from crl.numerics.linalg import dot

KINDS = ("linear", "anm", "lsnm", "general", "gp", "polynomial", "post_nonlinear")
_CUBIC = 0.1  # of the post-nonlinear link


class Mechanisms(NamedTuple):
    """The parameters of all d mechanisms; weights of absent edges are zero."""

    graph: Array  # (d, d) graph[i, j] = 1 means i -> j
    order: Array  # (d,) a causal order, causes first
    linear: Array  # (d, d) linear[i, j]: effect of i on j
    hidden: Array  # (d, d, h) hidden[i, j]: weights of i into the units of j
    bias: Array  # (d, h)
    loc: Array  # (d, h) read-out of the units into the location
    scale: Array  # (d, h) and into the log scale
    centre: Array  # (d,) each variable is passed on as (x - centre) / spread
    spread: Array  # (d,)


def random_mechanisms(key: Array, kind: str, graph: Array, dtype=jnp.float32) -> Mechanisms:
    """Draw the parameters of the mechanisms of a (d, d) DAG."""
    key_linear, key_net = jax.random.split(key)
    d, h = graph.shape[0], 64 if kind == "gp" else 8
    mask = graph.astype(dtype)
    u = jax.random.uniform(key_linear, (d, d), dtype, -1.0, 1.0)
    # One flat draw: XLA compiles it ten times faster than small draws of rank 3.
    net = jax.random.normal(key_net, (d * (d + 3) * h,), dtype)
    net = net.reshape(d, d + 3, h)
    hidden = mask[..., None] * net[:, :d].swapaxes(0, 1)
    if kind == "polynomial":  # the square of a sum grows with the number of parents
        hidden /= jnp.sqrt(jnp.maximum(jnp.sum(mask, 0), 1))[:, None]
    return Mechanisms(
        graph=graph,
        order=topological_order(graph),
        linear=mask * jnp.where(u < 0, 0.7 * u - 0.5, 0.7 * u + 0.5),
        hidden=hidden,
        bias=net[:, d],
        loc=net[:, d + 1] / h**0.5,
        scale=net[:, d + 2] / h**0.5,
        centre=jnp.zeros(d, dtype),
        spread=jnp.ones(d, dtype),
    )


def internally_standardized(kind: str, mechanisms: Mechanisms, s: Array) -> Mechanisms:
    """The mechanisms whose every variable has mean 0 and variance 1 before it is passed on.

    s: (n, d) noises, the law for which that is so. Along a path the variance then does not
    grow, and R^2 hardly, so that sorting by either finds little of the order. Ormaniec et
    al., iSCM, ICLR 2025.
    """

    def assign(carry, i):
        x, m = carry
        raw = jax.vmap(lambda x, s: _assign(kind, m, i, x, s))(x, s)  # (n,)
        centre, spread = jnp.mean(raw), jnp.std(raw)
        m = m._replace(centre=m.centre.at[i].set(centre), spread=m.spread.at[i].set(spread))
        return (x.at[:, i].set((raw - centre) / spread), m), None

    (_, mechanisms), _ = jax.lax.scan(
        assign, (jnp.zeros_like(s), mechanisms), mechanisms.order
    )
    return mechanisms


def push(
    kind: str,
    mechanisms: Mechanisms,
    s: Array,
    do_mask: Array | None = None,
    do_value: Array | None = None,
) -> Array:
    """Noises to variables, x = f(s), (d,) -> (d,).

    do_mask: (d,) bool, do_value: (d,): variables set by a hard intervention. With the
    noises of an observed point, s = pull(x), the result is its counterfactual.
    """
    if do_mask is None:
        do_mask, do_value = jnp.zeros(s.shape, bool), s

    def assign(x, i):
        x_i = _assign(kind, mechanisms, i, x, s)
        return x.at[i].set(jnp.where(do_mask[i], do_value[i], x_i)), None

    x, _ = jax.lax.scan(assign, jnp.zeros_like(s), mechanisms.order)
    return x


def pull(kind: str, mechanisms: Mechanisms, x: Array) -> tuple[Array, Array]:
    """Variables to noises, s = f^{-1}(x), (d,) -> (d,), and log |det ds/dx|, ().

    The Jacobian ds/dx is triangular in the causal order, so its log-determinant is the
    sum over variables of log ds_i/dx_i.
    """

    raw = mechanisms.centre + mechanisms.spread * x

    def one(node, raw_i):
        loc, log_scale = _location_scale(kind, node, x)
        y = _link_inverse(kind, raw_i)
        s_i = _shape_inverse(kind, (y - loc) * jnp.exp(-log_scale), loc)
        log_link = jnp.log(_link_slope(kind, y))
        return s_i, -log_link - log_scale - jnp.log(_shape_slope(kind, s_i, loc))

    s, log_slope = jax.vmap(one, in_axes=(-2, 0))(_per_node(mechanisms), raw)
    return s, jnp.sum(log_slope + jnp.log(mechanisms.spread))


def _assign(kind: str, mechanisms: Mechanisms, i: Array, x: Array, s: Array) -> Array:
    """What variable i makes of its parents in x (d,) and of its noise in s (d,)."""
    node = jax.tree.map(lambda a: a[..., i, :], _per_node(mechanisms))
    loc, log_scale = _location_scale(kind, node, x)
    raw = _link(kind, loc + jnp.exp(log_scale) * _shape(kind, s[i], loc))
    return (raw - mechanisms.centre[i]) / mechanisms.spread[i]


class _Node(NamedTuple):
    # Every leaf has the node on axis -2, so that one index cuts a node out of all.
    linear: Array  # (d, p)
    hidden: Array  # (p, d, h)
    bias: Array
    loc: Array
    scale: Array


def _per_node(m: Mechanisms) -> _Node:
    return _Node(m.linear.T, m.hidden, m.bias, m.loc, m.scale)


def _location_scale(kind: str, node: _Node, x: Array) -> tuple[Array, Array]:
    # Weights of non-parents are zero, so all of x may enter.
    linear = dot(node.linear, x)
    if kind == "linear":
        return linear, jnp.zeros_like(linear)
    if kind in ("polynomial", "post_nonlinear"):
        x = x / jnp.sqrt(1 + (x / 3) ** 2)
        linear = dot(node.linear, x)
    units = _units(kind, dot(x, node.hidden), node.bias)
    net = dot(units, node.loc)
    loc = 1.5 * 2**0.5 * net if kind == "gp" else 0.6 * linear + net
    # A variable without causes has location 0 and scale 1: it is its noise.
    has_parents = jnp.any(node.linear != 0)
    loc = jnp.where(has_parents, loc, 0.0)
    if kind not in ("lsnm", "general"):
        return loc, jnp.zeros_like(loc)
    return loc, jnp.where(has_parents, 0.8 * jnp.tanh(dot(units, node.scale)), 0.0)


def _units(kind: str, u: Array, bias: Array) -> Array:
    """The hidden units (h,) of their inputs u (h,)."""
    if kind == "gp":  # a normal phase over several turns is uniform on the circle
        return jnp.cos(u + 2 * jnp.pi * bias)
    if kind == "polynomial":  # of variance about 1 for one parent of variance 1
        return (u**2 - 1) / 2**0.5
    return jnp.tanh(u + bias)


def _link(kind: str, y: Array) -> Array:
    return y + _CUBIC * y**3 if kind == "post_nonlinear" else y


def _link_slope(kind: str, y: Array) -> Array:
    return 1 + 3 * _CUBIC * y**2 if kind == "post_nonlinear" else jnp.ones_like(y)


def _link_inverse(kind: str, x: Array) -> Array:
    if kind != "post_nonlinear":
        return x
    # y = a sinh(t) solves y + c y^3 = x for a^2 = 4 / (3 c), since then x = a/3 sinh(3 t).
    a = 2 / (3 * _CUBIC) ** 0.5
    return a * jnp.sinh(jnp.arcsinh(3 * x / a) / 3)


def _shape(kind: str, s: Array, loc: Array) -> Array:
    return s + 0.4 * jnp.tanh(1.5 * s + loc) if kind == "general" else s


def _shape_slope(kind: str, s: Array, loc: Array) -> Array:
    if kind != "general":
        return jnp.ones_like(s)
    return 1 + 0.6 * (1 - jnp.tanh(1.5 * s + loc) ** 2)


def _shape_inverse(kind: str, y: Array, loc: Array) -> Array:
    if kind != "general":
        return y

    def newton(_, s):
        return s - (_shape(kind, s, loc) - y) / _shape_slope(kind, s, loc)

    # The slope lies in [1, 1.6], so each step shrinks the error by .6 at least and soon
    # squares it: 12 reach float64 precision from anywhere.
    return jax.lax.fori_loop(0, 12, newton, y)
