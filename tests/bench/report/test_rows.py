import math

import numpy as np
import pytest

from crl.bench.report.rows import (
    Row,
    arrow,
    paired_difference,
    spread,
    values_by_world,
    winner,
)

INF = math.inf


def test_spread_is_over_worlds_and_a_lost_fit_loses_its_world():
    values = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 10.0, (1, 1): np.nan, (2, 0): 4.0, (2, 1): 4.0}
    rows = [Row("s", "t", "e", w, f, "m", v, "ok") for (w, f), v in values.items()]
    worlds = values_by_world(rows)
    assert worlds[0] == 2.0 and np.isnan(worlds[1]) and worlds[2] == 4.0
    assert spread(worlds) == (3.0, 3.0, 2.5, 3.5, 2, 3)
    assert paired_difference(worlds, {0: 1.0, 1: 1.0, 2: 1.0}).median == 2.0


@pytest.mark.parametrize(
    "best, name, shown",
    [
        (1.0, "near", " → 1"),
        (0.0, "low", " → 0"),
        (INF, "over", " ↑"),
        (-INF, "low", " ↓"),
        (None, None, ""),
    ],
)
def test_winner_is_nearest_to_the_best_value_and_nobody_without_one(best, name, shown):
    medians = {"low": 0.1, "near": 0.9, "over": 1.4, "lost": math.nan}
    assert winner(medians, best) == name
    assert arrow(best) == shown
    assert winner({"lost": math.nan}, best) is None
