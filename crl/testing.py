"""The conformance suite: what every estimator, DGP, metric and claim must keep.

``check_estimator``, ``check_dgp``, ``check_metric``, ``check_stability`` and
``check_claim`` raise an AssertionError that names the broken property. Ours are listed at
the end of this file, one line each; code from outside is checked by calling these
functions, or by
``pytest --estimator 'my_lab.tcl:tcl(num_latents=3)'``.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_data, check_key
from crl.core import DGP, PER_ROW, Data, Estimator, MissingClaim, Task, Truth
from crl.dgp import combinators, latent, mixings, real, scm, sources, superposition
from crl.ica import fastica, isometric_autoencoder
from crl.metrics import dictionaries, geometry, graphs, interventions, latents
from crl.numerics.linalg import unit_rows
from crl.sae import topk_sae
from crl.scm import shared_mechanism
from crl.testing_properties import ESTIMATOR_PROPERTIES, fits_its_task, trial
from crl.testing_tools import (
    assert_close,
    first,
    numbers,
    perfect_claims,
    random_claims,
    scalar,
)
from crl.theory import perturbed_ica, two_environments
from crl.theory.claim import verify


def check_estimator(estimator: Estimator, task: Task) -> None:
    """Raise an AssertionError naming the first property that the estimator breaks.

    task: an easy one for it; on it the fit must beat random claims.
    """
    t = trial(estimator, task)
    for holds in ESTIMATOR_PROPERTIES:
        holds(t)


def check_dgp(dgp: DGP, n: int = 64, *, exact: bool = True) -> None:
    """Raise an AssertionError naming the first property that the DGP breaks.

    n: rows per environment to draw. exact: x equals mix(world, z) (no noise is added).
    """
    world_key, key, other_key = jax.random.split(jax.random.key(0), 3)

    def draw(world_key, key):
        world = dgp.init(world_key)
        return world, dgp.sample(key, world, n)

    rounded = _rounded_products(jax.make_jaxpr(draw)(world_key, key).jaxpr)
    assert not rounded, (
        f"sample leaves the precision of {rounded} to the device, whose rounding makes "
        'another world: jnp.matmul(..., precision="highest")'
    )

    alone = jax.jit(draw)
    world, sample = alone(world_key, key)
    data, truth = sample
    check_data(data)
    labels, counts = np.unique(data.env, return_counts=True)
    assert (counts == n).all(), f"expected {n} rows per environment, got {counts.tolist()}"
    assert (np.diff(data.env) >= 0).all(), "rows must be grouped by environment"

    again = alone(world_key, key)[1]
    for (path, a), (_, b) in zip(numbers(sample), numbers(again)):
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
    assert_close(data.x, both[1], "vmap over worlds differs from a loop")

    with jax.enable_x64(True):
        wide = jax.jit(lambda a, b: draw(a, b)[1].data.x)(world_key, key)
        assert wide.dtype == data.x.dtype, (
            f"x is {data.x.dtype}, but {wide.dtype} under x64: pass dtype explicitly"
        )
        assert_close(data.x, wide, "x64 draws another world: pass dtype explicitly")

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
            assert_close(data.x, x, "x differs from mix(world, z)")


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
    perfect = perfect_claims(truth)
    guess = random_claims(jax.random.key(seed + 1), perfect, Data(truth.x, None, {}))
    jitted = jax.jit(metric)
    value = jitted(perfect, truth)
    shapes = [v.shape for v in jax.tree.leaves(value)]
    assert set(shapes) == {()}, f"expected a scalar or a dict of scalars, got {shapes}"
    worse = scalar(jitted(guess, truth))
    if best is not None:
        np.testing.assert_allclose(scalar(value), best, atol=1e-3, err_msg="perfect readout")
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
    assert_close(jnp.stack([scalar(value), worse]), first(batch), "vmap over readouts differs")


def check_stability(
    metric: Callable, needs: tuple[str, ...], best: float, seed: int = 0
) -> None:
    """Raise an AssertionError naming the first property that the stability metric breaks.

    needs: the fields of the stacked readouts that it reads. best: its value (or that of
    its first entry) for fits that agree. It must be pure, jit- and vmappable, say what is
    missing, get worse for unrelated fits, and not depend on the order of the fits.
    """
    truth = _example_truth(jax.random.key(seed), 256)
    perfect = perfect_claims(truth)
    data = Data(truth.x, None, {})
    keys = jax.random.split(jax.random.key(seed + 1), 3)
    fits = [random_claims(key, perfect, data) for key in keys]

    def stack(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    agreeing, unrelated = stack([fits[0]] * 3), stack(fits)
    jitted = jax.jit(metric)
    value = jitted(agreeing)
    shapes = [v.shape for v in jax.tree.leaves(value)]
    assert set(shapes) == {()}, f"expected a scalar or a dict of scalars, got {shapes}"
    np.testing.assert_allclose(scalar(value), best, atol=2e-3, err_msg="fits that agree")
    other = jitted(unrelated)
    worse = scalar(other)
    assert abs(worse - best) > 0.05, f"unrelated fits score {worse}, equal ones {best}"
    # Every fit takes the first place once: a metric may compare all with it by mistake.
    for order in ([1, 2, 0], [2, 1, 0]):
        moved = jax.tree.map(lambda a: a[jnp.array(order)], unrelated)  # noqa: B023
        assert_close(other, jitted(moved), f"the fits in order {order} score another value")
    for field in needs:
        try:
            metric(unrelated._replace(**{field: None}))
        except MissingClaim as error:
            assert field in str(error), f"the error must name readout.{field}: {error}"
        else:
            raise AssertionError(f"no MissingClaim although readout.{field} is None")
    batch = jax.jit(jax.vmap(metric))(stack([agreeing, unrelated]))
    assert_close(jnp.stack([scalar(value), worse]), first(batch), "vmap over worlds differs")


def check_claim(claim, key: Array) -> None:
    """Raise an AssertionError unless the claim holds at small size and its control fails."""
    check_key(key)
    verdict = verify(claim, key, small=True)
    assert verdict.holds, f"the claim does not hold: margin {verdict.margin}"
    assert verdict.control_fails, "the control passes: the verdict cannot tell"


def _rounded_products(jaxpr) -> list[str]:
    """The matrix products in a jaxpr that are not of the highest precision."""
    found = []
    for eqn in jaxpr.eqns:
        shapes = " and ".join(str(v.aval) for v in eqn.invars)
        if eqn.primitive.name == "dot_general":
            highest = (jax.lax.Precision.HIGHEST,) * 2
            found += [shapes] if eqn.params["precision"] != highest else []
        # Loops, branches and calls hold jaxprs of their own.
        inner = jax.tree.leaves(eqn.params, is_leaf=lambda v: hasattr(v, "eqns"))
        for sub in (v for v in inner if hasattr(v, "eqns")):
            found += _rounded_products(sub)
    return found


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
    dictionary = unit_rows(jax.random.normal(kd, (k, p)))
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

# name: (stability metric, the readout's fields that it needs, its value for equal fits)
STABILITY: dict[str, tuple[Callable, tuple[str, ...], float]] = {
    "pairwise_mcc": (latents.pairwise_mcc, ("z",), 1.0),
    "pairwise_rigid": (latents.pairwise_rigid, ("z",), 0.0),
    "pw_mcc": (dictionaries.pw_mcc, ("dictionary",), 1.0),
}

# name: (estimator, its easiest task)
ESTIMATORS: dict[str, Callable[[], tuple[Estimator, Task]]] = {
    "fastica": lambda: (fastica.fastica(3), sources_task()),
    "isometric_autoencoder": lambda: (
        isometric_autoencoder.isometric_autoencoder(3, width=16, depth=1, num_steps=500),
        sources_task(),
    ),
    "shared_mechanism": lambda: (shared_mechanism.shared_mechanism(), scm_task()),
    "topk_sae": lambda: (topk_sae.topk_sae(12, 2, num_steps=400), dictionary_task()),
}

CLAIMS = {
    "perturbed_ica": lambda: perturbed_ica.perturbed_ica(),
    "two_environments": lambda: two_environments.two_environments(),
}
