"""A suite of seconds: three of ours, one of them swept, two peers, one task that misfits."""

from bench_tiny import (
    agreement,
    broken_peer,
    corr,
    graphless_metric,
    numpy_pca,
    oja,
    rotated,
    undefined,
)
from ml_collections import ConfigDict

from crl.bench.run.suite import at_least, at_most, spec


def get_config():
    def task(**fields):
        return {
            "dgp": spec(rotated, num_latents=3),
            "num_train": 64,
            "num_test": 32,
            "metrics": [corr, undefined],
            "stability": [agreement],
            "worlds": 3,
            "fits": 2,
            **fields,
        }

    return ConfigDict(
        {
            "suite": "tiny",
            "estimators": {
                "oja": spec(oja),
                "diverging": spec(oja, explode_below=0.5),
                "pca": spec(numpy_pca),
                "broken": spec(broken_peer),
            },
            "tasks": {
                "rotated": task(
                    estimators=["oja", "diverging", "pca", "broken"],
                    expect={
                        "oja": {"corr": at_least(0.95), "agreement": at_most(0.5)},
                        "pca": {"corr": at_least(0.95, of="worst")},
                        "broken": {"corr": at_least(0.1)},
                    },
                    note="PCA finds sources of unequal scales; corr near 1",
                ),
                "unfit": task(estimators=["oja"], metrics=[graphless_metric], stability=[]),
            },
        }
    )
