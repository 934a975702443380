"""The conformance suite catches what it is for: planted errors that it must find."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.core import Estimator, Readout, Sample, metric, need
from crl.metrics.latents import mcc, mean_correlation
from crl.testing import check_dgp, check_metric, check_stability, estimators
from crl.testing.estimators import Trial
from crl.testing.tasks import easy_task, scm_task, sources_task

FIRST = np.int32(0)
CALLS = []  # what Python keeps, and no state holds


def natural_gradient(
    rate: float = 0.2,
    *,
    first=FIRST,
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
    "two draws from one key": (
        estimators.uses_no_key_twice,
        GOOD._replace(init=lambda key, d: scaled(GOOD.init(key, d), jax.random.uniform(key))),
        "a key is used twice",
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
        estimators.keeps_form_and_dtype,
        natural_gradient(first=0),  # a Python number is weakly typed, the next is not
        "step changes the state",
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
        "after convergence 3 steps change",
    ),
    "a step that learns from the rows held out": (
        estimators.held_rows_are_not_learnt_from,
        steps(learns_from_held_rows)._replace(holdout=0.1),
        "a step learns from the rows held out",
    ),
    "a step for one number of rows": (
        estimators.combinators_nest,
        steps(takes_one_size),
        None,
    ),
    "a step for rows in memory": (
        estimators.streams_feed_it,
        steps(takes_one_size)._replace(batch_size=64),
        None,
    ),
}


def test_an_answer_to_an_empty_query_that_is_not_x_is_caught():
    def readout(state, data):
        return Readout(graph=jnp.zeros((2, 2), jnp.int32), counterfactual=data.x + 1e-3)

    idle = GOOD._replace(init=lambda key, data: {"w": jnp.ones((2, 2))}, num_steps=0)
    with pytest.raises(AssertionError, match="nothing is set, yet"):
        t = Trial(idle._replace(readout=readout), scm_task())
        estimators.an_empty_query_changes_nothing(t)


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_error_is_caught(case):
    holds, estimator, sentence = PLANTED[case]
    with pytest.raises((AssertionError, ValueError, TypeError), match=sentence):
        holds(Trial(estimator, sources_task()))


def test_an_estimator_that_finds_little_is_not_accused_of_a_leak():
    """A learner of sparse graphs that returns the empty one has learnt nothing."""

    def empty(state, data):
        return Readout(graph=jnp.zeros((2, 2), jnp.int32) + (state["w"][0, 0] > jnp.inf))

    idle = GOOD._replace(init=lambda key, data: {"w": jnp.ones((2, 2))}, num_steps=0)
    t = Trial(idle._replace(readout=empty), scm_task())
    estimators.learns_nothing_from_noise(t)
    with pytest.raises(AssertionError, match="no better than knowing nothing"):
        estimators.beats_knowing_nothing(t)


def test_an_honest_estimator_passes():
    t = Trial(natural_gradient, sources_task())
    for holds in (*estimators.FAST, *estimators.SLOW):
        holds(t)


def leaky(dgp):
    def sample(key, world, n):
        data, truth = dgp.sample(key, world, n)
        return Sample(data._replace(aux={"hint": truth.z}), truth)

    return sample


def rounded(dgp):
    def sample(key, world, n):
        data, truth = dgp.sample(key, world, n)
        x = jax.lax.map(lambda row: row @ jnp.eye(3), data.x)  # inside a loop's jaxpr
        return Sample(data._replace(x=x), truth)

    return sample


def careless(dgp):
    def sample(key, world, n):
        key, key_flip = jax.random.split(key)
        data, truth = dgp.sample(key, world, n)
        flip = jax.random.bernoulli(key_flip, 0.5, data.x.shape)  # draws in the default dtype
        return Sample(data._replace(x=jnp.where(flip, data.x, -data.x)), truth)

    return sample


def repeated(dgp):
    def sample(key, world, n):
        data, truth = dgp.sample(key, world, n)
        return Sample(data._replace(x=data.x + jax.random.normal(key, data.x.shape)), truth)

    return sample


def miscounted(dgp):
    return lambda key, world, n: dgp.sample(key, world, n - 1)


@pytest.mark.parametrize("law", ["sample", "held_out"])
@pytest.mark.parametrize(
    "broken, sentence",
    [
        (leaky, r"'hint'.* equals a part of the truth"),
        (rounded, r"the precision of .*float32\[3\] and float32"),
        (repeated, "uses a key twice"),
        (careless, "x64 draws another world"),
        (miscounted, "expected 64 rows per environment"),
    ],
)
def test_a_broken_world_is_caught(broken, sentence, law):
    dgp = sources_task().dgp
    with pytest.raises(AssertionError, match=f"{law}.*{sentence}"):
        check_dgp(dgp._replace(**{law: broken(dgp), "mix": None}))


@metric(best=1.0)
def mean_of_z(claims, sample):
    return jnp.mean(need(claims, "z", "mean_of_z"))


@metric(best=1.0)
def blind(claims, sample):
    return jnp.ones(())


@metric(best=1.0)
def wide(claims, sample):
    return need(claims, "z", "wide") - sample.truth.z


@metric(best=0.0)
def never_asks(claims, sample):
    return jnp.mean((claims.z - sample.truth.z) ** 2)


@metric(best=-1.0)
def upside_down(claims, sample):
    return mcc(claims, sample)


@pytest.mark.parametrize(
    "broken, sentence",
    [
        (mean_of_z, "claims that are perfect have"),
        (upside_down, "claims that are perfect have"),
        (blind, "none worse than perfect ones"),
        (wide, "expected one scalar"),
        (never_asks, "without readout.z it raises"),
        (lambda claims, sample: jnp.ones(()), "mark it with @crl.metric"),
    ],
)
def test_a_broken_metric_is_caught(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_metric(broken)


@metric(best=1.0)
def to_the_first(claims, sample):
    """Compares all fits with the first, not all pairs."""
    z = need(claims, "z", "to_the_first")
    return jnp.mean(jax.vmap(lambda other: mean_correlation(z[0], other))(z))


@metric(best=1.0)
def spread(claims, sample):
    return jnp.std(need(claims, "z", "spread"))


@pytest.mark.parametrize(
    "broken, sentence",
    [
        (to_the_first, "the fits in order"),
        (blind, "none worse than perfect ones"),
        (spread, "claims that are perfect have"),
    ],
)
def test_a_broken_stability_metric_is_caught(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_stability(broken)


def test_no_easy_task_is_said_with_the_reasons():
    nothing = reads(lambda state, data: Readout(y=data.x))
    with pytest.raises(ValueError, match=r"no easy task fits .*: metric mcc needs"):
        easy_task(nothing)


def test_pytest_checks_an_estimator_from_outside(tmp_path):
    """``pytest --estimator`` passes what new-estimator writes there, fails a broken one."""
    package = pathlib.Path(estimators.__file__).parents[1]
    template = (package / "bench" / "templates" / "my_ica.py").read_text()
    (tmp_path / "my_ica.py").write_text(template)
    broken = template.replace("my_ica", "bad_ica").replace("Readout(z=", "Readout(z=0 * ")
    (tmp_path / "bad_ica.py").write_text(broken)

    # Unlike ``python -m pytest``, the command leaves the folder out of sys.path.
    pytest_command = pathlib.Path(sys.executable).with_name("pytest")

    def run(*arguments):
        return subprocess.run(
            [pytest_command, "-q", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(package.parent)},  # crl itself, if from there
            capture_output=True,
            text=True,
            timeout=300,
        )

    good = run(
        "--estimator", "my_ica:my_ica(num_latents=3)", "-k", "beats or traced or fits_the_same"
    )
    assert good.returncode == 0 and "3 passed" in good.stdout, good.stdout[-3000:]
    bad = run("--estimator", "bad_ica:bad_ica(num_latents=3)", "-k", "beats")
    assert bad.returncode == 1 and "no better than knowing" in bad.stdout, bad.stdout[-3000:]
