"""Causal graphs from a base and two auxiliary environments.

    crl run benchmarks/scm.py --workdir results/scm

Expected, from the estimator's acceptance runs: graphs without error at 3 and 10 variables
where the noise variances change. On the controls without a change, a linear pair is
oriented at chance (SHD near .5); the general mechanisms favour their own direction a
little without any environment (SHD .13 in 30 worlds), but the data decide it (z > 2.5,
see State.edge_z) in less than a tenth of the worlds.
"""

from ml_collections import ConfigDict

DGP = "crl.dgp.scm:multi_environment_scm"
METRICS = {
    name: f"crl.metrics.graphs:{name}"
    for name in ("shd", "skeleton_shd", "edge_scores", "order_divergence", "edge_auroc")
}
METRICS["counterfactual"] = "crl.metrics.interventions:counterfactual_rmse"


def _task(num_nodes, num_train, worlds, note, **options):
    return {
        "dgp": {"factory": DGP, "num_nodes": num_nodes, **options},
        "num_train": num_train,
        "num_test": 500,
        "metrics": METRICS,
        "stability": {},
        "estimators": ["shared_mechanism", "shared_mechanism_small"],
        "worlds": worlds,
        "fits": 1,
        "note": note,
    }


def get_config() -> ConfigDict:
    factory = "crl.scm.shared_mechanism:shared_mechanism"
    pair = {"num_nodes": 2, "num_train": 1000, "worlds": 30}
    return ConfigDict(
        {
            "suite": "scm",
            "tasks": {
                "pair": _task(**pair, note="shd 0 in at least 29 of 30 worlds"),
                "pair_no_change": _task(
                    **pair, change="none", note="control: the orientation is seldom decided"
                ),
                "pair_linear_no_change": _task(
                    **pair,
                    change="none",
                    mechanism="linear",
                    note="control: nothing but chance, the two laws are equivalent",
                ),
                "three": _task(3, 1000, 10, "shd 0 in at least 9 of 10 worlds"),
                "ten": _task(10, 1000, 8, "mean shd at most .5"),
                "ten_mean_shift": _task(10, 1000, 4, "mean shd at most 1", mean_shift=1.0),
                "ten_laplace": _task(
                    10, 1000, 4, "the noise law is misspecified", noise="laplace"
                ),
            },
            "estimators": {
                "shared_mechanism": {"factory": factory},
                "shared_mechanism_small": {"factory": factory, "num_features": 16},
            },
        }
    )
