import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from crl.bench import lanes, runner, suite
from crl.bench.store import Store, StoreError


def cells_of(store, **fields):
    found = store.content()
    assert found.problems == []
    return {
        (r["task"], r["estimator"], r["world"], r["fit"]): r
        for r in found.records.values()
        if all(r[k] == v for k, v in fields.items())
    }


def numbers(store):
    """What a sweep is for: statuses and metrics, without the times."""
    return {k: (r["status"], r["metrics"]) for k, r in cells_of(store).items()}


def smaller(tiny_suite, *estimators, **fields):
    task = tiny_suite.tasks["rotated"]
    own = {e: task.estimators[e] for e in estimators}
    return suite.Suite("small", {"rotated": task._replace(estimators=own, **fields)})


def test_every_cell_of_the_plan_has_one_record(tiny_runner):
    plan, records = tiny_runner.plan()["cells"], tiny_runner.store.content().records
    assert len(plan) == 5 * 3 * 3 and {key for key, *_ in plan} == set(records)


def test_estimator_and_peer_are_scored_on_the_same_worlds(tiny_runner):
    ours = cells_of(tiny_runner.store, task="rotated", estimator="oja")
    peer = cells_of(tiny_runner.store, task="rotated", estimator="pca")
    for (_, _, world, fit), record in ours.items():
        other = peer["rotated", "pca", world, fit]
        assert record["status"] == other["status"] == "ok"
        # Measured: both find the components, 0.981 to 0.999 on these three worlds.
        (name, value), *_ = record["metrics"].items()
        assert value > 0.97 and abs(value - other["metrics"][name]) < 0.02
        assert other["peer"] and "peer" not in record


def test_scores_equal_those_of_a_loop_by_hand(tiny_runner, tiny_suite):
    """The sweep's number is crl.fit on the world of that key, held-out rows scored."""
    import jax

    from crl import core, train
    from crl.bench.suite import stable_hash

    config = tiny_suite.tasks["rotated"]
    dgp, estimator = suite.build(config.dgp), suite.build(config.estimators["oja"])
    key = lanes.world_key(stable_hash(config.dgp), 2)
    init_key, sample_key = jax.random.split(key)
    sample = dgp.sample(sample_key, dgp.init(init_key), 96)
    fitted, held_out = core.split(sample, 96, 64)
    fit_key = jax.random.fold_in(jax.random.fold_in(key, stable_hash("fit")), 1)
    fit = train.fit(estimator, fit_key, fitted.data)
    readout = train.readout(estimator, fit.state, held_out.data)
    score = suite.build("bench_tiny:corr")(readout, held_out.truth)["mean"]
    record = cells_of(tiny_runner.store)["rotated", "oja", 2, 1]
    assert record["metrics"]["corr.mean"] == pytest.approx(float(score), abs=1e-5)


def test_diverged_lane_is_marked_and_its_neighbours_are_not(tiny_runner):
    # Started below 0.5 in its first entry, a fit turns to NaN: about 38 % of them.
    found = cells_of(tiny_runner.store, task="rotated", estimator="diverging")
    fits = {k: r for k, r in found.items() if k[3] is not None}
    bad = {k for k, r in fits.items() if r["status"] == "diverged"}
    assert 0 < len(bad) < len(fits)
    for key, record in fits.items():
        assert (record["metrics"]["corr.mean"] is None) == (key in bad)
    for world in range(3):
        both = all(("rotated", "diverging", world, f) not in bad for f in (0, 1))
        stability = found["rotated", "diverging", world, None]
        assert stability["status"] == ("ok" if both else "diverged")


def test_undefined_metric_is_null_beside_the_defined_one(tiny_runner):
    record = cells_of(tiny_runner.store)["rotated", "oja", 0, 0]
    assert record["metrics"]["corr.undefined"] is None
    assert np.isfinite(record["metrics"]["corr.mean"])


