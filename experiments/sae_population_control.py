"""Never select a sparse autoencoder by reconstruction: FVU beside recovery of the truth.

TopK with and without population control, and scikit-learn's online dictionary learning at
several penalties, on one world of ``s1`` and one of ``song``, two fits each.

    python -m experiments.sae_population_control --out results/sae_population_control.png

85 s of CPU time. Expected (held-out FVU / dictionary MCC, two fits):

                              s1                        song
    TopK                      .099 .097 / .925 .925     .081 .103 / .914 .883
    TopK, AuxK                .058 .072 / .982 .969     .081 .103 / .912 .887
    TopK, population control  .045 .047 / 1.000 .999    .079 .073 / .928 .966
    lasso 0.03                .021 .021 / .627 .635     .009 .009 / .681 .744
    lasso 0.3                 .113 .117 / .976 .960     .107 .129 / .952 .880

The least FVU has the worst dictionary on s1 and the worst but one on song: a dense code
reconstructs better. On song the sparse one whose FVU is .107 has the second best.
"""

import argparse
import pathlib
import time

import jax
import numpy as np
from ml_collections import ConfigDict

import crl
from benchmarks.peers.sklearn_dictionary import minibatch_dictionary
from crl.core import Estimator, Task, draw
from crl.dgp.superposition import s1, song
from crl.metrics.dictionaries import dictionary_mcc, fvu, support_f1
from crl.sae.topk_sae import topk_sae

WORLDS = {"s1": s1, "song": song}
METRICS = {"fvu": fvu, "mcc": dictionary_mcc, "f1": support_f1}


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "worlds": {"s1": {"num_atoms": 128, "k": 4}, "song": {"num_atoms": 32, "k": 3}},
            "num_train": 8192,
            "num_test": 2048,
            "fits": 2,
            "batch_size": 256,
            "alphas": (0.03, 0.3),
        }
    )


def methods(config: ConfigDict, num_atoms: int, k: int) -> dict:
    def topk(**options):
        return topk_sae(num_atoms, k, batch_size=config.batch_size, **options)

    return {
        "TopK": topk(population_control=False, aux_weight=0.0),
        "TopK, AuxK": topk(population_control=False),
        "TopK, population control": topk(),
        **{f"lasso {a}": minibatch_dictionary(num_atoms, alpha=a) for a in config.alphas},
    }


def measure(config: ConfigDict) -> list[dict]:
    """One row per world, method and fit: FVU, MCC and support F1 on held-out rows."""
    rows = []
    for name, sizes in config.worlds.items():
        task = Task(WORLDS[name](), config.num_train, config.num_test, METRICS)
        train, test = draw(task, jax.random.key(0))
        for method, fitter in methods(config, **sizes).items():
            for seed in range(config.fits):
                key = jax.random.key(seed)
                if isinstance(fitter, Estimator):
                    fitted = crl.fit(fitter, key, train.data).state
                    claims = crl.readout(fitter, fitted, test.data)
                else:
                    claims = fitter(key, train.data, test.data)
                row = {k: float(metric(claims, test)) for k, metric in task.metrics.items()}
                rows.append({"world": name, "method": method, **row})
                print(
                    "{world:5} {method:25} fvu {fvu:.3f}  mcc {mcc:.3f}  f1 {f1:.3f}".format(
                        **rows[-1]
                    ),
                    flush=True,
                )
    return rows


def plot(rows: list[dict], path: pathlib.Path) -> None:
    import matplotlib.pyplot as plt

    worlds = list(dict.fromkeys(row["world"] for row in rows))
    labels = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = plt.subplots(1, len(worlds), figsize=(9, 4), squeeze=False)
    for axis, world in zip(axes[0], worlds):
        for i, label in enumerate(labels):
            points = [r for r in rows if r["world"] == world and r["method"] == label]
            xs, ys = [r["fvu"] for r in points], [r["mcc"] for r in points]
            axis.scatter(xs, ys, color=f"C{i}", label=label)
        axis.set(title=world, xlabel="FVU, held out", ylabel="dictionary MCC")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    path = parser.parse_args().out
    start = time.process_time()
    rows = measure(get_config())
    plot(rows, path)
    for world in dict.fromkeys(row["world"] for row in rows):
        own = [r for r in rows if r["world"] == world]
        best = min(own, key=lambda r: r["fvu"])
        rank = np.argsort(np.argsort([-r["mcc"] for r in own]))[own.index(best)] + 1
        print(
            f"{world}: least FVU {best['fvu']:.3f} has {best['method']!r} with MCC "
            f"{best['mcc']:.3f}, number {rank} of {len(own)} in recovery"
        )
    print(f"{time.process_time() - start:.0f} s of CPU time, figure in {path}")


if __name__ == "__main__":
    main()
