"""Autoencoder whose decoder is as close to an isometry as the data allow.

    min  E |x - f(g(x))|^2 + weight E_{z,u} (|J_f(z) u| - 1)^2,    |u| = 1 random,

with encoder g and decoder f (Gropp, Atzmon & Lipman 2020, the decoder's half of I-AE). If the
observations are x = f*(s) with a local isometry f*, then a perfect reconstruction with zero
penalty has g(x) = Q s + b: the codes are the latents up to a *rigid* motion. If f* is an
isometry up to Theta, they are so up to an error of order Theta (geometric rigidity;
Buchholz & Schoelkopf, ICML 2024; Horan, Richardson & Weiss 2021 for Theta = 0). What is
left, a rotation, is what linear ICA undoes for non-Gaussian independent latents:

    then(isometric_autoencoder(d), fastica(d))

Without the penalty any reparametrisation of the codes fits as well.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from crl.combinators import minibatch
from crl.core import Estimator, PyTree, Readout
from crl.nets.mlp import mlp
from crl.numerics.linalg import sum_of_squares, unit_rows

NUM_JACOBIANS = 64  # rows at which the readout holds the Jacobian of the decoder


class State(NamedTuple):
    """Networks for x standardised by one centre and one scale, and their optimiser."""

    params: PyTree
    opt_state: PyTree
    axes: Array  # (p, d) principal directions: both networks start as PCA
    mean: Array  # (p,)
    scale: Array  # () rms distance from the mean, per column


def isometric_autoencoder(
    num_latents: int,
    weight: float = 1.0,
    *,
    width: int = 64,
    depth: int = 2,
    batch_size: int = 256,
    num_steps: int = 2000,
    learning_rate: float = 0.02,
    num_envs: int = 1,
) -> Estimator:
    """Fit encoder and decoder MLPs under a penalty on the decoder's distortion.

    weight: of the isometry penalty, which like the reconstruction error is measured for
    data of unit variance; 0 is a plain autoencoder. width, depth: of both networks.
    num_envs: environments that the rows are grouped by; the networks ignore them.

    Readout: z (n, d) the codes, in the units of x, so that distances between codes are
    distances along the manifold; x (n, p) the reconstruction; jacobian (m, p, d) of the
    decoder at the codes of the first m <= 64 rows; diag ``explained_variance`` of the
    reconstruction, 1 = perfect, NaN for constant x, and ``distortion``, the rms of |J'J - I|
    in Frobenius norm over these rows, about twice Theta.

    Identifies the latents up to a rigid motion where x is a local isometry of them and
    their support is convex (the penalty acts between codes, too). Both networks start as
    PCA, since a random start can fold the manifold and stay in that minimum. An
    ``explained_variance`` below .999 on noiseless data gives a fold away; the ten tori of
    ``benchmarks/ica.py`` (d = 5 and 10) have .9999 and more. Needs x of shape (n, p) with
    p >= num_latents; raises ValueError for others.
    """
    if num_latents < 1 or width < 1 or depth < 1 or num_steps < 1:
        raise ValueError(
            "isometric_autoencoder needs num_latents, width, depth and num_steps >= 1, got "
            f"{num_latents}, {width}, {depth} and {num_steps}"
        )
    if not isinstance(weight, jax.core.Tracer) and not weight >= 0:
        raise ValueError(f"isometric_autoencoder needs weight >= 0, got {weight}")
    # Muon: orthogonalised updates; Adam needs about three times the steps here.
    optimizer = optax.contrib.muon(optax.cosine_decay_schedule(learning_rate, num_steps))
    encoder = mlp(num_latents, width, depth)

    def decoder(p):
        return mlp(p, width, depth)

    # Steps multiply as the device does by default (TF32 on a GPU): the error of 1e-3 in a
    # product is far below what a minibatch leaves open. Claims are made in full precision.
    def encode(params, axes, x):
        return x @ axes + encoder.apply(params["encoder"], x)  # (n, d)

    def decode(params, axes, z):
        return z @ axes.T + decoder(len(axes)).apply(params["decoder"], z)  # (n, p)

    def loss(params, axes, key, x):
        key_mix, key_direction = jax.random.split(key)
        z = encode(params, axes, x)
        error = jnp.mean(jnp.sum((x - decode(params, axes, z)) ** 2, axis=1))
        # Isometric between the data and a little beyond them, not only on them.
        z = mixtures(key_mix, z)
        u = unit_rows(jax.random.normal(key_direction, z.shape, z.dtype))
        _, ju = jax.jvp(lambda z: decode(params, axes, z), (z,), (u,))  # (n, p)
        distortion = jnp.mean((jnp.linalg.norm(ju, axis=1) - 1) ** 2)
        return error + weight * distortion, {"error": error, "distortion": distortion}

    def init(key, data):
        x = data.x
        if x.ndim != 2 or x.shape[1] < num_latents:
            raise ValueError(
                f"isometric_autoencoder expected x of shape (n, p) with p >= {num_latents} "
                f"latents, got {x.shape}: flatten the rows, or lower num_latents"
            )
        key_encoder, key_decoder = jax.random.split(key)
        params = {
            "encoder": encoder.init(key_encoder, x[:1]),
            "decoder": decoder(x.shape[1]).init(key_decoder, x[:1, :num_latents]),
        }
        mean = jnp.mean(x, axis=0)
        covariance = jnp.matmul((x - mean).T, x - mean, precision="highest") / len(x)
        variances, axes = jnp.linalg.eigh(covariance)
        scale = jnp.sqrt(jnp.mean(jnp.maximum(variances, 0)))
        scale = jnp.where(scale > 0, scale, 1)
        axes = axes[:, ::-1][:, :num_latents]
        return State(params, optimizer.init(params), axes, mean, scale)

    def step(key, state, data):
        x = (data.x - state.mean) / state.scale
        grad = jax.value_and_grad(loss, has_aux=True)
        (value, info), grads = grad(state.params, state.axes, key, x)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, opt_state=opt_state), {"loss": value, **info}

    def readout(state, data):
        def decoded(z):  # one scale for both sides: an isometry stays one
            y = decode(state.params, state.axes, z / state.scale)
            return state.mean + state.scale * y

        x = (data.x - state.mean) / state.scale
        with jax.default_matmul_precision("highest"):
            z = state.scale * encode(state.params, state.axes, x)
            reconstruction = decoded(z)
            jacobian = jax.vmap(jax.jacfwd(decoded))(z[:NUM_JACOBIANS])  # (m, p, d)
            metric = jnp.matmul(jacobian.mT, jacobian)  # (m, d, d)
        off = jnp.sum((metric - jnp.eye(num_latents)) ** 2, axis=(1, 2))
        error = jnp.sum((data.x - reconstruction) ** 2)
        diag = {
            "explained_variance": 1 - error / sum_of_squares(data.x),
            "distortion": jnp.sqrt(jnp.mean(off)),
        }
        return Readout(z=z, x=reconstruction, jacobian=jacobian, diag=diag)

    return minibatch(Estimator(init, step, readout, num_steps), batch_size, num_envs=num_envs)


def mixtures(key: Array, z: Array) -> Array:
    """For each row of z (n, d) a point on the line through it and the row before.

    Uniform from a fifth of their distance before one to a fifth beyond the other.
    """
    share = jax.random.uniform(key, (len(z), 1), z.dtype, -0.2, 1.2)
    return share * z + (1 - share) * jnp.roll(z, 1, axis=0)