def test_misfit_fails_alone_and_says_why(tiny_runner):
    for record in cells_of(tiny_runner.store, task="unfit").values():
        assert record["status"] == "failed" and "Traceback" in record["traceback"]
        assert record["error"].startswith("MissingClaim: metric shd needs readout.graph")
    for record in cells_of(tiny_runner.store, estimator="broken").values():
        assert record["error"] == "RuntimeError: <b>peer</b> fell over"


def test_record_says_what_made_it(tiny_runner):
    record = cells_of(tiny_runner.store)["rotated", "oja", 0, 0]
    made_by = record["made_by"]
    assert made_by["versions"]["jax"] and made_by["device"] == "cpu"
    assert record["seconds"]["cells"] == 9 and record["peak_bytes"] > 2**20
    assert record["config"]["estimator"] == {"factory": "bench_tiny:oja"}
    assert record["diag"] == {"effective_rank": 3.0}
    assert record["trace"]["step"] == list(range(20))
    latents = np.array(record["pictures"]["latents"]["|corr|"])
    assert latents.shape == (3, 3) and (np.diag(latents) > 0.9).all()
    host = os.uname().nodename
    assert host not in json.dumps(record)


def test_resumed_sweep_equals_an_uninterrupted_one(tiny_suite, tiny_results, tiny_runner):
    store = Store(tiny_results)
    for key in sorted(store.content().records)[::2]:
        store.path(key).unlink()
    again = runner.Runner(tiny_suite, store)
    missing = sum(len(again.pending(batch)) for batch in again.batches())
    assert runner.run(again, progress=False).computed == missing == 23
    assert numbers(store) == numbers(tiny_runner.store)
    assert runner.run(again, progress=False).computed == 0


def test_metrics_are_kept_in_the_order_of_the_task(tiny_suite, tmp_path):
    corr = {name: "bench_tiny:corr" for name in ("second", "a_third", "a")}
    one = smaller(tiny_suite, "pca", stability={}, fits=1, worlds=1, metrics=corr)
    job = runner.Runner(one, Store(tmp_path))
    runner.run(job, progress=False)
    (record,) = cells_of(job.store).values()
    names = [name for name in record["metrics"] if name.endswith("mean")]
    assert names == ["second.mean", "a_third.mean", "a.mean"]


def test_retry_failed_computes_only_what_failed(tiny_suite, tiny_results):
    again = runner.Runner(tiny_suite, Store(tiny_results), retry_failed=True)
    summary = runner.run(again, progress=False)
    failed = sum(status != "ok" for status, _ in numbers(again.store).values())
    assert summary.computed == failed and summary.failed == 9 + 9


def test_shards_together_equal_the_whole(tiny_suite, tiny_runner, tmp_path):
    counts = []
    for i in range(3):
        part = runner.Runner(tiny_suite, Store(tmp_path))
        counts.append(runner.run(part, shard=(i, 3), progress=False).computed)
    assert numbers(part.store) == numbers(tiny_runner.store)
    assert min(counts) > 0 and sum(counts) == 45


def test_numbers_do_not_depend_on_batch_size_or_backend(
    tiny_suite, tiny_runner, tmp_path, monkeypatch
):
    one = smaller(tiny_suite, "oja")
    expected = {
        k: v for k, v in numbers(tiny_runner.store).items() if k[:2] == ("rotated", "oja")
    }
    for name, size, backend in [("single", 1, "shard_map"), ("vmapped", 8, "vmap")]:
        monkeypatch.setitem(runner.LANES, "cpu", size)
        other = runner.Runner(one, Store(tmp_path / name), backend=backend)
        runner.run(other, progress=False)
        for key, (status, metrics) in numbers(other.store).items():
            assert status == expected[key][0]
            for metric, value in metrics.items():
                # float32 sums in another order
                assert value == pytest.approx(expected[key][1][metric], abs=2e-5)


def test_two_runs_into_one_folder_share_the_work(tiny_suite, tiny_runner, tmp_path):
    runners = [runner.Runner(tiny_suite, Store(tmp_path)) for _ in range(2)]
    summaries = [None, None]

    def work(i):
        summaries[i] = runner.run(runners[i], progress=False)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(Store(tmp_path)) == numbers(tiny_runner.store)
    assert sum(s.computed for s in summaries) == 45  # nothing twice


