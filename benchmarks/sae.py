"""Dictionaries in superposition: who recovers the atoms, and does it in every fit?

crl run benchmarks/sae.py --workdir results/sae
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    metrics = "crl.metrics.dictionaries:"
    names = ["dictionary_mcc", "support_f1", "fvu", "l0", "dead_fraction", "coherence"]
    shared = {
        "num_train": 16384,
        "num_test": 2048,
        "metrics": {name: metrics + name for name in names},
        "stability": {"pw_mcc": metrics + "pw_mcc"},
        "worlds": 2,
        "fits": 3,
    }

    def methods(num_atoms: int, k: int) -> dict:
        topk = {"factory": "crl.sae.topk_sae:topk_sae", "num_atoms": num_atoms, "k": k}
        peer = "benchmarks.peers.sklearn_dictionary:minibatch_dictionary"
        return {
            "topk_sae": topk,
            "topk_sae_no_auxk": {**topk, "aux_weight": 0.0},
            "topk_sae_auxk_only": {**topk, "population_control": False},
            "topk_sae_plain": {**topk, "population_control": False, "aux_weight": 0.0},
            "sklearn": {"factory": peer, "num_atoms": num_atoms},
        }

    tasks = {
        "s1": ((128, 4), "clean: topk_sae at 0.99 or better and stable, plain TopK near 0.92"),
        "z1": ((128, 4), "Zipf frequencies, pairs and noise: population control helps most"),
        "song": (
            (32, 3),
            "control: amplitudes near 0, where no TopK encoder is right and FVU misleads",
        ),
    }
    return ConfigDict(
        {
            "suite": "sae",
            "tasks": {
                name: {
                    **shared,
                    "dgp": {"factory": f"crl.dgp.superposition:{name}"},
                    "estimators": methods(*sizes),
                    "note": note,
                }
                for name, (sizes, note) in tasks.items()
            },
        }
    )
