"""DirectLiNGAM, DAGMA and ICP against lingam, dagma and causalicp, on the same arrays.

Each fit is checked to be as good: the pairs joined wrongly are printed, of ICP, which claims
the edges into one variable, whether all claims are true. A peer that is not installed is
left out.
"""

import functools
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import crl
from benchmarks.peers.causalicp import causal_icp
from benchmarks.peers.dagma import dagma_linear
from benchmarks.peers.lingam import direct_lingam as lingam_direct
from benchmarks.speed.timing import table, take_turns
from crl.core import DGP, Readout, Sample
from crl.dgp.intervened import intervened_scm
from crl.dgp.scm import multi_environment_scm
from crl.metrics.graphs import no_false_edge, shd
from crl.scm.dagma import dagma
from crl.scm.direct_lingam import direct_lingam
from crl.scm.icp import icp


def lingam(n: int, d: int, repeats: int) -> str:
    """One fit of n rows and d variables with Laplace noises."""
    worlds = _worlds(_linear(d, "laplace"), n)
    return _beside("DirectLiNGAM", direct_lingam(), worlds, "lingam", lingam_direct, repeats)


def central_path(n: int, d: int, repeats: int, num: int = 1) -> str:
    """One DAGMA fit, or ``num`` of them on datasets of their own in one call."""
    worlds = _worlds(_linear(d, "gaussian"), n, num)
    return _beside("DAGMA", dagma(), worlds, "dagma", dagma_linear, repeats)


def invariance(n: int, d: int, repeats: int) -> str:
    """Tests of all 2^(d - 1) sets of columns in two environments."""
    targets = np.ones((1, d), int)
    targets[0, 0] = 0
    worlds = _worlds(intervened_scm(d, "shift", targets, mechanism="linear"), n)
    peer = functools.partial(causal_icp, target=0)
    return _beside("ICP", icp(0), worlds, "causalicp", peer, repeats, no_false_edge)


def _linear(d: int, noise: str) -> DGP:
    return multi_environment_scm(
        d, edges_per_node=2.0, mechanism="linear", num_envs=1, noise=noise
    )


def _worlds(dgp: DGP, n: int, num: int = 1) -> Sample:
    """Samples of ``num`` worlds, stacked."""

    @jax.vmap
    def draw(key):
        key_world, key_rows = jax.random.split(key)
        return dgp.sample(key_rows, dgp.init(key_world), n)

    return jax.block_until_ready(jax.jit(draw)(jax.random.split(jax.random.key(0), num)))


def _beside(
    title, estimator, worlds: Sample, package: str, peer: Callable, repeats, judge=shd
) -> str:
    num, n, d = worlds.data.x.shape
    each = [jax.tree.map(lambda a, i=i: a[i], worlds) for i in range(num)]
    keys, found = jax.random.split(jax.random.key(0), num), {}

    def ours():
        if num == 1:
            state = crl.fit(estimator, keys[0], each[0].data).state
            graphs = jnp.asarray(crl.readout(estimator, state, each[0].data).graph)[None]
        else:
            state = crl.fit_replicas(estimator, keys, worlds.data).state
            graphs = crl.readout_replicas(estimator, state, worlds.data).graph
        found["crl"] = np.asarray(graphs)

    def theirs():
        run = peer()
        found[package] = [run(keys[0], world.data, world.data).graph for world in each]

    contestants = {"crl": ours}
    if importlib.util.find_spec(package):
        contestants[package] = theirs
    timings = take_turns(contestants, repeats)
    notes = {}
    for name, graphs in found.items():
        values = [judge(Readout(graph=g), w) for g, w in zip(graphs, each)]
        notes[name] = f"{judge.__name__} {np.mean(values):.1f}"
    return table(f"{title}, {num} dataset(s), n={n}, d={d}", "crl", timings, notes)
