"""FastICA: x = A s with independent, non-Gaussian sources.

Hyvarinen, "Fast and robust fixed-point algorithms for independent component analysis"
(IEEE TNN 1999); Hyvarinen & Oja (1997). Identified: the sources up to permutation, sign and
scale, when at most one of them is Gaussian (Comon 1994). Asymptotic error of the symmetric
version: Tichavsky, Koldovsky & Oja (2006).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options
from crl.core import Estimator, Readout
from crl.numerics.fastica import (
    NONLINEARITIES,
    converge,
    fixed_point,
    follow,
    improve,
    whitened,
)
from crl.numerics.linalg import dot
from crl.numerics.whitening import Whitening, whiten


class State(NamedTuple):
    """Whitening, the rotation found so far, and how far it is from its fixed point."""

    whitening: Whitening
    rotation: Array  # (d, d) rows are unit vectors in the whitened space
    tau: Array  # (d,) E[y_i g(y_i)] - E[g'(y_i)]
    delta: Array  # () the change that convergence asks for: max_i 1 - |<w_i new, w_i old>|
    unit: Array  # () int, rows found so far (deflation)
    count: Array  # () int, iterations on the present unit (deflation)


class Fitted(NamedTuple):
    """The two linear maps, and what the fit says of itself."""

    mean: Array  # (p,)
    unmixing: Array  # (d, p)
    mixing: Array  # (p, d)
    diag: dict[str, Array]


def fastica(
    num_latents: int,
    algorithm: str = "symmetric",
    nonlinearity: str = "logcosh",
    tol: float = 1e-4,
    num_steps: int = 200,
) -> Estimator:
    """Linear ICA by fixed-point iteration on whitened data.

    num_latents: sources to look for; fewer than columns of x means the leading principal
    components. algorithm: "symmetric", all rows at once, or "deflation", one after the
    other, where errors accumulate. nonlinearity: "logcosh" (g = tanh), "exp"
    (g = u exp(-u^2/2)) or "cube" (kurtosis). tol: stops when every unit row moves by
    1 - |cos angle| < tol. num_steps: iterations, of each unit under deflation. Symmetric
    fits of many rows start from the solution for every tenth of them; the trace shows the
    iterations on all rows.

    Claims z, unmixing, the reconstruction x, the decoder's Jacobian (1, p, d), which is the
    mixing at every row, and, in ``diag``: converged (1 or 0), delta, effective_rank, and
    min_tau, the smallest |E[z_i g(z_i)] - E[g'(z_i)]|: 0 for a Gaussian, and the theory
    asks that it be nonzero for all but one. z has unit variance on the training data. Order:
    by decreasing |tau|. Sign: the largest entry of each column of the mixing is positive.

    Raises ValueError for unknown options, for num_latents > p, n <= p, and for data whose
    effective rank is below num_latents.
    """
    check_options(
        "fastica",
        at_least_one={"num_latents": num_latents, "num_steps": num_steps},
        positive={"tol": tol},
        one_of={
            "algorithm": (algorithm, ("symmetric", "deflation")),
            "nonlinearity": (nonlinearity, tuple(NONLINEARITIES)),
        },
    )
    derivatives, d = NONLINEARITIES[nonlinearity], num_latents
    is_symmetric = algorithm == "symmetric"

    def init(key, data):
        n, p = data.x.shape
        if not d <= p < n:
            raise ValueError(
                f"fastica needs num_latents <= columns < rows, got num_latents={d} and x of "
                f"shape ({n}, {p}): lower num_latents or give more rows"
            )
        white = whiten(data.x, d)
        dtype = white.mean.dtype
        rotation = jax.random.orthogonal(key, d, dtype=dtype)
        stride = min(10, n // (200 * d))
        if is_symmetric and stride > 1:
            # Converge on every stride-th row first: from there two or three iterations on
            # all rows are left, since they converge at least quadratically.
            z = whitened(white, data.x[::stride])
            rotation = converge(derivatives, rotation, z, tol, num_steps)
        # Of the last step, and under deflation the largest of the finished units.
        delta = jnp.full((), jnp.inf if is_symmetric else 0, dtype)
        zero = jnp.zeros((), jnp.int32)
        return State(white, rotation, jnp.zeros(d, dtype), delta, zero, zero)

    def step(key, state, data):
        del key  # full batch, nothing random
        z = whitened(state.whitening, data.x)
        if is_symmetric:
            rotation, delta, tau = improve(derivatives, state.rotation, state.delta, z)
            state = state._replace(rotation=rotation, tau=tau, delta=delta)
        else:
            state = improve_unit(derivatives, state, z, tol, num_steps)
        return state, {"delta": state.delta}

    def converged(state):
        return (state.delta < tol) & (is_symmetric | (state.unit >= d))

    def finish(key, state, data):
        del key, data
        white, order = state.whitening, jnp.argsort(-jnp.abs(state.tau))
        w = state.rotation[order]
        mixing = dot(white.dewhitener, w.T)  # (p, d)
        largest = mixing[jnp.argmax(jnp.abs(mixing), 0), jnp.arange(d)]
        w = jnp.where(largest[:, None] < 0, -w, w)
        diag = {
            "converged": converged(state).astype(w.dtype),
            "delta": state.delta,
            "effective_rank": white.effective_rank,
            "min_tau": jnp.min(jnp.abs(state.tau)),
        }
        unmixing, mixing = dot(w, white.whitener), dot(white.dewhitener, w.T)
        return Fitted(white.mean, unmixing, mixing, diag)

    def readout(fitted, data):
        z = dot(data.x - fitted.mean, fitted.unmixing.T)  # (n, d)
        x = fitted.mean + dot(z, fitted.mixing.T)  # (n, p)
        jacobian = fitted.mixing[None]
        return Readout(z=z, x=x, unmixing=fitted.unmixing, jacobian=jacobian, diag=fitted.diag)

    total = num_steps if is_symmetric else num_steps * d
    return Estimator(
        init,
        step,
        readout,
        total,
        finish,
        converged,
        validate=lambda data: check_rank(data.x, num_latents),
    )


def improve_unit(
    derivatives: Callable, state: State, z: Array, tol: float, num_steps: int
) -> State:
    """One iteration of deflation on the present unit, orthogonal to those found before."""
    rows, d = state.rotation, len(state.rotation)
    i = jnp.minimum(state.unit, d - 1)
    found = jnp.where((jnp.arange(d) < i)[:, None], rows, 0)  # (d, d)

    def deflate(w):
        for _ in range(2):  # twice is enough (Kahan) to be orthogonal to rounding
            w = w - dot(dot(w, found.T), found)
        return w / jnp.linalg.norm(w)

    old = deflate(jax.lax.dynamic_slice_in_dim(rows, i, 1))  # (1, d)
    new, tau = fixed_point(derivatives, old, z)
    new, delta = follow(deflate(new), old)
    is_last = (delta < tol) | (state.count + 1 >= num_steps)
    return State(
        whitening=state.whitening,
        rotation=jax.lax.dynamic_update_slice_in_dim(rows, new, i, 0),
        tau=jax.lax.dynamic_update_slice_in_dim(state.tau, tau, i, 0),
        delta=jnp.maximum(state.delta, jnp.where(is_last, delta, 0)),  # of finished units
        unit=state.unit + is_last,
        count=jnp.where(is_last, 0, state.count + 1),
    )


def _rank(x: np.ndarray) -> tuple[int, int]:
    """Effective rank of x (n, p) after centring, given its rounding; constant columns."""
    eps = np.finfo(x.dtype).eps
    x = x.astype(np.float64)
    mean = x.mean(0)
    if eps > 1e-10:  # a Gram matrix in float64 resolves all that single precision holds
        scales = np.sqrt(np.maximum(np.linalg.eigvalsh((x - mean).T @ (x - mean)), 0))
    else:
        scales = np.linalg.svd(x - mean, compute_uv=False)
    scales = scales / math.sqrt(len(x))
    floor = 4 * eps * (math.sqrt(np.mean(mean**2)) + scales.max())
    constant = np.ptp(x, 0) <= 4 * eps * np.abs(mean)
    return int(np.sum(scales > floor)), int(constant.sum())


def check_rank(x: Array, num_latents: int) -> None:
    """Raise a ValueError unless x (n, p) has as many dimensions as there are latents."""
    n, p = x.shape
    if not num_latents <= p < n:
        return  # a matter of shape: init says so
    # A few rows with full rank will do; all of them are looked at when these fall short.
    for rows in (x[: 4 * p], x):
        rank, num_constant = _rank(np.asarray(rows))
        if rank >= num_latents:
            return
    raise ValueError(
        f"fastica needs x of rank >= num_latents = {num_latents}, got effective rank {rank} "
        f"({num_constant} of {p} columns are constant): lower num_latents to {rank}"
    )
