"""Every claim of crl.theory holds, and its control fails."""

import jax
import pytest

from crl.testing import check_claim
from crl.theory.perturbed_ica import perturbed_ica
from crl.theory.two_environments import two_environments


@pytest.mark.slow  # test_notebooks.py checks them at the same size
@pytest.mark.parametrize("claim", [perturbed_ica, two_environments])
def test_claim(claim):
    check_claim(claim(), jax.random.key(0))
