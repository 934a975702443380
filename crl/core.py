"""The contracts: what a dataset, a world, an estimator and its claims are.

Everything in crl is written against the tuples below, and they import jax only. A DGP
draws a world (one ground truth) and samples data from it; an estimator sees the data
and never the truth; its readout is what it claims; a metric compares the claims with a
sample. All functions are pure, take typed PRNG keys (``jax.random.key``) and can be
jit-compiled, vmapped over seeds and sharded over devices.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

PyTree = Any


class Data(NamedTuple):
    """All that an estimator may see; ``grouped`` and ``crl.as_data`` make one.

    Rows come grouped by environment, 0 (the base) first; environments may differ in size.
    x is finite; aux may hold NaN for what is missing, where the estimator allows it.
    """

    x: Array  # (n, p) observations, or (n, height, width, channels)
    env: Array  # (n,) int32 environment label; zeros when there is only one
    aux: dict[str, Array]  # side information per row by name, each (n, ...); see AUX
    given: dict[str, Array]  # facts about the dataset as a whole, without row axis; see
    #   GIVEN. 'count' is always there, so the number of environments E is static
    held: "Data | None" = None  # rows that no step sees, inside a fit: Estimator.holdout


# What the names in Data.aux mean. An estimator may read others; these are shared.
AUX = {
    "pair": "(n, p) the other half of a positive pair",
    "action": "(n, a) what an agent did",
    "target": "(n, d) 1 where a variable was intervened upon",
    "time": "(n,) position in a sequence",
    "y": "(n, q) a label or outcome",
    "instrument": "(n, q) what moves x and reaches y through x alone",
    "do_mask": "(n, p) bool, counterfactual query: the columns set by do()",
    "do_value": "(n, p) counterfactual query: the values they are set to",
}

# The same for Data.given.
GIVEN = {
    "count": "(E,) int32 rows of each environment",
    "target": "(E, d) 1 where environment e intervenes on variable i",
    "graph": "(d, d) 0/1 the causal graph, where it is known",
    "required": "(d, d) 1 where i -> j is known to be in the graph",
    "forbidden": "(d, d) 1 where i -> j is known not to be",
    "tier": "(d,) number of each variable's tier; none causes a variable of a lower one",
}


class Truth(NamedTuple):
    """The ground truth of a sample; never reaches an estimator. None: has no such thing."""

    z: Array | None = None  # (n, d) latents: sources, or exogenous noises of an SCM
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
    other: dict[str, Array] | None = None  # what has no field yet, by name


class Sample(NamedTuple):
    """What a DGP draws: the data and, apart from it, the truth."""

    data: Data
    truth: Truth


class DGP(NamedTuple):
    """A data-generating process.

    ``n`` is the number of rows per environment, static; a world whose environments differ
    in size says what it makes of it. ``sample`` depends on the key alone, never on the
    device count.
    """

    init: Callable  # (key) -> world, a pytree: graph, weights, mixing, law
    sample: Callable  # (key, world, n) -> Sample
    mix: Callable | None = None  # (world, z (d,)) -> x (p,): one point; None: real data
    held_out: Callable | None = None  # (key, world, n) -> Sample of the law on which claims
    #   are judged: do(x), unseen interventions, rows set apart. None: that of ``sample``


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
    other: dict[str, Array] | None = None  # claims that have no field yet, by name


# The fields of Truth and Readout with one entry per row of the data.
PER_ROW = ("z", "x", "y", "codes", "counterfactual", "affected", "log_prob")


def keep(key: Array, state: PyTree, data: Data) -> PyTree:
    """The default ``finish``: all of the state, as the last step left it."""
    del key, data
    return state


def accept(data: Data) -> None:
    """The default ``validate``: any data will do."""
    del data


class Estimator(NamedTuple):
    """A learning method as pure functions, built by a factory that closes over its options.

    Ints that set shapes are static; every float option of the factory may be traced, so
    that a sweep over it compiles once. ``info`` is a dict of scalars; ``crl.fit`` shows
    its ``loss`` as progress, and a loss that is not finite ends the fit as diverged, as
    NaN in the state does, looked for once a chunk. What is undefined at times belongs in
    other entries, or in ``Readout.diag``; inf in a state is legitimate.

    ``init`` and ``finish`` see all rows of memory, or the example of a ``crl.Stream``;
    ``step`` sees a batch of ``batch_size`` rows, drawn evenly over the environments. With
    ``holdout`` all three see the rows kept apart as ``data.held``, and only there.
    """

    init: Callable  # (key, data) -> state, any pytree
    step: Callable  # (key, state, batch) -> (state, info)
    readout: Callable  # (fitted, data) -> Readout, also on held-out data
    num_steps: int  # 0 for closed form
    finish: Callable = keep  # (key, state, data) -> fitted, once after the last step: what
    #   readout needs and what is saved, no more
    converged: Callable | None = None  # (state) -> bool: further steps change nothing
    batch_size: int | None = None  # rows that a step sees; None: all
    holdout: float = 0.0  # share of each environment's rows that no step sees, in [0, .5]
    validate: Callable = accept  # (data) -> None; ValueError on concrete data, before the fit


class Task(NamedTuple):
    """A question put to estimators: worlds, sizes and metrics.

    ``metrics`` see the claims of one fit on the held-out sample; ``stability`` metrics see
    those of all fits on one world, stacked: leaves (fits, ...).
    """

    dgp: DGP
    num_train: int  # rows per environment to fit on
    num_test: int  # rows per environment to judge on
    metrics: dict[str, Callable]  # name -> (claims, sample) -> scalar; see ``metric``
    stability: dict[str, Callable] = {}  # noqa: RUF012  (nobody writes to it)


def draw(task: Task, key: Array) -> tuple[Sample, Sample]:
    """One world of a task as two samples: to fit on, and to judge on.

    The second comes from ``dgp.held_out`` where there is one; else it is another draw of
    the same law.
    """
    key_world, key_train, key_test = jax.random.split(key, 3)
    world = task.dgp.init(key_world)
    train = task.dgp.sample(key_train, world, task.num_train)
    return train, (task.dgp.held_out or task.dgp.sample)(key_test, world, task.num_test)


def grouped(
    x: Array,
    count: Sequence[int] | None = None,
    aux: dict[str, Array] | None = None,
    **given: Array,
) -> Data:
    """A Data whose rows lie environment by environment; for use inside ``DGP.sample``.

    x: (n, p). count: rows of each environment, static; None: one environment. given: facts
    about the dataset by name, see GIVEN.
    """
    count = np.asarray([len(x)] if count is None else count, np.int32)  # (E,)
    env = np.repeat(np.arange(len(count), dtype=np.int32), count)  # (n,)
    return Data(x, jnp.asarray(env), aux or {}, {"count": jnp.asarray(count), **given})


def num_envs(data: Data) -> int:
    """The number of environments E, base included; static."""
    return data.given["count"].shape[0]


def map_rows(fn: Callable, data: Data) -> Data:
    """``data`` with ``fn`` applied to what has a row axis; it keeps each row's place."""
    x, env, aux = jax.tree.map(fn, (data.x, data.env, data.aux))
    return data._replace(x=x, env=env, aux=aux)


