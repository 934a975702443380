"""The conformance suite: what every estimator, DGP, metric and claim must keep.

``check_estimator``, ``check_dgp``, ``check_metric`` and ``check_claim`` raise an
AssertionError that names the broken property. Ours are listed at the end of this file,
one line each; code from outside is checked by calling these functions, or by
``pytest --estimator 'my_lab.tcl:tcl(num_latents=3)'``.
"""

import tempfile
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl import checkpoint, parallel, train
from crl.check import check_data, check_key, check_task
from crl.core import (
    DGP,
    PER_ROW,
    Data,
    Estimator,
    MissingClaim,
    PyTree,
    Readout,
    Task,
    Truth,
    split,
)
from crl.dgp import combinators, latent, mixings, real, scm, sources, superposition
from crl.ica import fastica, isometric_autoencoder
from crl.metrics import dictionaries, geometry, graphs, interventions, latents
from crl.sae import topk_sae
from crl.scm import shared_mechanism
from crl.theory import perturbed_ica, two_environments

NUM_STEPS = 3  # enough for optimisers with momentum to show hidden state


class Trial(NamedTuple):
    """One estimator on one task, with a sample of it: what each property looks at."""

    estimator: Estimator
    task: Task
    key: Array
    train: Data
    test: Data
    truth: Truth  # of the test rows


def trial(estimator: Estimator, task: Task, seed: int = 0) -> Trial:
    """Draw the sample on which the properties of ``estimator`` are checked."""
    world_key, sample_key, key = jax.random.split(jax.random.key(seed), 3)
    n = task.num_train + task.num_test

    @jax.jit
    def draw(world_key, sample_key):
        sample = task.dgp.sample(sample_key, task.dgp.init(world_key), n)
        return split(sample, n, task.num_train)

    fitted, held_out = draw(world_key, sample_key)
    return Trial(estimator, task, key, fitted.data, held_out.data, held_out.truth)


# --- properties of an estimator ---------------------------------------------------------


def fits_its_task(t: Trial) -> None:
    """The dry run passes: every metric finds the claim that it needs."""
    check_task(t.task, t.estimator)
    t.estimator.validate(t.train)


def state_structure_is_constant(t: Trial) -> None:
    """init, step and finish return states of one structure, shapes and dtypes."""
    state = jax.eval_shape(t.estimator.init, t.key, t.train)
    after = {"finish": jax.eval_shape(t.estimator.finish, t.key, state, t.train)}
    if t.estimator.num_steps:
        after["step"], info = jax.eval_shape(t.estimator.step, t.key, state, t.train)
        wrong = {k: v.shape for k, v in info.items() if v.shape != ()}
        assert not wrong, f"info must hold scalars, got shapes {wrong}"
    for name, new in after.items():
        assert _signature(new) == _signature(state), (
            f"{name} changes the state: {_first_difference(state, new)}"
        )


def second_call_does_not_retrace(t: Trial) -> None:
    """Python runs once: a second call with the same shapes finds the compiled program."""
    traces = 0

    def counted(key, state, data):
        nonlocal traces
        traces += 1
        return t.estimator.step(key, state, data)

    estimator = t.estimator._replace(step=counted)
    if not estimator.num_steps:
        return
    lane = _start(estimator, t.key, t.train)
    lane = _advance(estimator, t.key, lane, t.train)
    before = traces
    _advance(estimator, jax.random.fold_in(t.key, 1), lane, t.train)
    assert traces == before, f"the second call traced the step {traces - before} times more"


def replicas_equal_a_loop(t: Trial) -> None:
    """Every backend of map_replicas, vmap included, gives the claims of a loop over keys."""
    keys = jax.random.split(t.key, 3)

    def one(key):
        lane = train.start(t.estimator, key, t.train)
        if t.estimator.num_steps:
            lane, _ = train.advance(t.estimator, key, lane, t.train, NUM_STEPS)
        return lane.state

    def claims(state):
        # Not the states: parameters that the data hardly determine may differ.
        return train.readout(t.estimator, state, t.test)._replace(diag=None)

    def loop(key):
        lane = _start(t.estimator, key, t.train)
        return _advance(t.estimator, key, lane, t.train) if t.estimator.num_steps else lane

    alone = [claims(loop(key).state) for key in keys]
    for backend in parallel.BACKENDS:
        states = parallel.map_replicas(one, backend=backend)(keys)
        states = jax.device_get(states)
        for i, expected in enumerate(alone):
            state = jax.tree.map(lambda a, i=i: a[i], states)
            _assert_close(expected, claims(state), f"backend {backend} differs from a loop:")


