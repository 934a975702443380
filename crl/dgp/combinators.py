"""DGP -> DGP: standardised, noisy or perturbed observations, and the mixing's Jacobian.

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
from jax import Array

from crl.check import check_options, is_concrete
from crl.core import DGP, Data, PyTree, Sample, Truth
from crl.dgp.mixings import perturbation_map
from crl.dgp.sources import Source, gaussian


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
