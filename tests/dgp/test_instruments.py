"""Worlds with instruments hold what they say of them."""

import jax
import numpy as np

from crl.dgp.instruments import augmented_regression


def test_augmentation_that_is_invariant_leaves_the_outcome_and_its_control_does_not():
    for augmentation, is_valid in [("invariant", True), ("violating", False)]:
        world = augmented_regression(4, augmentation).init(jax.random.key(0))
        moved = np.abs(world.first_stage @ world.effect).max()
        assert (moved < 1e-5) == is_valid
        gram = world.first_stage @ world.first_stage.T
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)
