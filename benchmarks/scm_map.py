"""A map of causal discovery: methods by worlds, and what theory says of each square.

crl run benchmarks/scm_map.py --workdir results/scm_map

Five variables, about five edges. Where theory identifies the graph, or the causal order, a
bound says found; where it says that nothing can be known, the square is a control and a
bound says lost; where an assumption fails and theory promises nothing either way, there is
none. Twelve worlds a square: bounds are on means, far from both verdicts, and an order by
chance has half of the edges against it. edge_auprc is of those that claim probabilities.
"""

import importlib.util

from ml_collections import ConfigDict

from benchmarks.peers.causal_learn import cdnod
from benchmarks.peers.empty_graph import empty_graph
from benchmarks.peers.random_order import random_order
from crl.bench.run.suite import at_least, at_most, between, spec
from crl.combinators import edge_confidence
from crl.dgp.combinators import confounded, selected, standardized
from crl.dgp.intervened import intervened_scm
from crl.dgp.scm import multi_environment_scm
from crl.metrics.decisions import false_decisions
from crl.metrics.graphs import (
    ancestor_aid,
    cpdag_shd,
    edge_auprc,
    no_false_edge,
    order_divergence,
    shd,
    sid,
)
from crl.metrics.sortability import r2_sortability, varsortability
from crl.scm.dagma import dagma
from crl.scm.direct_lingam import direct_lingam
from crl.scm.golem import golem
from crl.scm.ica_lingam import ica_lingam
from crl.scm.icp import icp
from crl.scm.nogam import nogam
from crl.scm.notears import notears
from crl.scm.precision_ratio import precision_ratio
from crl.scm.score_matching import score_matching
from crl.scm.shared_mechanism import shared_mechanism

NUM_NODES = 5
CONFIDENT = spec(edge_confidence, estimator=spec(direct_lingam), num=30)
BY_LAW = {"direct_lingam": CONFIDENT, "ica_lingam": spec(ica_lingam)}
BY_VARIANCE = {"notears": spec(notears), "golem": spec(golem), "dagma": spec(dagma)}
BY_SCORE = {"score_matching": spec(score_matching), "nogam": spec(nogam)}
BY_CHANGE = {
    "shared_mechanism": spec(shared_mechanism, num_features=16, num_bootstrap=20),
    "precision_ratio": spec(precision_ratio),
}
BASELINES = {"empty graph": spec(empty_graph), "random order": spec(random_order)}

PEERS = {"cd-nod": spec(cdnod)} if importlib.util.find_spec("causallearn") else {}

FOUND = {"shd": at_most(1.0, of="mean")}
LOST = {"shd": at_least(1.0, of="mean")}
ORDERED = {"order_divergence": at_most(0.7, of="mean")}
CHANCE = {"order_divergence": at_least(0.7, of="mean")}


def get_config() -> ConfigDict:
    tasks = {**units(), **curves(), **violations(), **changes(), **interventions()}
    return ConfigDict({"suite": "scm_map", "tasks": tasks})


def each(names, bounds: dict) -> dict:
    return dict.fromkeys(names, bounds)


def square(dgp: dict, estimators: dict, expect: dict, note: str) -> dict:
    """One row of the map: all methods on the same twelve worlds."""
    return {
        "dgp": dgp,
        "num_train": 300,
        "num_test": 50,
        "metrics": [
            shd,
            cpdag_shd,
            sid,
            ancestor_aid,
            order_divergence,
            edge_auprc,
            no_false_edge,
            varsortability,
            r2_sortability,
            false_decisions,
        ],
        "estimators": estimators | BASELINES,
        "expect": {"empty graph": {"shd": at_least(2.0, of="mean")}} | expect,
        "worlds": 12,
        "note": note,
    }


def one_environment(mechanism="linear", noise="gaussian", scaling="raw") -> dict:
    return spec(
        multi_environment_scm,
        num_nodes=NUM_NODES,
        mechanism=mechanism,
        noise=noise,
        scaling=scaling,
        num_envs=1,
    )


def units() -> dict:
    """Linear laws, by noise and by units."""
    learners = BY_LAW | BY_VARIANCE
    laplace, gaussian = one_environment(noise="laplace"), one_environment()
    inner = one_environment(noise="laplace", scaling="internal")
    unsortable = {"empty graph": {"varsortability": between(0.2, 0.8, of="mean")}}
    sortable = {"empty graph": {"varsortability": at_least(0.8, of="mean")}}
    return {
        "laplace, raw": square(
            *(laplace, learners, each(BY_LAW, FOUND) | each(BY_VARIANCE, FOUND) | sortable),
            "all may: the law tells it, and so do equal variances",
        ),
        "laplace, standardised": square(
            spec(standardized, dgp=laplace),
            learners,
            each(BY_LAW, FOUND) | each(BY_VARIANCE, LOST) | unsortable,
            "LiNGAM alone; controls: those that read variances",
        ),
        "laplace, internally standardised": square(
            inner,
            learners,
            each(BY_LAW, FOUND) | each(BY_VARIANCE, LOST) | unsortable,
            "as standardised, and R^2 says little of the order either",
        ),
        "gaussian, raw": square(
            *(gaussian, learners, each(BY_LAW, CHANCE) | each(BY_VARIANCE, FOUND) | sortable),
            "by equal variances alone; controls: LiNGAM",
        ),
        "gaussian, standardised": square(
            spec(standardized, dgp=gaussian),
            learners | BY_SCORE,
            each(BY_LAW | BY_SCORE, CHANCE) | each(BY_VARIANCE, LOST) | unsortable,
            "nobody: the equivalence class is all there is, see cpdag_shd; control, too, for "
            "SCORE and NoGAM, since linear Gaussian laws have no curvature",
        ),
    }


