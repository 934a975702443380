"""Every pillar in two minutes, each beside a control in which theory says it must fail.

crl run benchmarks/quick.py --workdir results/quick
crl report results/quick

Expected numbers are in the notes, measured on 2 CPU cores in float32.
"""

from ml_collections import ConfigDict

ICA, SCM, SAE = "crl.metrics.latents:", "crl.metrics.graphs:", "crl.metrics.dictionaries:"


def get_config() -> ConfigDict:
    tasks = {**linear_ica(), **torus(), **environments(), **superposition(), **digits()}
    return ConfigDict({"suite": "quick", "tasks": tasks})


def sources(law: str, mixing: dict, num_latents: int) -> dict:
    return {
        "factory": "crl.dgp.latent:mixed_sources",
        "source": {"factory": f"crl.dgp.sources:{law}"},
        "mixing": mixing,
        "num_latents": num_latents,
    }


def fastica(num_latents: int) -> dict:
    return {"factory": "crl.ica.fastica:fastica", "num_latents": num_latents}


def autoencoder_then_ica(num_latents: int, **options) -> dict:
    factory = "crl.ica.isometric_autoencoder:isometric_autoencoder"
    network = {"factory": factory, "num_latents": num_latents, **options}
    return {"factory": "crl.combinators:then", "args": [network, fastica(num_latents)]}


def linear_ica() -> dict:
    def task(law, note):
        peer = "benchmarks.peers.sklearn_fastica:sklearn_fastica"
        return {
            "dgp": sources(law, {"factory": "crl.dgp.mixings:linear", "condition": 10.0}, 5),
            "num_train": 2000,
            "num_test": 2000,
            "metrics": {"mcc": ICA + "mcc", "amari": ICA + "amari"},
            "estimators": {
                "fastica": fastica(5),
                "sklearn": {"factory": peer, "num_latents": 5},
            },
            "worlds": 8,
            "note": note,
        }

    return {
        "linear ICA": task(
            "laplace",
            "Laplace sources, mixing of condition 10. Independent non-Gaussian sources are "
            "identified up to order, sign and scale: MCC 0.999, the same as scikit-learn's.",
        ),
        "linear ICA, Gaussian": task(
            "gaussian",
            "Control: Gaussian sources are identified up to a rotation only. MCC falls to "
            "what a random rotation gives, about 0.72.",
        ),
    }


def torus() -> dict:
    """Isometric mixing, nonlinear: an autoencoder that keeps distances leaves a rotation."""

    network = {"width": 32, "num_steps": 1000}
    return {
        "torus, d = 5": {
            "dgp": sources("uniform", {"factory": "crl.dgp.mixings:flat_torus"}, 5),
            "num_train": 4000,
            "num_test": 1000,
            "metrics": {"mcc": ICA + "mcc", "affine_r2": ICA + "affine_r2"},
            "estimators": {
                "isometric AE + ICA": autoencoder_then_ica(5, **network),
                "linear ICA (control)": fastica(5),
            },
            "worlds": 2,
            "note": "Uniform latents, each wound around its circle by an exact isometry of "
            "R^d into R^2d. An autoencoder whose decoder keeps distances finds them up to a "
            "rigid motion and ICA settles the rotation: MCC 0.999. Linear ICA, the control, "
            "cannot undo the curvature: MCC 0.93.",
        }
    }


def environments() -> dict:
    """Changes of the noise laws between environments orient the edges."""

    def task(change, note):
        dgp = {"factory": "crl.dgp.scm:multi_environment_scm", "num_nodes": 4}
        estimator = "crl.scm.shared_mechanism:shared_mechanism"
        return {
            "dgp": {**dgp, "change": change, "mechanism": "linear", "edges_per_node": 0.75},
            "num_train": 500,
            "num_test": 200,
            "metrics": {"shd": SCM + "shd", "skeleton_shd": SCM + "skeleton_shd"},
            "estimators": {
                "shared_mechanism": {"factory": estimator, "num_envs": 3, "num_features": 16}
            },
            "worlds": 6,
            "note": note,
        }

    return {
        "SCM, three environments": task(
            "independent",
            "Four variables, about three edges, linear mechanisms, Gaussian noise. Two "
            "auxiliary environments that change the noise laws orient every edge: SHD 0.",
        ),
        "SCM, no change": task(
            "none",
            "Control: the environments are alike, so that only the Markov equivalence class "
            "follows from the data. Other orientations are guesses: mean SHD 1.2, while that "
            "of the skeleton stays near 0.",
        ),
    }


def superposition() -> dict:
    topk = {"factory": "crl.sae.topk_sae:topk_sae", "num_atoms": 128, "k": 4}
    plain = {"population_control": False, "aux_weight": 0.0}
    return {
        "SAE, atoms in superposition": {
            "dgp": {"factory": "crl.dgp.superposition:s1"},
            "num_train": 8192,
            "num_test": 2048,
            "metrics": {
                "atoms": SAE + "dictionary_mcc",
                "fvu": SAE + "fvu",
                "dead": SAE + "dead_fraction",
            },
            "stability": {"pw_mcc": SAE + "pw_mcc"},
            "estimators": {"topk_sae": topk, "plain TopK (control)": {**topk, **plain}},
            "worlds": 1,
            "fits": 2,
            "note": "128 atoms in 64 dimensions, 4 active. With population control every fit "
            "recovers the dictionary (MCC 0.996 and more); plain TopK, the control, loses "
            "atoms that the reconstruction hardly misses, and its fits disagree.",
        }
    }


def digits() -> dict:
    """Real data has no truth to compare with; what can be seen is whether fits agree."""
    shared = {
        "dgp": {"factory": "crl.dgp.real:digits"},
        "num_train": 1400,
        "num_test": 397,
        "worlds": 1,
        "fits": 3,
    }
    topk = {"factory": "crl.sae.topk_sae:topk_sae", "num_atoms": 64, "k": 8, "num_steps": 1000}
    return {
        "digits, latents": {
            **shared,
            "metrics": {},
            "stability": {"pw_mcc": ICA + "pairwise_mcc", "rigid": ICA + "pairwise_rigid"},
            "estimators": {
                "isometric AE + ICA": autoencoder_then_ica(4, width=32, num_steps=1000),
            },
            "note": "8 x 8 images of digits, four latents: do three fits on the same images "
            "find the same ones? Measured: not quite, pairwise MCC 0.81.",
        },
        "digits, dictionary": {
            **shared,
            "metrics": {"fvu": SAE + "fvu"},
            "stability": {"pw_mcc": SAE + "pw_mcc"},
            "estimators": {"topk_sae": topk},
            "note": "8 x 8 images of digits, 64 atoms, 8 active: do three fits on the same "
            "images learn the same dictionary? Measured: they do not, pairwise MCC 0.57, at "
            "the same reconstruction error.",
        },
    }
