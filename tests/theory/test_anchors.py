"""Anchor regression has its limits and its worst risk; off the span of anchors it has none."""

import jax
import pytest

from crl.theory.anchors import anchor_limits
from crl.theory.claim import verify


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_limits_and_worst_risk_hold_and_insure_against_no_other_shift(small):
    verdict = verify(anchor_limits(), jax.random.key(0), small=small)
    assert verdict.holds and verdict.control_fails, verdict.margins
    # What is shifted has no part in the coefficients.
    for name in ("partialling out", "least squares", "instrumental variables"):
        assert verdict.control_margins[name] > 0
    assert verdict.control_margins["no shift is worse"] < 0
    assert verdict.control_margins["one is as bad"] < 0
