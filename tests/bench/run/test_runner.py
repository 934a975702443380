import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import bench_tiny
import jax
import numpy as np
import pytest

from crl import core, train
from crl.bench.run import fitting, runner, suite
from crl.bench.run.cells import Cell, stable_hash
from crl.bench.run.records import DIVERGED, FAILED, INAPPLICABLE, OK
from crl.bench.run.specs import construct
from crl.bench.run.store import Store, StoreError

HERE = pathlib.Path(__file__).parent.parent


def cells_of(store, **fields):
    found = store.content()
    assert found.problems == []
    return {
        (r.task, r.estimator, r.world, r.fit): r
        for r in found.records.values()
        if all(getattr(r, k) == v for k, v in fields.items())
    }


def numbers(store):
    """What a sweep is for: statuses and metrics, without the times."""
    return {k: (r.result.status, r.result.metrics) for k, r in cells_of(store).items()}


def smaller(tiny_suite, *estimators, **fields):
    task = tiny_suite.tasks["rotated"]
    own = {e: task.estimators[e] for e in estimators}
    return suite.Suite("small", {"rotated": task._replace(estimators=own, **fields)})


def test_every_cell_of_the_plan_has_one_record(tiny_runner):
    plan, records = tiny_runner.plan().cells, tiny_runner.store.content().records
    assert len(plan) == 4 * 3 * 3 + 3 * 2 and {cell.key for cell in plan} == set(records)


def test_estimator_and_peer_are_scored_on_the_same_worlds(tiny_runner):
    ours = cells_of(tiny_runner.store, task="rotated", estimator="oja")
    peer = cells_of(tiny_runner.store, task="rotated", estimator="pca")
    for (_, _, world, fit), record in ours.items():
        other = peer["rotated", "pca", world, fit]
        assert record.result.status == other.result.status == OK
        assert other.is_peer and not record.is_peer
        if fit is not None:
            value = record.result.metrics["corr"]
            assert value > 0.95 and abs(value - other.result.metrics["corr"]) < 0.02


@pytest.mark.parametrize("name", ["oja", "diverging"])
def test_cells_equal_those_of_a_loop_by_hand(name, tiny_runner, tiny_suite):
    """Each number is crl.fit with the key of its world and fit, the second sample scored.

    Whether ``diverging`` does depends on where the fit starts, and so on its own key.
    """
    config, found = tiny_suite.tasks["rotated"], cells_of(tiny_runner.store)
    dgp, estimator = construct(config.dgp), construct(config.estimators[name])
    for world in range(3):
        key = fitting.world_key(stable_hash(config.dgp), world)
        fitted, held_out = core.draw(core.Task(dgp, 64, 32, {}), key)
        for number in range(2):
            fit_key = jax.random.fold_in(jax.random.fold_in(key, stable_hash("fit")), number)
            fit = train.fit(estimator, fit_key, fitted.data)
            result = found["rotated", name, world, number].result
            assert (result.status == DIVERGED) == fit.diverged
            if not fit.diverged:
                readout = train.readout(estimator, fit.state, held_out.data)
                score = bench_tiny.corr(readout, held_out)
                assert result.metrics["corr"] == pytest.approx(float(score), abs=1e-5)


def test_diverged_fit_is_marked_and_its_neighbours_are_not(tiny_runner):
    # Started below 0.5 in its first entry, a fit turns to NaN: about 38 % of them.
    found = cells_of(tiny_runner.store, task="rotated", estimator="diverging")
    fits = {k: r.result for k, r in found.items() if k[3] is not None}
    bad = {k for k, r in fits.items() if r.status == DIVERGED}
    assert 0 < len(bad) < len(fits)
    for key, result in fits.items():
        assert (result.metrics["corr"] is None) == (key in bad)
    for world in range(3):
        both = all(("rotated", "diverging", world, f) not in bad for f in (0, 1))
        stability = found["rotated", "diverging", world, None].result
        assert stability.status == (OK if both else DIVERGED)


def test_undefined_metric_is_null_beside_the_defined_one(tiny_runner):
    result = cells_of(tiny_runner.store)["rotated", "oja", 0, 0].result
    assert result.metrics["undefined"] is None
    assert np.isfinite(result.metrics["corr"])


