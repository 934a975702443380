"""Causal graphs from a base and two auxiliary environments.

crl run benchmarks/scm.py --workdir results/scm
"""

from ml_collections import ConfigDict

DGP = "crl.dgp.scm:multi_environment_scm"
METRICS = {
    name: f"crl.metrics.graphs:{name}"
    for name in ("shd", "skeleton_shd", "edge_scores", "order_divergence", "edge_auroc")
}
METRICS["counterfactual"] = "crl.metrics.interventions:counterfactual_rmse"


def _task(num_nodes, num_train, worlds, note, estimators=(), **options):
    return {
        "dgp": {"factory": DGP, "num_nodes": num_nodes, **options},
        "num_train": num_train,
        "num_test": 500,
        "metrics": METRICS,
        "stability": {},
        "estimators": list(estimators) or ["shared_mechanism", "shared_mechanism_small"],
        "worlds": worlds,
        "fits": 1,
        "note": note,
    }


def get_config() -> ConfigDict:
    factory = "crl.scm.shared_mechanism:shared_mechanism"
    no_change = {
        "linear": "control: two linear Gaussian laws are equivalent, so nothing but chance",
        "anm": "control: near chance, since the effect on the location alone tells little",
        "general": "control: above chance, since an effect on the scale of the noise can be "
        "told from its reverse in one environment; look at undecided_edges",
    }
    only, small = ["shared_mechanism"], ["shared_mechanism_small"]
    return ConfigDict(
        {
            "suite": "scm",
            "tasks": {
                "pair": _task(2, 1000, 60, "shd 0 in at least 59 of 60 worlds"),
                **{
                    f"pair_no_change_{mechanism}": _task(
                        2, 1000, 60, note, only, change="none", mechanism=mechanism
                    )
                    for mechanism, note in no_change.items()
                },
                "three": _task(3, 1000, 10, "shd 0 in at least 9 of 10 worlds"),
                "three_sparse": _task(
                    3, 1000, 10, "shd 0 in at least 9 of 10 worlds", edges_per_node=0.5
                ),
                "three_10000": _task(
                    3, 10_000, 4, "counterfactual all at most .1; affected near .1", only
                ),
                "ten": _task(10, 1000, 8, "mean shd at most .5"),
                "ten_mean_shift": _task(10, 1000, 4, "mean shd at most 1", mean_shift=1.0),
                "ten_laplace": _task(
                    10, 1000, 4, "the noise law is misspecified", noise="laplace"
                ),
                "twenty": _task(20, 2000, 2, "mean shd at most 1", only),
                "thirty": _task(30, 500, 2, "by greedy search alone", small),
                "fifty": _task(50, 1000, 1, "by greedy search alone", small),
            },
            "estimators": {
                "shared_mechanism": {"factory": factory},
                "shared_mechanism_small": {"factory": factory, "num_features": 16},
            },
        }
    )
