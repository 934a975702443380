"""The speed benchmarks run, and every contestant finds as good a solution."""

import re

import pytest


@pytest.mark.slow
def test_fastica_is_timed_beside_its_peers():
    from benchmarks.speed import fastica

    for text in (fastica.single(2000, 3, 1), fastica.sweep(2, 2000, 3, 1)):
        amari = [float(a) for a in re.findall(r"Amari (\S+)", text)]
        assert len(amari) >= 2 and max(amari) < 0.1
