"""DGP -> DGP: standardised, noisy, perturbed or selected observations, hidden confounders.

What lives in the space of x is carried along: ``aux["pair"]``, ``aux["do_value"]`` and the
truth's mixing, dictionary, counterfactual, log_prob and jacobian. A field that the change
leaves without a simple value becomes None. ``held_out`` changes as ``sample`` does, facts
in ``given`` stay, and combinators nest.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options, is_concrete
from crl.core import DGP, PER_ROW, Data, PyTree, Sample, Truth
from crl.dgp.mixings import perturbation_map
from crl.dgp.sources import Source, gaussian
from crl.numerics.linalg import dot


class _World(NamedTuple):
    inner: PyTree
    own: PyTree


def _with_law(dgp: DGP, init: Callable, law: Callable, mix: Callable | None) -> DGP:
    """A DGP with law(draw, key, world, n) -> Sample, ``draw`` being either law of ``dgp``."""
    held_out = dgp.held_out and functools.partial(law, dgp.held_out)
    return DGP(init, functools.partial(law, dgp.sample), mix, held_out)


def _with_aux(data: Data, names: tuple[str, ...], change: Callable) -> dict:
    return {k: change(v) if k in names else v for k, v in data.aux.items()}


def _map_truth(truth: Truth, **changes: Callable) -> Truth:
    """``truth`` with fields changed where they are not None."""
    old = truth._asdict()
    return truth._replace(**{k: f(old[k]) for k, f in changes.items() if old[k] is not None})


def standardized(dgp: DGP, num_reference: int = 10_000) -> DGP:
    """Each column of x with mean zero and variance one.

    Mean and scale belong to the world, from ``num_reference`` rows per environment drawn
    for that alone, so that rows stay independent and ``mix`` stays a function of the point;
    a sample is thus standardised up to its own sampling error. Columns that are constant
    keep their scale. Dictionary atoms stay unit vectors, the codes take up their norms.
    """
    if num_reference < 2:
        raise ValueError(f"standardized needs num_reference >= 2, got {num_reference}")

    def init(key):
        k_world, k_reference = jax.random.split(key)
        world = dgp.init(k_world)
        x = dgp.sample(k_reference, world, num_reference).data.x
        mean, scale = jnp.mean(x, 0), jnp.std(x, 0)
        is_constant = scale <= 4 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
        return _World(world, (mean, jnp.where(is_constant, 1, scale)))

    def law(draw, key, world, n):
        return _standardize(draw(key, world.inner, n), *world.own)

    def mix(world, z):
        mean, scale = world.own
        return (dgp.mix(world.inner, z) - mean) / scale

    return _with_law(dgp, init, law, dgp.mix and mix)


def _standardize(sample: Sample, mean: Array, scale: Array) -> Sample:
    """The sample of (x - mean) / scale; mean and scale (p,)."""

    def change(x):
        return (x - mean) / scale

    data, truth = sample
    truth = _map_truth(
        truth,
        counterfactual=change,
        mixing=lambda a: a / scale[:, None],
        jacobian=lambda j: j / scale[:, None],
        log_prob=lambda p: p + jnp.sum(jnp.log(scale)),
    )
    if truth.dictionary is not None:
        atoms = truth.dictionary / scale
        norms = jnp.linalg.norm(atoms, axis=1)
        truth = truth._replace(dictionary=atoms / norms[:, None])
        truth = _map_truth(truth, codes=lambda c: c * norms)
    aux = _with_aux(data, ("pair", "do_value"), change)
    return Sample(data._replace(x=change(data.x), aux=aux), truth)


def noisy(dgp: DGP, scale: float = 0.1, source: Source | None = None) -> DGP:
    """x plus independent noise of standard deviation ``scale``, in the units of x.

    source: the law of the noise, Gaussian by default. Positive pairs get noise of their
    own. Truth.mixing, jacobian and mix stay those without noise; the density of the noisy
    observation is not known.
    """
    check_options("noisy", nonnegative={"scale": scale})
    source = source or gaussian()

    def add(key, x):
        return x + scale * source.sample(key, x.shape, x.dtype)

    def law(draw, key, world, n):
        k_inner, k_noise, k_pair = jax.random.split(key, 3)
        data, truth = draw(k_inner, world, n)
        aux = _with_aux(data, ("pair",), functools.partial(add, k_pair))
        data = data._replace(x=add(k_noise, data.x), aux=aux)
        return Sample(data, truth._replace(log_prob=None))

    return _with_law(dgp, dgp.init, law, dgp.mix)


def perturbed(dgp: DGP, eta: float = 0.1, perturbation: str = "mlp") -> DGP:
    """x + eta h(x), 0 <= eta < 1: the observations bent by a random map h.

    The misspecification axis for methods that assume a linear or isometric mixing. Where h
    has Lipschitz constant at most 1 the map is invertible, and each singular value of the
    Jacobian changes by a factor in [1 - eta, 1 + eta]. The kind "mlp" has it everywhere;
    "quadratic" only on the ball |x| <= 2 sqrt p for x with p columns, so give it
    ``standardized(dgp)``, for which |x| is about sqrt p, and mind the tails, which
    lie outside. See ``crl.dgp.mixings.perturbation_map``.

    eta may be traced. The truth's mixing, dictionary, log_prob and jacobian become None.
    Queries do(x) have no meaning after it, and a world that has them is refused. Raises
    ValueError for another eta or kind.
    """
    h = perturbation_map(perturbation)
    if is_concrete(eta) and not 0 <= eta < 1:
        raise ValueError(f"perturbed needs 0 <= eta < 1 to be invertible, got {eta}")

    def init(key):
        k_world, k_h = jax.random.split(key)
        world = dgp.init(k_world)
        x = jax.eval_shape(lambda: dgp.sample(key, world, 2).data.x)
        return _World(world, h.init(k_h, x.shape[1], x.dtype))

    def bend(world, x):
        return x + eta * h.apply(world.own, x)

    def law(draw, key, world, n):
        data, truth = draw(key, world.inner, n)
        if "do_value" in data.aux:
            raise ValueError(
                "perturbed needs a world without do() queries, got aux['do_value']: a value "
                "set before the perturbation is not a value of x after it"
            )

        def rows(x):
            return jax.vmap(lambda row: bend(world, row))(x)

        truth = truth._replace(mixing=None, dictionary=None, log_prob=None, jacobian=None)
        truth = _map_truth(truth, counterfactual=rows)
        aux = _with_aux(data, ("pair",), rows)
        return Sample(data._replace(x=rows(data.x), aux=aux), truth)

    def mix(world, z):
        return bend(world, dgp.mix(world.inner, z))

    return _with_law(dgp, init, law, dgp.mix and mix)


def confounded(dgp: DGP, num_pairs: int = 1, loading: float = 0.8) -> DGP:
    """Hidden confounders: pairs of noises share a cause that nobody sees.

    Each of ``num_pairs`` random pairs (i, j) has a variable u ~ N(0, 1) of its own, the same
    law in every environment: s_i + loading u, s_j + loading u or s_j - loading u with equal
    chance, in units of the noises (1 in the base of ``multi_environment_scm``). For worlds
    whose latents are independent noises with x = mix(z): noises are no longer independent,
    and a method that assumes so sees edges that are none.

    Truth.z holds the noises with what they share, other['confounded'] (d, d) is 1 at pairs
    (i, j) and (j, i). Counterfactual, affected, log_prob and jacobian become None, queries
    are left out. loading may be traced. Raises ValueError for worlds without ``mix`` or
    latents and for more pairs than there are.
    """
    check_options("confounded", nonnegative={"num_pairs": num_pairs, "loading": loading})

    def init(key):
        k_world, k_pairs, k_sign = jax.random.split(key, 3)
        world = dgp.init(k_world)
        z = jax.eval_shape(lambda: dgp.sample(key, world, 2).truth.z)
        if z is None or dgp.mix is None:
            raise ValueError(
                "confounded needs a world with mix and truth.z, the noises that x is made of"
            )
        first, second = np.triu_indices(z.shape[1], 1)
        if num_pairs > len(first):
            raise ValueError(
                f"confounded needs num_pairs <= {len(first)}, the pairs of {z.shape[1]} "
                f"variables, got {num_pairs}"
            )
        pair = jax.random.permutation(k_pairs, len(first))[:num_pairs]
        sign = jnp.sign(jax.random.normal(k_sign, (num_pairs,), z.dtype))
        rows = jnp.arange(num_pairs)
        loads = jnp.zeros((num_pairs, z.shape[1]), z.dtype)
        loads = loads.at[rows, jnp.asarray(first)[pair]].set(1)
        return _World(world, loads.at[rows, jnp.asarray(second)[pair]].set(sign))

    def law(draw, key, world, n):
        k_inner, k_shared = jax.random.split(key)
        data, truth = draw(k_inner, world.inner, n)
        loads = world.own  # (pairs, d)
        u = jax.random.normal(k_shared, (len(data.x), num_pairs), loads.dtype)
        z = truth.z + loading * dot(u, loads)
        joined = dot(jnp.abs(loads).T, jnp.abs(loads)) > 0
        pairs = (joined & ~jnp.eye(len(joined), dtype=bool)).astype(jnp.int32)
        truth = truth._replace(
            z=z,
            counterfactual=None,
            affected=None,
            log_prob=None,
            jacobian=None,
            other={**(truth.other or {}), "confounded": pairs},
        )
        x = jax.vmap(lambda z: dgp.mix(world.inner, z))(z)
        aux = {k: v for k, v in data.aux.items() if k not in ("do_mask", "do_value")}
        return Sample(data._replace(x=x, aux=aux), truth)

    return _with_law(dgp, init, law, lambda world, z: dgp.mix(world.inner, z))


def selected(
    dgp: DGP, strength: float = 2.0, num_columns: int = 2, num_candidates: int = 4
) -> DGP:
    """Selection bias: whether a row is seen depends on its own values.

    Each row is one of ``num_candidates``, taken with probability proportional to
    exp(strength a), a the row's score: the sum of ``num_columns`` random columns of x, each
    in standard deviations and with a random sign. Rows stay independent; their density is
    multiplied by a function of the score, which levels off, so that the chosen columns depend
    on each other as the causes of an effect that was conditioned on.

    Truth.other['selected_on'] (p,) is 1 at these columns; log_prob and jacobian become
    None. strength may be traced; 0 changes nothing. Raises ValueError for another
    num_columns than 1 to p.
    """
    check_options(
        "selected",
        nonnegative={"strength": strength},
        at_least_one={"num_columns": num_columns, "num_candidates": num_candidates},
    )

    def init(key):
        k_world, k_reference, k_columns, k_sign = jax.random.split(key, 4)
        world = dgp.init(k_world)
        x = dgp.sample(k_reference, world, 1000).data.x
        p = x.shape[1]
        if num_columns > p:
            raise ValueError(f"selected needs num_columns <= {p}, got {num_columns}")
        is_chosen = jax.random.permutation(k_columns, p) < num_columns
        sign = jnp.sign(jax.random.normal(k_sign, (p,), x.dtype))
        return _World(world, jnp.where(is_chosen, sign / jnp.std(x, 0), 0))

    def law(draw, key, world, n):
        k_draw, k_choice = jax.random.split(key)
        keys = jax.random.split(k_draw, num_candidates)
        candidates = jax.vmap(lambda k: draw(k, world.inner, n))(keys)
        score = strength * dot(candidates.data.x, world.own)  # (candidates, n)
        choice = jax.random.categorical(k_choice, score, 0)

        def pick(a):
            return a[choice, jnp.arange(len(choice))]

        data, truth = jax.tree.map(lambda a: a[0], candidates)
        fields = {f: getattr(candidates.truth, f, None) for f in PER_ROW}
        rows = {f: pick(a) for f, a in fields.items() if a is not None}
        data = data._replace(
            x=pick(candidates.data.x), aux=jax.tree.map(pick, candidates.data.aux)
        )
        chosen = (world.own != 0).astype(jnp.int32)
        other = {**(truth.other or {}), "selected_on": chosen}
        rows |= {"log_prob": None, "jacobian": None, "other": other}
        return Sample(data, truth._replace(**rows))

    return _with_law(dgp, init, law, dgp.mix and (lambda w, z: dgp.mix(w.inner, z)))


def with_jacobian(dgp: DGP, num_points: int = 64) -> DGP:
    """Truth.jacobian: that of the mixing at the first ``num_points`` latents, (m, p, d).

    Raises ValueError for a DGP without ``mix``.
    """
    check_options("with_jacobian", at_least_one={"num_points": num_points})
    if dgp.mix is None:
        raise ValueError("with_jacobian needs a DGP with mix, got one of real data (mix=None)")

    def law(draw, key, world, n):
        data, truth = draw(key, world, n)
        jacobian = jax.vmap(jax.jacfwd(lambda z: dgp.mix(world, z)))(truth.z[:num_points])
        return Sample(data, truth._replace(jacobian=jacobian))

    return _with_law(dgp, dgp.init, law, dgp.mix)
