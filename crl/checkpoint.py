"""Checkpoints that notice damage: orbax underneath, our schema and digests on top.

Orbax publishes a step atomically, so a killed process leaves the last step whole. It does
not notice a flipped bit in an array, and it casts a wrong dtype silently; so each step
carries, as JSON, the path, shape, dtype and blake2b digest of every leaf. Nothing that is
read from disk is ever executed.
"""

import functools
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crl.core import PyTree

SCHEMA = 1  # of the JSON beside the arrays


def save(
    directory: str | os.PathLike,
    step: int,
    tree: PyTree,
    meta: dict[str, Any] | None = None,
    *,
    keep: int = 2,
) -> None:
    """Write ``tree`` and ``meta`` as ``step`` of a directory; the last ``keep`` steps stay.

    tree: any pytree of arrays and typed PRNG keys. meta: what JSON can hold. Returns when
    the step is on disk. A step that exists is replaced. Each process of a multi-process
    job needs its own directory.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"expected step >= 0 and keep >= 1, got {step} and {keep}")
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    arrays = [_plain(leaf) for _, leaf in leaves]
    record = {
        "schema": SCHEMA,
        "leaves": [
            {**_describe(path, leaf), "digest": _digest(array)}
            for (path, leaf), array in zip(leaves, arrays)
        ],
        "meta": {} if meta is None else meta,
    }
    record["digest"] = _digest_of_json(record)
    ocp = _orbax()
    stored = {f"leaf{i}": a for i, a in enumerate(arrays) if a.size}  # orbax refuses empty
    items = {"record": ocp.args.JsonSave(record)}
    if stored:
        items["arrays"] = ocp.args.StandardSave(stored)
    with _manager(directory, keep) as manager:
        if step in manager.all_steps():
            manager.delete(step)
        manager.save(step, args=ocp.args.Composite(**items), force=True)


def restore(
    directory: str | os.PathLike, like: PyTree | Callable[[dict], PyTree]
) -> tuple[int, PyTree, dict] | None:
    """The newest intact step as (step, tree, meta); None where there is no step at all.

    like: a pytree of arrays or ShapeDtypeStructs with the structure, shapes and dtypes to
    restore; leaves go to the devices that its arrays (or shardings) are on, however many
    there were at saving time. Or a function (meta) -> such a pytree, for shapes that only
    the file knows; a ValueError it raises refuses the step. A damaged or refused step is
    skipped with a warning that says what is wrong with it; ValueError when none is left.
    """
    if not Path(directory).is_dir():
        return None
    with _manager(directory) as manager:
        steps = sorted(manager.all_steps(), reverse=True)
        problem = ""
        for step in steps:
            try:
                return step, *_restore_step(manager, step, like)
            except Exception as error:  # a damaged file can fail anywhere inside orbax
                reason = str(error).strip().split("\n")[0][:300]
                problem = problem or f"step {step} of {directory} cannot be used: {reason}"
                warnings.warn(
                    f"step {step} of {directory} cannot be used ({reason}): trying the "
                    "step before it",
                    stacklevel=2,
                )
    if steps:
        raise ValueError(f"{problem}; no earlier step is intact: start in a new directory")
    return None


def digest(tree: PyTree) -> str:
    """A blake2b digest of all that makes the pytree: paths, shapes, dtypes and bytes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    parts = [{**_describe(p, leaf), "digest": _digest(_plain(leaf))} for p, leaf in leaves]
    return _digest_of_json({"leaves": parts})


def digest_of_program(fn: Callable, *args: PyTree) -> str:
    """A digest of what ``fn`` computes from arguments of these shapes and dtypes.

    That of its jaxpr, with every constant it closes over; nothing in it depends on the
    process. Functions that compute the same in another way have another digest.
    """
    program = jax.make_jaxpr(fn)(*args)
    text = np.frombuffer(str(program).encode(), np.uint8)
    return digest((text, list(_constants(program))))


def _constants(program):
    """The arrays that a jaxpr and those inside it close over: its text leaves them out."""
    yield from getattr(program, "consts", ())
    for equation in program.eqns:
        for value in jax.tree.leaves(equation.params):
            if hasattr(value, "eqns"):
                yield from _constants(value)


