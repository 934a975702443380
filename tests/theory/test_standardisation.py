"""Sorting by variance finds orders in raw worlds, and is chance in standardised ones."""

import jax
import pytest

from crl.theory.claim import verify
from crl.theory.standardisation import standardisation


@pytest.mark.slow
@pytest.mark.parametrize("control", ["standardised", "internal"])
def test_raw_variances_are_sorted_and_standardised_ones_are_not(control):
    verdict = verify(standardisation(control), jax.random.key(0), small=True)
    assert verdict.holds and verdict.control_fails, verdict.margins
    for row in verdict.control_rows:
        # Of 360 edges and more by chance; edges of a world share an order, hence .1.
        assert abs(row["backwards"] - 0.5) < 0.1 and abs(row["varsortability"] - 0.5) < 0.1


def test_controls_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="standardisation has control 'standardised'"):
        standardisation("none")
