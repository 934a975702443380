"""Over two devices each does its share: of every estimator that has a batch size."""

import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent
# Draws rows by itself, for which every device needs them all.
DRAWS_ITS_OWN = """
import jax
from toys import regression
from crl.testing import estimators, tasks

inner = regression(5)

def step(key, state, batch):
    order = jax.random.permutation(key, len(batch.x))
    return inner.step(key, state, batch._replace(x=batch.x[order]))

def caught(estimator):
    try:
        estimators.splits_its_work(estimators.Trial(estimator, tasks.sources_task()))
    except AssertionError as error:
        return "multiplies all" in str(error)

batched = inner._replace(batch_size=64)
assert not caught(batched) and caught(batched._replace(step=step))
"""


def on_two_devices(*command):
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, *command],
        cwd=FOLDER.parents[1],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": "tests:."},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.slow
def test_all_of_ours_do():
    options = ["-q", "-m", "slow", "-k", "splits_its_work", "-p", "no:cacheprovider"]
    assert " passed" in on_two_devices("-m", "pytest", *options, str(FOLDER))


def test_a_step_that_draws_its_own_rows_does_not():
    on_two_devices("-c", DRAWS_ITS_OWN)
