"""Causal discovery: what each method reads the graph from.

crl run benchmarks/discovery.py --workdir results/discovery

Ten variables, two edges a node, noises of equal variance. Non-Gaussian noises tell
LiNGAM the order in any units; equal variances tell it NOTEARS, GOLEM and DAGMA in the
units of the model alone (Reisach et al. 2021): on standardised columns they are controls.
With Gaussian noises and standardised columns nobody can know more than the Markov
equivalence class. Of nonlinear additive models with Gaussian noise SCORE reads the order
from the curvature of log p, NoGAM whatever the noise; neither of linear ones. Invariant
causal prediction reads the causes of one variable from environments that change the others,
and is judged by how often all of them are true. Which edges may be relied on is told by the
share of resampled rows in which they are found again.
"""

import importlib.util

from ml_collections import ConfigDict

from benchmarks.peers.dagma import dagma_linear
from benchmarks.peers.empty_graph import empty_graph
from benchmarks.peers.lingam import direct_lingam as lingam_direct
from benchmarks.peers.random_order import random_order
from crl.bench.run.suite import at_least, at_most, between, spec
from crl.combinators import edge_confidence
from crl.dgp.combinators import standardized
from crl.dgp.intervened import intervened_scm
from crl.dgp.scm import multi_environment_scm
from crl.dgp.shuffled import shuffled_columns
from crl.metrics.graphs import (
    edge_auprc,
    edge_auroc,
    edge_f1,
    edge_recall,
    no_false_edge,
    order_divergence,
    shd,
    skeleton_shd,
)
from crl.scm.dagma import dagma
from crl.scm.direct_lingam import direct_lingam
from crl.scm.golem import golem
from crl.scm.ica_lingam import ica_lingam
from crl.scm.icp import icp
from crl.scm.nogam import nogam
from crl.scm.notears import notears
from crl.scm.score_matching import score_matching

BY_VARIANCE = {
    "notears": spec(notears),
    "golem": spec(golem),
    "golem, own variances": spec(golem, equal_variances=False),
    "dagma": spec(dagma),
}
BY_LAW = {"direct_lingam": spec(direct_lingam), "ica_lingam": spec(ica_lingam)}
BY_SCORE = {"score_matching": spec(score_matching), "nogam": spec(nogam)}
METHODS = BY_LAW | BY_VARIANCE
BASELINES = {"empty graph": spec(empty_graph), "random order": spec(random_order)}
PEERS = {"lingam": spec(lingam_direct), "dagma (authors)": spec(dagma_linear)}
PACKAGES = {"lingam": "lingam", "dagma (authors)": "dagma"}


def get_config() -> ConfigDict:
    tasks = {**orders(), **curved(), **causes(), **confidence()}
    return ConfigDict({"suite": "discovery", "tasks": tasks})


def installed() -> dict:
    """The peers whose packages are there."""
    return {
        name: peer for name, peer in PEERS.items() if importlib.util.find_spec(PACKAGES[name])
    }


def task(dgp: dict, expect: dict, note: str, worlds: int = 5) -> dict:
    return {
        "dgp": dgp,
        "num_train": 1000,
        "num_test": 100,
        "metrics": [shd, skeleton_shd, edge_f1, order_divergence],
        "estimators": METHODS | BASELINES | installed(),
        "expect": expect,
        "worlds": worlds,
        "note": note,
    }


def each(names, **bounds) -> dict:
    return {name: bounds for name in names}


def orders() -> dict:
    """About eighteen edges a world; an order by chance has half of them against it."""

    def worlds(noise):
        return spec(
            multi_environment_scm,
            num_nodes=10,
            edges_per_node=2.0,
            mechanism="linear",
            num_envs=1,
            noise=noise,
        )

    found = {"shd": at_most(2.0)}
    known_order = {"order_divergence": at_most(1.0)}
    lost = {"shd": at_least(6.0)}
    by_chance = {"order_divergence": at_least(4.0, of="mean")}
    controls = each(["empty graph"], shd=at_least(14.0)) | each(["random order"], **by_chance)
    exact = ["golem", "golem, own variances", "dagma"]
    return {
        "laplace": task(
            worlds("laplace"),
            each(BY_LAW, **found, **known_order)
            | each(exact, **found)
            | {"notears": {"shd": at_most(5.0)}}
            | controls,
            "all may: noises are not Gaussian, and have equal variances",
        ),
        "laplace_standardised": task(
            spec(standardized, dgp=worlds("laplace")),
            each(BY_LAW, **found, **known_order) | each(BY_VARIANCE, **lost) | controls,
            "LiNGAM alone, to which units say nothing; control for the others",
        ),
        "gaussian": task(
            worlds("gaussian"),
            each(BY_LAW, **by_chance)
            | each(exact, **found)
            | {"notears": {"shd": at_most(5.0)}}
            | controls,
            "by equal variances; control for LiNGAM: Gaussian noises say nothing",
        ),
        "gaussian_standardised": task(
            spec(standardized, dgp=worlds("gaussian")),
            each(BY_LAW, **by_chance) | each(BY_VARIANCE, **lost) | controls,
            "nobody: the Markov equivalence class is all that is identified",
        ),
    }


