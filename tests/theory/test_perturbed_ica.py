"""The first-order perturbation of linear ICA has the constants of the formula."""

import jax
import numpy as np
import pytest

from crl.theory.claim import verify
from crl.theory.perturbed_ica import _levels, perturbed_ica


@pytest.fixture(scope="module")
def verdict():
    return verify(perturbed_ica(), jax.random.key(0), small=True)


def test_exponents_and_constants_of_the_errors(verdict):
    assert verdict.holds, verdict.margins


def test_contrast_that_is_blind_to_the_sources_breaks_the_law(verdict):
    assert verdict.control_fails
    odd = [r for r in verdict.control_rows if r["h"] == "odd"]
    # Far beyond eta |Delta| for sources that the contrast sees, which is below 1e-2.
    assert min(r["unmixing_error"] for r in odd) > 0.05


@pytest.mark.parametrize("name", ["unmixing_error", "mcc_loss"])
def test_a_constant_wrong_by_five_percent_is_noticed(verdict, name):
    wrong = [r | {f"predicted_{name}": 1.05 * r[f"predicted_{name}"]} for r in verdict.rows]
    assert min(perturbed_ica().margins(wrong).values()) < 0


def test_sources_are_independent_and_standardised():
    with jax.enable_x64(True):
        for source in ("uniform", "sparse", "blind"):
            s = _levels(source, "logcosh", 15)
            np.testing.assert_allclose([s.mean(), s.var()], [0, 1], atol=1e-12)
        tau = np.mean(s * np.tanh(s) - 1 + np.tanh(s) ** 2)
    assert abs(tau) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_law_holds_for_five_sources_and_both_contrasts(seed):
    verdict = verify(perturbed_ica(), jax.random.key(seed))
    assert verdict.holds and verdict.control_fails, verdict.margins
