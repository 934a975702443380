"""Results on disk: one JSON file a cell, named by what its content depends on.

    WORKDIR/cells/<k[:2]>/<k>.json   a cell, published atomically: whole or not there
    WORKDIR/plans/<name>.json        the suites run here, with the keys of their cells
    WORKDIR/leases/<name>            held (flock) by the run that computes a batch
    WORKDIR/fits/<k>                 checkpoints of long fits in progress

A killed run leaves temporary files, which nobody reads; the kernel drops its leases. On a
disk without flock two runs compute a batch twice and the first to publish wins.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from crl.bench.run.cells import SCHEMA, Plan, plan_from_json
from crl.bench.run.decode import encode
from crl.bench.run.records import INAPPLICABLE, OK, Record, from_json, to_json

_CELL = re.compile(r"[0-9a-f]{32}\.json")
_MAX_BYTES = 16 * 2**20  # a cell holds kilobytes; a larger file is not ours
_STALE = 3600.0  # seconds after which a temporary file belongs to a dead run


class StoreError(OSError):
    """The results folder cannot be used, in one sentence."""


class Content(NamedTuple):
    """All that a results folder holds."""

    records: dict[str, Record]  # by key
    problems: list[str]  # what cannot be read or does not belong there


class Store:
    """A results folder; any number of processes may use it at once."""

    def __init__(self, root: str | os.PathLike):
        self.root = pathlib.Path(root)
        self.cells = self.root / "cells"

    def path(self, key: str) -> pathlib.Path:
        """Where the cell ``key`` lies."""
        if not _CELL.fullmatch(f"{key}.json"):
            raise ValueError(f"expected a cell key of 32 hex digits, got {key!r}")
        return self.cells / key[:2] / f"{key}.json"

    def publish(self, key: str, record: Record) -> bool:
        """Write a cell; True if it is ours, False if another run was first.

        A finished cell is never replaced; one that failed, or cannot be read, is.
        Raises StoreError when the disk is full or the folder read-only; what was published
        before stays.
        """
        path = self.path(key)
        content = {"schema": SCHEMA, "key": key, **to_json(record)}
        with self._written(path, content) as temporary:
            try:
                os.link(temporary, path)
                return True
            except FileExistsError:
                pass
            except OSError as error:  # a disk without hard links: the last writer wins
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                    raise
            with self.lease(f"replace {key}", wait=True):
                old, problem = _read_record(path, key)
                if old is not None and is_done(old):
                    return False
                if problem and path.exists():
                    # Someone may want to look at it, so it is moved and not overwritten.
                    os.replace(path, path.with_suffix(f".unreadable-{time.time_ns()}"))
                os.replace(temporary, path)
                return True

    def read(self, key: str) -> Record | None:
        """The cell, or None if there is none that can be read."""
        return _read_record(self.path(key), key)[0]

    def content(self) -> Content:
        """All cells, and a sentence for each file that is not one."""
        records, problems = {}, []
        for folder in sorted(_listed(self.cells)):
            if not folder.is_dir():
                problems.append(f"{folder}: not a folder of cells")
                continue
            for file in sorted(_listed(folder)):
                if file.name.startswith(".tmp-"):
                    continue  # a run that was killed, or one that is writing
                if not _CELL.fullmatch(file.name) or file.name[:2] != folder.name:
                    problems.append(f"{file}: not a cell")
                    continue
                record, problem = _read_record(file, file.stem)
                if record is None:
                    problems.append(f"{file}: {problem}")
                else:
                    records[file.stem] = record
        return Content(records, problems)

    def write_plan(self, plan: Plan) -> None:
        """Keep what is being run; the latest plan of a suite's name replaces the older one."""
        path = self.root / "plans" / f"{_hashed(plan.suite)}.json"
        with self._written(path, encode(plan)) as temporary:
            os.replace(temporary, path)

    def plans(self) -> tuple[list[Plan], list[str]]:
        """The plans of the folder, by suite name, and what cannot be read."""
        plans, problems = [], []
        for file in sorted(_listed(self.root / "plans")):
            if file.name.startswith(".tmp-"):
                continue
            try:
                plans.append(plan_from_json(_read_json(file)))
            except (OSError, ValueError) as error:
                problems.append(f"{file}: not a plan: {error}")
        return sorted(plans, key=lambda plan: plan.suite), problems

    @contextlib.contextmanager
    def lease(self, name: str, wait: bool) -> Iterator[bool]:
        """Yields True while we alone hold ``name``, or False if another does; see ``wait``."""
        path = (
            self.root / "leases" / hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        )
        _make_folder(path.parent)
        while True:
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(handle)
                yield False
                return
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise
            # The holder before us may have removed the file that we have locked.
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(handle).st_ino:
                    break
            os.close(handle)
        try:
            yield True
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.close(handle)

    @contextlib.contextmanager
    def _written(self, path: pathlib.Path, content: dict) -> Iterator[str]:
        """A temporary file beside ``path`` with the content, safe on disk, then removed."""
        text = json.dumps(content, indent=1, allow_nan=False)
        temporary = None
        try:
            _make_folder(path.parent)
            handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            yield temporary
            _sync_folder(path.parent)
        except OSError as error:
            raise StoreError(
                error.errno,
                f"cannot write {path}: {error.strerror}; the cells published before are safe",
            ) from error
        finally:
            if temporary is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)

    def sweep(self) -> None:
        """Remove the temporary files of runs that were killed long ago."""
        for file in self.root.glob("cells/*/.tmp-*"):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > _STALE:
                    file.unlink()


def is_done(record: Record) -> bool:
    """Whether a cell need not be tried again: not failed and not diverged."""
    return record.result.status in (OK, INAPPLICABLE)


def _read_record(path: pathlib.Path, key: str) -> tuple[Record | None, str]:
    """A cell, or None and what is wrong with it."""
    try:
        raw = _read_json(path)
        if raw.pop("key", None) != key:
            return None, "not the cell that its name says"
        del raw["schema"]
        return from_json(raw), ""
    except (OSError, ValueError) as error:
        return None, f"cannot be read: {error}"


def _read_json(path: pathlib.Path) -> dict:
    """The JSON object of our schema in a file; OSError or ValueError for all else."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"larger than {_MAX_BYTES} bytes")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    # Half of a surrogate pair is JSON but no text that could be written again.
    json.dumps(raw, ensure_ascii=False).encode()
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise ValueError(f"not a record of schema {SCHEMA}")
    return raw


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _hashed(name: str) -> str:
    # What a user wrote never becomes a path.
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _listed(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _make_folder(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _sync_folder(folder: pathlib.Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
