"""FastICA: x = A s with independent, non-Gaussian sources.

Hyvarinen, "Fast and robust fixed-point algorithms for independent component analysis"
(IEEE TNN 1999); Hyvarinen & Oja (1997). Identified: the sources up to permutation, sign and
scale, when at most one of them is Gaussian (Comon 1994). Asymptotic error of the symmetric
version: Tichavsky, Koldovsky & Oja (2006).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import Estimator, Readout
from crl.numerics.decorrelation import polar
from crl.numerics.whitening import Whitening, whiten


def _logcosh(y):
    g = jnp.tanh(y)
    return g, 1 - jnp.mean(g * g, -1)


def _exp(y):
    e = jnp.exp(-y * y / 2)
    return y * e, jnp.mean((1 - y * y) * e, -1)


def _cube(y):
    return y**3, 3 * jnp.mean(y * y, -1)


# Of a contrast G: its derivative g, and the mean of g' over the last axis.
NONLINEARITIES = {"logcosh": _logcosh, "exp": _exp, "cube": _cube}


class State(NamedTuple):
    """Whitening, the rotation found so far, and how far it is from its fixed point."""

    whitening: Whitening
    rotation: Array  # (d, d) rows are unit vectors in the whitened space
    tau: Array  # (d,) E[y_i g(y_i)] - E[g'(y_i)]
    delta: Array  # () the change that convergence asks for: max_i 1 - |<w_i new, w_i old>|
    converged: Array  # () bool
    unit: Array  # () int, rows found so far (deflation)
    count: Array  # () int, iterations on the present unit (deflation)


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
    if num_latents < 1 or num_steps < 1 or not tol > 0:
        raise ValueError(
            "fastica needs num_latents >= 1, num_steps >= 1 and tol > 0, got "
            f"{num_latents}, {num_steps} and {tol}"
        )
    if algorithm not in ("symmetric", "deflation"):
        raise ValueError(
            f"fastica has the algorithms 'symmetric' and 'deflation', got {algorithm!r}"
        )
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(
            f"fastica has the nonlinearities {', '.join(NONLINEARITIES)}, got {nonlinearity!r}"
        )
    derivatives, d = NONLINEARITIES[nonlinearity], num_latents

    def whitened(white, x):
        # One product with the latents in rows (d, n): reductions over n then run along
        # memory. It depends on no iteration, and XLA hoists it out of the loop.
        return jnp.matmul(white.whitener, (x - white.mean).T, precision="highest")  # (d, n)

    def fixed_point(w, z):
        """E[g(y) z'] - E[g'(y)] w for y = w z, rows w (k, d) and z (d, n); and tau (k,)."""
        g, mean_slope = derivatives(jnp.matmul(w, z, precision="highest"))
        gz = jnp.matmul(g, z.T, precision="highest") / z.shape[1]
        new = gz - mean_slope[:, None] * w
        return new, jnp.sum(new * w, 1)

    def improve(old, last_delta, z):
        """One symmetric iteration: the rotation, its delta, and tau."""
        new, tau = fixed_point(old, z)
        new, delta = _follow(polar(new), old)
        # A step that moves no less than the one before may be half of a 2-cycle; the
        # midpoint breaks it and changes no fixed point. Of 50 samples of 60 rows, 29
        # converged without it and all do with it, in a quarter of the steps.
        new = jax.lax.cond(delta < last_delta, lambda w: w, lambda w: polar(w + old), new)
        return new, delta, tau

    def init(key, data):
        n, p = data.x.shape
        if not d <= p < n:
            raise ValueError(
                f"fastica needs num_latents <= columns < rows, got num_latents={d} and x of "
                f"shape ({n}, {p}): lower num_latents or give more rows"
            )
        white = whiten(data.x, d)
        dtype = white.mean.dtype
        inf, zero = jnp.full((), jnp.inf, dtype), jnp.zeros((), jnp.int32)
        rotation = jax.random.orthogonal(key, d, dtype=dtype)
        stride = min(10, n // (200 * d))
        if algorithm == "symmetric" and stride > 1:
            # Converge on every stride-th row first: from there two or three iterations on
            # all rows are left, since they converge at least quadratically.
            z = whitened(white, data.x[::stride])

            def is_moving(carry):
                i, _, delta = carry
                return (i < num_steps) & (delta >= tol)

            def body(carry):
                i, rotation, delta = carry
                return i + 1, *improve(rotation, delta, z)[:2]

            rotation = jax.lax.while_loop(is_moving, body, (0, rotation, inf))[1]
        # Of the last step, and under deflation the largest of the finished units.
        delta = inf if algorithm == "symmetric" else jnp.zeros((), dtype)
        return State(white, rotation, jnp.zeros(d, dtype), delta, zero > 0, zero, zero)

    def step_symmetric(key, state, data):
        del key  # full batch
        z = whitened(state.whitening, data.x)
        rotation, delta, tau = improve(state.rotation, state.delta, z)
        state = state._replace(rotation=rotation, tau=tau, delta=delta, converged=delta < tol)
        return state, {"delta": delta, "converged": state.converged}

    def step_deflation(key, state, data):
        del key  # full batch
        rows, i = state.rotation, jnp.minimum(state.unit, d - 1)
        found = jnp.where((jnp.arange(d) < i)[:, None], rows, 0)  # (d, d)

        def deflate(w):
            for _ in range(2):  # twice is enough (Kahan) to be orthogonal to rounding
                overlap = jnp.matmul(w, found.T, precision="highest")
                w = w - jnp.matmul(overlap, found, precision="highest")
            return w / jnp.linalg.norm(w)

        old = deflate(jax.lax.dynamic_slice_in_dim(rows, i, 1))  # (1, d)
        new, tau = fixed_point(old, whitened(state.whitening, data.x))
        new, delta = _follow(deflate(new), old)
        is_last = (delta < tol) | (state.count + 1 >= num_steps)
        unit = state.unit + is_last
        worst = jnp.maximum(state.delta, jnp.where(is_last, delta, 0))  # of finished units
        state = State(
            whitening=state.whitening,
            rotation=jax.lax.dynamic_update_slice_in_dim(rows, new, i, 0),
            tau=jax.lax.dynamic_update_slice_in_dim(state.tau, tau, i, 0),
            delta=worst,
            converged=(unit >= d) & (worst < tol),
            unit=unit,
            count=jnp.where(is_last, 0, state.count + 1),
        )
        return state, {"delta": delta, "converged": state.converged}

    def finish(key, state, data):
        del key, data
        order = jnp.argsort(-jnp.abs(state.tau))
        w = state.rotation[order]
        mixing = jnp.matmul(state.whitening.dewhitener, w.T, precision="highest")  # (p, d)
        largest = jnp.argmax(jnp.abs(mixing), 0)
        is_negative = mixing[largest, jnp.arange(d)] < 0
        w = jnp.where(is_negative[:, None], -w, w)
        return state._replace(rotation=w, tau=state.tau[order])

    def readout(state, data):
        white = state.whitening
        b = jnp.matmul(state.rotation, white.whitener, precision="highest")  # (d, p)
        centred = data.x - white.mean
        diag = {
            "converged": state.converged.astype(b.dtype),
            "delta": state.delta,
            "effective_rank": white.effective_rank,
            "min_tau": jnp.min(jnp.abs(state.tau)),
        }
        z = jnp.matmul(centred, b.T, precision="highest")  # (n, d)
        a = jnp.matmul(white.dewhitener, state.rotation.T, precision="highest")  # (p, d)
        x = white.mean + jnp.matmul(z, a.T, precision="highest")  # (n, p)
        return Readout(z=z, x=x, unmixing=b, jacobian=a[None], diag=diag)

    def validate(data):
        n, p = data.x.shape
        if not d <= p < n:
            return  # a matter of shape: init says so
        # A few rows with full rank will do; all of them are looked at when these fall short.
        for rows in (data.x[: 4 * p], data.x):
            rank, num_constant = _rank(np.asarray(rows))
            if rank >= d:
                return
        raise ValueError(
            f"fastica needs x of rank >= num_latents = {d}, got effective rank {rank} "
            f"({num_constant} of {p} columns are constant): lower num_latents to {rank}"
        )

    step = step_symmetric if algorithm == "symmetric" else step_deflation
    total = num_steps if algorithm == "symmetric" else num_steps * d
    return Estimator(init, step, readout, total, finish, validate)


def _follow(new: Array, old: Array) -> tuple[Array, Array]:
    """Unit rows ``new`` with the signs of ``old``, and max_i 1 - |<new_i, old_i>|."""
    sign = jnp.where(jnp.sum(new * old, 1, keepdims=True) < 0, -1, 1)
    new = new * sign.astype(new.dtype)
    # For unit vectors 1 - cos is half the squared distance, which float32 resolves.
    return new, jnp.max(jnp.sum((new - old) ** 2, 1)) / 2


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
