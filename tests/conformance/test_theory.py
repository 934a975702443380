"""Every claim of crl.theory holds, and its control fails."""

import jax
import pytest

from crl.testing import check_claim
from crl.theory.acyclicity import acyclicity
from crl.theory.anchors import anchor_limits
from crl.theory.interventions import precision_differences, score_differences
from crl.theory.invariant_prediction import invariant_prediction
from crl.theory.perturbed_ica import perturbed_ica
from crl.theory.standardisation import standardisation
from crl.theory.two_environments import two_environments

CLAIMS = [
    acyclicity,
    anchor_limits,
    invariant_prediction,
    perturbed_ica,
    precision_differences,
    score_differences,
    standardisation,
    two_environments,
]


@pytest.mark.slow  # notebooks check some at the same size
@pytest.mark.parametrize("claim", CLAIMS)
def test_claim(claim):
    check_claim(claim(), jax.random.key(0))