def test_invalid_data_fails_its_world_only(tiny_suite, tmp_path, monkeypatch):
    one = smaller(tiny_suite, "oja", stability={}, fits=1)
    picky = runner.Runner(one, Store(tmp_path))
    estimator = picky.build("rotated", "oja")
    calls = []

    def validate(data):
        calls.append(data)
        if len(calls) == 2:
            raise ValueError("expected rank 3, got 2: drop a column")

    monkeypatch.setattr(picky, "build", lambda *_: estimator._replace(validate=validate))
    runner.run(picky, progress=False)
    states = {k[2]: status for k, (status, _) in numbers(picky.store).items()}
    assert states == {0: "ok", 1: "failed", 2: "ok"}


def test_comparison_that_fails_costs_no_fit(tiny_suite, tiny_runner, tmp_path, monkeypatch):
    def raises(readouts):
        raise ValueError("no two fits alike")

    job = runner.Runner(smaller(tiny_suite, "oja"), Store(tmp_path))
    problem = job.problem("rotated")._replace(compare=raises)
    monkeypatch.setattr(job, "problem", lambda task: problem)
    runner.run(job, progress=False)
    found, expected = numbers(job.store), numbers(tiny_runner.store)
    for key, value in found.items():
        assert value == expected[key] if key[3] is not None else value[0] == "failed"
    assert len(found) == 9


def test_long_fits_are_checkpointed_and_leave_nothing(
    tiny_suite, tiny_runner, tmp_path, monkeypatch
):
    monkeypatch.setattr(lanes, "CHECKPOINT_AFTER", 5)
    folders = []

    def watch(estimator, keys, data, *, checkpoint, **options):
        folders.append(checkpoint)
        return fit_replicas(estimator, keys, data, checkpoint=checkpoint, **options)

    fit_replicas = lanes.fit_replicas
    monkeypatch.setattr(lanes, "fit_replicas", watch)
    job = runner.Runner(smaller(tiny_suite, "oja"), Store(tmp_path))
    runner.run(job, progress=False)
    assert folders and all(f.parent == tmp_path / "fits" for f in folders)
    assert not any((tmp_path / "fits").iterdir())
    expected = numbers(tiny_runner.store)
    assert all(expected[k] == v for k, v in numbers(job.store).items())


def test_full_disk_stops_the_run_and_keeps_what_is_there(
    tiny_suite, tiny_runner, tmp_path, monkeypatch
):
    one = smaller(tiny_suite, "pca")
    full = runner.Runner(one, Store(tmp_path))
    link, count = os.link, []

    def fill(source, target):
        count.append(target)
        if len(count) > 4:
            raise OSError(28, "No space left on device")
        link(source, target)

    monkeypatch.setattr(os, "link", fill)
    with pytest.raises(StoreError, match="No space left on device; the cells published"):
        runner.run(full, progress=False)
    monkeypatch.undo()
    assert len(full.store.content().records) == 4
    assert runner.run(full, progress=False).computed == 5
    expected = numbers(tiny_runner.store)
    assert all(expected[k] == v for k, v in numbers(full.store).items())


def test_signal_leaves_a_resumable_state(tiny_suite, tmp_path, monkeypatch):
    one = smaller(tiny_suite, "pca", "oja")
    stopped = runner.Runner(one, Store(tmp_path))
    compute = stopped.compute

    def computed(batch):
        results = compute(batch)
        signal.raise_signal(signal.SIGTERM)
        return results

    monkeypatch.setattr(stopped, "compute", computed)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(runner.Interrupted, match="SIGTERM"):
        runner.run(stopped, progress=False)
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(stopped.store.content().records) == 9
    assert list((tmp_path / "leases").iterdir()) == []


def test_the_runner_needs_no_cluster_library(tmp_path):
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from crl.bench import runner, suite; from crl.bench.store import Store\n"
        "job = runner.Runner(suite.Suite('s', {}), Store('x'))\n"
        "try: runner.run_on_dask(job, 'tcp://nowhere:1')\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'crl[cluster]'" in done.stdout, done.stderr
