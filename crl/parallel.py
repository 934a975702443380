"""Replicas and rows over devices and processes: the only file that knows pmap and meshes.

Replicas (seeds) are independent, so their sweep compiles to a program without a single
collective. Rows of one big fit are not: ``shard_rows`` places them, and XLA inserts the
all-reduces that keep every number what it is on one device.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from crl.check import nearest
from crl.core import PyTree

BACKENDS = ("shard_map", "pmap", "vmap")


def map_replicas(
    fn: Callable,
    *,
    backend: str = "shard_map",
    devices: Sequence[jax.Device] | None = None,
    donate_argnums: tuple[int, ...] = (),
) -> Callable:
    """``fn`` mapped over the leading axis r of every leaf of its arguments.

    Any number of replicas goes on any number of devices (default: all of this process):
    r is padded to equal shares and the result cut back. ``shard_map`` and ``pmap`` spread
    the replicas over the devices; inside one device they are vmapped on an accelerator
    and run one after the other on a CPU, where that is faster. ``vmap`` is the plain
    vmap on the first device. Results stay on the devices, sharded by replica.

    A function, backend and list of devices compile once; keep ``fn`` the same object.
    Raises ValueError for an unknown backend, no replicas, or unequal leading axes.
    """
    if backend not in BACKENDS:
        raise ValueError(nearest(backend, BACKENDS, "backend"))
    devices = tuple(jax.local_devices() if devices is None else devices)
    if not devices:
        raise ValueError("expected at least one device, got none: pass devices=None for all")

    def mapped(*args):
        num = num_replicas(args)
        used, per_device = shares(num, 1 if backend == "vmap" else len(devices))
        call = _compile(fn, backend, devices[:used], tuple(donate_argnums))
        out = call(*pad(args, used * per_device))
        return cut(out, num) if used * per_device > num else out

    return mapped


def num_replicas(tree: PyTree) -> int:
    """The common length r of the leading axes, or a ValueError that says where they differ."""
    sizes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name, shape = jax.tree_util.keystr(path) or "the argument", np.shape(leaf)
        if not shape:
            raise ValueError(
                f"expected a leading axis of replicas in every leaf, got the scalar {name}: "
                "broadcast it to (r,)"
            )
        sizes.setdefault(shape[0], name)
    if len(sizes) > 1:
        (a, at_a), (b, at_b) = list(sizes.items())[:2]
        raise ValueError(
            f"expected one number of replicas in every leaf, got {a} in {at_a} and {b} in "
            f"{at_b}: every leaf has the leading axis r"
        )
    if not sizes or 0 in sizes:
        raise ValueError("expected at least one replica, got none: pass r >= 1 keys")
    return next(iter(sizes))


def shares(num: int, num_devices: int) -> tuple[int, int]:
    """How many of the devices work, and on how many replicas each, with least padding."""
    per_device = -(-num // num_devices)
    return -(-num // per_device), per_device


def pad(tree: PyTree, num: int) -> PyTree:
    """The replicas and copies of the last one, ``num`` in all."""

    def longer(a):
        a = jnp.asarray(a)
        last = jnp.broadcast_to(a[-1:], (num - len(a), *a.shape[1:]))
        return jnp.concatenate([a, last])

    return tree if num_replicas(tree) == num else jax.tree.map(longer, tree)


def cut(tree: PyTree, num: int) -> PyTree:
    """The first ``num`` replicas, in one program that runs after the sweep."""
    return _cut(tree, num)


@functools.partial(jax.jit, static_argnums=1)
def _cut(tree, num):
    return jax.tree.map(lambda a: a[:num], tree)


@functools.lru_cache(maxsize=256)
def _compile(fn, backend, devices, donate_argnums):
    """A function of arguments whose leading axis the devices divide."""
    if backend == "vmap":
        vmapped = jax.jit(jax.vmap(fn), donate_argnums=donate_argnums)
        return lambda *args: vmapped(*jax.device_put(args, devices[0]))

    def lanes(*args):
        if devices[0].platform == "cpu":
            return jax.lax.map(lambda lane: fn(*lane), args)
        return jax.vmap(fn)(*args)

    mesh = Mesh(np.array(devices), ("replica",), axis_types=(AxisType.Auto,))
    by_replica = PartitionSpec("replica")
    placement = NamedSharding(mesh, by_replica)

    if backend == "pmap":
        mapped = jax.pmap(lanes, devices=devices, donate_argnums=donate_argnums)
        split = (len(devices), -1)
        fold = jax.jit(lambda t: jax.tree.map(lambda a: a.reshape(*split, *a.shape[1:]), t))
        flat = jax.jit(lambda t: jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), t))
        return lambda *args: flat(mapped(*jax.device_put(fold(args), placement)))

    # Without collectives the check of varying axes buys nothing, and it refuses loops
    # whose first carry is a constant.
    sharded = jax.shard_map(
        lanes, mesh=mesh, in_specs=by_replica, out_specs=by_replica, check_vma=False
    )
    compiled = jax.jit(sharded, donate_argnums=donate_argnums)
    return lambda *args: compiled(*jax.device_put(args, placement))
