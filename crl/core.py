"""The contracts: what a dataset, a world, an estimator and its claims are.

Everything in crl is written against the tuples below, and they import jax only. A DGP
draws a world (one ground truth) and samples data from it; an estimator sees the data
and never the truth; its readout is what it claims; a metric compares the claim with the
truth. All functions are pure, take typed PRNG keys (``jax.random.key``) and can be
jit-compiled, vmapped over seeds and sharded over devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

PyTree = Any


class Data(NamedTuple):
    """All that an estimator may see. Every leaf has the leading axis n (rows).

    Rows come grouped by environment, the same number for each, 0 (the base) first; an
    estimator may allow others. x is finite; aux may hold NaN for what is missing, where
    the estimator allows it.
    """

    x: Array  # (n, p) observations, or (n, height, width, channels)
    env: Array  # (n,) int32 environment label; zeros when there is only one
    aux: dict[str, Array]  # side information by name, each (n, ...); see AUX


# What the names in Data.aux mean. An estimator may read others; these are shared.
AUX = {
    "pair": "(n, p) the other half of a positive pair",
    "action": "(n, a) what an agent did",
    "target": "(n, d) 1 where a variable was intervened upon",
    "time": "(n,) position in a sequence",
    "y": "(n, q) a label or outcome",
    "do_mask": "(n, p) bool, counterfactual query: the columns set by do()",
    "do_value": "(n, p) counterfactual query: the values they are set to",
}


class Truth(NamedTuple):
    """The ground truth of a sample; never reaches an estimator. None: has no such thing."""

    z: Array | None = None  # (n, d) latents: sources, or exogenous noises of an SCM
    x: Array | None = None  # (n, p) the observations themselves, as in Data.x: what a
    #   reconstruction is judged against (fraction of variance unexplained)
    y: Array | None = None  # (n, q) noise-free outcome
    graph: Array | None = None  # (d, d) graph[i, j] = 1 means i -> j
    targets: Array | None = None  # (E, d) 1 where environment e changes variable i
    mixing: Array | None = None  # (p, d) x = A z, for linear mixings
    dictionary: Array | None = None  # (k, p) unit-norm atoms in rows
    codes: Array | None = None  # (n, k)
    counterfactual: Array | None = None  # (n, p) x under the query in Data.aux
    affected: Array | None = None  # (n, p) bool: effects of the variables that it sets
    log_prob: Array | None = None  # (n,) log density of x, nats
    jacobian: Array | None = None  # (m, p, d) of the mixing at the first m rows


# The fields of Truth with one entry per row of the data.
PER_ROW = ("z", "x", "y", "codes", "counterfactual", "affected", "log_prob")


class Sample(NamedTuple):
    """What a DGP draws: the data and, apart from it, the truth."""

    data: Data
    truth: Truth


class DGP(NamedTuple):
    """A data-generating process.

    ``n`` is the number of rows per environment, static. ``sample`` depends on the key
    alone, never on the device count.
    """

    init: Callable  # (key) -> world, a pytree: graph, weights, mixing, law
    sample: Callable  # (key, world, n) -> Sample
    mix: Callable | None  # (world, z (d,)) -> x (p,): one point; None for real data


class Readout(NamedTuple):
    """What a fitted estimator claims. None = no claim."""

    z: Array | None = None  # (n, d) latents
    x: Array | None = None  # (n, p) reconstruction
    y: Array | None = None  # (n, q) prediction
    graph: Array | None = None  # (d, d) 0/1, graph[i, j] = 1 means i -> j
    edge_prob: Array | None = None  # (d, d) in [0, 1]: belief in i -> j
    graph_samples: Array | None = None  # (s, d, d) draws from a posterior over graphs
    order: Array | None = None  # (d,) a causal order, causes first
    targets: Array | None = None  # (E, d) 1 where environment e changes variable i
    unmixing: Array | None = None  # (d, p) B with z = (x - mean) B', for linear ones
    dictionary: Array | None = None  # (k, p) atoms in rows
    codes: Array | None = None  # (n, k)
    counterfactual: Array | None = None  # (n, p) answer to the query in Data.aux
    log_prob: Array | None = None  # (n,) log density of x, nats
    jacobian: Array | None = None  # (m, p, d) of the learned decoder at the first m rows;
    #   (1, p, d) for a linear one, the same at every row
    diag: dict[str, Array] | None = None  # scalars: checks of the method's own assumptions


def keep(key: Array, state: PyTree, data: Data) -> PyTree:
    """The default ``finish``: the state as the last step left it."""
    del key, data
    return state


def accept(data: Data) -> None:
    """The default ``validate``: any data will do."""
    del data


class Estimator(NamedTuple):
    """A learning method as pure functions, built by a factory that closes over its options.

    ``info`` is a dict of scalars. Two of its names are understood by ``crl.fit``:
    ``loss`` is shown as progress, and ``converged`` (bool) promises that further steps
    leave the state as it is, so the fit may stop early. A step whose state holds NaN or
    whose info is not finite, diagnostics included, ends the fit as diverged: what is
    undefined at times belongs in ``Readout.diag``. inf in a state is legitimate.
    """

    init: Callable  # (key, data) -> state, any pytree
    step: Callable  # (key, state, data) -> (state, info)
    readout: Callable  # (state, data) -> Readout, also on held-out data
    num_steps: int  # 0 for closed form
    finish: Callable = keep  # (key, state, data) -> state, once after the last step
    validate: Callable = accept  # (data) -> None; ValueError on concrete data, before the fit


class Task(NamedTuple):
    """A question put to estimators: worlds, sizes and metrics.

    ``metrics`` see one readout on the held-out rows; ``stability`` metrics see the
    readouts of all fits on one world, stacked.
    """

    dgp: DGP
    num_train: int  # rows per environment to fit on
    num_test: int  # further rows per environment to judge on
    metrics: dict[str, Callable]  # name -> (readout, truth) -> scalar or dict of scalars
    stability: dict[str, Callable]  # name -> (stacked readouts) -> the same; may be empty


class MissingClaim(ValueError):
    """A metric asks for something that the readout or the truth does not hold."""


def need(record: Readout | Truth, field: str, who: str) -> Array:
    """``record.field`` as a jax array, or a MissingClaim that says who asked for it.

    Metrics start with it; inside jit it costs nothing, since None is static. Readouts of
    other libraries hold numpy arrays, which take the default precision here.
    """
    value = getattr(record, field)
    if value is None:
        side, why = type(record).__name__.lower(), "the world has no such thing"
        if isinstance(record, Readout):
            why = "the estimator does not claim it"
        raise MissingClaim(f"metric {who} needs {side}.{field}, which is None: {why}")
    return jnp.asarray(value)


def split(sample: Sample, n: int, num_train: int) -> tuple[Sample, Sample]:
    """The first ``num_train`` of each environment's ``n`` rows, and the others.

    Works on any Sample whose rows are grouped by environment. Fields of the truth that
    are not per row (graph, dictionary, ...) go to both parts.
    """
    rows = sample.data.x.shape[0]

    def cut(a, part):
        a = a.reshape(rows // n, n, *a.shape[1:])[:, part]
        return a.reshape(-1, *a.shape[2:])

    def side(part):
        truth = {
            f: cut(v, part) if f in PER_ROW and v is not None else v
            for f, v in sample.truth._asdict().items()
        }
        data = jax.tree.map(lambda a: cut(a, part), sample.data)
        return Sample(data, Truth(**truth))

    return side(slice(None, num_train)), side(slice(num_train, None))
