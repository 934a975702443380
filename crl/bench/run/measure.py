"""What a cell records, measured: numbers, training curve, small pictures, time, maker."""

import contextlib
import functools
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

import crl
from crl.bench.run.records import DIVERGED, FAILED, OK, Maker, Numbers, Result, Seconds
from crl.core import Readout, Truth
from crl.numerics.assignment import assign

TRACE_POINTS = 64  # of a training curve, kept in the cell
PICTURE_SIZE = 32  # rows and columns of the matrices kept for the report


def as_numbers(values: dict[str, Any]) -> Numbers:
    """Scalars as JSON numbers; None: undefined."""
    floats = {k: float(v) for k, v in jax.device_get(values).items()}
    return {k: v if np.isfinite(v) else None for k, v in floats.items()}


def outcome(metrics: dict[str, Any], diverged: bool) -> Result:
    """The result of a fit, or of a comparison of fits."""
    values = as_numbers(metrics)
    if diverged:  # the last finite state is no result
        return Result(DIVERGED, dict.fromkeys(values))
    return Result(OK, values)


def failure(error: Exception) -> Result:
    """The result of a cell that raised."""
    trace = "".join(traceback.format_exception(error))
    return Result(FAILED, error=f"{type(error).__name__}: {error}", traceback=trace)


def training_curve(trace: dict[str, np.ndarray]) -> dict[str, list[float | None]]:
    """At most TRACE_POINTS steps of a trace, the first and the last among them."""
    if not trace:
        return {}
    steps = max(int(np.sum(np.isfinite(v))) for v in trace.values())
    at = np.unique(np.linspace(0, max(0, steps - 1), TRACE_POINTS).astype(int))
    rows = {k: [float(f"{x:.6g}") for x in v[at]] for k, v in trace.items()}
    return {
        "step": [float(i) for i in at],
        **{k: [x if np.isfinite(x) else None for x in v] for k, v in rows.items()},
    }


def pictures(readout: Readout, truth: Truth) -> dict[str, Any]:
    """Small matrices for the report: claim beside truth, of one world."""
    found, m = {}, PICTURE_SIZE
    readout, truth = jax.device_get((readout._replace(diag=None), truth))
    if readout.graph is not None and truth.graph is not None and len(truth.graph) <= m:
        found["graph"] = {"claim": readout.graph, "truth": truth.graph}
    if readout.z is not None and truth.z is not None and readout.z.ndim == 2:
        z = [(a - a.mean(0)) / np.maximum(a.std(0), 1e-12) for a in (readout.z, truth.z)]
        found["latents"] = {"|corr|": _matched(np.abs(z[0].T @ z[1]) / len(z[0]))}
    if readout.dictionary is not None and truth.dictionary is not None:
        atoms = [
            a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)
            for a in (readout.dictionary, truth.dictionary)
        ]
        found["dictionary"] = {"|cos|": _matched(np.abs(atoms[0] @ atoms[1].T))}
    rounded = {
        kind: {k: np.round(np.asarray(v, float), 3) for k, v in matrices.items()}
        for kind, matrices in found.items()
    }
    return {
        kind: {k: v.tolist() for k, v in matrices.items()}
        for kind, matrices in rounded.items()
        if all(np.isfinite(v).all() for v in matrices.values())
    }


def _matched(similarity: np.ndarray) -> np.ndarray:
    """Rows permuted so that the best one-to-one match is on the diagonal, cut to a picture."""
    if not np.isfinite(similarity).all():
        return similarity[:PICTURE_SIZE, :PICTURE_SIZE]
    rows, columns = jax.device_get(assign(jnp.asarray(similarity)))
    match = dict(zip(columns.tolist(), rows.tolist()))
    columns = [*sorted(match), *(c for c in range(similarity.shape[1]) if c not in match)]
    free = [r for r in range(similarity.shape[0]) if r not in match.values()]
    rows = [*(match[c] for c in columns if c in match), *free]
    return similarity[np.ix_(rows, columns)][:PICTURE_SIZE, :PICTURE_SIZE]


class _CompileTime:
    """Seconds that this process has spent tracing and compiling."""

    def __init__(self):
        self.total = 0.0
        self.spans = deque(maxlen=1000)  # (begin, seconds)
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, **kwargs) -> None:
        if not event.startswith("/jax/core/compile/"):
            return
        begin = time.perf_counter() - seconds
        # A trace reports itself after those inside it, which must not count twice.
        while self.spans and self.spans[-1][0] >= begin:
            self.total -= self.spans.pop()[1]
        self.spans.append((begin, seconds))
        self.total += seconds


@functools.cache
def _compile_time() -> _CompileTime:
    """The one listener of this process; it counts from the first look on."""
    return _CompileTime()


class Clock:
    """Seconds since it was made: compiling, running, and of this process's CPU time."""

    def __init__(self):
        self.begin = self._now()

    def read(self, num_cells: int) -> Seconds:
        took, cpu, compiling = (b - a for a, b in zip(self.begin, self._now()))
        run = max(0.0, took - compiling)
        return Seconds(round(compiling, 3), round(run, 3), round(cpu, 3), num_cells)

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), _compile_time().total


def peak_bytes(devices: Sequence[jax.Device]) -> int:
    """Most memory used so far: of the first device, or of the process on a CPU."""
    stats = devices[0].memory_stats() or {}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return int(stats.get("peak_bytes_in_use", resident * unit))


def free_programs(share: float = 0.5) -> None:
    """Forget what has been compiled if it takes more than a share of the memory maps allowed.

    On a CPU each function of a program is mapped for itself. Linux grants a process 65,530
    maps by default, and the compiler crashes beyond: some thirty tasks into a long suite.
    """
    try:
        used = Path("/proc/self/maps").read_bytes().count(b"\n")
        most = int(Path("/proc/sys/vm/max_map_count").read_text())
    except OSError:  # no Linux
        return
    if used > share * most:
        jax.clear_caches()


def provenance(devices: Sequence[jax.Device]) -> Maker:
    """What made a result: versions, commit, device; no host or user name."""
    names = ("jax", "jaxlib", "flax", "optax", "numpyro", "numpy", "scikit-learn")
    versions = {"crl": crl.__version__, "python": platform.python_version()}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    commit, dirty = _git(Path(crl.__file__).parent)
    return Maker(
        versions,
        commit,
        dirty,
        device=devices[0].device_kind,
        platform=devices[0].platform,
        num_devices=len(devices),
        machine=f"{platform.system()} {platform.machine()}, {_num_cores()} cores",
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )


def _num_cores() -> int:
    has = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has else os.cpu_count() or 1


def _git(folder: Path) -> tuple[str | None, bool]:
    """The commit of the source, if it is in a repository; whether it was edited since."""

    def git(*args):
        command = ["git", "-C", str(folder), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit = git("rev-parse", "HEAD")
        return commit, bool(commit and git("status", "--porcelain", "."))
    except (OSError, subprocess.TimeoutExpired):
        return None, False
