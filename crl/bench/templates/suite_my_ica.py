"""my_ica beside FastICA on the same worlds: crl run suite_my_ica.py"""

from ml_collections import ConfigDict
from my_ica import my_ica

from crl.bench.run.suite import at_least, spec
from crl.dgp.latent import mixed_sources
from crl.dgp.mixings import linear
from crl.dgp.sources import laplace
from crl.ica.fastica import fastica
from crl.metrics.latents import mcc


def get_config():
    laplace_sources = {
        "dgp": spec(mixed_sources, source=spec(laplace), mixing=spec(linear), num_latents=5),
        "num_train": 2000,
        "num_test": 1000,
        "metrics": [mcc],
        "estimators": {
            "my_ica": spec(my_ica, num_latents=5),
            "fastica": spec(fastica, num_latents=5),
        },
        "expect": {
            "my_ica": {"mcc": at_least(0.99)},
            "fastica": {"mcc": at_least(0.99)},
        },
        "worlds": 8,
        "note": "Laplace sources: both should find them.",
    }
    return ConfigDict({"suite": "my_ica", "tasks": {"laplace": laplace_sources}})
