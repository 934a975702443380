"""Every estimator of crl.scm keeps the contract."""

from functools import cache, partial

from properties import estimators

from crl.combinators import edge_confidence
from crl.core import Task
from crl.dgp.intervened import intervened_scm
from crl.dgp.scm import multi_environment_scm
from crl.dgp.time_series import structural_var
from crl.metrics.graphs import edge_auroc, shd
from crl.scm.dagma import dagma
from crl.scm.dibs import dibs
from crl.scm.direct_lingam import direct_lingam
from crl.scm.golem import golem
from crl.scm.hessian_ratio import hessian_ratio
from crl.scm.ica_lingam import ica_lingam
from crl.scm.icp import icp
from crl.scm.nogam import nogam
from crl.scm.notears import notears
from crl.scm.precision_ratio import precision_ratio
from crl.scm.score_matching import score_matching
from crl.scm.shared_mechanism import shared_mechanism
from crl.scm.var_lingam import var_lingam
from crl.testing.estimators import SHAPES


@cache
def collider_task():
    """Three variables whose graph is alone in its Markov equivalence class."""
    graph = [[0, 1, 0], [0, 0, 0], [0, 1, 0]]
    dgp = multi_environment_scm(3, graph, mechanism="linear", num_envs=1)
    return Task(dgp, 200, 100, {"edge_auroc": edge_auroc})


@cache
def linear_task():
    """A chain of three variables with Laplace noises."""
    graph = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    dgp = multi_environment_scm(3, graph, mechanism="linear", num_envs=1, noise="laplace")
    return Task(dgp, 400, 100, {"shd": shd})


@cache
def doubtful_task():
    """The chain with Laplace noises, to be ranked by confidence."""
    return linear_task()._replace(metrics={"edge_auroc": edge_auroc})


@cache
def bent_task():
    """One edge, whose law is not linear, seen in three environments."""
    return Task(multi_environment_scm(2, [[0, 1], [0, 0]]), 300, 100, {"shd": shd})


@cache
def changes_task():
    """A chain of three variables in three environments that change all noises."""
    graph = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    dgp = multi_environment_scm(3, graph, mechanism="linear")
    return Task(dgp, 2000, 100, {"shd": shd})


@cache
def additive_task():
    """A chain of three variables with nonlinear mechanisms and Gaussian noises."""
    graph = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    dgp = multi_environment_scm(3, graph, mechanism="gp", num_envs=1)
    return Task(dgp, 200, 100, {"shd": shd})


def series_task():
    """A chain of three variables within a step, and one step of past."""
    graph = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    return Task(structural_var(3, 1, graph), 400, 100, {"shd": shd})


def causes_task():
    """Two causes of variable 1, and environments in which each of them is shifted."""
    graph = [[0, 1, 0], [0, 0, 0], [0, 1, 0]]
    targets = [[1, 0, 0], [0, 0, 1]]
    dgp = intervened_scm(3, "shift", targets, graph, mechanism="linear")
    return Task(dgp, 300, 100, {"shd": shd})


test_estimator = estimators(
    {
        "dibs": (partial(dibs, 6, 8, 0.5, num_steps=100), collider_task),
        "direct_lingam": (direct_lingam, linear_task),
        "ica_lingam": (ica_lingam, linear_task),
        "hessian_ratio": (partial(hessian_ratio, 8, num_steps=50), changes_task),
        "icp": (partial(icp, 1), causes_task),
        "precision_ratio": (precision_ratio, changes_task),
        "notears": (notears, linear_task),
        "golem": (golem, linear_task),
        "dagma": (dagma, linear_task),
        "score_matching": (score_matching, additive_task),
        "nogam": (nogam, additive_task),
        "var_lingam": (var_lingam, series_task),
    }
)
test_heavy = estimators(
    {
        "shared_mechanism": (shared_mechanism, bent_task),
        "edge_confidence": (partial(edge_confidence, ica_lingam(), 10), doubtful_task),
    },
    fast=SHAPES,
)