def curves() -> dict:
    """Nonlinear laws with Gaussian noise, standardised: additive noise tells the order."""
    learners = BY_SCORE | {"direct_lingam": CONFIDENT, "dagma": BY_VARIANCE["dagma"]}

    def curved(mechanism, expect, note):
        dgp = spec(standardized, dgp=one_environment(mechanism))
        return square(dgp, learners, expect, note)

    return {
        "gp": curved("gp", each(BY_SCORE, ORDERED), "SCORE and NoGAM: the noise is additive"),
        "polynomial": curved(
            *("polynomial", each(BY_SCORE, ORDERED)),
            "SCORE and NoGAM; effects of products are pruned where neither shows alone",
        ),
        "post_nonlinear": curved(
            *("post_nonlinear", {}),
            "nobody is promised anything: noise is not additive, if mildly so",
        ),
    }


def violations() -> dict:
    """Worlds in which LiNGAM finds the graph, but for what is not seen."""
    laplace = one_environment(noise="laplace")
    learners = BY_LAW | {"dagma": BY_VARIANCE["dagma"]}
    return {
        "confounded": square(
            spec(confounded, dgp=laplace, num_pairs=3, loading=1.0),
            *(learners, each(BY_LAW, LOST)),
            "three of ten pairs share a hidden cause: edges that are none",
        ),
        "selected": square(
            spec(selected, dgp=laplace, strength=3.0),
            *(learners, each(BY_LAW, {"shd": at_least(0.3, of="mean")})),
            "rows chosen by the sum of two columns, which then depend on each other",
        ),
    }


def changes() -> dict:
    """Three environments; the mechanisms are shared."""
    learners = BY_CHANGE | {"direct_lingam": CONFIDENT} | PEERS

    def three(mechanism, expect, note, **world):
        dgp = spec(multi_environment_scm, num_nodes=NUM_NODES, mechanism=mechanism, **world)
        return square(dgp, learners, expect, note)

    linear_found = {"precision_ratio": {"order_divergence": at_most(1.0, of="mean")}}
    return {
        "changes, general": three(
            "general",
            {"shared_mechanism": FOUND},
            "shared_mechanism: every noise changes; laws are not linear",
        ),
        "changes, linear": three(
            "linear", {"shared_mechanism": FOUND} | linear_found, "both: laws are linear"
        ),
        "few changes, linear": three(
            "linear",
            {"shared_mechanism": {"shd": at_most(2.0, of="mean")}},
            "four in ten noises change: directions between the others have no support, and "
            "precision_ratio divides by no change at all",
            changed=0.4,
        ),
        "no changes, linear (control)": three(
            "linear",
            {"shared_mechanism": LOST, "precision_ratio": LOST},
            "control: three environments of one law",
            change="none",
        ),
    }


def interventions() -> dict:
    """Environments that intervene, on a fixed graph; variable 2 has the causes 0 and 1."""
    graph = [
        [0, 0, 1, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]
    others = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    learners = BY_CHANGE | {"icp": spec(icp, target=2), "direct_lingam": CONFIDENT} | PEERS

    def intervened(kind, targets, expect, note, mechanism="linear"):
        dgp = spec(
            intervened_scm,
            num_nodes=NUM_NODES,
            intervention=kind,
            targets=targets,
            graph=graph,
            mechanism=mechanism,
        )
        return square(dgp, learners, expect, note)

    covers = {"icp": {"no_false_edge": at_least(0.6, of="mean")}}
    undecided = {"false_decisions": at_most(0.0, of="worst")}  # free means tell no direction
    return {
        "shifts": intervened(
            *("shift", others, {"shared_mechanism": FOUND | undecided} | covers),
            "means of all but variable 2 are shifted: shared mechanisms, and the target of "
            "icp left alone; its shd counts the edges into the others as missing",
        ),
        "shifts, additive": intervened(
            *("shift", others, {"shared_mechanism": FOUND}),
            "the same with curved effects: shared_mechanism",
            "anm",
        ),
        "perfect interventions (control)": intervened(
            "perfect",
            [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]],
            {"shared_mechanism": {"shd": at_least(0.3, of="mean")}},
            "control: mechanisms are cut and not shared, that of icp's target among them",
            "anm",
        ),
    }
