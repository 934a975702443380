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

from crl.check import check_options
from crl.combinators import descend
from crl.core import Estimator, PyTree, Readout
from crl.nets.mlp import residual_mlp
from crl.nets.net import Net
from crl.numerics.linalg import dot, sum_of_squares, unit_rows

NUM_JACOBIANS = 64  # rows at which the readout holds the Jacobian of the decoder


class State(NamedTuple):
    """Networks for x standardised by one centre and one scale, and their optimiser."""

    params: PyTree
    opt: PyTree
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
) -> Estimator:
    """Fit encoder and decoder MLPs under a penalty on the decoder's distortion.

    weight: of the isometry penalty, which like the reconstruction error is measured for
    data of unit variance; 0 is a plain autoencoder. width, depth: of both networks.
    learning_rate: of Muon, with a cosine decay. Environments are ignored.

    Readout: z (n, d) the codes, in the units of x, so that distances between codes are
    distances along the manifold; x (n, p) the reconstruction; jacobian (m, p, d) of the
    decoder at the codes of the first m <= 64 rows; diag ``explained_variance`` of the
    reconstruction, 1 = perfect, NaN for constant x, and ``distortion``, the rms of |J'J - I|
    in Frobenius norm over these rows, about twice Theta.

    Identifies the latents up to a rigid motion where x is a local isometry of them and
    their support is convex (the penalty acts between codes, too). Both networks start as
    PCA, since a random start can fold the manifold and stay in that minimum; an
    ``explained_variance`` below .999 on noiseless data gives a fold away. Needs x of shape
    (n, p) with p >= num_latents; raises ValueError for others.
    """
    check_options(
        "isometric_autoencoder",
        at_least_one={
            "num_latents": num_latents,
            "width": width,
            "depth": depth,
            "num_steps": num_steps,
            "batch_size": batch_size,
        },
        nonnegative={"weight": weight},
        positive={"learning_rate": learning_rate},
    )
    # Muon: orthogonalised updates; Adam needs about three times the steps here.
    optimizer = optax.contrib.muon(optax.cosine_decay_schedule(1.0, num_steps))
    # Muon takes no traced rate; its updates are proportional to it.
    optimizer = optax.chain(optimizer, optax.scale(learning_rate))
    net = Autoencoder(num_latents, width, depth)

    def loss(params, state, key, batch):
        x = (batch.x - state.mean) / state.scale
        return penalized_error(net, params, state.axes, weight, key, x)

    def init(key, data):
        x = data.x
        if x.ndim != 2 or x.shape[1] < num_latents:
            raise ValueError(
                f"isometric_autoencoder expected x of shape (n, p) with p >= {num_latents} "
                f"latents, got {x.shape}: flatten the rows, or lower num_latents"
            )
        params = net.init(key, x[:1])
        mean, axes, scale = principal_axes(x, num_latents)
        return State(params, optimizer.init(params), axes, mean, scale)

    def finish(key, state, data):
        del key, data
        return state._replace(opt=())

    def readout(fitted, data):
        def decoded(z):  # one scale for both sides: an isometry stays one
            y = net.decode(fitted.params, fitted.axes, z / fitted.scale)
            return fitted.mean + fitted.scale * y

        x = (data.x - fitted.mean) / fitted.scale
        with jax.default_matmul_precision("highest"):
            z = fitted.scale * net.encode(fitted.params, fitted.axes, x)
            reconstruction = decoded(z)
            jacobian = jax.vmap(jax.jacfwd(decoded))(z[:NUM_JACOBIANS])  # (m, p, d)
            metric = dot(jacobian.mT, jacobian)  # (m, d, d)
        off = jnp.sum((metric - jnp.eye(num_latents)) ** 2, axis=(1, 2))
        error = jnp.sum((data.x - reconstruction) ** 2)
        diag = {
            "explained_variance": 1 - error / sum_of_squares(data.x),
            "distortion": jnp.sqrt(jnp.mean(off)),
        }
        return Readout(z=z, x=reconstruction, jacobian=jacobian, diag=diag)

    step = descend(loss, optimizer)
    return Estimator(init, step, readout, num_steps, finish, batch_size=batch_size)


class Autoencoder(NamedTuple):
    """Encoder and decoder, each a correction of the projection on the principal axes.

    Steps multiply as the device does by default (TF32 on a GPU): the error of 1e-3 in a
    product is far below what a minibatch leaves open. Claims are made in full precision.
    """

    num_latents: int
    width: int
    depth: int

    def net(self, num_outputs: int) -> Net:
        return residual_mlp(num_outputs, self.width, self.depth)

    def init(self, key: Array, x: Array) -> PyTree:
        """Parameters for rows like x (1, p)."""
        key_encoder, key_decoder = jax.random.split(key)
        return {
            "encoder": self.net(self.num_latents).init(key_encoder, x),
            "decoder": self.net(x.shape[1]).init(key_decoder, x[:, : self.num_latents]),
        }

    def encode(self, params: PyTree, axes: Array, x: Array) -> Array:
        """(n, p) -> (n, d)."""
        return x @ axes + self.net(self.num_latents).apply(params["encoder"], x)

    def decode(self, params: PyTree, axes: Array, z: Array) -> Array:
        """(n, d) -> (n, p)."""
        return z @ axes.T + self.net(len(axes)).apply(params["decoder"], z)


def penalized_error(
    net: Autoencoder, params: PyTree, axes: Array, weight: float, key: Array, x: Array
) -> tuple[Array, dict[str, Array]]:
    """E |x - f(g(x))|^2 + weight E (|J_f u| - 1)^2 on a batch x (n, p)."""
    key_mix, key_direction = jax.random.split(key)
    z = net.encode(params, axes, x)
    error = jnp.mean(jnp.sum((x - net.decode(params, axes, z)) ** 2, axis=1))
    # Isometric between the data and a little beyond them, not only on them.
    z = mixtures(key_mix, z)
    u = unit_rows(jax.random.normal(key_direction, z.shape, z.dtype))
    _, ju = jax.jvp(lambda z: net.decode(params, axes, z), (z,), (u,))  # (n, p)
    distortion = jnp.mean((jnp.linalg.norm(ju, axis=1) - 1) ** 2)
    return error + weight * distortion, {"error": error, "distortion": distortion}


def principal_axes(x: Array, num_latents: int) -> tuple[Array, Array, Array]:
    """Mean (p,), leading principal directions (p, d) and rms scale () of x (n, p)."""
    mean = jnp.mean(x, axis=0)
    variances, axes = jnp.linalg.eigh(dot((x - mean).T, x - mean) / len(x))
    scale = jnp.sqrt(jnp.mean(jnp.maximum(variances, 0)))
    return mean, axes[:, ::-1][:, :num_latents], jnp.where(scale > 0, scale, 1)


def mixtures(key: Array, z: Array) -> Array:
    """For each row of z (n, d) a point on the line through it and the row before.

    Uniform from a fifth of their distance before one to a fifth beyond the other.
    """
    share = jax.random.uniform(key, (len(z), 1), z.dtype, -0.2, 1.2)
    return share * z + (1 - share) * jnp.roll(z, 1, axis=0)