def test_what_claims_nothing_that_is_asked_for_does_not_apply(tiny_runner):
    found = cells_of(tiny_runner.store, task="unfit")
    assert len(found) == 6
    for record in found.values():
        assert record.result.status == INAPPLICABLE and not record.result.traceback
        assert record.result.error.startswith("metric shd needs readout.graph")


def test_peer_that_raises_fails_and_says_why(tiny_runner):
    for record in cells_of(tiny_runner.store, estimator="broken").values():
        assert record.result.status == FAILED and "Traceback" in record.result.traceback
        assert record.result.error == "RuntimeError: <b>peer</b> fell over"


def test_metric_that_is_not_claimed_is_left_out_beside_one_that_is(tiny_suite, tmp_path):
    metrics = {"shd": "bench_tiny:graphless_metric", "corr": "bench_tiny:corr"}
    one = smaller(tiny_suite, "pca", "oja", stability={}, fits=1, worlds=1, metrics=metrics)
    job = runner.Runner(one, Store(tmp_path))
    assert runner.run(job, bar=False).failed == 0
    for record in cells_of(job.store).values():
        assert record.result.status == OK and list(record.result.metrics) == ["corr"]


def test_peer_that_claims_nothing_that_is_asked_for_does_not_apply(tiny_suite, tmp_path):
    metrics = {"shd": "bench_tiny:graphless_metric"}
    one = smaller(tiny_suite, "pca", stability={}, fits=1, worlds=1, metrics=metrics)
    job = runner.Runner(one, Store(tmp_path))
    runner.run(job, bar=False)
    (record,) = cells_of(job.store).values()
    assert record.result.status == INAPPLICABLE


def test_metric_without_a_truth_is_a_mistake_of_the_suite(tiny_suite, tmp_path):
    one = smaller(tiny_suite, "pca", "oja", stability={}, fits=1, worlds=1)
    metrics = {"shd": "bench_tiny:truthless_metric"}
    one.tasks["rotated"] = one.tasks["rotated"]._replace(metrics=metrics)
    job = runner.Runner(one, Store(tmp_path))
    assert runner.run(job, bar=False).failed == 2


def test_record_says_what_made_it(tiny_runner):
    record = cells_of(tiny_runner.store)["rotated", "oja", 0, 0]
    assert record.made_by.versions["jax"] and record.made_by.device == "cpu"
    assert record.seconds.cells == 9 and record.peak_bytes > 2**20
    assert record.config.estimator == {"factory": "bench_tiny:oja"}
    assert record.result.diag == {"effective_rank": 3.0}
    assert record.result.trace["step"] == list(range(20))
    assert record.best == {"corr": 1.0, "undefined": 0.0}
    latents = np.array(record.result.pictures["latents"]["|corr|"])
    assert latents.shape == (3, 3) and (np.diag(latents) > 0.9).all()
    file = tiny_runner.store.path(tiny_runner.key(Cell(*record[1:5])))
    assert os.uname().nodename not in file.read_text()


@pytest.fixture(scope="module")
def swept_runner(tmp_path_factory):
    """A finished sweep of three values beside the same estimator alone."""
    loaded = suite.load(str(HERE / "swept_suite.py"))
    job = runner.Runner(loaded, Store(tmp_path_factory.mktemp("swept")))
    runner.run(job, bar=False)
    return job


def test_sweep_is_fitted_in_one_program(swept_runner, tmp_path, monkeypatch):
    calls, fit_replicas = [], fitting.fit_replicas

    def count(estimator, keys, data, *, options, **others):
        calls.append((len(keys), sorted(options)))
        return fit_replicas(estimator, keys, data, options=options, **others)

    monkeypatch.setattr(fitting, "fit_replicas", count)
    job = runner.Runner(swept_runner.suite, Store(tmp_path))
    assert [len(b.estimators) for b in job.batches()] == [3, 3, 1]
    runner.run(job, bar=False)
    # Three values of one world with two fits each, then the estimator alone.
    assert calls == [(6, ["lr"]), (6, ["lr"]), (4, [])]


