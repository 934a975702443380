"""What every claim keeps: it holds, and it fails where its control says so."""

from jax import Array

from crl.check import check_key
from crl.theory.claim import Claim, verify


def check_claim(claim: Claim, key: Array) -> None:
    """Raise an AssertionError unless the claim holds at small size and its control fails."""
    check_key(key)
    verdict = verify(claim, key, small=True)
    assert verdict.holds, f"the claim does not hold: margin {verdict.margin}"
    assert verdict.control_fails, "the control passes: the verdict cannot tell"
