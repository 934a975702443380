"""Causal mechanisms x_i = f_i(x_pa(i), s_i), strictly increasing in the noise s_i.

All four kinds are one formula,

    x_i = loc_i(x_pa) + exp(lsc_i(x_pa)) shape(s_i, loc_i(x_pa)),

    linear    loc = w' x_pa with |w| in U(.5, 1.2)        lsc = 0     shape = s
    anm       loc = .6 w' x_pa + net(x_pa)                lsc = 0     shape = s
    lsnm      loc as anm                 lsc = .8 tanh(net(x_pa))     shape = s
    general   loc, lsc as lsnm                  shape = s + .4 tanh(1.5 s + loc)

with 8 tanh units a node. ``general`` is neither additive nor location-scale: the noise
acts through a function whose form depends on the parents. Every kind is a bijection
between noises s and variables x, so counterfactuals are unique. Functions act on one
point (d,); batch by ``jax.vmap``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.numerics.graphs import topological_order
from crl.numerics.linalg import dot

KINDS = ("linear", "anm", "lsnm", "general")
_HIDDEN = 8


class Mechanisms(NamedTuple):
    """The parameters of all d mechanisms; weights of absent edges are zero."""

    graph: Array  # (d, d) graph[i, j] = 1 means i -> j
    order: Array  # (d,) a causal order, causes first
    linear: Array  # (d, d) linear[i, j]: effect of i on j
    hidden: Array  # (d, d, h) hidden[i, j]: weights of i into the units of j
    bias: Array  # (d, h)
    loc: Array  # (d, h) read-out of the units into the location
    scale: Array  # (d, h) and into the log scale


def random_mechanisms(key: Array, graph: Array, dtype=jnp.float32) -> Mechanisms:
    """Draw the parameters of the mechanisms of a (d, d) DAG; they serve every kind."""
    key_linear, key_net = jax.random.split(key)
    d = graph.shape[0]
    mask = graph.astype(dtype)
    u = jax.random.uniform(key_linear, (d, d), dtype, -1.0, 1.0)
    # One flat draw: XLA compiles it ten times faster than small draws of rank 3.
    net = jax.random.normal(key_net, (d * (d + 3) * _HIDDEN,), dtype)
    net = net.reshape(d, d + 3, _HIDDEN)
    return Mechanisms(
        graph=graph,
        order=topological_order(graph),
        linear=mask * jnp.where(u < 0, 0.7 * u - 0.5, 0.7 * u + 0.5),
        hidden=mask[..., None] * net[:, :d].swapaxes(0, 1),
        bias=net[:, d],
        loc=net[:, d + 1] / _HIDDEN**0.5,
        scale=net[:, d + 2] / _HIDDEN**0.5,
    )


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
        node = jax.tree.map(lambda a: a[..., i, :], _per_node(mechanisms))
        loc, log_scale = _location_scale(kind, node, x)
        x_i = loc + jnp.exp(log_scale) * _shape(kind, s[i], loc)
        return x.at[i].set(jnp.where(do_mask[i], do_value[i], x_i)), None

    x, _ = jax.lax.scan(assign, jnp.zeros_like(s), mechanisms.order)
    return x


def pull(kind: str, mechanisms: Mechanisms, x: Array) -> tuple[Array, Array]:
    """Variables to noises, s = f^{-1}(x), (d,) -> (d,), and log |det ds/dx|, ().

    The Jacobian ds/dx is triangular in the causal order, so its log-determinant is the
    sum over variables of log ds_i/dx_i.
    """

    def one(node, x_i):
        loc, log_scale = _location_scale(kind, node, x)
        y = (x_i - loc) * jnp.exp(-log_scale)
        s_i = _shape_inverse(kind, y, loc)
        return s_i, -log_scale - jnp.log(_shape_slope(kind, s_i, loc))

    s, log_slope = jax.vmap(one, in_axes=(-2, 0))(_per_node(mechanisms), x)
    return s, jnp.sum(log_slope)


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
    units = jnp.tanh(dot(x, node.hidden) + node.bias)  # (h,)
    # A variable without causes has location 0 and scale 1: it is its noise.
    has_parents = jnp.any(node.linear != 0)
    loc = jnp.where(has_parents, 0.6 * linear + dot(units, node.loc), 0.0)
    if kind == "anm":
        return loc, jnp.zeros_like(loc)
    return loc, jnp.where(has_parents, 0.8 * jnp.tanh(dot(units, node.scale)), 0.0)


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
