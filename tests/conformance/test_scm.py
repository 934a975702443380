"""Every estimator of crl.scm keeps the contract."""

from functools import partial

from properties import estimators

from crl.core import Task
from crl.dgp.scm import multi_environment_scm
from crl.metrics.graphs import edge_auroc
from crl.scm.dibs import dibs
from crl.scm.shared_mechanism import shared_mechanism
from crl.testing.tasks import scm_task


def collider_task():
    """Three variables whose graph is alone in its Markov equivalence class."""
    graph = [[0, 1, 0], [0, 0, 0], [0, 1, 0]]
    dgp = multi_environment_scm(3, graph, mechanism="linear", num_envs=1)
    return Task(dgp, 200, 100, {"edge_auroc": edge_auroc})


test_estimator = estimators(
    {
        "shared_mechanism": (shared_mechanism, scm_task),
        "dibs": (partial(dibs, 6, 8, 0.5, num_steps=100), collider_task),
    }
)
