"""Estimators made of estimators: a second stage, minibatches, restarts, the best state.

Held-out rows and minibatches keep the contract of Data: rows grouped by environment, the
same number for each, which is why the combinators that draw rows take ``num_envs``.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl import train
from crl.core import Data, Estimator, PyTree, Readout
from crl.numerics.linalg import dot

# What a readout says of the observations, not of the latents.
OBSERVED = ("x", "log_prob", "counterfactual")


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

    ``validate`` is the representation's: the second stage meets its codes inside compiled
    code and cannot refuse them. What is wrong with their values shows in its own checks in
    ``diag`` and in ``postprocess_diverged``.
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
        jacobian, unmixing = first.jacobian, None
        if jacobian is not None and second.jacobian is not None:
            # As many rows as both have; the one row of a linear stage stands for all.
            m = min({len(jacobian), len(second.jacobian)} - {1}, default=1)
            jacobian = dot(jacobian[:m], second.jacobian[:m])  # (m, p, d)
        if first.unmixing is not None and second.unmixing is not None:
            unmixing = dot(second.unmixing, first.unmixing)  # (d, p)
        diag = {
            **(first.diag or {}),
            **(second.diag or {}),
            "postprocess_steps": state.postprocess.step,
            "postprocess_diverged": state.postprocess.diverged,
        }
        # Atoms of the second stage live among the codes, not among the observations.
        return claims._replace(
            jacobian=jacobian, unmixing=unmixing, dictionary=None, diag=diag
        )

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
    validate = _grouped(estimator, num_envs)
    if size < 1 or size % num_envs:
        raise ValueError(
            f"expected size to be a positive multiple of num_envs={num_envs}, got {size}"
        )

    def step(key, state, data):
        key_draw, key_step = jax.random.split(key)
        rows = data.x.shape[0] // num_envs
        draw = jax.random.randint(key_draw, (num_envs, size // num_envs), 0, rows)
        index = (draw + rows * jnp.arange(num_envs)[:, None]).reshape(-1)  # (size,)
        batch = jax.tree.map(lambda a: a[index], data)
        return estimator.step(key_step, state, batch)

    return estimator._replace(step=step, validate=validate)


class Restarts(NamedTuple):
    """State of ``restarts``."""

    lanes: train.Lane  # (num, ...) every restart
    scores: Array  # (num,) on the held-out rows; -inf before finish and where undefined;
    #   NaN where all restarts have diverged, which is how the fit learns of it


def restarts(
    estimator: Estimator,
    num: int,
    score: Callable[[Readout, Data], Array],
    holdout: float = 0.1,
    *,
    num_envs: int = 1,
) -> Estimator:
    """``num`` fits from different keys, side by side; the best held-out score wins.

    score: (readout, held-out data) -> scalar, higher is better, NaN never wins. holdout:
    share of rows, in (0, 0.5], that only the score sees, spread evenly over each
    environment. A restart that diverges loses; the fit diverges when all have. ``info`` is
    the mean over the others. Steps and memory cost ``num`` times one fit's.
    """
    if num < 1:
        raise ValueError(f"expected num >= 1 restarts, got {num}")
    part = _holdout(holdout, num_envs)

    def init(key, data):
        rows, _ = part(data)
        keys = jax.random.split(key, num)
        lanes = jax.vmap(lambda k: train.start(estimator, k, rows))(keys)
        return _settled(lanes, jnp.full(num, -jnp.inf, jnp.float32))

    def step(key, state, data):
        rows, _ = part(data)

        def one(key, lane):
            new, info = train.attempt(estimator, key, lane, rows)
            # One that has converged repeats its last step; one that diverged tells nothing.
            info = {k: jnp.where(lane.diverged, jnp.nan, v) for k, v in info.items()}
            return train.select(lane.converged | lane.diverged, lane, new), info

        lanes, info = jax.vmap(one)(jax.random.split(key, num), state.lanes)
        info = {name: jnp.nanmean(v) for name, v in info.items()}
        done = jnp.all(lanes.converged | lanes.diverged)
        return _settled(lanes, state.scores), {**info, "converged": done}

    def finish(key, state, data):
        rows, held = part(data)

        def one(key, lane):
            lane = train.finish(estimator, key, lane, rows)
            value = _value(score, estimator.readout(lane.state, held), held)
            return lane, jnp.where(jnp.isnan(value), -jnp.inf, value)

        return _settled(*jax.vmap(one)(jax.random.split(key, num), state.lanes))

    def readout(state, data):
        # Of restarts without a score the first that lives, never one that diverged.
        floor = jnp.where(state.lanes.diverged, -jnp.inf, jnp.finfo(jnp.float32).min)
        best = jnp.argmax(jnp.maximum(state.scores, floor))
        claims = estimator.readout(jax.tree.map(lambda a: a[best], state.lanes.state), data)
        diag = {
            **(claims.diag or {}),
            "score": state.scores[best],
            "num_diverged": jnp.sum(state.lanes.diverged),
        }
        return claims._replace(diag=diag)

    validate = _grouped(estimator, num_envs)
    return Estimator(init, step, readout, estimator.num_steps, finish, validate)


def _settled(lanes: train.Lane, scores: Array) -> Restarts:
    """Zeros for the NaN of diverged restarts; NaN in the scores stands for "all have"."""

    def known(a):
        return jnp.where(jnp.isnan(a), 0, a) if jnp.issubdtype(a.dtype, jnp.inexact) else a

    scores = jnp.where(lanes.diverged, -jnp.inf, scores)
    scores = jnp.where(jnp.all(lanes.diverged), jnp.nan, scores)
    return Restarts(lanes._replace(state=jax.tree.map(known, lanes.state)), scores)


def _value(score, claims, held):
    """The score as a float32 scalar; any number may be returned for it."""
    value = jnp.asarray(score(claims, held), jnp.float32)
    if value.shape:
        raise ValueError(
            f"expected score to return a scalar, got shape {value.shape}: return its mean"
        )
    return value


class Best(NamedTuple):
    """State of ``best_checkpoint``."""

    current: PyTree
    best: PyTree  # finished
    score: Array  # () of best; -inf where no look had a score
    step: Array  # () int32


def best_checkpoint(
    estimator: Estimator,
    score: Callable[[Readout, Data], Array],
    every: int,
    holdout: float = 0.1,
    *,
    num_envs: int = 1,
) -> Estimator:
    """Keeps the state with the best held-out score, looked at each ``every`` steps.

    score and holdout as in ``restarts``. The last state competes too, and is kept where
    no score is defined. A look finishes the state and scores what would be read out, so
    that a costly ``finish`` is paid at every look, and at every step where replicas are
    vmapped: where the score can do without the second stage, write
    ``then(best_checkpoint(representation, ...), postprocess)``. Costs a second state in
    memory.
    """
    if every < 1:
        raise ValueError(f"expected every >= 1 steps, got {every}")
    part = _holdout(holdout, num_envs)

    def look(key, state, data, last=False):
        rows, held = part(data)
        finished = estimator.finish(key, state.current, rows)
        value = _value(score, estimator.readout(finished, held), held)
        better = value > state.score  # False for NaN
        take = better | (last & jnp.isneginf(state.score))
        return state._replace(
            best=train.select(take, finished, state.best),
            score=jnp.where(better, value, state.score),
        )

    def init(key, data):
        state = estimator.init(key, part(data)[0])
        return Best(state, state, jnp.array(-jnp.inf, jnp.float32), jnp.zeros((), jnp.int32))

    def step(key, state, data):
        key_step, key_look = jax.random.split(key)
        current, info = estimator.step(key_step, state.current, part(data)[0])
        state = state._replace(current=current, step=state.step + 1)
        due = state.step % every == 0
        return jax.lax.cond(due, lambda s: look(key_look, s, data), lambda s: s, state), info

    def finish(key, state, data):
        return look(key, state, data, last=True)

    def readout(state, data):
        claims = estimator.readout(state.best, data)
        return claims._replace(diag={**(claims.diag or {}), "score": state.score})

    validate = _grouped(estimator, num_envs)
    return Estimator(init, step, readout, estimator.num_steps, finish, validate)


def _holdout(share, num_envs):
    """(data) -> (rows to fit on, held-out rows), both grouped by environment."""
    if not 0 < share <= 0.5:
        raise ValueError(f"expected holdout in (0, 0.5], got {share}")

    def part(data):
        rows = data.x.shape[0] // num_envs
        # Row i is held out where the share passes another whole number.
        held = np.diff(np.floor(share * np.arange(rows + 1) + 1e-9)) > 0
        if not held.any():
            raise ValueError(
                f"expected at least {np.ceil(1 / share):.0f} rows per environment to hold "
                f"out {share} of them, got {rows}: give more data or a larger holdout"
            )
        index = np.arange(num_envs * rows).reshape(num_envs, rows)

        def take(columns):
            return jax.tree.map(lambda a: a[index[:, columns].reshape(-1)], data)

        return take(~held), take(held)

    return part


def _grouped(estimator, num_envs):
    """``estimator.validate``, after a check that environments are what num_envs says."""
    if num_envs < 1:
        raise ValueError(f"expected num_envs >= 1, got {num_envs}")

    def validate(data):
        env = np.asarray(data.env)
        sizes = np.bincount(env)
        if len(sizes) != num_envs or np.any(sizes != sizes[0]) or np.any(np.diff(env) < 0):
            raise ValueError(
                f"expected rows grouped by environment, {num_envs} of one size, got "
                f"{len(env)} rows of {len(sizes)}: pass num_envs, and sort the rows by env"
            )
        estimator.validate(data)

    return validate