def curved() -> dict:
    """About six edges a world among six variables; an order by chance turns three."""

    def additive(mechanism, noise, expect, note):
        dgp = spec(
            multi_environment_scm, num_nodes=6, mechanism=mechanism, num_envs=1, noise=noise
        )
        estimators = BY_SCORE | BASELINES | {"direct_lingam": spec(direct_lingam)}
        shared = {"num_train": 500, "estimators": estimators}
        return task(dgp, expect, note, worlds=10) | shared

    found, lost = at_most(1.0), at_least(2.0, of="mean")
    return {
        "gp_gaussian": additive(
            "gp", "gaussian", each(BY_SCORE, order_divergence=found), "both may"
        ),
        "gp_gumbel": additive(
            "gp",
            "gumbel",
            {"nogam": {"order_divergence": found}},
            "NoGAM alone: the noise is not Gaussian",
        ),
        "linear_gaussian": additive(
            "linear",
            "gaussian",
            each(BY_SCORE, order_divergence=lost),
            "control: with linear mechanisms Gaussian noise tells neither the order",
        ),
    }


def causes() -> dict:
    """Variable 2 has the causes 0 and 1, two of five edges, and the effects 3 and 4."""
    graph = [
        [0, 0, 1, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]
    others = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    shared = {
        "num_train": 300,
        "num_test": 100,
        "metrics": [no_false_edge, edge_recall],
        "estimators": {"icp": spec(icp, target=2), "random order": spec(random_order)},
        "worlds": 40,
    }

    def shifted(strength):
        return spec(
            intervened_scm,
            num_nodes=5,
            intervention="shift",
            targets=others,
            graph=graph,
            mechanism="linear",
            strength=strength,
        )

    # At level .05, less two standard errors of 40 worlds.
    covers = {"no_false_edge": at_least(0.88, of="mean")}
    return {
        "causes": shared
        | {
            "dgp": shifted(2.0),
            "expect": {
                "icp": covers | {"edge_recall": at_least(0.3, of="mean")},
                "random order": {"no_false_edge": at_most(0.3, of="mean")},
            },
            "note": "each variable but the target is shifted once: recall 0.4 is perfect",
        },
        "causes_unmoved": shared
        | {
            "dgp": shifted(0.0),
            "expect": {"icp": covers | {"edge_recall": at_most(0.05, of="mean")}},
            "note": "control: environments that change nothing tell no cause",
        },
    }


def confidence() -> dict:
    """About nine edges a world and 200 rows: which of the edges found can be relied on?

    A learner that found every edge and tossed a coin for its direction would score .79.
    """
    estimators = {
        "direct_lingam": spec(edge_confidence, estimator=spec(direct_lingam), num=50),
        "empty graph": spec(empty_graph),
    }

    def ranked(noise, expect, note, control=None):
        dgp = spec(
            multi_environment_scm,
            num_nodes=6,
            edges_per_node=1.5,
            mechanism="linear",
            num_envs=1,
            noise=noise,
        )
        return {
            "dgp": dgp if control is None else spec(control, dgp=dgp),
            "num_train": 200,
            "num_test": 50,
            "metrics": [edge_auroc, edge_auprc, shd],
            "estimators": estimators,
            "expect": expect,
            "worlds": 10,
            "note": note,
        }

    found, nothing = at_least(0.9, of="mean"), between(0.4, 0.6, of="mean")
    return {
        "confidence": ranked("laplace", {"direct_lingam": {"edge_auroc": found}}, ""),
        "confidence_gaussian": ranked(
            "gaussian",
            {"direct_lingam": {"edge_auroc": at_most(0.87, of="mean")}},
            "control: Gaussian noises, so edges without directions",
        ),
        "confidence_shuffled": ranked(
            "laplace",
            {"direct_lingam": {"edge_auroc": nothing}},
            "control: columns of pure noise, each shuffled by itself",
            shuffled_columns,
        ),
    }
