"""DAGMA's h is 0 on DAGs alone; of signed weights it is not."""

import jax
import numpy as np
import pytest

from crl.theory.acyclicity import _weights, acyclicity
from crl.theory.claim import verify


def test_h_is_0_and_stationary_on_dags_alone_and_of_signed_weights_it_is_not():
    verdict = verify(acyclicity(), jax.random.key(0), small=True)
    assert verdict.holds and verdict.control_fails, verdict.margins
    # Two cycles cancel: a graph with both has h = 0.
    assert verdict.control_margins["positive on cycles"] < 0
    assert verdict.control_margins["0 on DAGs"] > 0


def test_weights_have_the_cycles_that_they_are_called_by():
    for d in (3, 6):
        for cycles, num in (("none", 0), ("opposite", 2)):
            point = {"num_nodes": d, "cycles": cycles, "world": 1}
            with jax.enable_x64(True):
                w = _weights(jax.random.key(3), point)
            power = [np.trace(np.linalg.matrix_power(w != 0, k)) for k in (1, 2, 3)]
            # A cycle of length k is counted from each of its variables.
            assert sum(p // k for p, k in zip(power, (1, 2, 3))) == num
            assert abs(np.linalg.det(np.eye(d) - w) - 1) < 1e-12


@pytest.mark.slow
def test_claim_holds_up_to_twenty_variables():
    verdict = verify(acyclicity(), jax.random.key(1))
    assert verdict.holds and verdict.control_fails, verdict.margins
