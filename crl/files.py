"""Rows on disk: a folder of plain .npy shards with a manifest, read in shuffled batches.

    write_rows("acts", (model(text) for text in corpus))
    fit = crl.fit(topk_sae(4096, 32), key, stream_rows("acts", seed=0))

Rows read one by one in random order take 50 to 100 times as long as in the order of the
files. So runs of neighbouring rows (blocks) are read, from all over the files, and the rows
of many blocks (a window) shuffled: a batch mixes rows from hundreds of places. Files are
read and not mapped, so that memory holds one window whatever their size.
"""

import bisect
import functools
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from crl.core import Data, grouped
from crl.feed import Stream

FORMAT = "crl-rows-1"
SHARD_BYTES = 2**26
WINDOW_BYTES = 2**26
EXAMPLE_ROWS = 8192
PART_ROWS = 1024  # converted to float32 at a time


class Shard(NamedTuple):
    """One .npy file of rows."""

    path: pathlib.Path
    first: int  # rows in the shards before it
    rows: int
    offset: int  # bytes before its first row
    digest: str  # blake2b of the whole file


class Rows(NamedTuple):
    """An open folder: what the manifest says, checked against the files."""

    shards: list[Shard]
    num: int
    shape: tuple[int, ...]  # of one row
    dtype: np.dtype
    row_bytes: int


def write_rows(directory: str | os.PathLike, arrays: Iterable[np.ndarray]) -> int:
    """Write rows to a new folder for ``stream_rows``; returns their number.

    arrays: arrays (n_i, p) or (n_i, ...) of one floating dtype, bfloat16 among them, such
    as a generator of activations; about 128 MB are held at a time. The manifest comes last:
    a folder without one is not whole.

    Raises ValueError for arrays that differ in kind, for values that are not finite, and
    for a folder that has a manifest already.
    """
    directory = pathlib.Path(directory)
    if (directory / "manifest.json").exists():
        raise ValueError(f"{directory} has a manifest.json: choose another folder")
    directory.mkdir(parents=True, exist_ok=True)
    shards = []
    for rows in _in_shards(arrays):
        path = directory / f"rows_{len(shards):05}.npy"
        # The .npy format has no name for bfloat16 and the like: their bits are stored.
        is_known = rows.dtype.kind == "f"
        np.save(path, rows if is_known else rows.view(f"u{rows.dtype.itemsize}"))
        shards.append({"file": path.name, "rows": len(rows), "blake2b": _digest(path)})
    if not shards:
        raise ValueError("expected at least one row to write, got none")
    manifest = {
        "format": FORMAT,
        "dtype": rows.dtype.name,
        "shape": rows.shape[1:],
        "shards": shards,
    }
    unfinished = directory / "manifest.json.unfinished"
    unfinished.write_text(json.dumps(manifest, indent=1))
    unfinished.replace(directory / "manifest.json")
    return sum(shard["rows"] for shard in shards)


