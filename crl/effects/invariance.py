"""What predictors share that pay for change between environments.

They minimise the mean risk over environments plus weight times a penalty, which sees
predictions, outcomes and environments. In the first half of the steps the weight is 1, or
what is asked for where that is less, so that a predictor is there before the penalty rules
(the schedule of the experiments of Arjovsky et al. 2019).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from crl.check import check_options
from crl.combinators import descend
from crl.core import Data, Estimator, PyTree, Readout, num_envs
from crl.effects.linear import check_column
from crl.nets.mlp import mlp
from crl.nets.net import Net
from crl.numerics.linalg import column_norms, dot


class State(NamedTuple):
    """A predictor of standardised y from standardised x, and its optimiser."""

    params: PyTree
    mean_x: Array  # (m,)
    sd_x: Array  # (m,)
    mean_y: Array  # (q,)
    sd_y: Array  # (q,)
    time: Array  # () int32, steps done
    penalty: Array  # () of all rows, at the end
    opt: optax.OptState | None  # None when fitted


def penalised(
    who: str,
    penalty: Callable[[Array, Array, Array], Array],
    weight: float,
    depth: int,
    width: int,
    num_steps: int,
    learning_rate: float,
) -> Estimator:
    """The estimator of least mean risk + weight * penalty, full batch, by Adam.

    penalty: (f, y, member) -> (), f and y (n, q) prediction and outcome in standard
    deviations of y, member (n, E) with columns that sum to 1: ``dot(member.T, a)`` are the
    means of a (n, q) in each environment. depth: hidden layers; 0: linear. learning_rate:
    falls to 0 like a cosine.

    Claims y, other 'effect' (m, q), the coefficients, where linear, and diag 'penalty'.
    """
    check_options(
        who,
        at_least_one={"1 + depth": 1 + depth, "width": width, "num_steps": num_steps},
        positive={"learning_rate": learning_rate},
        nonnegative={"weight": weight},
    )
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    def predict(params, state, x):
        return network(state, width, depth).apply(params, (x - state.mean_x) / state.sd_x)

    def init(key, data):
        x, y = data.x, data.aux["y"]
        zero = jnp.zeros((), x.dtype)
        state = State(None, *standards(x), *standards(y), jnp.zeros((), jnp.int32), zero, None)
        params = network(state, width, depth).init(key, x[:1])
        return state._replace(params=params, opt=optimizer.init(params))

    def parts(params, state, batch):
        """Mean risk and penalty, ()."""
        f, member = predict(params, state, batch.x), membership(batch)
        y = (batch.aux["y"] - state.mean_y) / state.sd_y
        return jnp.mean(risks(f, y, member)), penalty(f, y, member)

    def loss(params, state, key, batch):
        del key  # full batch
        risk, change = parts(params, state, batch)
        early = jnp.minimum(jnp.asarray(weight, risk.dtype), 1)
        w = jnp.where(2 * state.time < num_steps, early, weight)
        # In units in which neither term outgrows the steps of the optimiser.
        return (risk + w * change) / jnp.maximum(w, 1), {"risk": risk, "penalty": change}

    descent = descend(loss, optimizer)

    def step(key, state, batch):
        state, info = descent(key, state, batch)
        return state._replace(time=state.time + 1), info

    def finish(key, state, data):
        del key
        _, change = parts(state.params, state, data)
        return state._replace(penalty=change, opt=None)

    def readout(fitted, data):
        def outcome(x):
            return fitted.mean_y + fitted.sd_y * predict(fitted.params, fitted, x)

        other = None
        if depth == 0:
            m = len(fitted.mean_x)
            basis = jnp.eye(m, dtype=data.x.dtype)
            other = {"effect": outcome(basis) - outcome(0 * basis)}
        return Readout(y=outcome(data.x), other=other, diag={"penalty": fitted.penalty})

    def validate(data):
        check_column(who, data, "y")

    return Estimator(init, step, readout, num_steps, finish, validate=validate)


def network(state: State, width: int, depth: int) -> Net:
    """From (n, m) to (n, q)."""
    return mlp(len(state.mean_y), width, depth)


def membership(data: Data) -> Array:
    """(n, E): one over the rows of an environment in its rows, 0 elsewhere."""
    is_in = jax.nn.one_hot(data.env, num_envs(data), dtype=data.x.dtype)
    return is_in / jnp.maximum(jnp.sum(is_in, 0), 1)


def risks(f: Array, y: Array, member: Array) -> Array:
    """The mean square error in each environment, (E,), summed over outcomes."""
    return jnp.sum(dot(member.T, (y - f) ** 2), 1)


def standards(a: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each column of a (n, d); 1 for one that is constant."""
    norms, is_constant = column_norms(a)
    return jnp.mean(a, 0), jnp.where(is_constant, 1, norms / len(a) ** 0.5)
