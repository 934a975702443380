"""Stationary diffusions: a causal model of what varies around an equilibrium, cycles and all.

Lorch, Krause and Schoelkopf, "Causal modeling with stationary diffusions" (AISTATS 2024).
Rows of environment e are independent draws from the stationary law of

    dx = f_e(x) dt + sqrt(D) dW,    f_e(x) = B psi(x) - leak x + b + sum over targets of c_i.

A law is stationary when E A h(x) = 0 for every test function h, A h = f . grad h + 1/2
sum_i D_i d^2 h / dx_i^2 the generator. The kernel deviation from stationarity (their
theorem 2) is the sum of squares of these expectations over the features of a kernel. They are
linear in B, b, c and D, so that its minimum is a least-squares problem: no gradient steps.

Identified, for a linear drift: B, D, b and c once every variable is shifted in some
environment and not in all. One environment says B S + S B' + D = 0 for its covariance S,
d (d + 1) / 2 equations for d^2 unknowns; each variable shifted adds d. The unit of time is not
identified, (f, D) -> (a f, a D) leaves every law as it is: the leak sets it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options
from crl.core import Data, Estimator, Readout, num_envs
from crl.numerics.diffusions import lyapunov, simulate
from crl.numerics.kernels import Fourier, gaussian_features, slopes, values
from crl.numerics.linalg import dot

# psi: what a variable passes on to those that it affects.
DRIFTS = {"linear": lambda x: x, "tanh": jnp.tanh}
KERNELS = ("quadratic", "gaussian")


class Diffusion(NamedTuple):
    """The fitted system, in the units of x."""

    drift: Array  # (d, d) B, zero diagonal; B[i, j] is the effect of j on i
    bias: Array  # (d,) b
    shift: Array  # (d,) c_i, added to the drift of i wherever i is a target
    noise: Array  # (d,) D
    leak: Array  # ()
    is_shifted: Array  # (d,) whether a training environment had this target
    deviation: Array  # () what is left of the mean square of E A h, rows and x standardised
    seed: Array  # () uint32, of the paths that readout simulates


def stationary_diffusion(
    drift: str = "linear",
    kernel: str = "quadratic",
    num_features: int = 1000,
    bandwidth: float = 2.0,
    leak: float = 1.0,
    num_draws: int = 1000,
) -> Estimator:
    """Drift, noise and shifts of a stochastic differential equation, from its stationary laws.

    drift: 'linear', or 'tanh' for B tanh(x), in the units of x. kernel: the test functions:
    'quadratic', means and covariances, all there is to a Gaussian law; 'gaussian',
    num_features random cosines of the Gaussian kernel, bandwidth times sqrt(d / 5) standard
    deviations wide. leak: rate at which a variable left alone returns; it sets the unit of
    time. num_draws: rows drawn from each claimed law.

    Reads given['target'] (E, d), 1 where an environment shifts the drift of a variable; one
    environment alone needs none. A variable is shifted by the same amount wherever it is a
    target, alone or with others. Environments may differ in size and weigh the same.

    Claims in ``other``: weights (d, d), B' with [i, j] for i -> j, and draws (E, num_draws,
    d), from the law of each environment of the data it is asked about, such as those of
    unseen combinations of targets; NaN where a target was never seen, and everywhere where
    the fitted system is not stable. It reads the targets of these data and not their rows.
    In ``diag``: deviation, the mean square of E A h in standard units, stable (1 or 0), and
    num_shifted.

    Fails: with one environment, or variables that are never shifted (see above); with hidden
    common causes or measurement noise; where psi is not that of the world: its edges may
    still rank well, while the draws go wrong.
    Raises ValueError for options out of range, missing or misshapen targets, and constant
    columns.
    """
    who = "stationary_diffusion"
    check_options(
        who,
        at_least_one={"num_features": num_features, "num_draws": num_draws},
        positive={"bandwidth": bandwidth, "leak": leak},
        one_of={"drift": (drift, tuple(DRIFTS)), "kernel": (kernel, KERNELS)},
    )
    psi = DRIFTS[drift]

    def init(key, data):
        key_features, key_seed = jax.random.split(key)
        d = data.x.shape[1]
        seed = jax.random.bits(key_seed, (), jnp.uint32)
        if kernel == "quadratic":
            equations = quadratic_equations
        else:
            width = bandwidth * (d / 5) ** 0.5
            features = gaussian_features(key_features, num_features, d, width, data.x.dtype)

            def equations(*moments):
                return fourier_equations(features, *moments)

        return closed_form(data, psi, equations, leak, seed)

    def readout(fitted, data):
        draws, is_stable = predict(fitted, psi, drift == "linear", _targets(data), num_draws)
        diag = {
            "deviation": fitted.deviation,
            "stable": is_stable.astype(draws.dtype),
            "num_shifted": jnp.sum(fitted.is_shifted),
        }
        return Readout(diag=diag, other={"weights": fitted.drift.T, "draws": draws})

    def step(key, state, batch):
        del key, batch  # solved in closed form
        return state, {}

    return Estimator(init, step, readout, 0, validate=_validate)


def closed_form(
    data: Data, psi: Callable, equations: Callable, leak: Array, seed: Array
) -> Diffusion:
    """The system of least deviation from stationarity.

    All in standard units, u for x and v for psi(x): f = B v - leak u + b + c, with other B, b.
    """
    x, features = data.x, psi(data.x)  # (n, d) both
    target = _targets(data)
    centre, scale = jnp.mean(x, 0), jnp.std(x, 0)
    middle, spread = jnp.mean(features, 0), jnp.std(features, 0)
    u, v = (x - centre) / scale, (features - middle) / spread
    member = data.env[:, None] == jnp.arange(num_envs(data))
    share = member.astype(x.dtype) / data.given["count"]  # (n, E)
    on_drift, on_bias, on_noise, constant = equations(u, v, share, leak)
    # Columns: B off the diagonal, b, c, D. on_bias (E, k, d) times what the target adds.
    d = x.shape[1]
    row, column = np.nonzero(~np.eye(d, dtype=bool))
    matrix = jnp.concatenate(
        [on_drift[..., row, column], on_bias, on_bias * target[:, None], on_noise], -1
    ).reshape(-1, d * (d + 2))
    solution = least_squares(matrix, -constant.reshape(-1))
    residual = dot(matrix, solution) + constant.reshape(-1)
    b, bias, shift, noise = jnp.split(solution, [d * d - d, d * d, d * d + d])
    b = jnp.zeros((d, d), x.dtype).at[row, column].set(b) * scale[:, None] / spread
    return Diffusion(
        drift=b,
        bias=scale * bias + leak * centre - dot(b, middle),
        shift=scale * shift,
        noise=scale**2 * jnp.maximum(noise, 1e-6),  # sampling error may take it below 0
        leak=jnp.asarray(leak, x.dtype),
        is_shifted=jnp.any(target > 0, 0),
        deviation=jnp.mean(residual**2),
        seed=seed,
    )


def fourier_equations(features: Fourier, u: Array, v: Array, share: Array, leak: Array):
    """E_e A h_j = 0 for the cosines h_j, as coefficients of the unknowns.

    u, v: (n, d) rows and their psi, standardised. share: (n, E) weight of a row in the mean of
    its environment. Returns those of B (E, m, d, d), b (E, m, d), D (E, m, d) and the
    constant (E, m).
    """
    parts = jnp.concatenate([v, u, jnp.ones_like(u[:, :1])], 1)  # (n, 2 d + 1)

    def one_feature(feature):
        feature = Fourier(*(a[None] for a in feature))
        w = feature.frequency[0]  # (d,)
        slope, height = slopes(feature, u)[:, 0], values(feature, u)[:, 0]  # (n,)
        mean = jax.lax.map(lambda share: dot(slope * share, parts), share.T)  # (E, 2 d + 1)
        passed, own, alone = jnp.split(mean, [len(w), 2 * len(w)], axis=1)
        return (
            w[:, None] * passed[:, None],  # (E, d, d)
            w * alone,  # (E, d)
            -0.5 * w**2 * dot(height, share)[:, None],  # (E, d)
            -leak * dot(own, w),  # (E,)
        )

    # Features in batches: all cosines at once are n m numbers.
    found = jax.lax.map(one_feature, features, batch_size=64)
    return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), found)


def quadratic_equations(u: Array, v: Array, share: Array, leak: Array):
    """The same for h = u_i and for (u_i - mean)(u_k - mean), i <= k: d (d + 3) / 2 of them.

    E f_i = 0, and Cov(f_i, u_k) + Cov(u_i, f_k) + D_ik = 0.
    """
    d = u.shape[1]
    eye = jnp.eye(d, dtype=u.dtype)
    i, k = np.triu_indices(d)

    def one_environment(share):
        mean_u, mean_v = dot(share, u), dot(share, v)  # (d,)
        centred = (u - mean_u) * share[:, None]
        cross = dot(v.T, centred).T  # (d, d) [k, l] Cov(u_k, v_l)
        covariance = dot(u.T, centred)
        zeros = jnp.zeros((len(i), d), u.dtype)
        return (
            jnp.concatenate(
                [
                    eye[:, :, None] * mean_v,
                    eye[i][:, :, None] * cross[k][:, None]
                    + eye[k][:, :, None] * cross[i][:, None],
                ]
            ),
            jnp.concatenate([eye, zeros]),
            jnp.concatenate([jnp.zeros_like(eye), eye[i] * (i == k)[:, None]]),
            -leak * jnp.concatenate([mean_u, 2 * covariance[i, k]]),
        )

    return jax.lax.map(one_environment, share.T)


def least_squares(matrix: Array, target: Array) -> Array:
    """argmin |matrix a - target|^2, near the smallest such a where there are several.

    matrix: (k, m). Columns are scaled to one length; a zero one gives 0.
    """
    norm = jnp.linalg.norm(matrix, axis=0)
    norm = jnp.where(norm > 0, norm, 1)
    scaled = matrix / norm
    gram = dot(scaled.T, scaled)  # its eigenvalues sum to m, and are off by m eps at most
    gram += len(norm) * jnp.finfo(norm.dtype).eps * jnp.eye(len(norm), dtype=norm.dtype)
    factor = jax.scipy.linalg.cho_factor(gram)
    return jax.scipy.linalg.cho_solve(factor, dot(scaled.T, target)) / norm


def predict(
    fitted: Diffusion, psi: Callable, is_linear: bool, target: Array, num_draws: int
) -> tuple[Array, Array]:
    """Draws (E, num_draws, d) from the laws under target (E, d), and whether they exist."""
    d = len(fitted.bias)
    force = fitted.bias + jnp.where(target > 0, fitted.shift, 0)  # (E, d)
    key_noise, key_path = jax.random.split(jax.random.key(fitted.seed))
    noise = jax.random.normal(key_noise, (len(target), num_draws, d), force.dtype)
    matrix = fitted.drift - fitted.leak * jnp.eye(d, dtype=force.dtype)
    if is_linear:
        mean = -jnp.linalg.solve(matrix, force.T).T
        covariance = lyapunov(matrix, jnp.diag(fitted.noise))
        draws = mean[:, None] + dot(noise, jnp.linalg.cholesky(covariance).T)
    else:
        # Wide: between the extremes to which a bounded psi can drive a variable.
        start = force[:, None] + noise * jnp.sum(jnp.abs(fitted.drift), 1)
        start = start / fitted.leak

        def total(x):
            return dot(psi(x), fitted.drift.T) + force[:, None]

        dt = STEP / fitted.leak
        draws = simulate(key_path, total, fitted.leak, fitted.noise, start, NUM_STEPS, dt)
    is_stable = jnp.all(jnp.isfinite(draws))
    known = jnp.all(fitted.is_shifted | (target == 0), 1)  # (E,)
    return jnp.where(known[:, None, None] & is_stable, draws, jnp.nan), is_stable


NUM_STEPS, STEP = 150, 0.2  # in units of 1 / leak: from a wide start to the stationary law


def _targets(data: Data) -> Array:
    """given['target'] (E, d); none in the one environment of data without it."""
    shape = (num_envs(data), data.x.shape[1])
    return data.given.get("target", jnp.zeros(shape, jnp.int32))


def _validate(data: Data) -> None:
    expected = (num_envs(data), data.x.shape[1])
    if "target" not in data.given and expected[0] > 1:
        raise ValueError(
            f"stationary_diffusion needs given['target'] for its {expected[0]} environments, "
            f"got none: pass a 0/1 array of shape {expected}"
        )
    target = np.asarray(_targets(data))
    if target.shape != expected or not np.isin(target, (0, 1)).all():
        raise ValueError(
            f"stationary_diffusion needs given['target'] of 0 and 1 and shape {expected}, one "
            f"row per environment and one column per variable, got shape {target.shape}"
        )
    constant = np.flatnonzero(np.ptp(np.asarray(data.x), 0) == 0)
    if len(constant):
        raise ValueError(
            f"stationary_diffusion needs columns that vary, got constant {constant.tolist()}: "
            "drop them"
        )
