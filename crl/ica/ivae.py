"""Identifiable VAE: a deep latent variable model with a prior for each environment.

    z_i | e ~ N(mean_ei, scale_ei^2) independent,    x = f(z) + noise,

fitted by the evidence lower bound with a posterior N(m(x, e), L L'), L lower triangular.
Khemakhem, Kingma, Monti & Hyvarinen, "Variational autoencoders and nonlinear ICA" (AISTATS
2020): with invertible f the latents are identified up to permutation and componentwise
maps, if the natural parameters of the prior, as differences to environment 0, have rank
d k (theorem 1; k = 2 statistics z, z^2, or k = 1 where the means do not vary), and if the
family of posteriors holds the true one (theorem 4).

With little noise the true posterior has the precision J'J / noise^2, J the Jacobian of f. A
diagonal one, as in the paper's code, misses its correlations however small the noise: the
bound then lies below the likelihood by sum_i log |J_i| - log |det J|, J_i the columns, and
its maximum trades the law of the data for a decoder with orthogonal columns (Reizinger et
al., "Embrace the gap", NeurIPS 2022).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from crl.check import check_options
from crl.combinators import descend
from crl.core import Estimator, PyTree, Readout, num_envs
from crl.ica.modulation import check_modulation, least_modulation
from crl.nets.mlp import mlp
from crl.numerics.linalg import dot, sum_of_squares
from crl.numerics.whitening import whiten

STATISTICS = {"location_scale": 2, "scale": 1}  # of each latent under that prior
START_SCALE = 0.2  # of the posterior and of the noise, where x has unit variance


class Params(NamedTuple):
    """The model of whitened x, and its posterior."""

    encoder: PyTree
    decoder: PyTree
    mean: Array | None  # (E, d) of the prior; None: zero
    log_scale: Array  # (E, d) of the prior
    log_noise: Array  # (p,)


class State(NamedTuple):
    """The model and its optimiser."""

    params: Params
    center: Array  # (p,)
    whitener: Array  # (p, p)
    dewhitener: Array  # (p, p)
    opt: optax.OptState | None  # None when fitted


class Normals(NamedTuple):
    """A normal law for each row: mean (n, d), and factor L (n, d, d) with covariance L L'."""

    mean: Array
    factor: Array


def ivae(
    num_latents: int,
    prior: str = "location_scale",
    posterior: str = "full",
    *,
    width: int = 64,
    depth: int = 2,
    num_steps: int = 4000,
    batch_size: int = 512,
    learning_rate: float = 0.02,
) -> Estimator:
    """Fit the model by the ELBO; encoder and decoder see x whitened, on all p components.

    prior: what differs between environments, "location_scale" or "scale" (zero means).
    posterior: covariance "full" or "diagonal". width, depth: of encoder and decoder.
    learning_rate: of Muon, may be traced; cosine to 0. The sd of the noise is learned, for
    each whitened component.

    Claims z (n, d), the mean of the posterior; x, its image under the decoder; log_prob
    (n,), the ELBO of each row in nats, a lower bound of its log density given the
    environment. Its expectation is a cubature at 2 d points, exact for polynomials of
    degree 3: nothing is drawn. diag: ``explained_variance`` of the reconstruction, NaN for
    constant x; ``noise``, the largest sd of it for whitened x; ``least_modulation``, 0 where
    the prior that was learned violates the rank condition.

    Identifies the latents up to order, sign, scale and shift under the conditions above.
    Needs E >= d k + 1 environments and raises ValueError for fewer. Latents that all
    environments modulate alike stay mixed. Fits end in local maxima of different worth:
    restart by the held-out ELBO, ``restarts(ivae(d), 3, held_out_log_prob)``. A fit whose
    ``noise`` is not far below 1 has given up a component of x, and a latent with it.
    """
    check_options(
        "ivae",
        at_least_one={
            "num_latents": num_latents,
            "width": width,
            "depth": depth,
            "num_steps": num_steps,
            "batch_size": batch_size,
        },
        positive={"learning_rate": learning_rate},
        one_of={
            "prior": (prior, STATISTICS),
            "posterior": (posterior, ("full", "diagonal")),
        },
    )
    num_statistics, is_full = STATISTICS[prior], posterior == "full"
    num_entries = num_latents * (num_latents + 1) // 2 if is_full else num_latents
    encoder = mlp(num_latents + num_entries, width, depth)
    optimizer = optax.contrib.muon(optax.cosine_decay_schedule(learning_rate, num_steps))

    def decoder(params):
        net = mlp(len(params.log_noise), width, depth)
        return lambda z: net.apply(params.decoder, z)

    def posterior_of(params, x, env):
        label = jax.nn.one_hot(env, len(params.log_scale), dtype=x.dtype)
        out = encoder.apply(params.encoder, jnp.concatenate([x, label], 1))
        return Normals(out[:, :num_latents], triangular(out[:, num_latents:], num_latents))

    def prior_of(params, env):
        mean = jnp.zeros_like(params.log_scale) if params.mean is None else params.mean
        return mean[env], params.log_scale[env]

    def init(key, data):
        check_modulation("ivae", data, num_latents, num_statistics)
        key_encoder, key_decoder, key_prior = jax.random.split(key, 3)
        x, num_columns, num = data.x, data.x.shape[1], num_envs(data)
        params = Params(
            encoder=encoder.init(key_encoder, jnp.zeros((1, num_columns + num), x.dtype)),
            decoder=mlp(num_columns, width, depth).init(key_decoder, x[:1, :num_latents]),
            mean=None if prior == "scale" else jnp.zeros((num, num_latents), x.dtype),
            log_scale=0.1 * jax.random.normal(key_prior, (num, num_latents), x.dtype),
            log_noise=jnp.full(num_columns, jnp.log(START_SCALE), x.dtype),
        )
        white = whiten(x, num_columns)
        return State(
            params, white.mean, white.whitener, white.dewhitener, optimizer.init(params)
        )

    def loss(params, state, key, batch):
        x = dot(batch.x - state.center, state.whitener.T)
        q = posterior_of(params, x, batch.env)
        points = jax.random.normal(key, (1, *q.mean.shape), x.dtype)
        p = prior_of(params, batch.env)
        return -jnp.mean(elbo(decoder(params), params.log_noise, x, q, p, points)), {}

    def finish(key, state, data):
        del key, data
        return state._replace(opt=None)

    def readout(fitted, data):
        params = fitted.params
        with jax.default_matmul_precision("highest"):
            x = dot(data.x - fitted.center, fitted.whitener.T)
            q, p = posterior_of(params, x, data.env), prior_of(params, data.env)
            points = cubature(num_latents, x.dtype)
            bound = elbo(decoder(params), params.log_noise, x, q, p, points)
            estimate = fitted.center + dot(decoder(params)(q.mean), fitted.dewhitener.T)
        environments = jnp.arange(len(params.log_scale))
        scores = -gaussian_energy(q.mean[:, None], *prior_of(params, environments))  # (n, E)
        error = jnp.sum((data.x - estimate) ** 2)
        diag = {
            "explained_variance": 1 - error / sum_of_squares(data.x),
            "noise": jnp.exp(jnp.max(params.log_noise)),
            "least_modulation": least_modulation(scores, num_latents * num_statistics),
        }
        log_volume = jnp.linalg.slogdet(fitted.whitener)[1]
        return Readout(z=q.mean, x=estimate, log_prob=bound + log_volume, diag=diag)

    return Estimator(
        init,
        descend(loss, optimizer),
        readout,
        num_steps,
        finish,
        batch_size=batch_size,
        validate=lambda data: check_modulation("ivae", data, num_latents, num_statistics),
    )


