"""Fitting as pure functions: a lane, and what starts it, takes it further and ends it.

They compose with jit, vmap and the maps of ``crl.parallel``. Step t uses ``fold_in(key, t)``,
for its batch too, so that a resumed fit equals an uninterrupted one bit for bit.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl import feed
from crl.check import check_step
from crl.core import Data, Estimator, PyTree
from crl.feed import hold_out


class Lane(NamedTuple):
    """One fit in flight: with the key and the data, all that a resumed run needs."""

    state: PyTree  # what finish made of it, after the last step
    step: Array  # () int32, steps done
    diverged: Array  # () bool: a loss was not finite, or the state holds NaN
    converged: Array  # () bool: the estimator said that further steps change nothing


def start(estimator: Estimator, key: Array, data: Data, state: PyTree | None = None) -> Lane:
    """A lane before its first step; ``state``: where to start in place of ``init``."""
    if state is None:
        state = estimator.init(jax.random.fold_in(key, 2**31 - 1), data)
    state = jax.tree.map(jnp.asarray, state)  # a Python number may stand for an array
    return Lane(state, jnp.zeros((), jnp.int32), _has_nan(state), jnp.zeros((), bool))


def attempt(
    estimator: Estimator, key: Array, lane: Lane, batch: Data
) -> tuple[Lane, dict[str, Array]]:
    """One further step, also of a lane that has stopped, and its info as floats.

    A loss that is not finite marks the lane as diverged; the step does not count. The state
    after it is of no use, and is not replaced by the one before: to keep both would cost
    passes over the state at every step. A state that turns NaN by itself is seen at the
    end of the chunk.
    """
    state, info = estimator.step(key, lane.state, batch)
    check_step(lane.state, state, info)
    info = {k: _as_float(v) for k, v in info.items()}
    diverged, converged = lane.diverged, lane.converged
    if "loss" in info:
        diverged |= ~converged & ~jnp.isfinite(info["loss"])
    has_stopped = diverged | converged
    if estimator.converged is not None:
        converged |= ~diverged & estimator.converged(state)
    step = jnp.where(has_stopped, lane.step, lane.step + 1)
    return Lane(state, step, diverged, converged), info


def advance(
    estimator: Estimator,
    key: Array,
    lane: Lane,
    source: PyTree,
    count: int | Array,
    *,
    num: int | None = None,
    batch: Callable | None = None,
) -> tuple[Lane, dict[str, Array]]:
    """``count`` further steps, fewer where the lane stops before.

    count: may be traced, at most ``num``, which is count by default. source: a Data, or
    what ``batch(key, source, i)`` makes the batch of the i-th of these steps from.
    Returns the lane and the info of each step, (num,), NaN where no step was made.
    """
    num = count if num is None else num
    batch = batch or feed.from_memory(estimator.batch_size)

    def one(i, lane):
        key_batch, key_step = jax.random.split(jax.random.fold_in(key, lane.step))
        new, info = attempt(estimator, key_step, lane, batch(key_batch, source, i))
        was_made = new.step > lane.step
        return new, {k: jnp.where(was_made, v, jnp.nan) for k, v in info.items()}

    def body(carry):
        i, lane, trace = carry
        lane, info = one(i, lane)
        return i + 1, lane, {k: v.at[i].set(info[k]) for k, v in trace.items()}

    def goes_on(carry):
        i, lane, _ = carry
        if estimator.converged is None:
            # The same for all replicas: vmapped, a loop that ends for each by itself
            # selects between two states at every step.
            return i < count
        return (i < count) & ~lane.diverged & ~lane.converged

    shapes = jax.eval_shape(one, 0, lane)[1]
    trace = {k: jnp.full((num, *v.shape), jnp.nan, v.dtype) for k, v in shapes.items()}
    first = jnp.zeros((), jnp.int32)
    _, lane, trace = jax.lax.while_loop(goes_on, body, (first, lane, trace))
    return lane._replace(diverged=lane.diverged | _has_nan(lane.state)), trace


def finish(estimator: Estimator, key: Array, lane: Lane, data: Data) -> Lane:
    """The lane after the estimator's ``finish``; a NaN there marks it diverged."""
    key = jax.random.fold_in(key, 2**31 - 2)
    state = jax.tree.map(jnp.asarray, estimator.finish(key, lane.state, data))
    return lane._replace(state=state, diverged=lane.diverged | _has_nan(state))


def run(estimator: Estimator, key: Array, data: Data) -> Lane:
    """A whole fit as one pure function, for use inside jit; no progress, no trace."""
    data = hold_out(data, estimator.holdout)
    lane = start(estimator, key, data)
    if estimator.num_steps:
        lane, _ = advance(estimator, key, lane, data, estimator.num_steps)
    return finish(estimator, key, lane, data)


def _has_nan(tree: PyTree) -> Array:
    leaves = [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return jnp.any(jnp.stack([jnp.any(jnp.isnan(a)) for a in leaves] or [jnp.zeros((), bool)]))


def _as_float(value: Array) -> Array:
    value = jnp.asarray(value)
    # Only floats can say "undefined" (NaN), which the trace needs.
    is_float = jnp.issubdtype(value.dtype, jnp.inexact)
    return value if is_float else value.astype(jnp.float32)


def select(condition: Array, if_true: PyTree, if_false: PyTree) -> PyTree:
    """``jnp.where`` on every leaf of two trees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)
