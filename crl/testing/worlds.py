"""What every DGP keeps: worlds that the key alone decides, and no word of the truth."""

import jax
import jax.numpy as jnp
import numpy as np

from crl.check import check_data
from crl.core import DGP, PER_ROW, Data, Sample, Truth
from crl.testing.tools import assert_close, assert_same


def check_dgp(dgp: DGP, n: int = 64, *, exact: bool = True) -> None:
    """Raise an AssertionError naming the first property that the DGP breaks.

    n: rows per environment to draw. exact: x equals mix(world, z) (no noise is added).
    """
    keys = jax.random.split(jax.random.key(0), 3)
    _keeps_its_law(dgp, dgp.sample, keys, n, "sample")
    if dgp.held_out is not None:
        _keeps_its_law(dgp, dgp.held_out, keys, n, "held_out")
    if dgp.mix is not None:
        _mixes_point_by_point(dgp, keys, n, exact)


def _keeps_its_law(dgp: DGP, sample, keys, n: int, which: str) -> None:
    world_key, key, other_key = keys

    def draw(world_key, key):
        return sample(key, dgp.init(world_key), n)

    rounded = _rounded_products(jax.make_jaxpr(draw)(world_key, key).jaxpr)
    assert not rounded, (
        f"{which} leaves the precision of {rounded} to the device, whose rounding makes "
        "another world: crl.numerics.linalg.dot"
    )

    with jax.debug_key_reuse(True):
        try:
            jax.eval_shape(draw, world_key, key)
        except jax.errors.KeyReuseError as error:
            raise AssertionError(f"{which} uses a key twice: {error}") from error

    alone = jax.jit(draw)
    drawn = alone(world_key, key)
    _is_well_formed(drawn, n, which)
    assert_same(drawn, alone(world_key, key), f"{which}: the same key gave another")
    x, other = drawn.data.x, alone(world_key, other_key).data.x
    assert not np.array_equal(x, other), f"{which}: another key gave the same x"
    leaked = _leaks(*drawn)
    assert not leaked, f"{which}: data.aux[{leaked!r}] equals a part of the truth"

    # Two worlds in one program are the worlds of two programs.
    worlds = jnp.stack([other_key, world_key])
    both = jax.jit(jax.vmap(lambda w: draw(w, key).data.x))(worlds)
    assert_close(x, both[1], f"{which}: vmap over worlds differs from a loop")

    with jax.enable_x64(True):
        wide = jax.jit(lambda a, b: draw(a, b).data.x)(world_key, key)
        assert wide.dtype == x.dtype, (
            f"{which}: x is {x.dtype}, but {wide.dtype} under x64: pass dtype explicitly"
        )
        assert_close(x, wide, f"{which}: x64 draws another world: pass dtype explicitly")


def _is_well_formed(sample: Sample, n: int, which: str) -> None:
    data, truth = sample
    check_data(data)
    count = np.asarray(data.given["count"])
    if len(set(count.tolist())) == 1:  # sizes that differ are the world's own affair
        assert count[0] == n, f"{which}: expected {n} rows per environment, got {count}"
    for name in PER_ROW:
        value = getattr(truth, name, None)
        if value is not None:
            assert len(value) == len(data.x), (
                f"{which}: truth.{name} must have {len(data.x)} rows, got {len(value)}"
            )


def _mixes_point_by_point(dgp: DGP, keys, n: int, exact: bool) -> None:
    @jax.jit
    def mixed(world_key, key):
        world = dgp.init(world_key)
        data, truth = dgp.sample(key, world, n)
        z = truth.codes if truth.z is None else truth.z
        x = jax.vmap(dgp.mix, in_axes=(None, 0))(world, z)
        return data.x, x, jax.jacfwd(dgp.mix, argnums=1)(world, z[0])

    expected, x, jacobian = mixed(*keys[:2])
    assert x.shape == expected.shape, f"mix gives {x.shape}, x has {expected.shape}"
    assert np.isfinite(jacobian).all(), "the Jacobian of mix is not finite"
    if exact:
        assert_close(expected, x, "x differs from mix(world, z)")


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
            if b is None or field in ("targets", "other") or b.shape != a.shape:
                continue
            if np.array_equal(np.asarray(a, float), np.asarray(b, float)):
                return name
    return None
