"""my_ica keeps the contracts: jit, vmap, resume, dtypes, and it learns from its data."""

from functools import partial

from my_ica import my_ica

from crl.core import Task
from crl.dgp.latent import mixed_sources
from crl.dgp.mixings import linear
from crl.dgp.sources import laplace
from crl.metrics.latents import mcc
from crl.testing import check_estimator


def test_my_ica_keeps_the_contracts():
    dgp = mixed_sources(laplace(), linear(), num_latents=3)
    task = Task(dgp, num_train=512, num_test=256, metrics={"mcc": mcc})
    check_estimator(partial(my_ica, num_latents=3), task)
