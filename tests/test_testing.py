"""The conformance suite catches what it is for: planted errors that it must find."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from crl.bench.templates import ESTIMATOR
from crl.core import Estimator, Readout, Task, metric, need
from crl.metrics.graphs import shd
from crl.metrics.latents import mcc, mean_correlation
from crl.testing import check_dgp, check_metric, check_stability, estimators
from crl.testing.estimators import Trial
from crl.testing.tasks import easy_task, scm_task, sources_task

CALLS = []  # what Python keeps, and no state holds


def natural_gradient(
    rate: float = 0.2,
    *,
    first=jnp.zeros((), jnp.int32),
    moved=lambda w: w,
    encode=lambda w, x: x @ w,
    **changes,
):
    """ICA of three sources by natural gradient steps: an estimator that keeps everything."""

    def init(key, data):
        # Whitening, so that the easy task is easy.
        _, s, vt = jnp.linalg.svd(data.x - data.x.mean(0), full_matrices=False)
        w = len(data.x) ** 0.5 * vt.T[:, :3] / s[:3]
        return {"w": w @ jax.random.orthogonal(key, 3, dtype=w.dtype), "step": first}

    def step(key, state, data):
        z = data.x @ state["w"]
        gap = jnp.eye(3, dtype=z.dtype) - jnp.tanh(z).T @ z / len(z)
        w = moved(state["w"] + rate * state["w"] @ gap.T)
        return {"w": w, "step": state["step"] + jnp.int32(1)}, {"loss": jnp.sum(gap**2)}

    def readout(state, data):
        return Readout(z=encode(state["w"], data.x))

    return Estimator(init, step, readout, 100)._replace(**changes)


GOOD = natural_gradient()


def steps(change):
    """GOOD with another step: change(new state, old state, info, data) -> (state, info)."""

    def step(key, state, data):
        new, info = GOOD.step(key, state, data)
        return change(new, state, info, data)

    return GOOD._replace(step=step)


def reads(change):
    """GOOD with another readout: change(state, data) -> Readout."""
    return GOOD._replace(readout=change)


def scaled(new, factor):
    return {**new, "w": new["w"] * factor}


def remembers(new, state, info, data):
    """Counts steps on the host, where no checkpoint sees them."""

    def count():
        CALLS.append(None)
        return jnp.float32(len(CALLS))

    number = jax.pure_callback(count, jax.ShapeDtypeStruct((), jnp.float32))
    return scaled(new, 1 + 1e-3 * number), info


def counts_traces(new, state, info, data):
    CALLS.append(None)  # Python's own state: counts traces, not steps
    return scaled(new, 1 + 1e-2 * len(CALLS)), info


def told(key, data):
    """Knows the world that the conformance suite draws, whatever the data."""
    truth = Trial(GOOD, sources_task()).train.truth
    return {"w": jnp.linalg.inv(truth.mixing).T, "step": jnp.zeros((), jnp.int32)}


def branches(rate: float = 0.2):
    return natural_gradient(rate if rate > 0 else 0.2)


def forgets_the_rate(rate: float = 0.2):
    return natural_gradient(0.2 if isinstance(rate, float) else 0.05)


def learns_from_held_rows(new, state, info, data):
    return new, {"loss": info["loss"] + jnp.mean(data.held.x**2)}


def takes_one_size(new, state, info, data):
    """Works only on as many rows as the whole dataset has."""
    return scaled(new, jnp.mean(jnp.ones(512) * data.x[:, 0] ** 0)), info


def insists_on_its_loss(new, state, info, data):
    return {**new, "step": info["loss"].astype(jnp.int32)}, {"loss": info["loss"]}


PLANTED = {
    "a metric that finds no claim": (
        estimators.fits_its_task,
        reads(lambda state, data: Readout(y=data.x)),
        "mcc needs readout.z",
    ),
    "a state that grows": (
        estimators.keeps_form_and_dtype,
        steps(lambda new, state, info, data: ({**new, "extra": info["loss"]}, info)),
        "step changes the state",
    ),
    "info that is no scalar": (
        estimators.keeps_form_and_dtype,
        steps(lambda new, state, info, data: (new, {"loss": jnp.sum(new["w"], 0)})),
        "info must hold scalars",
    ),
    "a constant in the default dtype": (
        estimators.keeps_form_and_dtype,
        natural_gradient(moved=lambda w: w * jnp.linspace(1.0, 1.0, 3)),
        "step changes the state",
    ),
    "a finish in the default dtype": (
        estimators.keeps_form_and_dtype,
        GOOD._replace(finish=lambda k, state, d: scaled(state, jnp.linspace(0.5, 1.0, 3))),
        r"float32 data with x64, but fitted\['w'\] is float64",
    ),
    "a claim in the default dtype": (
        estimators.keeps_form_and_dtype,
        natural_gradient(encode=lambda w, x: x @ (w * jnp.linspace(0.5, 1.0, 3))),
        "float32 data with x64, but claims.z is float64",
    ),
    "converged as a number": (
        estimators.keeps_form_and_dtype,
        GOOD._replace(converged=lambda state: state["step"]),
        "converged must return one bool",
    ),
    "an option that Python looks at": (
        estimators.floats_may_be_traced,
        branches,
        "the option rate cannot be traced",
    ),
    "an option that means another thing when traced": (
        estimators.a_sweep_equals_a_loop,
        forgets_the_rate,
        "a sweep over options differs",
    ),
    "a claim that is noise": (
        estimators.beats_knowing_nothing,
        natural_gradient(encode=lambda w, x: 0 * x),
        "no better than knowing nothing",
    ),
    "an estimator that was told the world": (
        estimators.learns_nothing_from_noise,
        GOOD._replace(init=told, num_steps=0),
        "by another way than the data",
    ),
    "a state of other types after a step": (
        estimators.fits_the_same_twice,
        natural_gradient(first=0),  # a Python number is weakly typed, the next is not
        "traced the step",
    ),
    "a count that Python keeps": (
        estimators.fits_the_same_twice,
        steps(remembers),
        "gave another fit",
    ),
    "test rows that see one another": (
        estimators.reads_out_row_by_row,
        natural_gradient(encode=lambda w, x: x @ w / jnp.std(x @ w, axis=0)),
        "depends on the other rows",
    ),
    "no claim": (
        estimators.reads_out_row_by_row,
        reads(lambda state, data: Readout()),
        "claims nothing",
    ),
    "moments that are kept": (
        estimators.keeps_only_what_readout_reads,
        GOOD._replace(finish=lambda key, state, d: {**state, "moments": 2 * state["w"]}),
        r"no claim depends on fitted\['moments'\]",
    ),
    "state that Python keeps": (
        estimators.replicas_equal_a_loop,
        steps(counts_traces),
        "differs from a loop",
    ),
    "a count that no checkpoint holds": (
        estimators.resumed_equals_uninterrupted,
        steps(remembers),
        "after a resume another",
    ),
    "a promise that is not kept": (
        estimators.converged_means_done,
        GOOD._replace(converged=lambda state: state["step"] >= 2),
        "after convergence further steps change",
    ),
    "a step that learns from the rows held out": (
        estimators.held_rows_are_not_learnt_from,
        steps(learns_from_held_rows)._replace(holdout=0.1),
        "a step learns from the rows held out",
    ),
    "a step for one number of rows": (
        estimators.combinators_nest,
        steps(takes_one_size),
        "",
    ),
    "a step that lies about its state in a stream": (
        estimators.streams_feed_it,
        steps(takes_one_size)._replace(batch_size=64),
        "",
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_error_is_caught(case):
    holds, estimator, sentence = PLANTED[case]
    with pytest.raises((AssertionError, ValueError, TypeError), match=sentence):
        holds(Trial(estimator, sources_task()))
