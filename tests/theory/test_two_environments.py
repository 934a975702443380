"""Two auxiliary environments give the graph; in proportion, or one alone, they do not."""

import jax
import numpy as np
import pytest

from crl.theory.claim import verify
from crl.theory.two_environments import _derivatives, two_environments


@pytest.mark.slow
def test_claim_holds_and_fails_for_proportional_environments():
    verdict = verify(two_environments(), jax.random.key(0), small=True)
    assert verdict.holds, verdict.margins
    assert max(r["slope_error"] for r in verdict.rows) < 1e-12  # 7e-15 seen
    assert verdict.control_fails
    # The points x* are sound in the control too: what fails is the eigenproblem.
    assert verdict.control_margins["gradients at x*"] > 0
    assert verdict.control_margins["structural Hamming distance"] < 0


@pytest.mark.slow
def test_one_auxiliary_environment_is_enough_for_additive_noise_alone():
    claim = two_environments("one")
    kinds = {"anm": True, "gp": True, "lsnm": False, "general": False, "post_nonlinear": False}
    points = [p for p in claim.points if p["mechanism"] in kinds and p["num_nodes"] == 3]
    verdict = verify(claim._replace(points=points), jax.random.key(0))
    assert verdict.holds and verdict.control_fails
    assert verdict.control_margins["gradients at x*"] > 0
    for row in verdict.control_rows:
        assert row["edges"] == 3  # all there are
        if kinds[row["mechanism"]]:
            assert row["shd"] == 0 and row["slope_error"] < 1e-12  # 1e-13 seen
        else:
            assert row["shd"] > 0 and row["slope_error"] > 0.1  # .3 seen


@pytest.mark.slow
def test_environments_that_shift_noises_and_keep_their_variances_say_nothing():
    claim = two_environments("means")
    points = [p for p in claim.points if p["mechanism"] in ("linear", "general")]
    points = [p for p in points if p["num_nodes"] == 3]
    verdict = verify(claim._replace(points=points), jax.random.key(0))
    assert verdict.holds and verdict.control_fails
    # Log ratios have a slope everywhere, and of linear mechanisms no curvature at all.
    assert verdict.control_margins["gradients at x*"] < 0
    for row in verdict.control_rows:
        assert row["gradient"] > 0.1
        assert row["mechanism"] != "linear" or row["shd"] == row["edges"] > 0


def test_controls_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="two_environments has control 'proportional', 'one'"):
        two_environments("none")


def linear_hessians(rng, b, ratios=None):
    """H_e = -(precision_e - precision_0) of x = b x + s, by hand."""
    d = len(b)
    jacobian = np.eye(d) - b
    changes = rng.uniform(0.5, 2, (2, d)) * rng.choice([-1, 1], (2, d))
    if ratios is not None:
        changes[0] = ratios * changes[1]
    return np.stack([-jacobian.T @ np.diag(c) @ jacobian for c in changes])


@pytest.mark.parametrize("d", [3, 10])
def test_slopes_of_linear_models_are_their_weights(d):
    rng = np.random.default_rng(0)
    b = np.tril(rng.normal(size=(d, d)) * (rng.random((d, d)) < 0.5), -1)
    permutation = rng.permutation(d)
    b = b[permutation][:, permutation]
    with jax.enable_x64(True):
        found = _derivatives(linear_hessians(rng, b))
    np.testing.assert_allclose(found, b, atol=1e-9)


def test_one_repeated_ratio_hides_the_edge_between_these_two():
    rng = np.random.default_rng(1)
    b = np.zeros((3, 3))
    b[1, 0], b[2, 0], b[2, 1] = 0.9, -0.7, 0.8
    with jax.enable_x64(True):
        distinct = _derivatives(linear_hessians(rng, b, np.array([0.5, 1.5, 3.0])))
        repeated = _derivatives(linear_hessians(rng, b, np.array([1.5, 1.5, 3.0])))
    assert np.abs(distinct - b).max() < 1e-9 < 0.1 < np.abs(repeated - b).max()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_claim_holds_up_to_ten_variables_and_for_all_mechanisms(seed):
    verdict = verify(two_environments(), jax.random.key(seed))
    assert verdict.holds and verdict.control_fails, verdict.margins
