"""An intervention changes one row; with a hidden cause, or two targets, more than it."""

import jax
import pytest

from crl.theory.claim import verify
from crl.theory.interventions import precision_differences, score_differences


@pytest.mark.slow
@pytest.mark.parametrize("small", [True, False])
def test_precisions_change_in_rows_and_a_hidden_cause_spreads_the_change(small):
    verdict = verify(precision_differences(), jax.random.key(0), small=small)
    assert verdict.holds and verdict.control_fails, verdict.margins
    assert {r["rank"] for r in verdict.rows} == {1, 2, 3}
    # Of what is left of the variables the difference has no larger rank.
    assert verdict.control_margins["rank"] > 0
    assert verdict.control_margins["off the support"] < 0


@pytest.mark.slow
@pytest.mark.parametrize("small", [True, False])
def test_scores_change_at_a_target_and_its_parents_and_hard_pairs_tell_it_alone(small):
    verdict = verify(score_differences(), jax.random.key(0), small=small)
    assert verdict.holds and verdict.control_fails, verdict.margins
    for row in verdict.control_rows:  # each kind, not the worst alone
        assert row["off_support"] > 1e-3
