"""A regression in which some features are effects of the outcome, and environments differ.

    c = scale_e N(0, I)      y = <b, c> + scale_e noise      s = <a_e, y> + noise

x = (c, s), with |b| = 1, all noises standard. What y is made of is the same everywhere;
what it makes of s predicts y better than its causes do, until a_e turns: in the held-out
environment it points against what it was on average. b alone predicts with risk
1 there.

Of k spurious features, E <= k environments in general position leave a direction v with
<v, a_e> = 1 in all of them. <v, s> = y + noise then has one and the same relation to y, so
that an invariant predictor of less risk than b uses it (Rosenfeld, Ravikumar and Risteski,
"The risks of invariant risk minimization", ICLR 2021, of classes with means a_e).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.check import check_options
from crl.core import DGP, Sample, Truth, grouped
from crl.numerics.linalg import dot

CHANGES = ("effects", "noise", "none")
_SCALES = 0.2, 2.0  # of c and y's noise, in the first environment and in the last


class World(NamedTuple):
    """The causes' weights and what y makes of its effects, environment by environment."""

    causal: Array  # (m, 1) b
    effects: Array  # (E, k) a_e
    scale: Array  # (E,) standard deviation of c and of y's noise


def spurious_effects(
    num_causes: int = 2,
    num_effects: int = 1,
    num_envs: int = 6,
    change: str = "effects",
    spread: float = 1.0,
    dtype=jnp.float32,
) -> DGP:
    """An outcome with causes and effects among its features, judged where effects turn.

    change: 'effects' draws a_e ~ N(1, spread^2 I) for each environment; 'noise' keeps a = 1
    and lets c and y's noise have standard deviations from 0.2 to 2, evenly on a logarithmic
    scale; 'none' keeps both, so that all environments are one. spread may be traced.

    Data.aux: y (n, 1). Held out is one environment with scale 1 and effects -1 per feature.
    Truth: other 'effect' (m + k, 1): b, and 0 for what y causes. Raises ValueError for
    options out of range.
    """
    m, k = num_causes, num_effects
    check_options(
        "spurious_effects",
        at_least_one={"num_causes": m, "num_effects": k, "num_envs": num_envs},
        nonnegative={"spread": spread},
        one_of={"change": (change, CHANGES)},
    )

    def init(key):
        key_causal, key_effects = jax.random.split(key)
        b = jax.random.normal(key_causal, (m, 1), dtype)
        moved = spread * jax.random.normal(key_effects, (num_envs, k), dtype)
        scale = jnp.ones(num_envs, dtype)
        if change == "noise":
            scale = jnp.geomspace(*_SCALES, num_envs, dtype=dtype)
        return World(b / jnp.linalg.norm(b), 1 + moved * (change == "effects"), scale)

    def draw(key, world, n):
        key_c, key_y, key_s = jax.random.split(key, 3)
        num = len(world.scale)
        scale = jnp.repeat(world.scale, n, total_repeat_length=n * num)[:, None]
        c = scale * jax.random.normal(key_c, (n * num, m), dtype)
        y = dot(c, world.causal) + scale * jax.random.normal(key_y, (n * num, 1), dtype)
        effects = jnp.repeat(world.effects, n, 0, total_repeat_length=n * num)
        s = effects * y + jax.random.normal(key_s, (n * num, k), dtype)
        truth = jnp.concatenate([world.causal, jnp.zeros((k, 1), dtype)])
        data = grouped(jnp.concatenate([c, s], 1), [n] * num, {"y": y})
        return Sample(data, Truth(other={"effect": truth}))

    def held_out(key, world, n):
        turned = World(world.causal, -jnp.ones((1, k), dtype), jnp.ones(1, dtype))
        return draw(key, turned, n)

    return DGP(init, draw, None, held_out)
