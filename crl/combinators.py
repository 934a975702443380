"""Estimators made of estimators: a second stage, restarts, the best state, the bootstrap.

They nest, and keep the contract: rows to a step, rows held out and early stopping are the
inner estimator's, so that streams and many devices work as they do without. A ``score`` is
a metric as any other, (claims, sample) -> scalar, judged on the rows held out, of which no
truth is known; what it calls best decides (``crl.core.merit``).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from crl import loop
from crl.check import check_options
from crl.core import Data, Estimator, PyTree, Readout, Sample, Truth, merit
from crl.feed import resample
from crl.numerics.linalg import dot

# What a readout says of the observations, not of the latents.
OBSERVED = ("x", "log_prob", "counterfactual")
HOLDOUT = 0.1  # share of rows that a score sees where the estimator holds out none


def descend(loss: Callable, optimizer: optax.GradientTransformation) -> Callable:
    """The step of an estimator that descends a gradient.

    loss: (params, state, key, batch) -> (scalar, info). The state is a NamedTuple with the
    fields ``params`` and ``opt``, the state of the optimiser; the rest of it is the loss's
    to read.
    """

    def step(key, state, batch):
        grad = jax.value_and_grad(loss, has_aux=True)
        (value, info), grads = grad(state.params, state, key, batch)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, opt=opt), {"loss": value, **info}

    return step


class Then(NamedTuple):
    """What ``then`` has fitted."""

    representation: PyTree
    postprocess: loop.Lane


def then(representation: Estimator, postprocess: Estimator) -> Estimator:
    """Fit ``representation``, then ``postprocess`` on its codes: a network, then ICA.

    The codes are the representation's z, or its codes where it claims no z; environments
    and side information stay with their rows. The second stage is fitted whole in
    ``finish``. Claims on latents are the second stage's; claims on observations (x,
    log_prob, counterfactual) are the representation's. The Jacobian of the decoder and
    the unmixing are chained where both stages claim theirs; where only the representation
    claims a Jacobian it is with respect to the codes. ``diag`` holds both stages' own
    under "representation." and "postprocess.".

    ``validate`` is the representation's: the second stage meets its codes inside compiled
    code and cannot refuse them. What is wrong with their values shows in its own checks in
    ``diag`` and in ``postprocess.diverged``.
    """

    def encode(fitted, data):
        claims = representation.readout(fitted, data)
        codes = claims.codes if claims.z is None else claims.z
        if codes is None:
            raise ValueError(
                "expected a representation that claims z or codes, got neither: "
                "then(representation, postprocess) fits the second stage on them"
            )
        return claims, data._replace(x=codes, held=None)

    def finish(key, state, data):
        key_first, key_second = jax.random.split(key)
        first = representation.finish(key_first, state, data)
        codes = encode(first, data)[1]
        if data.held is not None:
            codes = codes._replace(held=encode(first, data.held)[1])
        return Then(first, loop.run(postprocess, key_second, codes))

    def readout(fitted, data):
        first, codes = encode(fitted.representation, data)
        second = postprocess.readout(fitted.postprocess.state, codes)
        claims = second._replace(**{f: getattr(first, f) for f in OBSERVED})
        jacobian, unmixing = first.jacobian, None
        if jacobian is not None and second.jacobian is not None:
            # As many rows as both have; the one row of a linear stage stands for all.
            m = min({len(jacobian), len(second.jacobian)} - {1}, default=1)
            jacobian = dot(jacobian[:m], second.jacobian[:m])  # (m, p, d)
        if first.unmixing is not None and second.unmixing is not None:
            unmixing = dot(second.unmixing, first.unmixing)  # (d, p)
        lane = fitted.postprocess
        stages = {
            "representation": first.diag or {},
            "postprocess": {
                **(second.diag or {}),
                "steps": lane.step,
                "diverged": lane.diverged,
            },
        }
        diag = {f"{stage}.{k}": v for stage, own in stages.items() for k, v in own.items()}
        # Atoms of the second stage live among the codes, not among the observations.
        return claims._replace(
            jacobian=jacobian, unmixing=unmixing, dictionary=None, diag=diag
        )

    return representation._replace(finish=finish, readout=readout)


class Chosen(NamedTuple):
    """What ``restarts`` has fitted: the best, and how all of them fared."""

    fitted: PyTree
    scores: Array  # (num,) on the held-out rows
    has_score: Array  # (num,) bool: False where it is undefined, or the restart diverged
    best: Array  # () index of the winner


def restarts(
    estimator: Estimator, num: int, score: Callable[[Readout, Sample], Array]
) -> Estimator:
    """``num`` fits from different keys, side by side; the best held-out score wins.

    score: a metric with a best value; a NaN never wins. A restart that diverges loses; the
    fit diverges when all have. All restarts see the same batches. ``info`` is the mean over
    those that go on; the others stay as they are. Steps and memory cost ``num`` times one
    fit's. ``other["scores"]`` holds every restart's score, ``diag`` the winner's.
    """
    check_options("restarts", at_least_one={"num": num})

    def init(key, data):
        keys = jax.random.split(key, num)
        lanes = jax.vmap(lambda k: loop.start(estimator, k, data))(keys)
        return lanes._replace(state=settled(lanes))  # the state: (num, ...) every restart

    def step(key, lanes, batch):
        def one(key, lane):
            new, info = loop.attempt(estimator, key, lane, batch)
            state = loop.select(new.diverged | lane.converged, lane.state, new.state)
            # One that has converged repeats its last step; one that diverged tells nothing.
            info = {k: jnp.where(new.diverged, jnp.nan, v) for k, v in info.items()}
            return new._replace(state=state), info

        lanes, info = jax.vmap(one)(jax.random.split(key, num), lanes)
        lanes = lanes._replace(state=settled(lanes))
        return lanes, {k: jnp.nanmean(v) for k, v in info.items()}

    def finish(key, lanes, data):
        def one(key, lane):
            lane = loop.finish(estimator, key, lane, data)
            return lane, judge(estimator, score, lane.state, data)

        lanes, scores = jax.vmap(one)(jax.random.split(key, num), lanes)
        # Of restarts without a score the first that lives, never one that diverged.
        is_defined = ~jnp.isnan(scores)
        rank = jnp.where(is_defined, merit(score, scores), jnp.finfo(scores.dtype).min)
        best = jnp.argmax(jnp.where(lanes.diverged, -jnp.inf, rank))
        has_score = is_defined & ~lanes.diverged
        winner = jax.tree.map(lambda a: a[best], lanes.state)
        return Chosen(winner, jnp.where(is_defined, scores, 0), has_score, best)

    def readout(fitted, data):
        claims = estimator.readout(fitted.fitted, data)
        scores = jnp.where(fitted.has_score, fitted.scores, jnp.nan)
        diag = {
            **(claims.diag or {}),
            "score": scores[fitted.best],
            "num_without_score": jnp.sum(~fitted.has_score),
        }
        other = {**(claims.other or {}), "scores": scores}
        return claims._replace(diag=diag, other=other)

    def converged(lanes):
        return jnp.all(lanes.converged | lanes.diverged)

    return estimator._replace(
        init=init,
        step=step,
        readout=readout,
        finish=finish,
        converged=None if estimator.converged is None else converged,
        holdout=estimator.holdout or HOLDOUT,
    )


def settled(lanes: loop.Lane) -> PyTree:
    """The states, with zeros for the NaN of lanes that have diverged, unless all have.

    A NaN in the state is how the fit learns that it has diverged.
    """
    hidden = lanes.diverged & ~jnp.all(lanes.diverged)  # (num,)

    def known(a):
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            return a
        which = hidden.reshape(hidden.shape + (1,) * (a.ndim - 1))
        return jnp.where(which & jnp.isnan(a), 0, a)

    return jax.tree.map(known, lanes.state)


def judge(estimator: Estimator, score: Callable, fitted: PyTree, data: Data) -> Array:
    """The score of a fitted estimator on the rows held out, () float32."""
    held = data.held
    value = jnp.asarray(score(estimator.readout(fitted, held), Sample(held, Truth())))
    if value.shape:
        raise ValueError(
            f"expected score to return a scalar, got shape {value.shape}: return its mean"
        )
    return value.astype(jnp.float32)


class Best(NamedTuple):
    """State of ``best_checkpoint``."""

    current: PyTree
    best: PyTree
    score: Array  # () of best
    has_score: Array  # () bool: False while no look had one
    step: Array  # () int32


class Kept(NamedTuple):
    """What ``best_checkpoint`` has fitted."""

    fitted: PyTree
    score: Array  # (); -inf where no look had one


def best_checkpoint(
    estimator: Estimator, score: Callable[[Readout, Sample], Array], every: int
) -> Estimator:
    """Keeps the state with the best held-out score, looked at each ``every`` steps.

    score as in ``restarts``. The last state competes too, and is kept where no score is
    defined. A look finishes the state and scores what would be read out, so that a costly
    ``finish`` is paid at every look, and at every step where replicas are vmapped: where
    the score can do without the second stage, write
    ``then(best_checkpoint(representation, ...), postprocess)``. Costs a second state in
    memory.
    """
    check_options("best_checkpoint", at_least_one={"every": every})

    def look(key, state, data):
        fitted = estimator.finish(key, state.current, data)
        value = judge(estimator, score, fitted, data)
        is_defined = ~jnp.isnan(value)
        better = is_defined & (merit(score, value) > merit(score, state.score))
        better |= is_defined & ~state.has_score
        return state._replace(
            best=loop.select(better | ~state.has_score, state.current, state.best),
            score=jnp.where(better, value, state.score),
            has_score=state.has_score | is_defined,
        )

    def init(key, data):
        state = estimator.init(key, data)
        zero = jnp.zeros((), jnp.float32)
        return Best(state, state, zero, zero > 0, jnp.zeros((), jnp.int32))

    def step(key, state, batch):
        key_step, key_look = jax.random.split(key)
        current, info = estimator.step(key_step, state.current, batch)
        state = state._replace(current=current, step=state.step + 1)
        due = state.step % every == 0
        state = jax.lax.cond(due, lambda s: look(key_look, s, batch), lambda s: s, state)
        return state, info

    def finish(key, state, data):
        state = look(key, state, data)
        # Not NaN, which would mark the fit as diverged, where no look had a score.
        value = jnp.where(state.has_score, state.score, -jnp.inf)
        return Kept(estimator.finish(key, state.best, data), value)

    def readout(fitted, data):
        claims = estimator.readout(fitted.fitted, data)
        return claims._replace(diag={**(claims.diag or {}), "score": fitted.score})

    def converged(state):
        return estimator.converged(state.current)

    return estimator._replace(
        init=init,
        step=step,
        readout=readout,
        finish=finish,
        converged=None if estimator.converged is None else converged,
        holdout=estimator.holdout or HOLDOUT,
    )


class Confidence(NamedTuple):
    """What ``edge_confidence`` has fitted: the estimator on all rows, and its replicates."""

    fitted: PyTree
    edge_prob: Array  # (d, d) share of the replicates that have an edge
    num_lost: Array  # () int32 replicates that diverged, which do not count


def edge_confidence(
    estimator: Estimator, num: int = 100, at_once: int | None = None
) -> Estimator:
    """How often a learner of graphs finds each edge, over resampled rows.

    ``num`` whole fits in ``finish``, one compiled program, each to as many rows of each
    environment, drawn with replacement; edge_prob[i, j] is the share of them whose graph has
    i -> j (Friedman, Goldszmidt and Wyner, UAI 1999). All other claims are those of the
    estimator on all rows, bit for bit. diag num_lost: replicates that diverged; where all
    have, edge_prob is NaN.

    at_once: replicates that are fitted side by side, vmapped, with the memory of all; None:
    every one on an accelerator, one after another on a CPU, which is faster there unless
    what a step works on is small, as for learners of moments alone (``notears``).

    edge_prob says how stable an edge is under the sampling of rows. That is no probability
    that it is true: a learner whose assumptions fail errs with confidence. Rows must be
    independent within environments; a resample holds each about 63 % of them, and copies, on
    which errors of leaving rows out (``nogam``) look too small.

    Raises ValueError for an estimator that claims no graph, and for rows of a series, which
    bring aux['time'].
    """
    at_least = {"num": num} if at_once is None else {"num": num, "at_once": at_once}
    check_options("edge_confidence", at_least_one=at_least)

    def replicate(key, data):
        key_rows, key_fit = jax.random.split(key)
        data = resample(key_rows, data)
        lane = loop.run(estimator, key_fit, data)
        graph = estimator.readout(lane.state, data._replace(held=None)).graph
        if graph is None:
            raise ValueError(
                "expected an estimator that claims a graph, got none: edge_confidence counts "
                "its edges over resampled rows"
            )
        return graph > 0, lane.diverged

    def finish(key, state, data):
        keys = jax.random.split(jax.random.fold_in(key, num), num)
        has_edge, is_lost = _map(lambda key: replicate(key, data), keys, at_once)
        found = jnp.sum(has_edge & ~is_lost[:, None, None], 0).astype(data.x.dtype)
        num_lost = jnp.sum(is_lost).astype(jnp.int32)
        fitted = estimator.finish(key, state, data)
        return Confidence(fitted, found / (num - num_lost).astype(found.dtype), num_lost)

    def readout(fitted, data):
        claims = estimator.readout(fitted.fitted, data)
        diag = {**(claims.diag or {}), "num_lost": fitted.num_lost}
        return claims._replace(edge_prob=fitted.edge_prob, diag=diag)

    def validate(data):
        if "time" in data.aux:
            raise ValueError(
                "edge_confidence needs independent rows, got aux['time']: to draw the rows "
                "of a series anew breaks it up"
            )
        estimator.validate(data)

    return estimator._replace(finish=finish, readout=readout, validate=validate)


def _map(fn: Callable, keys: Array, at_once: int | None) -> PyTree:
    """``fn`` of each key, stacked: so many side by side, or as suits the platform."""
    if at_once is not None:
        return jax.lax.map(fn, keys, batch_size=at_once)
    return jax.lax.platform_dependent(
        keys, cpu=lambda keys: jax.lax.map(fn, keys), default=jax.vmap(fn)
    )
