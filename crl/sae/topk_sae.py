"""TopK sparse autoencoder with AuxK and population control.

The architecture of Gao et al., "Scaling and evaluating sparse autoencoders" (arXiv
2406.04093): the k largest pre-activations of an affine encoder, decoded by unit-norm atoms.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from crl.core import Estimator, Readout
from crl.sae.atoms import (
    duplicates,
    geometric_median,
    unit_decoder,
    unit_rows,
    worst_directions,
)


class Params(NamedTuple):
    w_enc: Array  # (m, p) encoder directions in rows
    b_enc: Array  # (m,)
    w_dec: Array  # (m, p) unit-norm atoms in rows
    b_dec: Array  # (p,)


class State(NamedTuple):
    params: Params  # of the SAE of x / scale
    opt: optax.OptState
    scale: Array  # () of x, from init
    age: Array  # (m,) int32 steps since the atom fired
    step: Array  # () int32


def topk_sae(
    num_atoms: int,
    k: int,
    *,
    population_control: bool = True,
    dead_after: int = 20,
    aux_weight: float = 1 / 32,
    num_steps: int = 2000,
    batch_size: int = 512,
    learning_rate: float = 3e-3,
) -> Estimator:
    if num_atoms < 1:
        raise ValueError(f"topk_sae needs num_atoms >= 1, got {num_atoms}")
    if not 1 <= k <= num_atoms:
        raise ValueError(f"topk_sae needs 1 <= k <= num_atoms={num_atoms}, got k={k}")
    for name, value in [
        ("dead_after", dead_after),
        ("num_steps", num_steps),
        ("batch_size", batch_size),
    ]:
        if value < 1:
            raise ValueError(f"topk_sae needs {name} >= 1, got {value}")

    warm_up = max(1, num_steps // 50)
    decay = optax.cosine_decay_schedule(1.0, max(1, num_steps - warm_up), alpha=0.02)

    def rate(step):
        return learning_rate * jnp.minimum(1.0, (step + 1) / warm_up) * decay(step - warm_up)

    optimizer = unit_decoder(
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.scale_by_schedule(lambda step: -rate(step)),
        )
    )

    def init(key, data):
        x = _rows(data.x)
        x = x[:: max(1, len(x) // 8192)]  # rows are grouped, so a stride sees all groups
        center = geometric_median(x)
        # E |x - center|^2 = k, so that the active codes are of order 1.
        scale = jnp.sqrt(jnp.mean(jnp.sum((x - center) ** 2, axis=1)) / k)
        scale = jnp.where(scale > 0, scale, 1)
        atoms = unit_rows(jax.random.normal(key, (num_atoms, x.shape[1]), x.dtype))
        b_enc = jnp.zeros(num_atoms, x.dtype)
        params = Params(atoms, b_enc, atoms, center / scale)
        age = jnp.zeros(num_atoms, jnp.int32)
        return State(params, optimizer.init(params), scale, age, jnp.zeros((), jnp.int32))

    def encode(params, x):
        pre = (x - params.b_dec) @ params.w_enc.T + params.b_enc  # (n, m)
        return pre, *_top(pre, k)

    def loss(params, x, is_dead):
        pre, codes, fired = encode(params, x)
        residual = x - codes @ params.w_dec - params.b_dec  # (n, p)
        sse = jnp.mean(jnp.sum(residual**2, axis=1))
        aux = jax.lax.cond(
            jnp.any(is_dead), _aux_loss, lambda *_: jnp.zeros((), x.dtype),
            params.w_dec, pre, residual, is_dead,
        )
        return sse + aux_weight * aux, (sse, fired, residual)

    def step(key, state, data):
        x = _rows(data.x)
        if len(x) > batch_size:
            x = x[jax.random.randint(key, (batch_size,), 0, len(x))]
        x = x / state.scale
        is_dead = state.age >= dead_after
        gradient = jax.grad(loss, has_aux=True)
        grads, (sse, fired, residual) = gradient(state.params, x, is_dead)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        age = jnp.where(fired, 0, state.age + 1)
        state = State(params, opt, state.scale, age, state.step + 1)
        num_replaced = jnp.zeros((), jnp.int32)
        if population_control:
            state, num_replaced = control(state, residual)
        num_dead = jnp.sum(state.age >= dead_after)
        return state, {"loss": sse / k, "dead": num_dead, "replaced": num_replaced}

    def control(state, residual):
        is_open = state.step < 0.8 * num_steps
        is_duplicate = jax.lax.cond(
            is_open & (state.step % 100 == 0),
            lambda atoms: duplicates(atoms, 0.9),
            lambda atoms: jnp.zeros(num_atoms, bool),
            state.params.w_dec,
        )
        replace = is_open & (is_duplicate | (state.age >= dead_after))
        return jax.lax.cond(
            jnp.any(replace), _replace, lambda s, *_: (s, jnp.zeros((), jnp.int32)), state, residual, replace
        )

    def readout(state, data):
        x = _rows(data.x)
        with jax.default_matmul_precision("highest"):
            _, codes, fired = encode(state.params, x / state.scale)
            estimate = state.scale * (codes @ state.params.w_dec + state.params.b_dec)
        diag = {
            "dead_fraction": 1 - jnp.mean(fired),
            "l0": jnp.mean(jnp.sum(codes > 0, axis=1)),
            "fvu": jnp.sum((x - estimate) ** 2) / jnp.sum((x - jnp.mean(x, axis=0)) ** 2),
        }
        return Readout(
            x=estimate.reshape(data.x.shape),
            dictionary=state.params.w_dec,
            codes=state.scale * codes,
            diag=diag,
        )

    return Estimator(init, step, readout, num_steps)


def _rows(x: Array) -> Array:
    return x.reshape(len(x), -1)


def _top(pre: Array, k: int) -> tuple[Array, Array]:
    values, index = jax.lax.top_k(pre, k)  # (n, k)
    values = jax.nn.relu(values)
    codes = jnp.zeros_like(pre).at[jnp.arange(len(pre))[:, None], index].set(values, unique_indices=True)
    return codes, jnp.any(codes > 0, axis=0)


def _aux_loss(atoms, pre, residual, is_dead):
    m, p = atoms.shape
    codes, _ = _top(jnp.where(is_dead, pre, -1), min(max(1, p // 2), m))
    residual = jax.lax.stop_gradient(residual)
    error = jnp.sum((residual - codes @ atoms) ** 2)
    return error / jnp.sum((residual - jnp.mean(residual, axis=0)) ** 2)


def _replace(state: State, residual: Array, replace: Array) -> tuple[State, Array]:
    directions, replace = worst_directions(residual, replace)
    rows = replace[:, None]

    def forget(moment):
        return Params(
            jnp.where(rows, 0, moment.w_enc),
            jnp.where(replace, 0, moment.b_enc),
            jnp.where(rows, 0, moment.w_dec),
            moment.b_dec,
        )

    params = Params(
        jnp.where(rows, directions, state.params.w_enc),
        jnp.where(replace, 0, state.params.b_enc),
        jnp.where(rows, directions, state.params.w_dec),
        state.params.b_dec,
    )
    mu, nu = (optax.tree_utils.tree_get(state.opt, name) for name in ("mu", "nu"))
    opt = optax.tree_utils.tree_set(state.opt, mu=forget(mu), nu=forget(nu))
    age = jnp.where(replace, 0, state.age)
    return state._replace(params=params, opt=opt, age=age), jnp.sum(replace)
