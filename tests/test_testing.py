"""The conformance suite catches what it is for: planted errors that it must find."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from crl import testing, testing_properties
from crl.bench.templates import ESTIMATOR
from crl.core import Data, Estimator, Readout, Sample, need
from crl.metrics.latents import mean_correlation

KEY = jax.random.key(0)


def init(key, data):
    w = jax.random.normal(key, (data.x.shape[1], 3), data.x.dtype)
    return {"w": w, "step": jnp.zeros((), jnp.int32)}


def step(key, state, data):
    gradient = data.x.T @ jnp.tanh(data.x @ state["w"]) / data.x.shape[0]
    w = state["w"] - 0.1 * gradient
    return {"w": w, "step": state["step"] + 1}, {"loss": jnp.sum(gradient**2)}


def readout(state, data):
    return Readout(z=data.x @ state["w"])


GOOD = Estimator(init, step, readout, 20)
calls = []


def grows(key, state, data):
    new, info = step(key, state, data)
    return {**new, "extra": info["loss"]}, info


def hidden_count(key, state, data):
    calls.append(None)  # Python's own state: counts traces, not steps
    new, info = step(key, state, data)
    return {**new, "w": new["w"] * (1 + 1e-2 * len(calls))}, info


def standardises_test_rows(state, data):
    z = data.x @ state["w"]
    return Readout(z=z / jnp.std(z, axis=0))


def promotes(key, state, data):
    new, info = step(key, state, data)
    return {**new, "w": new["w"] * jnp.linspace(0.5, 1.0, 3)}, info


def vector_info(key, state, data):
    new, _ = step(key, state, data)
    return new, {"loss": jnp.sum(new["w"], axis=0)}


def weak_init(key, data):
    # A Python number is weakly typed, what ``strong_step`` makes of it is not.
    return {**init(key, data), "step": 0}


def strong_step(key, state, data):
    new, info = step(key, state, data)
    return {**new, "step": state["step"] + jnp.int32(1)}, info


def remembers(key, state, data):
    """Counts steps on the host, where no checkpoint sees them."""

    def count():
        calls.append(None)
        return jnp.float32(len(calls))

    new, info = step(key, state, data)
    count = jax.pure_callback(count, jax.ShapeDtypeStruct((), jnp.float32))
    return {**new, "w": new["w"] * (1 + 1e-3 * count)}, info


def told(key, data):
    """Knows the world that the conformance suite draws, whatever the data."""
    world_key, _, _ = jax.random.split(jax.random.key(0), 3)
    dgp = testing.sources_task().dgp
    mixing = dgp.sample(key, dgp.init(world_key), 1).truth.mixing
    return {**init(key, data), "w": jnp.linalg.inv(mixing).T}


BROKEN = {
    "a state of other types after a step": (
        testing_properties.second_call_does_not_retrace,
        GOOD._replace(init=weak_init, step=strong_step),
        "traced the step",
    ),
    "a count that no checkpoint holds": (
        testing_properties.resumed_equals_uninterrupted,
        GOOD._replace(step=remembers),
        "differs after a resume",
    ),
    "an estimator that was told the world": (
        testing_properties.learns_nothing_from_noise,
        Estimator(told, step, readout, 0),
        "by another way than the data",
    ),
    "a state that grows": (
        testing_properties.state_structure_is_constant,
        GOOD._replace(step=grows),
        "step changes the state",
    ),
    "info that is no scalar": (
        testing_properties.state_structure_is_constant,
        GOOD._replace(step=vector_info),
        "info must hold scalars",
    ),
    "test rows that see one another": (
        testing_properties.reads_out_held_out_rows,
        GOOD._replace(readout=standardises_test_rows),
        "depends on the other rows",
    ),
    "no claim": (
        testing_properties.reads_out_held_out_rows,
        GOOD._replace(readout=lambda state, data: Readout()),
        "claims nothing",
    ),
    "a constant in the default dtype": (
        testing_properties.keeps_dtype,
        GOOD._replace(step=promotes),
        "with x64, step changes the state",
    ),
    "a finish in the default dtype": (
        testing_properties.keeps_dtype,
        GOOD._replace(finish=lambda k, s, d: {**s, "w": s["w"] * jnp.linspace(0.5, 1.0, 3)}),
        "with x64, finish changes the state",
    ),
    "a claim in the default dtype": (
        testing_properties.keeps_dtype,
        GOOD._replace(
            readout=lambda s, d: Readout(z=d.x @ jnp.linspace(0, 1, 9).reshape(3, 3))
        ),
        "float32 data, but readout.z is float64",
    ),
    "state that Python keeps": (
        testing_properties.replicas_equal_a_loop,
        GOOD._replace(step=hidden_count),
        "differs from a loop",
    ),
    "a claim that is noise": (
        testing_properties.beats_random_claims,
        GOOD._replace(readout=lambda s, d: Readout(z=0 * d.x)),
        "no better than random",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_planted_error_is_caught(case):
    holds, estimator, sentence = BROKEN[case]
    with pytest.raises(AssertionError, match=sentence):
        holds(testing_properties.trial(estimator, testing.sources_task()))


def test_a_world_that_hands_out_its_truth_is_caught():
    dgp = testing.DGPS["standardized"]()

    def sample(key, world, n):
        data, truth = dgp.sample(key, world, n)
        return data._replace(aux={"hint": truth.z}), truth

    def leaky(key, world, n):
        return dgp.sample(key, world, n)._replace(data=sample(key, world, n)[0])

    with pytest.raises(AssertionError, match=r"'hint'.* equals a part of the truth"):
        testing.check_dgp(dgp._replace(sample=leaky))


def test_a_world_that_an_accelerator_would_round_is_caught():
    dgp = testing.sources_task().dgp

    def rounded(key, world, n):
        data, truth = dgp.sample(key, world, n)
        x = jax.lax.map(lambda row: row @ jnp.eye(3), data.x)  # inside a loop's jaxpr
        return Sample(data._replace(x=x), truth)

    with pytest.raises(AssertionError, match=r"the precision of .*float32\[3\] and float32"):
        testing.check_dgp(dgp._replace(sample=rounded))


def test_a_world_that_depends_on_x64_is_caught():
    dgp = testing.DGPS["standardized"]()

    def sample(key, world, n):
        data, truth = dgp.sample(key, world, n)
        flip = jax.random.bernoulli(key, 0.5, data.x.shape)  # draws in the default dtype
        return (Data(jnp.where(flip, data.x, -data.x), data.env, {}), truth)

    def careless(key, world, n):
        data, truth = sample(key, world, n)
        return dgp.sample(key, world, n)._replace(data=data, truth=truth)

    with pytest.raises(AssertionError, match="x64 draws another world"):
        testing.check_dgp(dgp._replace(sample=careless, mix=None))


@pytest.mark.parametrize(
    "metric, sentence",
    [
        (lambda readout, truth: jnp.mean(readout.z), "perfect readout"),
        (lambda readout, truth: jnp.ones(()), "random claims score"),
        (lambda readout, truth: need(readout, "z", "wide") - truth.z, "expected a scalar"),
    ],
    ids=["not best when perfect", "blind", "not a scalar"],
)
def test_a_broken_metric_is_caught(metric, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_metric(metric, ("z",), 1.0)


def to_the_first(readouts):
    """Compares all fits with the first, not all pairs."""
    z = need(readouts, "z", "to_the_first")
    return jnp.mean(jax.vmap(lambda other: mean_correlation(z[0], other))(z))


@pytest.mark.parametrize(
    "metric, sentence",
    [
        (to_the_first, "the fits in order"),
        (lambda readouts: jnp.ones(()), "unrelated fits score"),
        (lambda readouts: jnp.std(readouts.z), "fits that agree"),
    ],
    ids=["depends on order", "blind", "not best when equal"],
)
def test_a_broken_stability_metric_is_caught(metric, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_stability(metric, ("z",), 1.0)


def test_no_easy_task_is_said_with_the_reasons():
    nothing = GOOD._replace(readout=lambda state, data: Readout(y=data.x))
    with pytest.raises(ValueError, match=r"no easy task fits .*: metric mcc needs"):
        testing.easy_task(nothing)


def test_pytest_checks_an_estimator_from_outside(tmp_path):
    """``pytest --estimator`` passes what new-estimator writes there, fails a broken one."""
    (tmp_path / "my_ica.py").write_text(ESTIMATOR.replace("NAME", "my_ica"))
    broken = ESTIMATOR.replace("NAME", "bad_ica").replace("Readout(z=", "Readout(z=0 * ")
    (tmp_path / "bad_ica.py").write_text(broken)

    # Unlike ``python -m pytest``, the command leaves the folder out of sys.path.
    pytest_command = pathlib.Path(sys.executable).with_name("pytest")
    package = pathlib.Path(testing.__file__).parent

    def run(*arguments):
        return subprocess.run(
            [pytest_command, "-q", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(package.parent)},  # crl itself, if from there
            capture_output=True,
            text=True,
            timeout=300,
        )

    good = run("--estimator", "my_ica:my_ica(num_latents=3)")
    assert good.returncode == 0 and "9 passed" in good.stdout, good.stdout[-3000:]
    bad = run("--estimator", "bad_ica:bad_ica(num_latents=3)", "-k", "beats")
    assert bad.returncode == 1 and "no better than random" in bad.stdout, bad.stdout[-3000:]
