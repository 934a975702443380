"""The speed benchmarks run, and every contestant finds as good a solution."""

import re

import pytest


@pytest.mark.slow
def test_fastica_is_timed_beside_its_peers():
    from benchmarks.speed import fastica

    for text in (fastica.single(2000, 3, 1), fastica.sweep(2, 2000, 3, 1)):
        amari = [float(a) for a in re.findall(r"Amari (\S+)", text)]
        assert len(amari) >= 2 and max(amari) < 0.1


@pytest.mark.slow
def test_discovery_is_timed_beside_its_peers():
    from benchmarks.speed import discovery

    for text in (
        discovery.lingam(1000, 3, 1),
        discovery.central_path(1000, 3, 1),
        discovery.central_path(1000, 3, 1, num=2),
    ):
        wrong = [float(a) for a in re.findall(r"shd (\S+)", text)]
        assert wrong and max(wrong) <= 1
    assert "no_false_edge 1.0" in discovery.invariance(300, 3, 1)
