"""Anchors that shift: the world of anchor regression.

    x = strength a + h + noise        y = effect <b, x> + confounding <b, h> + noise

with anchors a ~ N(0, 1), a hidden confounder h and a random direction b, all in m
dimensions. Coefficients (effect + delta) b have the risk, for anchors of variance s^2,

    (confounding - delta)^2 + delta^2 + (strength delta s)^2 + 1

so that gamma = s^2 in anchor regression, delta = confounding / (2 + gamma strength^2), is
the best of all, least squares (gamma = 1) the best without a shift, and instrumental
variables (delta = 0) the best under a boundless one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import DGP, Sample, Truth, grouped
from crl.numerics.linalg import dot


class World(NamedTuple):
    """The direction in which x acts on y."""

    direction: Array  # (m, 1) b, of unit norm


def shifted_anchors(
    num_treatments: int = 2,
    strength: float = 1.5,
    confounding: float = 2.0,
    effect: float = 2.0,
    shift: float = 5.0,
    target: str = "anchor",
    dtype=jnp.float32,
) -> DGP:
    """A regression in which anchors, or what is hidden, vary more in the held-out law.

    strength: of the anchors on x. confounding: of h on y. effect: of x on y, along b. shift:
    factor on a variance in the held-out law, of the 'anchor' or, as a control, of the
    'confounder', against which anchors do not insure. Floats may be traced.

    Data.aux: instrument (n, m), the anchors, and y (n, 1). Truth: y without its own noise
    but with what h adds, which a prediction from x pays for; other 'effect' (m, 1).
    """
    m = num_treatments
    check_options(
        "shifted_anchors",
        at_least_one={"num_treatments": m},
        nonnegative={"strength": strength, "confounding": confounding, "shift": shift},
        one_of={"target": (target, ("anchor", "confounder"))},
    )

    def init(key):
        b = jax.random.normal(key, (m, 1), dtype)
        return World(b / jnp.linalg.norm(b))

    def draw(key, world, n, sd_anchor, sd_confounder):
        key_a, key_h, key_x, key_y = jax.random.split(key, 4)
        a = sd_anchor * jax.random.normal(key_a, (n, m), dtype)
        h = sd_confounder * jax.random.normal(key_h, (n, m), dtype)
        x = strength * a + h + jax.random.normal(key_x, (n, m), dtype)
        outcome = dot(effect * x + confounding * h, world.direction)  # (n, 1)
        y = outcome + jax.random.normal(key_y, (n, 1), dtype)
        data = grouped(x, aux={"instrument": a, "y": y})
        return Sample(data, Truth(y=outcome, other={"effect": effect * world.direction}))

    def sample(key, world, n):
        return draw(key, world, n, 1, 1)

    def held_out(key, world, n):
        sd = jnp.sqrt(jnp.asarray(shift, dtype))
        sd_anchor, sd_confounder = (sd, 1) if target == "anchor" else (1, sd)
        return draw(key, world, n, sd_anchor, sd_confounder)

    return DGP(init, sample, None, held_out)