def _in_shards(arrays: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The rows of all arrays, in arrays of about SHARD_BYTES."""
    waiting, size, kind = [], 0, None
    for array in map(np.asarray, arrays):
        kind = kind or (array.shape[1:], array.dtype)
        if array.ndim < 2 or (array.shape[1:], array.dtype) != kind:
            raise ValueError(
                f"expected arrays (n, p) alike, got one of shape {array.shape} and dtype "
                f"{array.dtype} after rows of shape {kind[0]} and dtype {kind[1]}"
            )
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"expected rows of a floating dtype, got {array.dtype}")
        step = max(1, SHARD_BYTES // max(1, array[:1].nbytes))
        for rows in (array[i : i + step] for i in range(0, len(array), step)):
            if not np.isfinite(rows).all():
                raise ValueError("expected finite rows, got NaN or inf: drop such rows")
            waiting.append(rows)
            size += rows.nbytes
            if size >= SHARD_BYTES:
                yield np.concatenate(waiting)
                waiting, size = [], 0
    if waiting:
        yield np.concatenate(waiting)


def open_rows(directory: str | os.PathLike) -> Rows:
    """The rows of a folder that ``write_rows`` wrote; reads no more than headers.

    Raises ValueError where the manifest and the files do not belong together.
    """
    directory = pathlib.Path(directory)
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
    except FileNotFoundError as error:
        raise ValueError(
            f"expected a manifest.json in {directory}, got none: write the folder with "
            "crl.files.write_rows, and to the end"
        ) from error
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"expected the format {FORMAT} in {directory}, got {manifest.get('format')!r}"
        )
    shape, dtype = tuple(manifest["shape"]), jnp.dtype(manifest["dtype"])
    row_bytes = int(np.prod(shape, dtype=int)) * dtype.itemsize
    shards, num = [], 0
    for entry in manifest["shards"]:
        path = directory / pathlib.PurePath(entry["file"]).name  # nowhere but in this folder
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            stored, is_fortran, kind = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
        length = path.stat().st_size - offset
        if (
            stored != (entry["rows"], *shape)
            or is_fortran
            or kind.itemsize != dtype.itemsize
            or length != entry["rows"] * row_bytes
        ):
            raise ValueError(
                f"expected {entry['rows']} rows of {row_bytes} bytes in {path}, got shape "
                f"{stored} of {kind} in {length} bytes: the file is cut off, or not the one "
                "that was written"
            )
        shards.append(Shard(path, num, entry["rows"], offset, entry["blake2b"]))
        num += entry["rows"]
    return Rows(shards, num, shape, dtype, row_bytes)


def verify_rows(directory: str | os.PathLike) -> None:
    """Raise a ValueError for a shard whose bytes are not those that were written."""
    for shard in open_rows(directory).shards:
        if _digest(shard.path) != shard.digest:
            raise ValueError(f"{shard.path} is not as it was written: write it again")


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def stream_rows(
    directory: str | os.PathLike, seed: int, *, block: int = 256, held: int = 0
) -> Stream:
    """The rows of a folder as a ``crl.Stream`` of float32 batches, in one environment.

    Each epoch passes over the rows once in an order of its own: blocks of ``block``
    neighbouring rows at random, then rows at random in windows of 64 MB. The batch of a
    step follows from the seed, the step and the size, so that a resumed fit is exact.

    held: rows, rounded up to whole blocks, that no step sees, for an estimator with a
    ``holdout``. They and the example (8,192 rows) come from all over the files.

    Raises ValueError for a folder that is not whole, and for no rows left to fit on.
    """
    rows = open_rows(directory)
    sizes = np.full(-(-rows.num // block), block)  # rows of each block
    sizes[-1] = rows.num - block * (len(sizes) - 1)
    order = np.random.default_rng([seed, 0]).permutation(len(sizes))
    apart, order = np.split(order, [-(-held // block)])
    if not len(order):
        raise ValueError(f"expected held to leave rows to fit on, got {held} of {rows.num}")
    per_epoch = int(sizes[order].sum())
    per_window = max(1, WINDOW_BYTES // (block * rows.row_bytes))  # blocks

    @functools.lru_cache(maxsize=2)
    def epoch_windows(epoch):
        """The blocks of each window of an epoch, and the row with which it begins."""
        shuffled = np.random.default_rng([seed, 1, epoch]).permutation(order)
        windows = np.split(shuffled, range(per_window, len(shuffled), per_window))
        ends = itertools.accumulate(int(sizes[w].sum()) for w in windows)
        return windows, [0, *ends][:-1]

    last = {}  # the window read last: a chunk mostly begins where the one before ended

    def take(epoch, number, first, num):
        """At most num rows of a window, from the first-th in its random order."""
        if (epoch, number) not in last:
            last.clear()  # before the next is read, for the memory
            found = read_blocks(rows, block, epoch_windows(epoch)[0][number])
            rng = np.random.default_rng([seed, 2, epoch, number])
            last[epoch, number] = found, rng.permutation(len(found))
        found, shuffle = last[epoch, number]
        return found[shuffle[first : first + num]]

    def read(start, num, size):
        x = np.empty((num * size, *rows.shape), np.float32)
        done = 0
        while done < len(x):
            epoch, row = divmod(start * size + done, per_epoch)
            starts = epoch_windows(epoch)[1]
            number = bisect.bisect_right(starts, row) - 1
            part = take(epoch, number, row - starts[number], min(len(x) - done, PART_ROWS))
            x[done : done + len(part)] = part
            done += len(part)
        return Data(
            x.reshape(num, size, *rows.shape),
            np.zeros((num, size), np.int32),
            {},
            {"count": np.full((num, 1), size, np.int32)},
        )

    def in_memory(blocks):
        return grouped(jnp.asarray(read_blocks(rows, block, blocks), jnp.float32))

    example = in_memory(order[: max(1, EXAMPLE_ROWS // block)])
    return Stream(example._replace(held=in_memory(apart) if held else None), read)


def read_blocks(rows: Rows, block: int, blocks: np.ndarray) -> np.ndarray:
    """The rows of these blocks in the order of the files, (n, ...)."""
    starts = [shard.first for shard in rows.shards]
    spans = [(i * block, min((i + 1) * block, rows.num)) for i in np.sort(blocks).tolist()]
    found = np.empty((sum(b - a for a, b in spans), rows.row_bytes), np.uint8)
    done = 0
    for start, stop in spans:
        while start < stop:  # a block may go on in the next shard
            shard = rows.shards[bisect.bisect_right(starts, start) - 1]
            num = min(stop, shard.first + shard.rows) - start
            with open(shard.path, "rb", buffering=0) as file:
                file.seek(shard.offset + (start - shard.first) * rows.row_bytes)
                if file.readinto(memoryview(found[done : done + num]).cast("B")) != (
                    num * rows.row_bytes
                ):
                    raise OSError(f"{shard.path} ended while it was read")
            start, done = start + num, done + num
    return found.view(rows.dtype).reshape(-1, *rows.shape)
