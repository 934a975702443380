"""Estimators made of estimators: a second stage, minibatches, restarts, the best state.

Held-out rows and minibatches keep the contract of Data: rows grouped by environment, the
same number for each, which is why the combinators that draw rows take ``num_envs``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from crl import train
from crl.core import Data, Estimator, PyTree

# What a readout says of the observations, not of the latents.
OBSERVED = ("x", "log_prob", "counterfactual", "jacobian")


class Then(NamedTuple):
    """State of ``then``: zeros stand for the second stage until it is fitted."""

    representation: PyTree
    postprocess: train.Lane


def then(representation: Estimator, postprocess: Estimator) -> Estimator:
    """Fit ``representation``, then ``postprocess`` on its codes: a network, then ICA.

    The codes are the representation's z, or its codes where it claims no z; environments
    and side information stay with their rows. The second stage is fitted whole in
    ``finish``. Claims on latents are the second stage's; claims on observations (x,
    log_prob, counterfactual) are the representation's. The Jacobian of the decoder and
    the unmixing are chained where both stages claim theirs; where only the representation
    claims a Jacobian it is with respect to the codes.
    """

    def encode(state, data):
        claims = representation.readout(state, data)
        codes = claims.codes if claims.z is None else claims.z
        if codes is None:
            raise ValueError(
                "expected a representation that claims z or codes, got neither: "
                "then(representation, postprocess) fits the second stage on them"
            )
        return claims, Data(codes, data.env, data.aux)

    def second(key, state, data):
        return train.run(postprocess, key, encode(state, data)[1])

    def init(key, data):
        state = representation.init(key, data)
        return Then(state, _zeros(jax.eval_shape(second, key, state, data), key))

    def step(key, state, data):
        new, info = representation.step(key, state.representation, data)
        return Then(new, state.postprocess), info

    def finish(key, state, data):
        key_first, key_second = jax.random.split(key)
        first = representation.finish(key_first, state.representation, data)
        return Then(first, second(key_second, first, data))

    def readout(state, data):
        first, codes = encode(state.representation, data)
        second = postprocess.readout(state.postprocess.state, codes)
        claims = second._replace(**{f: getattr(first, f) for f in OBSERVED})
        if None not in (first.jacobian, second.jacobian):
            num = min(len(first.jacobian), len(second.jacobian))
            chained = first.jacobian[:num] @ second.jacobian[:num]  # (m, p, d)
            claims = claims._replace(jacobian=chained)
        unmixing = None
        if None not in (first.unmixing, second.unmixing):
            unmixing = second.unmixing @ first.unmixing  # (d, p)
        diag = {
            **(first.diag or {}),
            **(second.diag or {}),
            "postprocess_steps": state.postprocess.step,
            "postprocess_diverged": state.postprocess.diverged,
        }
        return claims._replace(unmixing=unmixing, dictionary=None, diag=diag)

    return Estimator(
        init, step, readout, representation.num_steps, finish, representation.validate
    )


def _zeros(shapes, key):
    def zero(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(key, leaf.shape)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(zero, shapes)


def minibatch(estimator: Estimator, size: int, *, num_envs: int = 1) -> Estimator:
    """Each step sees ``size`` rows drawn with replacement; init, finish and readout all.

    size: rows per step, a multiple of ``num_envs``, equally many from each environment.
    """
    if size < 1 or size % num_envs:
        raise ValueError(
            f"expected size to be a positive multiple of num_envs={num_envs}, got {size}"
        )

    def step(key, state, data):
        rows = data.x.shape[0] // num_envs
        draw = jax.random.randint(key, (num_envs, size // num_envs), 0, rows)
        index = (draw + rows * jnp.arange(num_envs)[:, None]).reshape(-1)  # (size,)
        batch = jax.tree.map(lambda a: a[index], data)
        return estimator.step(jax.random.fold_in(key, 0), state, batch)

    return estimator._replace(step=step, validate=_grouped(estimator, num_envs))


def _grouped(estimator, num_envs):
    """``estimator.validate``, after a check that environments are what num_envs says."""

    def validate(data):
        estimator.validate(data)
        found = int(jnp.max(data.env)) + 1
        rows = data.env.shape[0]
        grouped = jnp.repeat(jnp.arange(found), -(-rows // found))[:rows]
        if found != num_envs or rows % found or not bool(jnp.all(data.env == grouped)):
            raise ValueError(
                f"expected rows grouped by environment, {num_envs} of one size, got "
                f"{rows} rows of {found}: pass num_envs, and sort the rows by env"
            )

    return validate
