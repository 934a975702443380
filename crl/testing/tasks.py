"""Easy tasks, on which an estimator that works at all beats knowing nothing."""

import functools

import jax.numpy as jnp

from crl.core import Estimator, Task
from crl.dgp import latent, mixings, scm, sources, superposition
from crl.metrics import dictionaries, graphs, latents
from crl.testing.estimators import Trial, fits_its_task


@functools.cache  # one DGP, whose programs compile once for all who share it
def sources_task() -> Task:
    """Three Laplace sources, mixed linearly."""
    dgp = latent.mixed_sources(sources.laplace(), mixings.linear(), num_latents=3)
    return Task(dgp, 512, 256, {"mcc": latents.mcc})


@functools.cache
def scm_task() -> Task:
    """Two variables and one edge, seen in three environments."""
    graph = jnp.array([[0, 1], [0, 0]], jnp.int32)
    dgp = scm.multi_environment_scm(2, graph, mechanism="linear")
    return Task(dgp, 200, 100, {"shd": graphs.shd})


@functools.cache
def noises_task() -> Task:
    """The same, judged by the recovered noises: for learners that use the environments."""
    return scm_task()._replace(metrics={"mcc": latents.mcc})


@functools.cache
def dictionary_task() -> Task:
    """Twelve atoms in eight dimensions, two active in each row."""
    dgp = superposition.superposition(8, 12, 2)
    return Task(dgp, 2000, 256, {"mcc": dictionaries.dictionary_mcc})


EASY_TASKS = (sources_task, scm_task, noises_task, dictionary_task)


def easy_task(estimator: Estimator) -> Task:
    """The first easy task whose data the estimator takes and whose metric it can answer."""
    reasons = []
    for make in EASY_TASKS:
        task = make()
        try:
            fits_its_task(Trial(estimator, task))
            return task
        except (TypeError, ValueError) as error:
            reasons.append(f"{make.__name__}: {error}")
    raise ValueError("no easy task fits this estimator: " + "; ".join(reasons))
