"""Time-contrastive learning: features that tell segments apart are the sources' statistics.

    p(segment e | x) = softmax_e(w_e' h(x) + b_e),    h a network with d outputs.

Segments are the environments. Where source i has the density exp(lambda_ei q(s_i)) / Z in
segment e and x = f(s) with invertible f, the best classifier has h(x) = A q(s) + b with an
invertible A, if and only if the modulation matrix (lambda_ei - lambda_0i), (E - 1, d), has
rank d (Hyvarinen & Morioka, NeurIPS 2016, theorem 1). For Laplace sources that differ in
scale q(s) = |s|. The map A is what linear ICA undoes:

    then(tcl(d), fastica(d))
"""

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
from crl.numerics.linalg import dot
from crl.numerics.whitening import whiten


class Params(NamedTuple):
    """The classifier of segments."""

    features: PyTree  # of the network h
    weight: Array  # (d, E) w
    bias: Array  # (E,) b


class State(NamedTuple):
    """The classifier of whitened x, and its optimiser."""

    params: Params
    mean: Array  # (p,)
    whitener: Array  # (p, p)
    opt: optax.OptState | None  # None when fitted


def tcl(
    num_latents: int,
    *,
    width: int = 64,
    depth: int = 3,
    num_steps: int = 4000,
    batch_size: int = 1000,
    learning_rate: float = 0.02,
) -> Estimator:
    """Learn to tell environments apart; claim the features with which it is done.

    width, depth: of the network h. learning_rate: of Muon, may be traced; cosine to 0.

    Claims z = h(x) (n, d), an affine map of the statistics q(s) of the sources, not of the
    sources: judge by ``affine_r2_abs``. diag: ``cross_entropy`` of the rows read, in nats
    (log E: nothing learned), and ``least_modulation``: the d-th singular value of the
    modulation that the classifier sees over the first, 0 where its rank is below d.

    Identifies q(s) up to an affine map if the modulation has rank d, as rows and steps go to
    infinity; of sources with the same modulation only the sum of their statistics. Needs
    E >= d + 1 environments and raises ValueError for fewer. The features are not forced
    into the shape |u|, as the paper's are: with it shallow networks undo even a modulation
    without full rank, by what they can express and not by the theorem.
    """
    check_options(
        "tcl",
        at_least_one={
            "num_latents": num_latents,
            "width": width,
            "depth": depth,
            "num_steps": num_steps,
            "batch_size": batch_size,
        },
        positive={"learning_rate": learning_rate},
    )
    net = mlp(num_latents, width, depth)
    # Muon: orthogonalised updates. Adam finds less of the statistics in as many steps.
    optimizer = optax.contrib.muon(optax.cosine_decay_schedule(learning_rate, num_steps))

    def init(key, data):
        check_modulation("tcl", data, num_latents, 1)
        key_features, key_weight = jax.random.split(key)
        x, shape = data.x, (num_latents, num_envs(data))
        params = Params(
            features=net.init(key_features, x[:1]),
            # Features of order 1 that say little about the segments yet.
            weight=0.1 * jax.random.normal(key_weight, shape, x.dtype),
            bias=jnp.zeros(shape[1], x.dtype),
        )
        white = whiten(x, x.shape[1])
        return State(params, white.mean, white.whitener, optimizer.init(params))

    def loss(params, state, key, batch):
        del key
        h = net.apply(params.features, whitened(state, batch.x))
        return cross_entropy(logits(params, h), batch.env), {}

    def finish(key, state, data):
        del key, data
        return state._replace(opt=None)

    def readout(fitted, data):
        with jax.default_matmul_precision("highest"):
            h = net.apply(fitted.params.features, whitened(fitted, data.x))
            scores = logits(fitted.params, h)
        diag = {
            "cross_entropy": cross_entropy(scores, data.env),
            "least_modulation": least_modulation(scores, num_latents),
        }
        return Readout(z=h, diag=diag)

    return Estimator(
        init,
        descend(loss, optimizer),
        readout,
        num_steps,
        finish,
        batch_size=batch_size,
        validate=lambda data: check_modulation("tcl", data, num_latents, 1),
    )


def whitened(state: State, x: Array) -> Array:
    """x (n, p) in principal components of unit variance."""
    return dot(x - state.mean, state.whitener.T)


def logits(params: Params, h: Array) -> Array:
    """Scores of the segments, (n, E), for features h (n, d)."""
    return h @ params.weight + params.bias


def cross_entropy(scores: Array, env: Array) -> Array:
    """Mean -log p(env) in nats for scores (n, E)."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, env))
