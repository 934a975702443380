"""Recovery of sources wound around circles, against the angle that they cover.

Five uniform sources, each on its circle (an exact isometry of R^5 into R^10): FastICA of
the observations, of the codes of a plain autoencoder and of an isometric one.

    python -m experiments.torus_isometric_ica --out results/torus_isometric_ica.png

About 45 s of CPU time. Expected, median of two worlds (MCC / affine R2):

    angle, rad                     2                5                6
    isometric autoencoder, ICA     .9998 / 1.0000   .9998 / 1.0000   .9997 / .9998
    plain autoencoder, ICA         .9991 / .9985    .9966 / .9940    .9886 / .9796
    ICA                            .9988 / .9979    .9336 / .8718    .8094 / .6561

FastICA's own sampling error is 1 - MCC = 1.2e-4 at these 10 000 rows. The plain one's codes
are bent, the more the further the circles close.
"""

import argparse
import pathlib
import time

import jax
import numpy as np
from ml_collections import ConfigDict

import crl
from crl.combinators import then
from crl.core import Estimator
from crl.dgp.latent import mixed_sources
from crl.dgp.mixings import flat_torus
from crl.dgp.sources import uniform
from crl.ica.fastica import fastica
from crl.ica.isometric_autoencoder import isometric_autoencoder
from crl.metrics.latents import affine_r2, mcc


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "num_latents": 5,
            "spans": (2.0, 5.0, 6.0),  # rad; at 2 pi the mixing stops to be injective
            "num_rows": 10_000,
            "worlds": 2,
        }
    )


def methods(config: ConfigDict) -> dict[str, Estimator]:
    ica = fastica(config.num_latents)

    def after_autoencoder(weight):
        return then(isometric_autoencoder(config.num_latents, weight), ica)

    return {
        "isometric autoencoder, ICA": after_autoencoder(1.0),
        "plain autoencoder, ICA": after_autoencoder(0.0),
        "ICA": ica,
    }


def measure(config: ConfigDict) -> list[dict]:
    """One row per span, world and method: MCC and affine R2 on the fitted rows."""
    rows = []
    for method, estimator in methods(config).items():
        for span in config.spans:
            dgp = mixed_sources(uniform(), flat_torus(span), config.num_latents)
            for seed in range(config.worlds):
                k_world, k_rows, k_fit = jax.random.split(jax.random.key(seed), 3)
                sample = dgp.sample(k_rows, dgp.init(k_world), config.num_rows)
                fitted = crl.fit(estimator, k_fit, sample.data).state
                claims = crl.readout(estimator, fitted, sample.data)
                row = {
                    "mcc": float(mcc(claims, sample)),
                    "r2": float(affine_r2(claims, sample)),
                }
                rows.append({"method": method, "span": span, "world": seed, **row})
                print(
                    "{method:27} span {span} world {world} mcc {mcc:.5f} r2 {r2:.5f}".format(
                        **rows[-1]
                    ),
                    flush=True,
                )
    return rows


def plot(rows: list[dict], path: pathlib.Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, name, label in zip(axes, ("mcc", "r2"), ("MCC", "affine R2")):
        for i, method in enumerate(dict.fromkeys(r["method"] for r in rows)):
            own = [r for r in rows if r["method"] == method]
            spans = sorted({r["span"] for r in own})
            loss = [[1 - r[name] for r in own if r["span"] == span] for span in spans]
            axis.plot(spans, np.median(loss, axis=1), color=f"C{i}", label=method)
            axis.plot(spans, loss, ".", color=f"C{i}")
        axis.set(yscale="log", xlabel="angle covered by a source, rad", ylabel=f"1 - {label}")
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    path = parser.parse_args().out
    start = time.process_time()
    rows = measure(get_config())
    plot(rows, path)
    for method in dict.fromkeys(r["method"] for r in rows):
        for span in get_config().spans:
            own = [r for r in rows if (r["method"], r["span"]) == (method, span)]
            medians = [np.median([r[name] for r in own]) for name in ("mcc", "r2")]
            print(f"{method:27} span {span}: median mcc {medians[0]:.4f}, r2 {medians[1]:.4f}")
    print(f"{time.process_time() - start:.0f} s of CPU time, figure in {path}")


if __name__ == "__main__":
    main()