def _restore_step(manager, step, like):
    ocp = _orbax()
    args = ocp.args.Composite(record=ocp.args.JsonRestore())
    record = manager.restore(step, args=args)["record"]
    if record["digest"] != _digest_of_json(record) or record["schema"] != SCHEMA:
        raise ValueError("its record is damaged or of another version of crl")
    like = like(record["meta"]) if callable(like) else like
    leaves, structure = jax.tree.flatten(like)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(like)]
    expected = [_describe(path, leaf) for path, leaf in zip(paths, leaves)]
    found = [{k: v for k, v in leaf.items() if k != "digest"} for leaf in record["leaves"]]
    _compare(found, expected)

    shapes = {
        f"leaf{i}": jax.ShapeDtypeStruct(leaf["stored_shape"], leaf["stored_dtype"])
        for i, leaf in enumerate(found)
    }
    wanted = {name: s for name, s in shapes.items() if s.size}
    arrays = {name: np.zeros(s.shape, s.dtype) for name, s in shapes.items()}
    if wanted:
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(wanted))
        arrays |= manager.restore(step, args=args)["arrays"]
    for i, leaf in enumerate(record["leaves"]):
        if _digest(np.asarray(arrays[f"leaf{i}"])) != leaf["digest"]:
            raise ValueError(f"the bytes of {leaf['path']} are not those that were saved")
    placed = [_place(arrays[f"leaf{i}"], leaf) for i, leaf in enumerate(leaves)]
    return structure.unflatten(placed), record["meta"]


def _compare(found, expected):
    """Raise a ValueError for the first leaf that is not what the caller expects."""
    names = [{leaf["path"] for leaf in side} for side in (found, expected)]
    for path in sorted(names[0] ^ names[1]):
        side = "holds" if path in names[0] else "lacks"
        raise ValueError(f"it {side} {path}: it belongs to another estimator or version")
    for a, b in zip(found, expected):
        if a != b:
            raise ValueError(
                f"expected {b['path']} of shape {tuple(b['shape'])} and dtype {b['dtype']}, "
                f"got {tuple(a['shape'])} and {a['dtype']}"
            )


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf) -> np.ndarray:
    if hasattr(leaf, "dtype") and _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    return np.asarray(jax.device_get(leaf))


def _describe(path, leaf) -> dict:
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    stored = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return {
        "path": jax.tree_util.keystr(path) or "the tree",
        "shape": list(leaf.shape),
        "dtype": str(leaf.dtype),
        "stored_shape": list(stored.shape),
        "stored_dtype": str(stored.dtype),
    }


def _place(array, like):
    """``array`` as the type and on the devices of ``like``."""
    sharding = getattr(like, "sharding", None)
    if not hasattr(like, "dtype") or isinstance(like, np.ndarray | np.generic):
        return np.asarray(array)
    if not _is_key(like):
        placed = jax.device_put(np.asarray(array), sharding)
        if placed.dtype != like.dtype:
            raise ValueError(f"it holds {like.dtype}: restore it under jax.enable_x64(True)")
        return placed
    wrap = functools.partial(jax.random.wrap_key_data, impl=_key_impl(like.dtype))
    return jax.device_put(wrap(jnp.asarray(array)), sharding)


def _key_impl(dtype) -> str:
    for name in ("threefry2x32", "rbg", "unsafe_rbg"):
        if jax.eval_shape(functools.partial(jax.random.key, impl=name), 0).dtype == dtype:
            return name
    raise ValueError(f"cannot restore keys of dtype {dtype}: use a PRNG that comes with jax")


def _digest(array: np.ndarray) -> str:
    # The bytes as they lie in memory: -0.0, NaN payloads and bfloat16 count too.
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return hashlib.blake2b(flat, digest_size=16).hexdigest()


def _digest_of_json(record: dict) -> str:
    body = {k: v for k, v in record.items() if k != "digest"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _manager(directory, keep=None):
    ocp = _orbax()
    alone = {jax.process_index()} if jax.process_count() > 1 else None
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=keep is not None,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index() if alone else 0,
            active_processes=alone,
            barrier_sync_key_prefix=f"process{jax.process_index()}" if alone else None,
        ),
        create=alone is None,
    )
    directory = Path(directory).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    return ocp.CheckpointManager(directory, options=options)


def _orbax():
    import orbax.checkpoint as ocp  # 2 s to import: only for those who save

    return ocp
