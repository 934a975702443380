"""What the steps of a fit see: rows of memory, of a stream, or drawn fresh from a world.

Feeding is the fit's job and not the estimator's. Whatever the rows come from, there is one
function ``(key, t, ...) -> batch``: the batch of step t depends on the key and t alone, so
that a resumed fit sees what an uninterrupted one sees.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import DGP, Data, PyTree, num_envs, take_rows

# A chunk of a stream and its successor are in memory at a time, on the host and the device.
CHUNK_BYTES = 2**26


class Stream(NamedTuple):
    """Data that does not fit in memory, read batch by batch, in place of a Data.

    ``read(start, num, size)`` returns the batches of steps start..start+num-1, ``size``
    rows each, as a Data of numpy arrays whose leaves, those of ``given`` too, have the
    further leading axis ``num``. It depends on nothing but its arguments, which is what
    makes a resumed run exact. ``example`` is what init, finish and validate see, a few
    thousand rows; where the estimator holds out rows, ``example.held`` are those, and
    ``read`` never returns them. An estimator without a batch size sees as many rows a step
    as the example has.
    """

    example: Data
    read: Callable[[int, int, int], Data]


class Fresh(NamedTuple):
    """Rows drawn from a world for every step, on the device, in place of a Data.

    No row is seen twice. ``example`` is what init, finish and validate see, and has
    ``example.held`` where the estimator holds out rows.
    """

    dgp: DGP
    world: PyTree
    example: Data


# How a fit gets its batches: (key, source, i) -> Data, for step i of a chunk. Static, since
# it chooses the program; made by the cached functions below, so that the same is one object.
Feed = Callable[[Array, PyTree, Any], Data]


def draw_batch(key: Array, data: Data, size: int | None) -> Data:
    """``size`` rows drawn with replacement, as evenly over environments as it goes.

    All rows where size is None or no fewer than there are. Rows stay grouped; 'count' is
    the batch's own, and ``held`` comes along.
    """
    num_rows, e = len(data.x), num_envs(data)
    if size is None or size >= num_rows:
        return data
    if size < e:
        raise ValueError(
            f"expected a batch_size of at least one row for each of the {e} environments, "
            f"got {size}"
        )
    share = size // e + (np.arange(e) < size % e)  # (E,)
    return _draw_rows(key, data, np.repeat(np.arange(e), share))


def resample(key: Array, data: Data) -> Data:
    """As many rows of each environment as it has, drawn with replacement: the bootstrap.

    ``held`` is resampled too, from its own rows.
    """
    key_rows, key_held = jax.random.split(key)
    drawn = _draw_rows(key_rows, data, data.env)
    return drawn if data.held is None else drawn._replace(held=resample(key_held, data.held))


def _draw_rows(key: Array, data: Data, env: Array) -> Data:
    """A row of each environment in env (m,), which is sorted, with replacement."""
    count = data.given["count"]
    first = (jnp.cumsum(count) - count).astype(jnp.int32)
    index = first[env] + jax.random.randint(key, env.shape, 0, count[env], jnp.int32)
    return take_rows(data, index)


def hold_out(data: Data, share: float) -> Data:
    """``data`` less a share of its rows, evenly over each environment, which are ``held``.

    Data that bring ``held`` along stay as they are.
    """
    if not share or data.held is not None:
        return data
    passed = np.floor(share * np.arange(len(data.x) + 1) + 1e-9)
    is_held = np.diff(passed) > 0  # row i where the share passes another whole number
    held = take_rows(data, np.flatnonzero(is_held))
    return take_rows(data, np.flatnonzero(~is_held))._replace(held=held)


def check_holdout(data: Data, share: float, from_memory: bool = True) -> None:
    """Raise a ValueError unless there are rows to hold out, in every environment."""
    if share and data.held is None and not from_memory:
        raise ValueError(
            "expected example.held, the rows that the estimator holds out of every step, got "
            "none: a Stream or Fresh brings its own, example._replace(held=...)"
        )
    fewest = int(np.min(np.asarray(data.given["count"])))
    if share and data.held is None and share * fewest < 1:
        raise ValueError(
            f"expected at least {np.ceil(1 / share):.0f} rows per environment to hold out "
            f"{share} of them, got {fewest}: give more data or a larger holdout"
        )


@functools.cache
def from_memory(size: int | None) -> Feed:
    """Batches drawn from a Data."""
    return lambda key, data, i: draw_batch(key, data, size)


@functools.cache
def from_stream(size: int) -> Feed:
    """Batches that were read: the source is a chunk of them, and the rows held out."""

    def batch(key, source, i):
        chunk, held = source
        return jax.tree.map(lambda a: a[i], chunk)._replace(held=held)

    return batch


@functools.cache
def from_world(dgp: DGP, size: int) -> Feed:
    """Batches drawn from the world that is the source: (world, example)."""

    def batch(key, source, i):
        world, example = source
        rows = max(1, size // num_envs(example))
        return dgp.sample(key, world, rows).data._replace(held=example.held)

    return batch


def bytes_per_row(data: Data) -> int:
    """Bytes of a row: x, env and aux."""
    return sum(a.nbytes for a in jax.tree.leaves((data.x, data.env, data.aux))) // len(data.x)


def chunks(
    stream: Stream, done: int, num_steps: int, num: int, size: int, place: Callable
) -> Iterator[Data]:
    """The batches of ``num`` steps at a time, the next read while these are computed.

    place: puts a chunk on its devices.
    """

    def read(start):
        found = stream.read(start, num, size)
        shapes = {np.shape(a)[:2] for a in (found.x, found.env)}
        if shapes != {(num, size)}:
            raise ValueError(
                f"expected read({start}, {num}, {size}) to return x and env of shape "
                f"({num}, {size}, ...), got {sorted(shapes)}: see crl.Stream"
            )
        return place(found)

    with ThreadPoolExecutor(1, "crl-read") as pool:
        upcoming = pool.submit(read, done)
        for start in itertools.count(done + num, num):
            now = upcoming.result()
            if start < num_steps:
                upcoming = pool.submit(read, start)
            yield now
            del now