def take_rows(data: Data, index: Array) -> Data:
    """The rows ``index`` (m,), which must be grouped by environment too, and their count."""
    data = map_rows(lambda a: a[index], data)
    count = jnp.bincount(data.env, length=num_envs(data)).astype(jnp.int32)
    return data._replace(given={**data.given, "count": count})


def metric(best: float | None) -> Callable:
    """Decorator: a function (claims, sample) -> scalar, and the value of a perfect claim.

    best: 1 for a correlation, 0 for an error, inf or -inf for what has no bound, such as a
    log-likelihood; None where it judges nothing, such as the number of edges. Reports,
    tests and the scores of ``restarts`` read it; nothing guesses from a name.
    """

    def mark(fn: Callable) -> Callable:
        fn.best = best
        return fn

    return mark


def merit(metric: Callable, value: Array) -> Array:
    """How good a metric's value is: larger is better, whatever the metric's best value."""
    best = getattr(metric, "best", None)
    if best is None:
        name = getattr(metric, "__name__", metric)
        raise ValueError(
            f"expected a metric that says what is best, got {name}: mark it with "
            "@crl.metric(best=1.0), 0.0, or inf for a likelihood"
        )
    if np.isinf(best):
        return value if best > 0 else -value
    return -jnp.abs(value - best)


class MissingClaim(ValueError):
    """A metric asks for something that the claims or the truth do not hold."""


def need(record: Readout | Truth, field: str, who: str) -> Array:
    """``record.field``, or that entry of ``other``; a MissingClaim says who asked for it.

    Metrics start with it; inside jit it costs nothing, since None is static. Readouts of
    other libraries hold numpy arrays, which take the default precision here.
    """
    value = getattr(record, field, None)
    if value is None:
        value = (record.other or {}).get(field)
    if value is None:
        side, why = "truth", "the world has no such thing"
        if isinstance(record, Readout):
            side, why = "readout", "the estimator does not claim it"
        raise MissingClaim(f"metric {who} needs {side}.{field}, which is None: {why}")
    return jnp.asarray(value)
