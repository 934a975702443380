"""All pillars in two minutes, each beside a control in which theory says it must fail.

crl run benchmarks/quick.py --workdir results/quick

Measured on 2 CPU cores with a cold compile cache: see the notes of the tasks for what to
expect of each.
"""

from ml_collections import ConfigDict

LATENTS, DICTIONARIES = "crl.metrics.latents:", "crl.metrics.dictionaries:"


def get_config() -> ConfigDict:
    return ConfigDict({"suite": "quick", "tasks": {**linear_ica(), **torus(), **sae()}})


def mixed_sources(source: str, mixing: dict, num_latents: int) -> dict:
    return {
        "factory": "crl.dgp.latent:mixed_sources",
        "source": {"factory": f"crl.dgp.sources:{source}"},
        "mixing": mixing,
        "num_latents": num_latents,
    }


def fastica(num_latents: int, **options) -> dict:
    return {"factory": "crl.ica.fastica:fastica", "num_latents": num_latents, **options}


def linear_ica() -> dict:
    def task(source, note):
        mixing = {"factory": "crl.dgp.mixings:linear", "condition": 10.0}
        peer = {"factory": "benchmarks.peers.sklearn_fastica:fastica", "num_latents": 5}
        return {
            "dgp": mixed_sources(source, mixing, 5),
            "num_train": 2000,
            "num_test": 2000,
            "metrics": {"mcc": LATENTS + "mcc", "amari": LATENTS + "amari"},
            "estimators": {"fastica": fastica(5), "sklearn fastica": peer},
            "worlds": 8,
            "note": note,
        }

    return {
        "ICA, Laplace sources": task(
            "laplace",
            "Linear mixing of condition 10. Independent non-Gaussian sources are identified "
            "up to order, sign and scale: MCC 0.99 or better, equal to scikit-learn's.",
        ),
        "ICA, Gaussian sources": task(
            "gaussian",
            "Negative control: Gaussian sources are identified up to a rotation only, so "
            "MCC must fall to that of a random rotation.",
        ),
    }


def torus() -> dict:
    return {}


def sae() -> dict:
    topk = {"factory": "crl.sae.topk_sae:topk_sae", "num_atoms": 128, "k": 4}
    plain = {"population_control": False, "aux_weight": 0.0}
    return {
        "SAE, atoms in superposition": {
            "dgp": {"factory": "crl.dgp.superposition:s1"},
            "num_train": 8192,
            "num_test": 2048,
            "metrics": {
                name: DICTIONARIES + name
                for name in ("dictionary_mcc", "fvu", "dead_fraction")
            },
            "stability": {"pw_mcc": DICTIONARIES + "pw_mcc"},
            "estimators": {"topk_sae": topk, "plain TopK (control)": {**topk, **plain}},
            "worlds": 1,
            "fits": 2,
            "note": "128 atoms in 64 dimensions, 4 active. With population control the "
            "dictionary is recovered in every fit; without, as a contrast, it is not.",
        }
    }
