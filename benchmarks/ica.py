"""ICA: linear mixings at their floor, tori that need an isometric decoder, and controls.

crl run benchmarks/ica.py --workdir results/ica
"""

from ml_collections import ConfigDict

from benchmarks.peers.picard_o import picard_o
from benchmarks.peers.sklearn_fastica import sklearn_fastica
from crl.bench.run.suite import at_least, at_most, spec
from crl.combinators import then
from crl.dgp.latent import mixed_sources
from crl.dgp.mixings import flat_torus, linear
from crl.dgp.sources import gaussian, laplace, uniform
from crl.ica.fastica import fastica
from crl.ica.isometric_autoencoder import isometric_autoencoder
from crl.metrics.latents import affine_r2, amari, mcc, mcc_spearman, num_dead
from crl.metrics.stability import pairwise_mcc


def get_config() -> ConfigDict:
    config = {"suite": "ica", "tasks": {**linear_mixings(), **tori()}}
    return ConfigDict(config, allow_dotted_keys=True)


def linear_mixings(num_latents: int = 20, num_train: int = 20_000) -> dict:
    """Statistical floors of linear ICA, for all who do it; and a law that nobody can see."""
    methods = {
        "fastica": spec(fastica, num_latents=num_latents),
        "fastica_deflation": spec(fastica, num_latents=num_latents, algorithm="deflation"),
        "sklearn": spec(sklearn_fastica, num_latents=num_latents),
        "picard": spec(picard_o, num_latents=num_latents),
    }

    def task(source, note, expected):
        mixing = spec(linear, condition=10.0)
        return {
            "dgp": spec(
                mixed_sources, source=spec(source), mixing=mixing, num_latents=num_latents
            ),
            "num_train": num_train,
            "num_test": 10_000,
            "metrics": [mcc, amari, num_dead],
            "stability": [pairwise_mcc],
            "estimators": methods,
            "expect": {name: expected(name) for name in methods},
            "worlds": 5,
            "fits": 2,
            "note": note,
        }

    def near_floor(constant):
        """Twice the loss that the asymptotic variance leaves, and as much again for deflation,
        where an error of one component is handed on to the next."""

        def expected(name):
            loss = constant * (num_latents - 1) / (2 * num_train)
            factor = 4 if name == "fastica_deflation" else 2
            return {"mcc": at_least(1 - factor * loss), "pairwise_mcc": at_least(0.99)}

        return expected

    return {
        "linear_laplace": task(
            laplace,
            "1 - MCC at 1.257 (d - 1) / 2n for symmetric logcosh: 6e-4 here",
            near_floor(1.257),
        ),
        "linear_uniform": task(
            uniform,
            "1 - MCC at .595 (d - 1) / 2n: 3e-4 here",
            near_floor(0.595),
        ),
        "linear_gaussian": task(
            gaussian,
            "control: rotations of Gaussian sources cannot be seen, by anyone",
            lambda name: {"mcc": at_most(0.7)},
        ),
    }


def tori() -> dict:
    """Exact local isometries, for which the autoencoder with a penalty leaves a rotation."""

    def task(num_latents, weights):
        ica = spec(fastica, num_latents=num_latents)
        after_autoencoder = spec(
            then,
            representation=spec(isometric_autoencoder, num_latents=num_latents),
            postprocess=ica,
            sweep={"representation.weight": weights},
        )
        return {
            "dgp": spec(
                mixed_sources,
                source=spec(uniform),
                mixing=spec(flat_torus, span=5.0),
                num_latents=num_latents,
            ),
            "num_train": 20_000,
            "num_test": 5_000,
            "metrics": [mcc, mcc_spearman, affine_r2],
            "estimators": {"isometric_ae": after_autoencoder, "fastica": ica},
            "expect": {
                "isometric_ae[representation.weight=1.0]": {
                    "mcc": at_least(0.999),
                    "affine_r2": at_least(0.9995),
                },
                "isometric_ae[representation.weight=0.0]": {"affine_r2": at_most(0.9985)},
                "fastica": {"mcc": at_most(0.95)},
            },
            "worlds": 5,
            "note": "exact local isometry: the penalised autoencoder recovers the latents; "
            "without the penalty (weight 0) it does not, and linear ICA does not",
        }

    return {
        "torus_5": task(5, [0.0, 0.01, 0.1, 1.0, 10.0]),
        "torus_10": task(10, [0.0, 1.0]),
    }
