"""What is kept of a cell: one typed record, and its JSON."""

import math
from typing import Any, NamedTuple

from crl.bench.run.decode import DecodeError, decode, encode

# What became of a cell. The last: the estimator refuses this data, or claims nothing that
# the task asks for; a question that was not put to it, and no failure.
OK, DIVERGED, FAILED, INAPPLICABLE = STATES = ("ok", "diverged", "failed", "does not apply")

Numbers = dict[str, float | None]  # None: undefined


class Seconds(NamedTuple):
    """What a batch of cells took; of this process's CPU time too."""

    compile: float = 0.0
    run: float = 0.0
    cpu: float = 0.0
    cells: int = 1  # of the batch


class Maker(NamedTuple):
    """What made a number; no host and no user name."""

    versions: dict[str, str]
    commit: str | None
    dirty: bool  # the source was edited since that commit
    device: str
    platform: str
    num_devices: int
    machine: str
    date: str


class Config(NamedTuple):
    """What was computed, resolved."""

    dgp: dict
    estimator: dict
    metrics: dict
    num_train: int
    num_test: int


class Result(NamedTuple):
    """What was computed for a cell."""

    status: str  # one of STATES
    metrics: Numbers = {}  # noqa: RUF012  (nobody writes to it) asked for and claimed
    error: str = ""  # one sentence
    traceback: str = ""
    num_steps: int | None = None
    converged: bool | None = None  # None: the estimator cannot tell
    trace: dict[str, list[float | None]] = {}  # noqa: RUF012  with 'step'
    diag: Numbers = {}  # noqa: RUF012
    pictures: dict[str, dict[str, list[list[float]]]] = {}  # noqa: RUF012  see ``measure``
    peer_seconds: float | None = None  # of one call; None: the estimator is ours


class Record(NamedTuple):
    """A cell, its result and what made it."""

    suite: str
    task: str
    estimator: str
    world: int
    fit: int | None  # None: stability over all fits of the world
    result: Result
    best: dict[str, float | str | None]  # of each metric: a perfect claim; see core.metric
    seconds: Seconds
    peak_bytes: int
    made_by: Maker
    config: Config
    is_peer: bool = False


def to_json(record: Record) -> dict[str, Any]:
    """JSON, in which there is no infinity: a best value of inf is the text 'inf'."""
    best = {k: _as_text(v) for k, v in record.best.items()}
    return encode(record._replace(best=best))


def from_json(raw: dict[str, Any]) -> Record:
    """The record; DecodeError for what is none, in one sentence."""
    record = decode(Record, raw, "cell")
    status = record.result.status
    if status not in STATES:
        raise DecodeError(f"expected one of {', '.join(STATES)} as status, got {status!r}")
    check_counts(record.world, record.fit)
    best = {k: float(v) if v in ("inf", "-inf") else v for k, v in record.best.items()}
    if any(isinstance(v, str) for v in best.values()):
        raise DecodeError("expected best values as numbers")
    return record._replace(best=best)


def check_counts(world: int, fit: int | None) -> None:
    """DecodeError unless these number a world and a fit."""
    if not 0 <= world < 2**31 or not 0 <= (fit or 0) < 2**31:
        raise DecodeError(f"expected world and fit to be counts, got {world} and {fit}")


def _as_text(best: float | None) -> float | str | None:
    return str(best) if best is not None and math.isinf(best) else best
