"""A file larger than memory: small in memory, exact after kills, the same on eight devices."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from crl.core import Readout
from crl.dgp.superposition import superposition
from crl.files import write_rows
from crl.metrics.dictionaries import dictionary_mcc

HERE = pathlib.Path(__file__).parent


def start(folder, out, checkpoint="", devices=1, **options):
    """The program in a process that sees so many host devices."""
    return subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error",
            str(HERE / "fit_from_files.py"),
            str(folder),
            str(out),
            str(checkpoint),
            json.dumps(options),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(HERE.parents[1]),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
    )


def fitted(child, out):
    """The leaves of the fitted state, and the peak of resident memory in bytes."""
    peak, _ = child.communicate(timeout=1500)
    assert child.returncode == 0
    sys.stderr.write(f"peak {int(peak) / 1e6:.0f} MB\n")
    with np.load(out) as leaves:
        return [leaves[name] for name in leaves], int(peak)


def kill_after_steps(child, checkpoint, num_steps):
    """SIGKILL once the checkpoint holds so many steps."""
    while child.poll() is None:
        saved = [int(p.name) for p in checkpoint.glob("*") if p.name.isdigit()]
        if max(saved, default=0) >= num_steps:
            child.kill()
            child.communicate()
            return max(saved)
        time.sleep(0.05)
    raise AssertionError("the fit ended before it was killed")


def write_world(folder, num_dims, num_atoms, k, num_rows):
    """Rows of a dictionary in superposition, in half precision; returns the truth."""
    dgp = superposition(num_dims, num_atoms, k)
    world = dgp.init(jax.random.key(0))
    sample = jax.jit(dgp.sample, static_argnums=2)

    def arrays(part=16384):
        for i in range(num_rows // part):
            yield np.asarray(sample(jax.random.key(i + 1), world, part).data.x, np.float16)

    assert write_rows(folder, arrays()) == num_rows
    return sample(jax.random.key(0), world, 2)


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / "rows"
    shutil.rmtree(tmp_path / "rows")  # 2 GB that pytest would keep


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_gigabytes_train_within_one_of_memory_and_end_alike_after_kills(folder, tmp_path):
    options = dict(num_atoms=256, k=4)
    truth = write_world(folder, num_dims=1024, **options, num_rows=2**20)
    assert sum(path.stat().st_size for path in folder.iterdir()) > 2e9

    out = tmp_path / "whole.npz"
    whole, peak = fitted(start(folder, out, **options), out)
    assert peak < 1e9
    assert dictionary_mcc(Readout(dictionary=whole[2]), truth) >= 0.99

    out, checkpoint, done = tmp_path / "killed.npz", tmp_path / "checkpoint", 0
    for _ in range(2):
        child = start(folder, out, checkpoint, **options)
        done = kill_after_steps(child, checkpoint, done + 500)
        assert not out.exists()
    resumed, peak = fitted(start(folder, out, checkpoint, **options), out)
    assert peak < 1e9
    for ours, theirs in zip(resumed, whole):
        np.testing.assert_array_equal(ours, theirs)

    out = tmp_path / "eight.npz"
    eight, _ = fitted(start(folder, out, devices=8, **options), out)
    for ours, theirs in zip(eight, whole):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