def resumed_equals_uninterrupted(t: Trial) -> None:
    """A lane saved to disk, restored and continued ends bit for bit as one left alone."""
    if not t.estimator.num_steps:
        return
    lane = _advance(t.estimator, t.key, _start(t.estimator, t.key, t.train), t.train)
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.save(directory, 1, lane, {})
        _, restored, _ = checkpoint.restore(directory, lane)
    resumed = _advance(t.estimator, t.key, restored, t.train)
    alone = _advance(t.estimator, t.key, lane, t.train)
    for (path, a), b in zip(_numbers(alone), (b for _, b in _numbers(resumed))):
        assert np.array_equal(a, b, equal_nan=True), f"state{path} differs after a resume"


def reads_out_held_out_rows(t: Trial) -> None:
    """readout works on rows not fitted on, and a row's claim depends on that row alone."""
    state = _start(t.estimator, t.key, t.train).state
    n = t.test.x.shape[0]
    whole = train.readout(t.estimator, state, t.test)
    part = train.readout(t.estimator, state, jax.tree.map(lambda a: a[::2], t.test))
    assert isinstance(whole, Readout), f"readout returned {type(whole).__name__}"
    claims = {k: v for k, v in whole._asdict().items() if v is not None}
    assert claims, "readout claims nothing: every field is None"
    for name in PER_ROW:
        if name in claims:
            assert claims[name].shape[0] == n, f"readout.{name} must have one row per datum"
            _assert_close(
                claims[name][::2],
                getattr(part, name),
                f"readout.{name} of a row depends on the other rows",
            )


def keeps_dtype(t: Trial) -> None:
    """float32 data give float32 claims, under x64 too; float64 data give float64."""

    def cast(a, dtype):
        return a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a

    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            data = jax.tree.map(lambda a, d=dtype: cast(a, d), t.train)
            state = jax.eval_shape(t.estimator.init, jax.random.key(0), data)
            if t.estimator.num_steps:
                # Optimisers may hold constants in the default dtype; what a step carries
                # on must not drift towards it.
                new, _ = jax.eval_shape(t.estimator.step, jax.random.key(0), state, data)
                assert _signature(new) == _signature(state), (
                    f"with x64, step changes the state: {_first_difference(state, new)}"
                )
            claims = jax.eval_shape(t.estimator.readout, state, data)._replace(diag=None)
            for path, leaf in jax.tree_util.tree_leaves_with_path(claims):
                if jnp.issubdtype(leaf.dtype, jnp.floating):
                    name = jax.tree_util.keystr(path)
                    assert leaf.dtype == dtype, (
                        f"{jnp.dtype(dtype).name} data, but readout{name} is {leaf.dtype}"
                    )


def truth_cannot_leak(t: Trial) -> None:
    """Scrambling the truth in the world's samples cannot change what is claimed."""

    def scrambled(key, world, n):
        sample = t.task.dgp.sample(key, world, n)
        return sample._replace(truth=jax.tree.map(lambda a: jnp.flip(a) + 1, sample.truth))

    dgp = t.task.dgp._replace(sample=scrambled)
    other = trial(t.estimator, t.task._replace(dgp=dgp))
    a, b = (_start(t.estimator, t.key, u.train).state for u in (t, other))
    for (path, p), (_, q) in zip(_numbers(a), _numbers(b)):
        assert np.array_equal(p, q, equal_nan=True), f"state{path} depends on the truth"


def beats_a_random_encoder(t: Trial) -> None:
    """On its easiest world the fit scores better than claims drawn at random."""
    result = train.fit(t.estimator, t.key, t.train)
    assert not result.diverged, "the fit diverged on its easiest world"
    out = train.readout(t.estimator, result.state, t.test)
    # One guess at a small graph may be right; eight are not on average.
    guesses = [_random_claims(k, out, t.test) for k in jax.random.split(t.key, 8)]
    for name, metric in t.task.metrics.items():
        score = jax.jit(metric)
        ours = _scalar(score(out, t.truth))
        random = float(np.mean([_scalar(score(guess, t.truth)) for guess in guesses]))
        best = _scalar(score(_perfect(t.truth), t.truth))
        assert abs(ours - best) < abs(random - best), (
            f"{name}: {ours:.3f}, no better than random claims ({random:.3f})"
        )


