"""Statistics are judged up to affine maps, or one by one."""

import numpy as np

from crl.core import Readout, Sample, Truth, grouped
from crl.metrics.statistics import affine_r2_abs, mcc_abs


def test_affine_maps_of_the_statistics_are_perfect_and_the_latents_worth_nothing():
    z = np.random.default_rng(0).laplace(size=(2000, 3)).astype(np.float32)
    sample = Sample(grouped(z), Truth(z=z))
    mixed = np.abs(z) @ np.float32([[1, 1, 0], [1, -1, 0], [0, 0, 2]]) + 1
    assert affine_r2_abs(Readout(z=mixed), sample) > 0.9999
    assert affine_r2_abs(Readout(z=z), sample) < 0.02
    assert mcc_abs(Readout(z=-2 * np.abs(z[:, ::-1])), sample) > 0.9999
    assert mcc_abs(Readout(z=mixed), sample) < 0.85