def triangular(entries: Array, d: int) -> Array:
    """Lower triangular matrices (n, d, d) with positive diagonal.

    entries: (n, d), logarithms of the diagonal; or (n, d (d + 1) / 2), these and what lies
    below. In units of START_SCALE.
    """
    rows, columns = jnp.diag_indices(d)
    below = jnp.tril_indices(d, -1)
    factor = jnp.zeros((len(entries), d, d), entries.dtype)
    factor = factor.at[:, rows, columns].set(jnp.exp(entries[:, :d]))
    if entries.shape[1] > d:
        factor = factor.at[:, *below].set(entries[:, d:])
    return START_SCALE * factor


def cubature(d: int, dtype) -> Array:
    """2 d equally weighted points (2 d, 1, d) with the moments of N(0, I) up to the third."""
    axes = d**0.5 * jnp.eye(d, dtype=dtype)
    return jnp.concatenate([axes, -axes])[:, None]


def gaussian_energy(z: Array, mean: Array, log_scale: Array) -> Array:
    """-log N(z; mean, scale^2) summed over the last axis, without its constant."""
    return jnp.sum(log_scale + ((z - mean) * jnp.exp(-log_scale)) ** 2 / 2, -1)


def elbo(
    decode: Callable,
    log_noise: Array,
    x: Array,
    posterior: Normals,
    prior: tuple[Array, Array],
    points: Array,
) -> Array:
    """The evidence lower bound (n,) of log p(x), in nats.

    decode: (n, d) -> (n, p). x: (n, p). prior: mean and log scale (n, d). points: (m, n, d)
    or (m, 1, d), of N(0, I), over which the log likelihood is averaged.
    """
    z = posterior.mean + jnp.sum(posterior.factor * points[..., None, :], -1)  # (m, n, d)
    energy = jax.vmap(lambda z: gaussian_energy(x, decode(z), log_noise))(z)  # (m, n)
    likelihood = -jnp.mean(energy, 0)
    return likelihood - x.shape[1] / 2 * jnp.log(2 * jnp.pi) - divergence(posterior, *prior)


def divergence(posterior: Normals, mean: Array, log_scale: Array) -> Array:
    """KL(N(m, L L') || N(mean, scale^2)) of each row (n,), in nats; mean, log_scale (n, d)."""
    diagonal = jnp.diagonal(posterior.factor, axis1=1, axis2=2)
    spread = jnp.sum(posterior.factor**2, 2) * jnp.exp(-2 * log_scale)  # (n, d)
    energy = gaussian_energy(posterior.mean, mean, log_scale)
    return energy - jnp.sum(jnp.log(diagonal), 1) + jnp.sum(spread - 1, 1) / 2
