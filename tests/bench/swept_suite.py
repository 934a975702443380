"""A sweep over one option of an estimator, fitted in one compilation."""

from bench_tiny import agreement, corr, oja, rotated
from ml_collections import ConfigDict

from crl.bench.run.suite import at_least, spec


def get_config():
    task = {
        "dgp": spec(rotated, num_latents=3),
        "num_train": 64,
        "num_test": 32,
        "metrics": [corr],
        "stability": [agreement],
        "estimators": {"oja": spec(oja, sweep={"lr": [0.1, 0.3, 1.0]}), "alone": spec(oja)},
        "expect": {"oja[lr=0.3]": {"corr": at_least(0.9)}},
        "worlds": 2,
        "fits": 2,
    }
    config = {"suite": "swept", "tasks": {"rotated": task}}
    return ConfigDict(config, allow_dotted_keys=True)
