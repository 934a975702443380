"""Dictionaries in superposition: who recovers the atoms, and does it in every fit?

crl run benchmarks/sae.py --workdir results/sae
"""

from ml_collections import ConfigDict

from benchmarks.peers.sklearn_dictionary import minibatch_dictionary
from crl.bench.run.suite import at_least, at_most, spec
from crl.dgp.superposition import s1, song, z1
from crl.metrics.dictionaries import (
    dead_fraction,
    dictionary_mcc,
    fvu,
    l0,
    max_coherence,
    support_f1,
)
from crl.metrics.stability import pw_mcc
from crl.sae.batch_topk_sae import batch_topk_sae
from crl.sae.topk_sae import topk_sae


def get_config() -> ConfigDict:
    tasks = {
        "s1": {
            **task(s1, methods(num_atoms=128, k=4)),
            "expect": {
                "topk_sae": {"dictionary_mcc": at_least(0.99), "pw_mcc": at_least(0.99)},
                "batch_topk_sae": {"dictionary_mcc": at_least(0.99), "pw_mcc": at_least(0.99)},
                "topk_sae_plain": {"dictionary_mcc": at_most(0.96), "pw_mcc": at_most(0.93)},
                "batch_topk_sae_plain": {
                    "dictionary_mcc": at_most(0.96),
                    "pw_mcc": at_most(0.93),
                },
            },
            "note": "clean: one look tells which atoms are active, and the dictionary is "
            "found up to order; without population control and AuxK (plain) atoms are lost",
        },
        "z1": {
            **task(z1, methods(num_atoms=128, k=4)),
            "expect": {
                "topk_sae": {"dictionary_mcc": at_least(0.95)},
                "topk_sae_plain": {"dictionary_mcc": at_most(0.93)},
                "batch_topk_sae": {"dictionary_mcc": at_least(0.95)},
                "sklearn": {"dictionary_mcc": at_most(0.9)},
            },
            "note": "Zipf frequencies, pairs and noise: population control helps most",
        },
        "song": {
            **task(song, methods(num_atoms=32, k=3)),
            "expect": {
                "topk_sae": {"dictionary_mcc": at_most(0.98), "pw_mcc": at_most(0.98)},
                "batch_topk_sae": {"dictionary_mcc": at_most(0.98), "pw_mcc": at_most(0.98)},
                "sklearn": {"dictionary_mcc": at_least(0.9)},
            },
            "note": "control: amplitudes near 0, where no TopK encoder is right and FVU "
            "misleads",
        },
        "s1_rates": {
            **task(s1, {"topk_sae": by_learning_rate(num_atoms=128, k=4)}),
            "expect": {
                "topk_sae[learning_rate=0.003]": {"dictionary_mcc": at_least(0.99)},
                "topk_sae[learning_rate=0.0003]": {"dictionary_mcc": at_most(0.9)},
            },
            "note": "how far the learning rate may be off: a tenth of it has not arrived "
            "after the same 2000 steps",
        },
    }
    return ConfigDict({"suite": "sae", "tasks": tasks}, allow_dotted_keys=True)


def task(world, estimators: dict) -> dict:
    return {
        "dgp": spec(world),
        "num_train": 16384,
        "num_test": 2048,
        "metrics": [dictionary_mcc, support_f1, fvu, l0, dead_fraction, max_coherence],
        "stability": [pw_mcc],
        "estimators": estimators,
        "worlds": 2,
        "fits": 3,
    }


def methods(**sizes) -> dict:
    """topk_sae, its two parts left out one by one and both; BatchTopK; and a peer."""
    plain = {"population_control": False, "aux_weight": 0.0}
    return {
        "topk_sae": spec(topk_sae, **sizes),
        "topk_sae_no_auxk": spec(topk_sae, aux_weight=0.0, **sizes),
        "topk_sae_auxk_only": spec(topk_sae, population_control=False, **sizes),
        "topk_sae_plain": spec(topk_sae, **plain, **sizes),
        "batch_topk_sae": spec(batch_topk_sae, **sizes),
        "batch_topk_sae_plain": spec(batch_topk_sae, **plain, **sizes),
        "sklearn": spec(minibatch_dictionary, num_atoms=sizes["num_atoms"]),
    }


def by_learning_rate(**sizes) -> dict:
    return spec(topk_sae, sweep={"learning_rate": [3e-4, 1e-3, 3e-3, 1e-2]}, **sizes)