def test_value_of_a_sweep_equals_the_estimator_alone(swept_runner):
    found = cells_of(swept_runner.store)
    assert {r.result.status for r in found.values()} == {OK} and len(found) == 4 * 2 * 3
    for (_, estimator, world, fit), record in found.items():
        if estimator == "alone":
            other = found["rotated", "oja[lr=0.3]", world, fit].result.metrics
            # One has the option as a constant of its program, the other as an input.
            assert record.result.metrics == pytest.approx(other, abs=2e-5)
    rates = {name: found["rotated", f"oja[lr={name}]", 0, 0] for name in ("0.1", "1.0")}
    assert rates["0.1"].result.metrics != rates["1.0"].result.metrics
    assert rates["0.1"].config.estimator == {
        **{"factory": "bench_tiny:oja", "lr": 0.1, "swept": ["lr"]}
    }


def test_value_of_a_sweep_is_resumed_alone(swept_runner, tmp_path):
    store = Store(tmp_path / "results")
    shutil.copytree(swept_runner.store.root, store.root)
    before = numbers(store)
    lost = [k for k, r in store.content().records.items() if r.estimator == "oja[lr=1.0]"]
    for key in lost:
        store.path(key).unlink()
    again = runner.Runner(swept_runner.suite, store)
    assert runner.run(again, bar=False).computed == len(lost) == 6
    assert numbers(store) == before


def test_bad_value_of_a_sweep_fails_alone(tiny_suite, tmp_path):
    spec = {"factory": "bench_tiny:oja", "swept": ["lr"]}
    one = smaller(tiny_suite, "oja", stability={}, fits=1, worlds=2)
    estimators = {f"oja[lr={lr}]": {**spec, "lr": lr} for lr in (-1.0, 0.3)}
    one.tasks["rotated"] = one.tasks["rotated"]._replace(estimators=estimators)
    job = runner.Runner(one, Store(tmp_path))
    runner.run(job, bar=False)
    for (_, estimator, _, _), (status, _) in numbers(job.store).items():
        assert status == (OK if estimator == "oja[lr=0.3]" else FAILED)


def test_resumed_sweep_equals_an_uninterrupted_one(tiny_suite, tiny_results, tiny_runner):
    store = Store(tiny_results)
    for key in sorted(store.content().records)[::2]:
        store.path(key).unlink()
    again = runner.Runner(tiny_suite, store)
    missing = sum(len(again.pending(batch)) for batch in again.batches())
    assert runner.run(again, bar=False).computed == missing == 21
    assert numbers(store) == numbers(tiny_runner.store)
    assert runner.run(again, bar=False).computed == 0


def test_metrics_are_kept_in_the_order_of_the_task(tiny_suite, tmp_path):
    corr = {name: "bench_tiny:corr" for name in ("second", "third", "a")}
    one = smaller(tiny_suite, "pca", stability={}, fits=1, worlds=1, metrics=corr)
    job = runner.Runner(one, Store(tmp_path))
    runner.run(job, bar=False)
    (record,) = cells_of(job.store).values()
    assert list(record.result.metrics) == ["second", "third", "a"]


def test_retry_failed_computes_only_what_failed(tiny_suite, tiny_results):
    again = runner.Runner(tiny_suite, Store(tiny_results), retry_failed=True)
    summary = runner.run(again, bar=False)
    failed = sum(status in (FAILED, DIVERGED) for status, _ in numbers(again.store).values())
    assert summary.computed == failed and summary.failed == 9


def test_shards_together_equal_the_whole(tiny_suite, tiny_runner, tmp_path):
    counts = []
    for i in range(3):
        part = runner.Runner(tiny_suite, Store(tmp_path))
        counts.append(runner.run(part, shard=(i, 3), bar=False).computed)
    assert numbers(part.store) == numbers(tiny_runner.store)
    assert min(counts) > 0 and sum(counts) == 42


def test_numbers_do_not_depend_on_batch_size_or_backend(
    tiny_suite, tiny_runner, tmp_path, monkeypatch
):
    one = smaller(tiny_suite, "oja")
    expected = {
        k: v for k, v in numbers(tiny_runner.store).items() if k[:2] == ("rotated", "oja")
    }
    for name, size, backend in [("single", 1, "shard_map"), ("vmapped", 8, "vmap")]:
        monkeypatch.setitem(runner.FITS, "cpu", size)
        other = runner.Runner(one, Store(tmp_path / name), backend=backend)
        runner.run(other, bar=False)
        for key, (status, metrics) in numbers(other.store).items():
            assert status == expected[key][0]
            for metric, value in metrics.items():
                # float32 sums in another order
                assert value == pytest.approx(expected[key][1][metric], abs=2e-5)


