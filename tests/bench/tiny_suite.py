"""A suite of seconds: two of ours, one peer, one task that fits and one control."""

from ml_collections import ConfigDict

ME = "bench_tiny"


def get_config():
    def task(**fields):
        return {
            "dgp": {"factory": f"{ME}:rotated", "num_latents": 3},
            "num_train": 64,
            "num_test": 32,
            "metrics": {"corr": f"{ME}:corr"},
            "stability": {"agreement": f"{ME}:agreement"},
            "worlds": 3,
            "fits": 2,
            **fields,
        }

    return ConfigDict(
        {
            "suite": "tiny",
            "estimators": {
                "oja": {"factory": f"{ME}:oja"},
                "diverging": {"factory": f"{ME}:oja", "explode_below": 0.5},
                "pca": {"factory": f"{ME}:numpy_pca"},
                "broken": {"factory": f"{ME}:broken_peer"},
            },
            "tasks": {
                "rotated": task(
                    estimators=["oja", "diverging", "pca", "broken"],
                    note="PCA finds sources of unequal scales; corr.mean near 1",
                ),
                "unfit": task(
                    estimators=["oja"], metrics={"shd": f"{ME}:graphless_metric"}, fits=2
                ),
            },
        }
    )
