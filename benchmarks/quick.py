"""Every pillar in two minutes, each beside a control in which theory says it must fail.

crl run benchmarks/quick.py --workdir results/quick
crl report results/quick
"""

from ml_collections import ConfigDict

from benchmarks.peers.sklearn_fastica import sklearn_fastica
from crl.bench.run.suite import at_least, at_most, between, spec
from crl.combinators import then
from crl.dgp.latent import mixed_sources
from crl.dgp.mixings import flat_torus, linear
from crl.dgp.real import digits
from crl.dgp.scm import multi_environment_scm
from crl.dgp.sources import gaussian, laplace, uniform
from crl.dgp.superposition import s1
from crl.ica.fastica import fastica
from crl.ica.isometric_autoencoder import isometric_autoencoder
from crl.metrics.dictionaries import dead_fraction, dictionary_mcc, fvu
from crl.metrics.graphs import shd, skeleton_shd
from crl.metrics.latents import affine_r2, amari, mcc
from crl.metrics.stability import pairwise_mcc, pairwise_rigid, pw_mcc
from crl.sae.topk_sae import topk_sae
from crl.scm.shared_mechanism import shared_mechanism


def get_config() -> ConfigDict:
    tasks = {**linear_ica(), **torus(), **environments(), **superposition(), **real_digits()}
    return ConfigDict({"suite": "quick", "tasks": tasks})


def sources(law, mixing: dict) -> dict:
    return spec(mixed_sources, source=spec(law), mixing=mixing, num_latents=5)


def autoencoder_then_ica(num_latents: int) -> dict:
    network = spec(isometric_autoencoder, num_latents=num_latents, width=32, num_steps=1000)
    return spec(then, network, spec(fastica, num_latents=num_latents))


def linear_ica() -> dict:
    def task(law, expected, note):
        estimators = {
            "fastica": spec(fastica, num_latents=5),
            "sklearn": spec(sklearn_fastica, num_latents=5),
        }
        return {
            "dgp": sources(law, spec(linear, condition=10.0)),
            "num_train": 2000,
            "num_test": 2000,
            "metrics": [mcc, amari],
            "estimators": estimators,
            "expect": {name: {"mcc": expected} for name in estimators},
            "worlds": 8,
            "note": note,
        }

    return {
        "linear ICA": task(
            laplace,
            at_least(0.995),
            "Laplace sources, mixing of condition 10. Independent non-Gaussian sources are "
            "identified up to order, sign and scale, by scikit-learn's method as by ours.",
        ),
        "linear ICA, Gaussian": task(
            gaussian,
            at_most(0.85),
            "Control: Gaussian sources are identified up to a rotation only. MCC falls to "
            "what a random rotation gives.",
        ),
    }


def torus() -> dict:
    """Isometric mixing, nonlinear: an autoencoder that keeps distances leaves a rotation."""
    return {
        "torus, d = 5": {
            "dgp": sources(uniform, spec(flat_torus)),
            "num_train": 4000,
            "num_test": 1000,
            "metrics": [mcc, affine_r2],
            "estimators": {
                "isometric AE + ICA": autoencoder_then_ica(5),
                "linear ICA (control)": spec(fastica, num_latents=5),
            },
            "expect": {
                "isometric AE + ICA": {"mcc": at_least(0.998), "affine_r2": at_least(0.998)},
                "linear ICA (control)": {"mcc": at_most(0.95)},
            },
            "worlds": 2,
            "note": "Uniform latents, each wound around its circle by an exact isometry of "
            "R^d into R^2d. An autoencoder whose decoder keeps distances finds them up to a "
            "rigid motion and ICA settles the rotation. Linear ICA, the control, cannot undo "
            "the curvature.",
        }
    }


def environments() -> dict:
    """Changes of the noise laws between environments orient the edges."""

    def task(change, expected, note):
        world = {"change": change, "mechanism": "linear", "edges_per_node": 0.75}
        return {
            "dgp": spec(multi_environment_scm, num_nodes=4, **world),
            "num_train": 500,
            "num_test": 200,
            "metrics": [shd, skeleton_shd],
            "estimators": {"shared_mechanism": spec(shared_mechanism, num_features=16)},
            "expect": {"shared_mechanism": expected},
            "worlds": 6,
            "note": note,
        }

    return {
        "SCM, three environments": task(
            "independent",
            {"shd": at_most(0.5, of="mean")},
            "Four variables, about three edges, linear mechanisms, Gaussian noise. Two "
            "auxiliary environments that change the noise laws orient every edge.",
        ),
        "SCM, no change": task(
            "none",
            {"shd": at_least(0.6, of="mean"), "skeleton_shd": at_most(0.5)},
            "Control: the environments are alike, so that only the Markov equivalence class "
            "follows from the data. Other orientations are guesses, while the skeleton is "
            "found.",
        ),
    }


def superposition() -> dict:
    sizes = {"num_atoms": 128, "k": 4}
    plain = {"population_control": False, "aux_weight": 0.0}
    return {
        "SAE, atoms in superposition": {
            "dgp": spec(s1),
            "num_train": 8192,
            "num_test": 2048,
            "metrics": {"atoms": dictionary_mcc, "fvu": fvu, "dead": dead_fraction},
            "stability": [pw_mcc],
            "estimators": {
                "topk_sae": spec(topk_sae, **sizes),
                "plain TopK (control)": spec(topk_sae, **sizes, **plain),
            },
            "expect": {
                "topk_sae": {"atoms": at_least(0.99), "pw_mcc": at_least(0.99)},
                "plain TopK (control)": {"atoms": at_most(0.96), "pw_mcc": at_most(0.95)},
            },
            "worlds": 1,
            "fits": 2,
            "note": "128 atoms in 64 dimensions, 4 active. With population control every fit "
            "recovers the dictionary; plain TopK, the control, loses atoms that the "
            "reconstruction hardly misses, and its fits disagree.",
        }
    }


def real_digits() -> dict:
    """Real data has no truth to compare with; what can be seen is whether fits agree."""
    shared = {
        "dgp": spec(digits, test=0.22),
        "num_train": 1400,
        "num_test": 395,
        "worlds": 1,
        "fits": 3,
    }
    return {
        "digits, latents": {
            **shared,
            "metrics": [],
            "stability": {"pw_mcc": pairwise_mcc, "rigid": pairwise_rigid},
            "estimators": {"isometric AE + ICA": autoencoder_then_ica(4)},
            "expect": {"isometric AE + ICA": {"pw_mcc": between(0.6, 0.95)}},
            "note": "8 x 8 images of digits, four latents: do three fits on the same images "
            "find the same ones? Not quite.",
        },
        "digits, dictionary": {
            **shared,
            "metrics": [fvu],
            "stability": [pw_mcc],
            "estimators": {"topk_sae": spec(topk_sae, num_atoms=64, k=8, num_steps=1000)},
            "expect": {"topk_sae": {"pw_mcc": between(0.4, 0.8)}},
            "note": "8 x 8 images of digits, 64 atoms, 8 active: do three fits on the same "
            "images learn the same dictionary? They do not, at the same reconstruction error.",
        },
    }
