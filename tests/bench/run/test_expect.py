import math

import numpy as np
import pytest

from crl.bench.run.cells import Plan, PlannedCell
from crl.bench.run.expect import MET, MISSED, PENDING, by_world, holds, judge
from crl.bench.run.records import Config, Maker, Record, Result, Seconds
from crl.bench.run.suite import Bound, TaskConfig

NAN = math.nan
MAKER = Maker({}, None, False, "cpu", "cpu", 1, "a machine", "today")


@pytest.mark.parametrize(
    "bound, worlds, kept",
    [
        (Bound(at_least=0.9), [0.9, 0.95, 0.1], True),
        (Bound(at_least=0.9), [0.89, 0.95, 0.1], False),
        (Bound(at_most=0.9), [0.9, 0.95, 0.1], True),
        (Bound(at_most=0.5), [0.6, 0.95, 0.1], False),
        (Bound(at_least=0.5, at_most=0.7), [0.6, 0.95, 0.1], True),
        (Bound(at_least=0.5, at_most=0.55), [0.6, 0.95, 0.1], False),
        # A world without a value is on the wrong side, also of a control's bound.
        (Bound(at_least=0.9), [0.95, 0.95, NAN], True),
        (Bound(at_least=0.9), [0.95, NAN, NAN], False),
        (Bound(at_most=0.5), [0.1, NAN, NAN], False),
        (Bound(at_least=0.0, at_most=1.0), [0.5, 0.5, NAN, NAN, NAN], False),
        (Bound(at_most=0.5, of="mean"), [0.0, 0.0, 1.5], True),
        (Bound(at_most=0.5, of="mean"), [0.0, 0.0, 1.6], False),
        (Bound(at_most=0.5, of="mean"), [0.0, 0.0, NAN], False),
        (Bound(at_least=0.5, of="worst"), [0.5, 0.9], True),
        (Bound(at_least=0.5, of="worst"), [0.4, 0.9], False),
        (Bound(at_most=0.5, of="worst"), [0.4, 0.9], False),
        (Bound(at_most=0.5, of="worst"), [0.4, NAN], False),
        (Bound(at_least=0.0), [], False),
    ],
)
def test_bound_is_on_the_statistic_over_worlds(bound, worlds, kept):
    assert holds(bound, np.array(worlds)) == kept


def test_world_of_which_a_fit_is_lost_has_no_value():
    found = by_world([(1, 10.0), (0, 1.0), (0, 3.0), (1, NAN), (2, 4.0), (2, 4.0)])
    assert list(found) == [0, 1, 2] and found[0] == 2.0 and found[2] == 4.0
    assert math.isnan(found[1])


def record(cell, value):
    result = Result("diverged" if value is None else "ok", {"mcc": value})
    config = Config({}, {}, {}, 1, 1)
    return Record("s", *cell[1:], result, {"mcc": 1.0}, Seconds(), 0, MAKER, config)


def plan(values, expect, full_worlds=None):
    """A plan of one task, its records by key. values: estimator -> a value each world."""
    worlds = max(map(len, values.values()))
    cells = [
        PlannedCell(f"{e}{w}", "t", e, w, 0)
        for e, own in values.items()
        for w in range(len(own))
    ]
    records = {
        c.key: record(c, values[c.estimator][c.world])
        for c in cells
        if values[c.estimator][c.world] != "missing"
    }
    task = TaskConfig({}, 1, 1, {"mcc": "m:mcc"}, {}, {}, expect, worlds, 1, "", full_worlds)
    return Plan("s", {"t": task}, cells), records


def test_misses_come_first_and_say_what_was_observed():
    values = {
        "good": [0.99, 0.98, 0.97],
        "poor": [0.5, 0.6, 0.7],
        "lost": [0.99, None, None],
        "late": [0.99, "missing", 0.99],
    }
    expect = {name: {"mcc": Bound(at_least=0.9)} for name in values}
    found = judge(*plan(values, expect))
    assert [(f.estimator, f.state) for f in found] == [
        *(("poor", MISSED), ("lost", MISSED), ("late", PENDING), ("good", MET))
    ]
    assert found[0].sentence() == "t · poor: median mcc is 0.6; expected at least 0.9"
    assert "is 0.99, 2 of 3 worlds without a value; expected" in found[1].sentence()


def test_fewer_worlds_than_meant_are_judged_and_said():
    expect = {"e": {"mcc": Bound(at_least=0.9, at_most=1.0)}}
    (found,) = judge(*plan({"e": [0.5, 0.6]}, expect, full_worlds=8))
    assert found.state == MISSED and found.is_part()
    assert "on 2 of 8 worlds; expected 0.9 to 1" in found.sentence()
    (found,) = judge(*plan({"e": [0.95, 0.95]}, expect, full_worlds=None))
    assert found.state == MET and not found.is_part()


def test_metric_that_is_not_claimed_is_a_miss():
    expect = {"e": {"shd": Bound(at_most=5.0)}}
    (found,) = judge(*plan({"e": [0.9, 0.9]}, expect))
    assert found.state == MISSED and found.lost == 2
