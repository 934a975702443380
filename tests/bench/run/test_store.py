import errno
import json
import math
import multiprocessing
import os
import pathlib
import signal
import threading
import time

import pytest

from crl.bench.run import store
from crl.bench.run.cells import SCHEMA, Plan, PlannedCell
from crl.bench.run.records import Config, Maker, Record, Result, Seconds
from crl.bench.run.store import Store, StoreError
from crl.bench.run.suite import Bound, TaskConfig

KEY = "0123456789abcdef" * 2


MAKER = Maker(
    {"jax": "0.10.2"}, None, False, "cpu", "cpu", 1, "Linux x86_64, 2 cores", "today"
)
CONFIG = Config({"factory": "m:dgp"}, {"factory": "m:f"}, {"mcc": "m:mcc"}, 10, 5)


def cell(status="ok", **fields):
    record = Record(
        **{"suite": "s", "task": "t", "estimator": "e", "world": 0, "fit": 0},
        result=Result(status, {"mcc": 1.0, "other": None}, pictures={"a": {"b": [[0.5]]}}),
        best={"mcc": 1.0, "likelihood": math.inf, "size": None},
        seconds=Seconds(0.5, 1.0, 1.5, 2),
        peak_bytes=10,
        made_by=MAKER,
        config=CONFIG,
    )
    return record._replace(**fields)


def test_published_cell_is_read_back(tmp_path):
    store = Store(tmp_path)
    assert store.publish(KEY, cell())
    assert store.read(KEY) == cell()
    assert list(store.content().records) == [KEY]


def test_first_writer_wins(tmp_path):
    store = Store(tmp_path)
    assert store.publish(KEY, cell(estimator="first"))
    assert not store.publish(KEY, cell(estimator="second"))
    assert store.read(KEY).estimator == "first"


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_retry_replaces_a_cell_that_failed_and_only_that(tmp_path, status):
    store = Store(tmp_path)
    store.publish(KEY, cell(status))
    assert store.publish(KEY, cell())
    assert store.read(KEY).result.status == "ok"
    assert not store.publish(KEY, cell(status))
    assert store.read(KEY).result.status == "ok"


def test_failure_published_late_does_not_replace_a_result(tmp_path, monkeypatch):
    """Two runs retry one failed cell; the slower one has looked before the faster wrote."""
    kept, read = Store(tmp_path), store._read_record
    kept.publish(KEY, cell("failed"))
    looked, threads = threading.Event(), []

    def slow_read(path, key):
        found = read(path, key)
        if threading.current_thread() in threads and not looked.is_set():
            looked.set()
            time.sleep(0.3)
        return found

    monkeypatch.setattr(store, "_read_record", slow_read)
    threads.append(threading.Thread(target=kept.publish, args=(KEY, cell("failed"))))
    threads[0].start()
    assert looked.wait(10)
    kept.publish(KEY, cell())
    threads[0].join(10)
    assert kept.read(KEY).result.status == "ok"


def test_temporary_files_of_a_killed_run_are_ignored(tmp_path):
    store = Store(tmp_path)
    store.publish(KEY, cell())
    (store.path(KEY).parent / ".tmp-half").write_text('{"schema": 2, "ke')
    assert list(store.content().records) == [KEY]
    assert store.content().problems == []


def test_full_disk_is_said_and_nothing_else_is_lost(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.publish(KEY, cell())
    other = KEY[::-1]

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=f"{other}.json: No space left on device"):
        store.publish(other, cell())
    monkeypatch.undo()
    assert list(store.content().records) == [KEY]
    assert not list(tmp_path.glob("cells/*/.tmp-*"))
    assert store.publish(other, cell())


@pytest.mark.parametrize(
    "damage",
    ["", '{"schema": 2, "key"', "[]", "[" * 100_000, '{"schema": 99}', "\x00\xff", "null"],
)
def test_unreadable_cell_is_named_and_replaced_but_kept(tmp_path, damage):
    store, other = Store(tmp_path), KEY[::-1]
    store.publish(KEY, cell())
    store.publish(other, cell())
    store.path(KEY).write_text(damage)
    content = store.content()
    assert list(content.records) == [other]
    assert [str(store.path(KEY)) in p for p in content.problems] == [True]
    assert store.read(KEY) is None
    assert store.publish(KEY, cell())
    assert set(store.content().records) == {KEY, other}
    (kept,) = tmp_path.glob("cells/*/*.unreadable-*")
    assert kept.read_text() == damage


