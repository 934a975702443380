"""FastICA against scikit-learn and picard: the same arrays, tolerance and nonlinearity.

The floor is one pass of the algorithm: two matrix products, 4 n d^2 flops, and n d tanh.
Each fit is checked to be as good: the Amari distance to the true mixing is printed.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from picard import picard
from sklearn.decomposition import FastICA

import crl
from benchmarks.speed.timing import table, take_turns
from crl.core import Data, grouped
from crl.ica.fastica import fastica
from crl.metrics.latents import amari_distance

TOL = 1e-4


def _laplace(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((d, d))
    return rng.laplace(size=(n, d)) @ mixing.T, mixing


def _as_data(x: np.ndarray) -> Data:
    return jax.vmap(grouped)(x) if np.ndim(x) > 2 else grouped(jnp.asarray(x))


def _sklearn(x: np.ndarray, seed: int = 0) -> np.ndarray:
    model = FastICA(
        x.shape[1], tol=TOL, whiten="unit-variance", whiten_solver="eigh", random_state=seed
    )
    return model.fit(x).components_


def _picard(x: np.ndarray) -> np.ndarray:
    whitener, rotation, _ = picard(x.T, ortho=True, tol=TOL, random_state=0)
    return rotation @ whitener


def single(n: int, d: int, repeats: int) -> str:
    """One fit of n rows and d sources."""
    x64, mixing = _laplace(n, d)
    x32 = x64.astype(np.float32)
    estimator, key = fastica(d, tol=TOL), jax.random.key(0)
    data32 = jax.block_until_ready(_as_data(x32))
    with jax.enable_x64(True):
        data64 = jax.block_until_ready(_as_data(x64))
    found = {}

    def ours(name, data, is_x64):
        def run():
            with jax.enable_x64(is_x64):
                state = jax.block_until_ready(crl.fit(estimator, key, data).state)
            found[name] = np.asarray(state.unmixing)

        return run

    def peer(name, solve, x):
        def run():
            found[name] = solve(x)

        return run

    contestants = {
        "crl float32": ours("crl float32", data32, False),
        "crl float64": ours("crl float64", data64, True),
        "scikit-learn float32": peer("scikit-learn float32", _sklearn, x32),
        "scikit-learn float64": peer("scikit-learn float64", _sklearn, x64),
        "picard float32": peer("picard float32", _picard, x32),
        "picard float64": peer("picard float64", _picard, x64),
    }

    @jax.jit
    def one_pass(w, z):
        y = jnp.tanh(w @ z)
        return y @ z.T / n

    z = jax.block_until_ready(jnp.asarray(x32.T / x32.std()))
    w = jnp.eye(d)
    contestants["floor: one pass, float32"] = lambda: jax.block_until_ready(one_pass(w, z))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # picard warns of its line search
        timings = take_turns(contestants, repeats)
    notes = {
        name: f"Amari {float(amari_distance(np.asarray(b, float) @ mixing)):.2e}"
        for name, b in found.items()
    }
    return table(f"FastICA, n={n}, d={d}, tol={TOL}", "crl float32", timings, notes)


def sweep(num: int, n: int, d: int, repeats: int) -> str:
    """``num`` fits, each of its own data."""
    worlds = [_laplace(n, d, seed) for seed in range(num)]
    x = np.stack([w[0] for w in worlds]).astype(np.float32)
    data = jax.block_until_ready(_as_data(x))
    estimator, keys = fastica(d, tol=TOL), jax.random.split(jax.random.key(0), num)
    found = {}

    def ours():
        state = jax.block_until_ready(crl.fit_replicas(estimator, keys, data).state)
        found["crl float32"] = np.asarray(state.unmixing)

    def peer():
        found["scikit-learn float32"] = [_sklearn(x[i], i) for i in range(num)]

    timings = take_turns({"crl float32": ours, "scikit-learn float32": peer}, repeats)
    notes = {}
    for name, unmixings in found.items():
        amari = [float(amari_distance(b @ w[1])) for b, w in zip(unmixings, worlds)]
        notes[name] = f"Amari {np.median(amari):.2e} (median)"
    return table(f"{num} FastICA fits, n={n}, d={d}, tol={TOL}", "crl float32", timings, notes)