ESTIMATOR_PROPERTIES = (
    fits_its_task,
    state_structure_is_constant,
    second_call_does_not_retrace,
    replicas_equal_a_loop,
    resumed_equals_uninterrupted,
    reads_out_held_out_rows,
    keeps_dtype,
    truth_cannot_leak,
    beats_a_random_encoder,
)


def check_estimator(estimator: Estimator, task: Task) -> None:
    """Raise an AssertionError naming the first property that the estimator breaks.

    task: an easy one for it; on it the fit must beat random claims.
    """
    t = trial(estimator, task)
    for holds in ESTIMATOR_PROPERTIES:
        holds(t)


# --- properties of a DGP ----------------------------------------------------------------


def check_dgp(dgp: DGP, n: int = 64, *, exact: bool = True) -> None:
    """Raise an AssertionError naming the first property that the DGP breaks.

    n: rows per environment to draw. exact: x equals mix(world, z) (no noise is added).
    """
    world_key, key, other_key = jax.random.split(jax.random.key(0), 3)

    def draw(world_key, key):
        world = dgp.init(world_key)
        return world, dgp.sample(key, world, n)

    alone = jax.jit(draw)
    world, sample = alone(world_key, key)
    data, truth = sample
    check_data(data)
    labels, counts = np.unique(data.env, return_counts=True)
    assert (counts == n).all(), f"expected {n} rows per environment, got {counts.tolist()}"
    assert (np.diff(data.env) >= 0).all(), "rows must be grouped by environment"

    again = alone(world_key, key)[1]
    for (path, a), (_, b) in zip(_numbers(sample), _numbers(again)):
        assert np.array_equal(a, b, equal_nan=True), f"the same key gave another sample{path}"
    other = alone(world_key, other_key)[1].data.x
    assert not np.array_equal(data.x, other), "another key gave the same x"

    rows = len(labels) * n
    for name in PER_ROW:
        value = getattr(truth, name)
        if value is not None:
            assert value.shape[0] == rows, f"truth.{name} must have {rows} rows"
    leaked = _leaks(data, truth)
    assert not leaked, f"data.aux[{leaked!r}] equals a part of the truth"

    # Two worlds in one program are the worlds of two programs.
    worlds = jnp.stack([other_key, world_key])
    both = jax.jit(jax.vmap(lambda w: draw(w, key)[1].data.x))(worlds)
    _assert_close(data.x, both[1], "vmap over worlds differs from a loop")

    with jax.enable_x64(True):
        wide = jax.jit(lambda a, b: draw(a, b)[1].data.x)(world_key, key)
        assert wide.dtype == data.x.dtype, (
            f"x is {data.x.dtype}, but {wide.dtype} under x64: pass dtype explicitly"
        )
        _assert_close(data.x, wide, "x64 draws another world: pass dtype explicitly")

    if dgp.mix is not None:
        z = truth.codes if truth.z is None else truth.z
        x, jacobian = jax.jit(
            lambda world, z: (
                jax.vmap(dgp.mix, in_axes=(None, 0))(world, z),
                jax.jacfwd(dgp.mix, argnums=1)(world, z[0]),
            )
        )(world, z)
        assert x.shape == data.x.shape, f"mix gives {x.shape}, x has {data.x.shape}"
        assert np.isfinite(jacobian).all(), "the Jacobian of mix is not finite"
        if exact:
            _assert_close(data.x, x, "x differs from mix(world, z)")


# --- properties of a metric -------------------------------------------------------------