def test_two_runs_into_one_folder_share_the_work(tiny_suite, tiny_runner, tmp_path):
    runners = [runner.Runner(tiny_suite, Store(tmp_path)) for _ in range(2)]
    summaries = [None, None]

    def work(i):
        summaries[i] = runner.run(runners[i], bar=False)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(Store(tmp_path)) == numbers(tiny_runner.store)
    assert sum(s.computed for s in summaries) == 42  # nothing twice


def test_world_that_the_estimator_refuses_does_not_apply(tiny_suite, tmp_path, monkeypatch):
    one = smaller(tiny_suite, "oja", stability={}, fits=1)
    picky = runner.Runner(one, Store(tmp_path))
    team = picky.team("rotated", ["oja"])
    calls = []

    def validate(data):
        calls.append(data)
        if len(calls) == 2:
            raise ValueError("expected rank 3, got 2: drop a column")

    estimator = team.example._replace(validate=validate)
    picked = team._replace(example=estimator, build=lambda: estimator)
    monkeypatch.setattr(picky, "team", lambda *_: picked)
    assert runner.run(picky, bar=False).failed == 0
    states = {k[2]: status for k, (status, _) in numbers(picky.store).items()}
    assert states == {0: OK, 1: INAPPLICABLE, 2: OK}
    assert runner.run(picky, bar=False).computed == 0  # it is an answer


def test_estimator_that_stumbles_over_data_it_refuses_does_not_apply(tiny_suite, tmp_path):
    one = smaller(tiny_suite, "oja", stability={}, fits=1, worlds=1)
    estimators = {"paired": {"factory": "bench_tiny:needs_pairs"}}
    one.tasks["rotated"] = one.tasks["rotated"]._replace(estimators=estimators)
    job = runner.Runner(one, Store(tmp_path))
    runner.run(job, bar=False)
    (record,) = cells_of(job.store).values()
    assert record.result.status == INAPPLICABLE
    assert record.result.error == "needs_pairs needs aux['pair']"


def test_comparison_that_fails_costs_no_fit(tiny_suite, tiny_runner, tmp_path, monkeypatch):
    def raises(claims, sample):
        raise ValueError("no two fits alike")

    job = runner.Runner(smaller(tiny_suite, "oja"), Store(tmp_path))
    problem = job.problem("rotated")._replace(compare=raises)
    monkeypatch.setattr(job, "problem", lambda task: problem)
    runner.run(job, bar=False)
    found, expected = numbers(job.store), numbers(tiny_runner.store)
    for key, value in found.items():
        assert value == expected[key] if key[3] is not None else value[0] == FAILED
    assert len(found) == 9


def test_long_fits_are_checkpointed_and_leave_nothing(
    tiny_suite, tiny_runner, tmp_path, monkeypatch
):
    monkeypatch.setattr(fitting, "CHECKPOINT_AFTER", 5)
    folders = []

    def watch(estimator, keys, data, *, checkpoint, **options):
        folders.append(checkpoint)
        return fit_replicas(estimator, keys, data, checkpoint=checkpoint, **options)

    fit_replicas = fitting.fit_replicas
    monkeypatch.setattr(fitting, "fit_replicas", watch)
    job = runner.Runner(smaller(tiny_suite, "oja"), Store(tmp_path))
    runner.run(job, bar=False)
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
        runner.run(full, bar=False)
    monkeypatch.undo()
    assert len(full.store.content().records) == 4
    assert runner.run(full, bar=False).computed == 5
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
        runner.run(stopped, bar=False)
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(stopped.store.content().records) == 9
    assert list((tmp_path / "leases").iterdir()) == []


def test_the_runner_needs_no_cluster_library(tmp_path):
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from crl.bench.run import runner, suite; from crl.bench.run.store import Store\n"
        "job = runner.Runner(suite.Suite('s', {}), Store('x'))\n"
        "try: runner.run_on_dask(job, 'tcp://nowhere:1')\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'crl[cluster]'" in done.stdout, done.stderr
