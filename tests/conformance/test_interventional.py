"""Every estimator of crl.interventional keeps the contract."""

from functools import partial

import numpy as np
from properties import estimators

from crl.core import Task
from crl.dgp.interventional import latent_scm
from crl.dgp.mixings import linear
from crl.interventional.cauca import cauca
from crl.metrics.latents import mcc
from crl.testing.estimators import SHAPES


def task() -> Task:
    """Two latents and one edge behind a matrix, each targeted once."""
    dgp = latent_scm(2, linear(), np.array([[0, 1], [0, 0]]))
    return Task(dgp, 300, 200, {"mcc": mcc})


small = partial(cauca, num_layers=1, width=4, depth=1, num_bins=4, num_steps=50)
test_estimator = estimators({"cauca": (small, task)}, fast=SHAPES)