def check_metric(
    metric: Callable, needs: tuple[str, ...], best: float | None, seed: int = 0
) -> None:
    """Raise an AssertionError naming the first property that the metric breaks.

    needs: the fields of the readout that it reads. best: its value (or that of its first
    entry) for a perfect readout; None for one that describes a claim without judging it.
    A metric must be pure, jit- and vmappable, say what is missing, and, where it judges,
    get worse for random claims.
    """
    truth = _example_truth(jax.random.key(seed), 256)
    perfect = _perfect(truth)
    guess = _random_claims(jax.random.key(seed + 1), perfect, Data(truth.x, None, {}))
    jitted = jax.jit(metric)
    value = jitted(perfect, truth)
    shapes = [v.shape for v in jax.tree.leaves(value)]
    assert set(shapes) == {()}, f"expected a scalar or a dict of scalars, got {shapes}"
    worse = _scalar(jitted(guess, truth))
    if best is not None:
        np.testing.assert_allclose(_scalar(value), best, atol=1e-3, err_msg="perfect readout")
        assert abs(worse - best) > 0.05, f"random claims score {worse}, a perfect one {best}"
    for field in needs:
        blank = perfect._replace(**{field: None})
        try:
            metric(blank, truth)
        except MissingClaim as error:
            assert field in str(error), f"the error must name readout.{field}: {error}"
        else:
            raise AssertionError(f"no MissingClaim although readout.{field} is None")
    two = jax.tree.map(lambda a, b: jnp.stack([a, b]), perfect, guess)
    batch = jax.jit(jax.vmap(metric, in_axes=(0, None)))(two, truth)
    _assert_close(
        jnp.stack([_scalar(value), worse]), _first(batch), "vmap over readouts differs"
    )


def check_claim(claim, key: Array) -> None:
    """Raise an AssertionError unless the claim holds at small size and its control fails."""
    from crl.theory.claim import verify

    check_key(key)
    verdict = verify(claim, key, small=True)
    assert verdict.holds, f"the claim does not hold: margin {verdict.margin}"
    assert verdict.control_fails, "the control passes: the verdict cannot tell"


# --- pieces -----------------------------------------------------------------------------

_start = jax.jit(train.start, static_argnums=0)


def _advance(estimator, key, lane, data):
    return _advance_jit(estimator, key, lane, data, NUM_STEPS)[0]


_advance_jit = jax.jit(train.advance, static_argnums=(0, 4))


def _signature(tree: PyTree):
    return jax.tree.structure(tree), [(a.shape, a.dtype) for a in jax.tree.leaves(tree)]


def _first_difference(a: PyTree, b: PyTree) -> str:
    if jax.tree.structure(a) != jax.tree.structure(b):
        return f"structure {jax.tree.structure(a)} became {jax.tree.structure(b)}"
    for (path, p), (_, q) in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree_util.tree_leaves_with_path(b)
    ):
        if (p.shape, p.dtype) != (q.shape, q.dtype):
            name = jax.tree_util.keystr(path)
            return f"state{name} {p.shape} {p.dtype} became {q.shape} {q.dtype}"
    return "no difference"


