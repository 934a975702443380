"""ICA: linear mixings at their floor, tori that need an isometric decoder, and controls.

crl run benchmarks/ica.py --workdir results/ica
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    latents = "crl.metrics.latents:"
    linear_metrics = {name: latents + name for name in ("mcc", "amari", "num_dead")}
    torus_metrics = {name: latents + name for name in ("mcc", "mcc_spearman", "affine_r2")}

    def spec(factory: str, **options) -> dict:
        return {"factory": factory, **options}

    def world(source: dict, mixing: dict, d: int) -> dict:
        return spec(
            "crl.dgp.latent:mixed_sources", source=source, mixing=mixing, num_latents=d
        )

    def linear_methods(d: int) -> dict:
        return {
            "fastica": spec("crl.ica.fastica:fastica", num_latents=d),
            "fastica_deflation": spec(
                "crl.ica.fastica:fastica", num_latents=d, algorithm="deflation"
            ),
            "sklearn": spec("benchmarks.peers.sklearn_fastica:sklearn_fastica", num_latents=d),
            "picard": spec("benchmarks.peers.picard_o:picard_o", num_latents=d),
        }

    def torus_methods(d: int) -> dict:
        fastica = spec("crl.ica.fastica:fastica", num_latents=d)

        def after_autoencoder(weight: float) -> dict:
            autoencoder = spec(
                "crl.ica.isometric_autoencoder:isometric_autoencoder",
                num_latents=d,
                weight=weight,
            )
            return spec(
                "crl.combinators:then", representation=autoencoder, postprocess=fastica
            )

        return {
            "isometric_ae": after_autoencoder(1.0),
            "plain_ae": after_autoencoder(0.0),
            "fastica": fastica,
        }

    def source(name: str) -> dict:
        return spec(f"crl.dgp.sources:{name}")

    linear = spec("crl.dgp.mixings:linear", condition=10.0)
    torus = spec("crl.dgp.mixings:flat_torus", span=5.0)
    tasks = {}
    for name, d, note in [
        ("laplace", 20, "1 - MCC at 1.257 (d - 1) / 2n for symmetric logcosh: 6e-4 here"),
        ("uniform", 20, "1 - MCC at .595 (d - 1) / 2n: 3e-4 here"),
        ("gaussian", 20, "control: rotations of Gaussian sources cannot be seen, by anyone"),
    ]:
        tasks[f"linear_{name}"] = {
            "dgp": world(source(name), linear, d),
            "num_train": 20_000,
            "num_test": 10_000,
            "metrics": linear_metrics,
            "stability": {"pairwise_mcc": latents + "pairwise_mcc"},
            "estimators": linear_methods(d),
            "worlds": 5,
            "fits": 2,
            "note": note,
        }
    for d in (5, 10):
        tasks[f"torus_{d}"] = {
            "dgp": world(source("uniform"), torus, d),
            "num_train": 20_000,
            "num_test": 5_000,
            "metrics": torus_metrics,
            "estimators": torus_methods(d),
            "worlds": 5,
            "note": "exact local isometry: the penalised autoencoder recovers, neither plain "
            "autoencoder nor linear ICA does",
        }
    return ConfigDict({"suite": "ica", "tasks": tasks})
