"""ICP keeps its level where the target's equation stays, and loses it where it does not."""

import jax
import pytest

from crl.theory.claim import verify
from crl.theory.invariant_prediction import invariant_prediction


@pytest.mark.slow
@pytest.mark.parametrize("small", [True, False])
def test_icp_keeps_its_level_and_interventions_on_the_target_break_it(small):
    verdict = verify(invariant_prediction(), jax.random.key(0), small=small)
    assert verdict.holds and verdict.control_fails, verdict.margins
    assert verdict.control_margins["false claims"] < 0