def _numbers(tree: PyTree):
    """(path, numpy array) of every leaf; typed keys as their data."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        yield jax.tree_util.keystr(path), np.asarray(leaf)


def _assert_close(a: PyTree, b: PyTree, message: str) -> None:
    for (path, p), (_, q) in zip(_numbers(a), _numbers(b), strict=True):
        # Float32 sums of a few thousand terms in another order agree to about 1e-4.
        np.testing.assert_allclose(p, q, rtol=2e-3, atol=2e-4, err_msg=f"{message} {path}")


def _first(value):
    return next(iter(value.values())) if isinstance(value, dict) else value


def _scalar(value) -> float:
    return float(_first(value))


def _leaks(data: Data, truth: Truth) -> str | None:
    """The name of an aux entry that equals a per-row part of the truth, if any."""
    for name, a in data.aux.items():
        for field, b in truth._asdict().items():
            # Known targets and queries are side information by design.
            if b is None or field == "targets" or b.shape != a.shape:
                continue
            if np.array_equal(np.asarray(a, float), np.asarray(b, float)):
                return name
    return None


def _example_truth(key: Array, n: int) -> Truth:
    kz, kd, kc = jax.random.split(key, 3)
    d, p, k = 4, 6, 8
    z = jax.random.laplace(kz, (n, d))
    dictionary = jax.random.normal(kd, (k, p))
    dictionary /= jnp.linalg.norm(dictionary, axis=1, keepdims=True)
    codes = jax.nn.relu(jax.random.normal(kc, (n, k)) - 1)
    graph = jnp.triu(jnp.ones((d, d), jnp.int32), 1).at[0, 3].set(0)
    return Truth(
        z=z,
        x=codes @ dictionary,
        graph=graph,
        mixing=jnp.eye(p, d) + 0.3,
        dictionary=dictionary,
        codes=codes,
        counterfactual=codes @ dictionary + 1,
        affected=jnp.ones((n, p), bool),
        jacobian=jnp.broadcast_to(jnp.eye(p, d), (8, p, d)),
    )


def _perfect(truth: Truth) -> Readout:
    """The readout that claims exactly the truth."""
    shared = {f: getattr(truth, f) for f in set(Readout._fields) & set(Truth._fields)}
    graph, mixing = truth.graph, truth.mixing
    if graph is not None:
        # In a DAG the number of ancestors sorts causes first.
        d = graph.shape[0]
        ancestors = np.linalg.matrix_power(np.asarray(graph) + np.eye(d), d) > 0
        shared["order"] = jnp.argsort(jnp.asarray(ancestors.sum(0)))
        shared["edge_prob"] = graph.astype(jnp.float32)
    if mixing is not None:
        shared["unmixing"] = jnp.linalg.pinv(mixing)
    return Readout(**shared)


def _random_claims(key: Array, like: Readout, data: Data) -> Readout:
    """Claims drawn at random with the shapes of ``like``: what knowing nothing scores."""
    keys = dict(zip(Readout._fields, jax.random.split(key, len(Readout._fields))))

    def draw(name, value):
        k = keys[name]
        if value is None or name == "diag":
            return None
        if name == "z":  # a random linear encoder of what was observed
            x = data.x.reshape(data.x.shape[0], -1)
            return x @ jax.random.normal(k, (x.shape[1], value.shape[1]), x.dtype)
        if name == "order":
            return jax.random.permutation(k, value)
        if name in ("graph", "edge_prob"):
            p = jax.random.permutation(keys["order"], value.shape[0])
            full = jnp.triu(jnp.ones(value.shape, value.dtype), 1)
            return full[p][:, p]
        noise = jax.random.normal(k, value.shape)
        if name == "dictionary":
            noise /= jnp.linalg.norm(noise, axis=1, keepdims=True)
        return noise

    return Readout(**{f: draw(f, v) for f, v in like._asdict().items()})


# --- easy tasks, for estimators from outside ---------------------------------------------


def sources_task() -> Task:
    """Three Laplace sources, mixed linearly."""
    dgp = latent.mixed_sources(sources.laplace(), mixings.linear(), num_latents=3)
    return Task(dgp, 512, 256, {"mcc": latents.mcc}, {})


def scm_task() -> Task:
    """Two variables and one edge, seen in three environments."""
    graph = jnp.array([[0, 1], [0, 0]], jnp.int32)
    dgp = scm.multi_environment_scm(2, graph, mechanism="linear")
    return Task(dgp, 200, 100, {"shd": graphs.shd}, {})


def noises_task() -> Task:
    """The same, judged by the recovered noises: for learners that use the environments."""
    return scm_task()._replace(metrics={"mcc": latents.mcc})


def dictionary_task() -> Task:
    """Twelve atoms in eight dimensions, two active in each row."""
    dgp = superposition.superposition(8, 12, 2)
    return Task(dgp, 2000, 256, {"mcc": dictionaries.dictionary_mcc}, {})


EASY_TASKS = (sources_task, scm_task, noises_task, dictionary_task)


def easy_task(estimator: Estimator) -> Task:
    """The first easy task whose data the estimator takes and whose metric it can answer."""
    reasons = []
    for make in EASY_TASKS:
        task = make()
        try:
            fits_its_task(trial(estimator, task))
            return task
        except ValueError as error:
            reasons.append(f"{make.__name__}: {error}")
    raise ValueError("no easy task fits this estimator: " + "; ".join(reasons))


# --- our own: a new one costs one line ----------------------------------------------------

SOURCES = (
    sources.laplace,
    sources.logistic,
    sources.uniform,
    sources.gaussian,
    sources.student_t,
    sources.generalized_normal,
    sources.gaussian_mixture,
)
# name: the DGP; those named "... + noise" are not exactly mix(world, z).
DGPS: dict[str, Callable[[], DGP]] = {
    "sources, linear": lambda: latent.mixed_sources(
        sources.alternating([make() for make in SOURCES]), mixings.linear(10.0, 8), 7
    ),
    "uniform, torus": lambda: _sources(sources.uniform(), mixings.flat_torus()),
    "laplace, near-isometric": lambda: _sources(sources.laplace(), mixings.near_isometric()),
    "uniform, leaky ReLU": lambda: _sources(sources.uniform(), mixings.leaky_relu_mlp()),
    "scm, linear": lambda: scm.multi_environment_scm(3, mechanism="linear", change="none"),
    "scm, anm": lambda: scm.multi_environment_scm(3, mechanism="anm", noise="laplace"),
    "scm, lsnm": lambda: scm.multi_environment_scm(3, mechanism="lsnm", mean_shift=1.0),
    "scm, general": lambda: scm.multi_environment_scm(3, graph="scale_free"),
    "song": superposition.song,
    "s1": superposition.s1,
    "z1 + noise": superposition.z1,
    "digits": real.digits,
    "standardized": lambda: combinators.standardized(_sources(sources.laplace())),
    "noisy + noise": lambda: combinators.noisy(_sources(sources.laplace()), 0.1),
    "perturbed": lambda: combinators.perturbed(_sources(sources.laplace()), 0.1),
    "with_jacobian": lambda: combinators.with_jacobian(_sources(sources.laplace())),
}


def _sources(source=None, mixing=None) -> DGP:
    return latent.mixed_sources(source, mixing or mixings.linear(), num_latents=3)


# name: (metric, the readout's fields that it needs, its value for a perfect readout)
METRICS: dict[str, tuple[Callable, tuple[str, ...], float]] = {
    "mcc": (latents.mcc, ("z",), 1.0),
    "mcc_spearman": (latents.mcc_spearman, ("z",), 1.0),
    "mcc_held_out": (latents.mcc_held_out, ("z",), 1.0),
    "affine_r2": (latents.affine_r2, ("z",), 1.0),
    "amari": (latents.amari, ("unmixing",), 0.0),
    "procrustes": (latents.procrustes, ("z",), 0.0),
    "shd": (graphs.shd, ("graph",), 0.0),
    "shd_double": (graphs.shd_double, ("graph",), 0.0),
    "skeleton_shd": (graphs.skeleton_shd, ("graph",), 0.0),
    "edge_scores": (graphs.edge_scores, ("graph",), 1.0),
    "edge_auroc": (graphs.edge_auroc, ("edge_prob",), 1.0),
    "order_divergence": (graphs.order_divergence, ("order",), 0.0),
    "counterfactual_rmse": (interventions.counterfactual_rmse, ("counterfactual",), 0.0),
    "dictionary_mcc": (dictionaries.dictionary_mcc, ("dictionary",), 1.0),
    "support_f1": (dictionaries.support_f1, ("dictionary", "codes"), 1.0),
    "fvu": (dictionaries.fvu, ("x",), 0.0),
    "num_dead": (latents.num_dead, ("z",), None),
    "l0": (dictionaries.l0, ("codes",), None),
    "dead_fraction": (dictionaries.dead_fraction, ("codes",), None),
    "coherence": (dictionaries.coherence, ("dictionary",), None),
    "decoder_isometry": (geometry.decoder_isometry, ("jacobian",), 0.0),
}

# name: (estimator, its easiest task)
ESTIMATORS: dict[str, Callable[[], tuple[Estimator, Task]]] = {
    "fastica": lambda: (fastica.fastica(3), sources_task()),
    "isometric_autoencoder": lambda: (
        isometric_autoencoder.isometric_autoencoder(3),
        sources_task(),
    ),
    "shared_mechanism": lambda: (shared_mechanism.shared_mechanism(), scm_task()),
    "topk_sae": lambda: (topk_sae.topk_sae(12, 2, num_steps=400), dictionary_task()),
}

CLAIMS = {
    "perturbed_ica": lambda: perturbed_ica.perturbed_ica(),
    "two_environments": lambda: two_environments.two_environments(),
}
