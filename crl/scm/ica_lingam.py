"""ICA-LiNGAM: a linear non-Gaussian SCM by independent component analysis.

Shimizu, Hoyer, Hyvarinen and Kerminen, "A linear non-Gaussian acyclic model for causal
discovery" (JMLR 2006): the noises are the sources of an ICA, so that its unmixing is
I - B up to the order and scale of rows; only one order leaves no zero on the diagonal, and
B is triangular in a causal order.
"""

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import Estimator
from crl.numerics.assignment import assign
from crl.numerics.fastica import NONLINEARITIES, converge, improve, whitened
from crl.numerics.graphs import strongest_dag, topological_order
from crl.numerics.linalg import dot
from crl.numerics.whitening import whiten
from crl.scm.linear import check_linear, claims, in_order, standardised
from crl.scm.prior import prior


def ica_lingam(tol: float = 1e-4, max_steps: int = 1000) -> Estimator:
    """A linear SCM by ICA-LiNGAM, from symmetric FastICA with log cosh; closed form.

    tol, max_steps: of FastICA, as in ``fastica``. tol may be traced. The units of the columns
    say nothing. Claims, prior knowledge and errors as for ``direct_lingam``, beside diag
    delta, which exceeds tol where FastICA has not come to rest. Identified: as there, the
    graph and the weights under linearity, acyclicity, no hidden causes, and at most one
    Gaussian noise.

    It depends on the start of FastICA, hence on the key, and has no order where FastICA does
    not come to rest; its cost grows with the square of the number of variables, that of
    DirectLiNGAM with the cube.
    """
    check_options("ica_lingam", at_least_one={"max_steps": max_steps}, positive={"tol": tol})

    def init(key, data):
        known = prior(data)
        unmixing, delta = noises_by_ica(key, data.x, tol, max_steps)
        # The error of an ICA is relative, W' = (I + E) W with E about alike everywhere: that
        # of an entry grows with its column. Strongest first, then; what closes a cycle with
        # stronger ones is error.
        size = jnp.abs(unmixing / jnp.linalg.norm(unmixing, axis=0)).T  # [i, j] of i on j
        size = jnp.where(known.before.T, 0, size)
        order = topological_order(strongest_dag(jnp.where(known.before, jnp.inf, size)))
        return in_order(data.x, order, known, {"delta": delta})

    def step(key, state, batch):
        del key, batch  # closed form
        return state, {}

    def validate(data):
        check_linear("ica_lingam", data)

    return Estimator(init, step, claims, 0, validate=validate)


def noises_by_ica(key: Array, x: Array, tol: float, max_steps: int) -> tuple[Array, Array]:
    """The unmixing W (d, d) of x (n, d): W x is the noises at unit variance, in their places.

    And the last move of FastICA's rows, 1 - cos.
    """
    rows, scale = standardised(x)
    d = len(rows)
    white = whiten(rows.T, d)
    z = whitened(white, rows.T)
    start = jax.random.orthogonal(key, d, dtype=x.dtype)
    logcosh = NONLINEARITIES["logcosh"]
    rotation = converge(logcosh, start, z, tol, max_steps)
    _, delta, _ = improve(logcosh, rotation, jnp.full((), jnp.inf, x.dtype), z)
    unmixing = dot(rotation, white.whitener) / scale  # rows: noises in some order
    # One order alone has no zero on the diagonal. The product of it, unlike the sum of
    # inverses that is common, does not depend on units.
    size = jnp.maximum(jnp.abs(unmixing), jnp.finfo(x.dtype).tiny)
    source, variable = assign(jnp.log(size))
    return jnp.zeros_like(unmixing).at[variable].set(unmixing[source]), delta
