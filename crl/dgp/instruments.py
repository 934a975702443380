"""Confounded regressions with instruments, judged under do(x).

    x = strength z F + u C + noise        y = x beta + z D + u w + noise

with instruments z, hidden confounders u, and weights drawn per world. While D = 0 and F
moves all directions of x, z identifies beta. The held-out law sets x by intervention,
x ~ N(0, do_sd^2), so that y is x beta on average and what confounding adds to a regression
of y on x is an error.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import DGP, Sample, Truth, grouped
from crl.numerics.linalg import dot


class World(NamedTuple):
    """One confounded regression."""

    effect: Array  # (m, 1) beta
    first_stage: Array  # (k, m) F, strength included
    direct: Array  # (k, 1) D: what instruments do to y past x, 0 for valid ones
    confounder_x: Array  # (h, m) C
    confounder_y: Array  # (h, 1) w


def linear_instruments(
    num_treatments: int = 2,
    num_instruments: int = 4,
    strength: float = 1.0,
    confounding: float = 1.0,
    exclusion: float = 0.0,
    do_sd: float = 3.0,
    dtype=jnp.float32,
) -> DGP:
    """A regression of y on m confounded treatments, with k random instruments.

    strength: root mean square of the weights of F. confounding: factor on w; C is the
    identity and |w|^2 = m. exclusion: root mean square of D, 0 for valid instruments: a
    control. do_sd: standard deviation of x under do(x). Noise has unit variance, as have u
    and z; beta is standard normal. All floats may be traced.

    Data.aux: instrument (n, k), y (n, 1). Truth: y = x beta, without confounding and noise;
    other 'effect' (m, 1).
    """
    m, k = num_treatments, num_instruments
    check_options(
        "linear_instruments",
        at_least_one={"num_treatments": m, "num_instruments": k},
        positive={"do_sd": do_sd},
        nonnegative={"strength": strength, "confounding": confounding, "exclusion": exclusion},
    )

    def init(key):
        key_effect, key_first, key_direct, key_confounder = jax.random.split(key, 4)
        w = jax.random.normal(key_confounder, (m, 1), dtype)
        return World(
            effect=jax.random.normal(key_effect, (m, 1), dtype),
            first_stage=strength * jax.random.normal(key_first, (k, m), dtype),
            direct=exclusion * jax.random.normal(key_direct, (k, 1), dtype),
            confounder_x=jnp.eye(m, dtype=dtype),
            confounder_y=confounding * m**0.5 * w / jnp.linalg.norm(w),
        )

    return _confounded(init, noise=1.0, do_sd=do_sd, dtype=dtype)


def augmented_regression(
    num_treatments: int = 32,
    augmentation: str = "invariant",
    strength: float = 1.0,
    noise: float = 0.1,
    dtype=jnp.float32,
) -> DGP:
    """A confounded regression whose rows were augmented; the parameters are the instruments.

    augmentation: 'invariant' adds strength z N to x, N the m - 1 orthonormal directions
    with N beta = 0, so that y stays as it was; 'violating' moves x along beta too and y not
    with it, a control; 'none' leaves x alone. The m - 1 instruments are one too few for
    two-stage least squares. Weights are standard normal, h = m. noise: its standard
    deviation. Floats may be traced.

    The linear simulation of Akbar et al. (NeurIPS 2025). Data and truth as of
    ``linear_instruments``, with do_sd = 1.
    """
    m = num_treatments
    check_options(
        "augmented_regression",
        at_least_one={"num_treatments - 1": m - 1},
        positive={"noise": noise},
        nonnegative={"strength": strength},
        one_of={"augmentation": (augmentation, ("invariant", "violating", "none"))},
    )

    def init(key):
        key_effect, key_x, key_y = jax.random.split(key, 3)
        effect = jax.random.normal(key_effect, (m, 1), dtype)
        # A rotation whose first row is the direction of beta; the others leave y alone.
        rows = jnp.linalg.qr(effect, mode="complete")[0].T  # (m, m)
        if augmentation == "violating":
            first = strength * rows
        else:
            first = strength * rows[1:] if augmentation == "invariant" else 0 * rows[1:]
        return World(
            effect=effect,
            first_stage=first,
            direct=-dot(first, effect),  # y is that of x before augmentation
            confounder_x=jax.random.normal(key_x, (m, m), dtype),
            confounder_y=jax.random.normal(key_y, (m, 1), dtype),
        )

    return _confounded(init, noise=noise, do_sd=1.0, dtype=dtype)


def _confounded(init, noise, do_sd, dtype) -> DGP:
    def draw(key, world, n, intervene):
        keys = jax.random.split(key, 5)
        k, m = world.first_stage.shape
        z, u, eps_x, eps_y, x_do = (
            jax.random.normal(key, (n, size), dtype)
            for key, size in zip(keys, (k, len(world.confounder_x), m, 1, m))
        )
        x = dot(z, world.first_stage) + dot(u, world.confounder_x) + noise * eps_x  # (n, m)
        if intervene:
            x = do_sd * x_do
        outcome = dot(x, world.effect)  # (n, 1)
        y = outcome + dot(z, world.direct) + dot(u, world.confounder_y) + noise * eps_y
        data = grouped(x, aux={"instrument": z, "y": y})
        return Sample(data, Truth(y=outcome, other={"effect": world.effect}))

    def sample(key, world, n):
        return draw(key, world, n, intervene=False)

    def held_out(key, world, n):
        return draw(key, world, n, intervene=True)

    return DGP(init, sample, None, held_out)
