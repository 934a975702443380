"""The long lane: sweeps that are killed, spread over a cluster, or over processes."""

import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time

import pytest

from crl.bench.run import runner, suite
from crl.bench.run.store import Store, StoreError

pytestmark = pytest.mark.slow
HERE = pathlib.Path(__file__).parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)]),
}
NUM_KILLS = 20
SWEEP = """
from bench_tiny import corr, oja, paused_pca, rotated
from crl.bench.run.suite import spec

def get_config():
    task = dict(
        dgp=spec(rotated, num_latents=3),
        num_train=64,
        num_test=32,
        metrics=[corr],
        estimators={
            # Enough steps for checkpoints inside the fit.
            "long": spec(oja, num_steps=10_500),
            "oja": spec(oja, sweep={"lr": [0.1, 0.3]}),
            "paused": spec(paused_pca),
        },
        worlds=30,
        fits=1,
    )
    return dict(suite="sweep", tasks=dict(rotated=task))
"""


@pytest.fixture
def sweep(tmp_path):
    path = tmp_path / "sweep_suite.py"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def undisturbed(sweep, tmp_path):
    reference = runner.Runner(suite.load(str(sweep)), Store(tmp_path / "reference"))
    assert runner.run(reference, bar=False).failed == 0
    return numbers(reference.store)


def numbers(store):
    found = store.content()
    assert found.problems == []
    return {key: (r.result.status, r.result.metrics) for key, r in found.records.items()}


def start(sweep, workdir, *options, pause=0.0):
    return subprocess.Popen(
        [sys.executable, "-m", "crl.bench.cli", "run", str(sweep), "--workdir", str(workdir)]
        + list(options),
        env={**ENVIRONMENT, "CRL_TEST_PAUSE": str(pause)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def written(workdir):
    return {f.name: f.stat().st_mtime_ns for f in workdir.glob("cells/*/*.json")}


def test_sweep_killed_20_times_equals_an_undisturbed_one(sweep, undisturbed, tmp_path):
    """120 cells; SIGKILL at seeded times from the first look at the folder on."""
    workdir, times, seen, counts = tmp_path / "killed", random.Random(0), {}, []
    for _ in range(NUM_KILLS):
        # 90 s of pauses outlast the 60 s between the kills, however fast the machine.
        process = start(sweep, workdir, pause=3.0)
        for line in process.stdout:
            if line.startswith("results in"):
                break
        time.sleep(times.uniform(0, 6))
        assert process.poll() is None, "the sweep ended before it was killed often enough"
        process.kill()
        process.communicate()
        now = written(workdir)
        assert seen.items() <= now.items(), "a finished cell was lost or written again"
        seen = now
        counts.append(len(seen))
    assert 0 < counts[-1] < 120 and len(set(counts)) > 3, counts
    output, _ = start(sweep, workdir).communicate(timeout=600)
    assert "120 cells: 120 ok\n" in output, output
    assert seen.items() <= written(workdir).items()
    assert numbers(Store(workdir)) == undisturbed
    assert not any((workdir / "fits").glob("*")), "checkpoints of finished fits must go"


@pytest.mark.filterwarnings("default")
def test_dask_cluster_loses_no_cell_when_a_worker_is_killed(
    sweep, undisturbed, tmp_path, monkeypatch
):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    monkeypatch.setenv("CRL_TEST_PAUSE", "0.3")
    store = Store(tmp_path / "dask")
    killed = []

    def kill_one(cluster):
        while len(written(store.root)) < 8:
            time.sleep(0.1)
        killed.append(cluster.workers[0].pid)
        os.kill(killed[0], 9)

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        thread = threading.Thread(target=kill_one, args=(cluster,), daemon=True)
        thread.start()
        job = runner.Runner(suite.load(str(sweep)), store)
        summary = runner.run_on_dask(job, cluster.scheduler_address)
        thread.join(10)
    assert killed and summary.failed == 0
    assert numbers(store) == undisturbed


@pytest.mark.filterwarnings("default")
def test_dask_cluster_that_cannot_write_is_said_at_once(sweep, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    (tmp_path / "cells").write_text("in the way")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        job = runner.Runner(suite.load(str(sweep)), Store(tmp_path))
        with pytest.raises(StoreError, match="cannot write"):
            runner.run_on_dask(job, cluster.scheduler_address)


def test_two_processes_give_the_numbers_of_one(tiny_runner, tmp_path):
    """jax.distributed over two local processes: the fits of a batch are shared."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    code = (
        "import sys, jax; from crl.bench import cli\n"
        f"jax.distributed.initialize({address!r}, 2, int(sys.argv[1]))\n"
        f"sys.exit(cli.main(['run', {str(HERE / 'tiny_suite.py')!r}, '--workdir', "
        f"{str(tmp_path)!r}]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(i)],
            **{"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        )
        for i in range(2)
    ]
    outputs = [p.communicate(timeout=300)[0].decode() for p in processes]
    assert [p.returncode for p in processes] == [1, 1], outputs  # the tiny suite has failures
    ours, expected = numbers(Store(tmp_path)), numbers(tiny_runner.store)
    assert set(ours) == set(expected)
    for key, (status, metrics) in ours.items():
        assert status == expected[key][0]
        assert json.dumps(metrics) == json.dumps(expected[key][1])


def test_shards_in_processes_of_their_own_fill_one_folder(sweep, undisturbed, tmp_path):
    workdir = tmp_path / "sharded"
    processes = [start(sweep, workdir, "--shard", f"{i}/3") for i in range(3)]
    for process in processes:
        process.communicate(timeout=600)
    assert numbers(Store(workdir)) == undisturbed
