"""BatchTopK sparse autoencoder: as many atoms as a row needs, k on average.

Bussmann, Leask and Nanda, "BatchTopK sparse autoencoders" (arXiv 2412.06410): of all the
pre-activations of a batch of n rows, the k n largest are kept. A row then depends on its
batch, so that inference uses a threshold instead, the mean over training of the smallest
activation kept.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import Estimator
from crl.sae.autoencoder import (
    Params,
    Training,
    begin,
    claims,
    encode,
    flat_rows,
    improve,
    recipe,
)

RATE = 0.01  # of the running mean of the threshold: it follows the last 100 steps


class State(NamedTuple):
    """The autoencoder in training, and the threshold that it will be used with."""

    training: Training
    threshold: Array  # () running mean of the smallest activation kept


class Fitted(NamedTuple):
    """A trained autoencoder."""

    params: Params  # of the autoencoder of x / scale
    scale: Array  # ()
    threshold: Array  # () activations of x / scale above it are active


def batch_topk_sae(
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
    """A sparse autoencoder x ~ codes @ dictionary + b with k codes active in the mean row.

    num_atoms: m. k: mean number of atoms per row, 1 <= k <= m; the other options are those
    of ``crl.sae.topk_sae``.

    Trained on the k n largest pre-activations of each batch of n rows; the codes of a
    readout are all those above a threshold, and a row may have none. Claims, diag and
    where it fails as for ``topk_sae``; unlike there, rows may differ in how many atoms they
    hold. ``l0`` of the readout is near k on rows like those of the training, and differs
    elsewhere.

    Raises ValueError for options out of range.
    """
    how = recipe(
        "batch_topk_sae",
        num_atoms,
        k,
        population_control,
        dead_after,
        aux_weight,
        num_steps,
        batch_size,
        learning_rate,
    )

    def init(key, data):
        training = begin(key, data, how)
        return State(training, jnp.zeros((), training.scale.dtype))

    def step(key, state, batch):
        del key
        training, threshold = state
        x = flat_rows(batch) / training.scale
        least = nth_largest(jax.nn.relu(encode(training.params, x)), k * len(x))
        rate = jnp.where(training.step == 0, 1, RATE)
        training, info = improve(
            training, x, lambda params, x: autoencode(params, x, least), how
        )
        return State(training, threshold + rate * (least - threshold)), info

    def finish(key, state, data):
        del key, data
        return Fitted(state.training.params, state.training.scale, state.threshold)

    def readout(fitted, data):
        params, scale, threshold = fitted
        return claims(params, scale, lambda pre: active_codes(pre, threshold), data)

    return Estimator(init, step, readout, num_steps, finish, batch_size=batch_size)


def active_codes(pre: Array, threshold: Array) -> Array:
    """The pre-activations (n, m) that are positive and reach the threshold; 0 elsewhere."""
    return jnp.where((pre >= threshold) & (pre > 0), pre, 0)


def autoencode(params: Params, x: Array, threshold: Array) -> tuple[Array, Array]:
    """The reconstruction (n, p) of x from its active codes, and which atoms fired (m,)."""
    codes = active_codes(encode(params, x), threshold)
    return codes @ params.w_dec + params.b_dec, jnp.any(codes > 0, axis=0)


def nth_largest(values: Array, n: int) -> Array:
    """The n-th largest of all values (r, c), each >= 0, as a scalar; n is static.

    Bit by bit, since nonnegative floats are ordered like the integers of the same bits:
    nothing is sorted, and where rows lie over devices each counts its own.
    """
    bits = jnp.finfo(values.dtype).bits
    integer = jnp.dtype(f"int{bits}")
    ordered = jax.lax.bitcast_convert_type(values, integer)

    def count(smallest):
        # Rows are counted in floats, exact up to 2^24: on a CPU 5 times as fast as integers.
        in_row = jnp.sum(ordered >= smallest, axis=1, dtype=jnp.float32)
        return jnp.sum(in_row.astype(jnp.int32))

    def add_bit(i, found):
        larger = found | (jnp.ones((), integer) << (bits - 2 - i))
        return jnp.where(count(larger) >= n, larger, found)

    found = jax.lax.fori_loop(0, bits - 1, add_bit, jnp.zeros((), integer))
    return jax.lax.bitcast_convert_type(found, values.dtype)