def test_renamed_and_foreign_files_are_named(tmp_path):
    store, other = Store(tmp_path), "ab" * 16
    store.publish(KEY, cell())
    os.makedirs(store.path(other).parent)
    os.rename(store.path(KEY), store.path(other))  # a cell under another cell's name
    (store.cells / "ab" / "notes.txt").write_text("mine")
    (store.cells / "stray.json").write_text("{}")
    content = store.content()
    assert content.records == {}
    named = " ".join(content.problems)
    assert other in named and "notes.txt" in named and "stray.json" in named


def test_a_key_that_is_no_hash_never_becomes_a_path(tmp_path):
    with pytest.raises(ValueError, match="32 hex digits"):
        Store(tmp_path).path("../../etc/passwd")


def test_lease_excludes_another_holder_and_ends_with_it(tmp_path):
    first, second = Store(tmp_path), Store(tmp_path)
    with first.lease("batch", wait=False) as ours:
        assert ours
        with second.lease("batch", wait=False) as theirs:
            assert not theirs
        with second.lease("another", wait=False) as theirs:
            assert theirs
    with second.lease("batch", wait=False) as theirs:
        assert theirs
    assert list((tmp_path / "leases").iterdir()) == []


def _hold_and_die(root, ready):
    with Store(root).lease("batch", wait=True):
        ready.set()
        signal.pause()


def test_lease_of_a_killed_run_is_dropped(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold_and_die, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(60)
    with Store(tmp_path).lease("batch", wait=False) as ours:
        assert not ours
    holder.kill()
    holder.join()
    with Store(tmp_path).lease("batch", wait=False) as ours:
        assert ours


def plan(worlds):
    task = TaskConfig(
        **{
            "dgp": {"factory": "m:dgp"},
            "num_train": 10,
            "num_test": 5,
            "metrics": {"mcc": "m:mcc"},
        },
        estimators={"e": {"factory": "m:f"}},
        expect={"e": {"mcc": Bound(at_least=0.9)}},
        worlds=worlds,
    )
    return Plan("../a", {"t": task}, [PlannedCell(KEY, "t", "e", 0, None)])


def test_plan_is_replaced_by_name_and_damage_is_named(tmp_path):
    store = Store(tmp_path)
    for worlds in (1, 2):
        store.write_plan(plan(worlds))
    assert store.plans() == ([plan(2)], [])
    (tmp_path / "plans" / "other.json").write_text(json.dumps({"schema": SCHEMA}))
    plans, problems = store.plans()
    assert plans == [plan(2)] and "other.json: not a plan: at plan: 'suite' is" in problems[0]
    assert not (pathlib.Path(tmp_path).parent / "a.json").exists()


@pytest.mark.parametrize(
    "damage",
    [
        *({"status": "good"}, {"metrics": {"mcc": "<b>"}}, {"metrics": {"mcc": 10**400}}),
        *({"num_steps": True}, {"pictures": {"a": {"b": [["x"]]}}}, {"unknown": 1}),
    ],
)
def test_record_with_a_wrong_field_is_no_record(tmp_path, damage):
    store = Store(tmp_path)
    store.publish(KEY, cell())
    raw = json.loads(store.path(KEY).read_text())
    raw["result"] |= damage
    store.path(KEY).write_text(json.dumps(raw))
    assert store.read(KEY) is None and "cell" in store.content().problems[0]


def test_infinity_is_no_json_and_a_best_value_of_infinity_is(tmp_path):
    store = Store(tmp_path)
    store.publish(KEY, cell())
    text = store.path(KEY).read_text()
    assert "Infinity" not in text and store.read(KEY).best["likelihood"] == math.inf
    for number in ("NaN", "-Infinity", "1e999"):
        store.path(KEY).write_text(text.replace('"run": 1.0', f'"run": {number}'))
        assert store.read(KEY) is None
