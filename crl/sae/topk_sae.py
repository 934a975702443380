"""TopK sparse autoencoder, with AuxK and population control.

Gao et al., "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093): the k largest
pre-activations of an affine encoder, decoded by unit-norm atoms. TopK alone is not stable:
atoms that never fire and pairs that share one feature are local minima. Population control
replaces both while training and is what makes the dictionary recoverable.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import Estimator
from crl.sae.autoencoder import (
    Params,
    begin,
    claims,
    encode,
    flat_rows,
    improve,
    recipe,
    top_codes,
    top_k,
)


class Fitted(NamedTuple):
    """A trained autoencoder."""

    params: Params  # of the autoencoder of x / scale
    scale: Array  # ()


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
    """A sparse autoencoder x ~ codes @ dictionary + b with at most k codes active, all > 0.

    num_atoms: m. k: atoms per row, 1 <= k <= m. population_control: in the first 80 % of
    the steps, an atom is re-aimed at one of the worst residuals of the batch when it has
    not fired for ``dead_after`` steps, or (looked at every 100 steps) when its cosine with
    another exceeds 0.9. So dead atoms go, and rare ones: with the defaults one that fires
    in a row of 3,400 stays silent that long with probability 0.05, in a row of 1,000 with
    4e-5. The rarest atom worth keeping must fire more often than that.
    aux_weight: of AuxK, by which atoms silent for half of ``dead_after`` learn to explain
    the residual, a chance to come back before they are replaced. Beside population control
    it is worth little. learning_rate: of Adam; linear warm-up over 2 % of num_steps, cosine
    to 2 % of it.

    x (n, ...) is flattened. x -> c x + b gives the same fit, as far as rounding goes.
    Claims dictionary (m, p) with unit rows, codes (n, m) >= 0 and the reconstruction x.
    diag: ``dead_fraction`` of atoms silent in all rows of the readout, ``l0``, ``fvu`` (NaN
    for constant x).

    Atoms and codes of a generic dictionary are identified up to their order when rows are
    exactly k-sparse (``crl.dgp.superposition``), and this finds them where one look tells
    which atoms are active. It fails where it cannot: with amplitudes near 0 two fits
    disagree, hardly less than with TopK alone, because support and amplitudes come from one
    affine map. Small dictionaries can stay in local minima too. Reconstruction shows none
    of this: never select by FVU. ``benchmarks/sae.py`` has the numbers.

    Raises ValueError for options out of range.
    """
    how = recipe(
        "topk_sae",
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
        return begin(key, data, how)

    def step(key, state, batch):
        del key
        x = flat_rows(batch) / state.scale
        return improve(state, x, lambda params, x: autoencode(params, x, k), how)

    def finish(key, state, data):
        del key, data
        return Fitted(state.params, state.scale)

    def readout(fitted, data):
        return claims(*fitted, lambda pre: top_codes(pre, k), data)

    return Estimator(init, step, readout, num_steps, finish, batch_size=batch_size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def autoencode(params: Params, x: Array, k: int) -> tuple[Array, Array]:
    """The reconstruction (n, p) of x from its k largest codes, and which atoms fired (m,).

    Encoder and decoder have one gradient, which touches the k active atoms of each row and
    not all m, at the price of (n, k, p) updates in memory. There is no gradient in x.
    """
    return _autoencode(params, x, k)[0]


def _autoencode(params, x, k):
    values, index = top_k(encode(params, x), k)  # (n, k)
    values = jax.nn.relu(values)

    def add(j, total):
        return total + values[:, j, None] * params.w_dec[index[:, j]]

    estimate = jax.lax.fori_loop(0, k, add, jnp.broadcast_to(params.b_dec, x.shape))
    fired = jnp.zeros(params.b_enc.shape, bool).at[index].max(values > 0)
    return (estimate, fired), (params, x, values, index)


def _autoencode_gradient(k, saved, cotangent):
    params, x, values, index = saved
    to_estimate, _ = cotangent  # (n, p)
    centred = x - params.b_dec
    to_values = jax.lax.map(
        lambda atom: jnp.sum(params.w_dec[atom] * to_estimate, axis=1), index.T
    ).T  # (n, k)
    to_values = jnp.where(values > 0, to_values, 0)

    # One scatter for all k: a loop over them would sum over the devices k times.
    def scatter(like, updates):
        return jnp.zeros_like(like).at[index].add(updates)

    w_enc = scatter(params.w_enc, to_values[:, :, None] * centred[:, None])
    b_enc = scatter(params.b_enc, to_values)
    w_dec = scatter(params.w_dec, values[:, :, None] * to_estimate[:, None])
    b_dec = jnp.sum(to_estimate, axis=0) - b_enc @ params.w_enc
    return Params(w_enc, b_enc, w_dec, b_dec), None


autoencode.defvjp(_autoencode, _autoencode_gradient)
