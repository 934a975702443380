"""Cells of one task, drawn, fitted and judged together in programs compiled once.

Each fit is a replica of a compiled program; estimators that differ in the values of a sweep
share it. The numbers depend on the keys alone, which derive from hashes of the DGP, the
world and the fit, never on which replicas are together, nor on the number of devices.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from crl.bench.run.cells import Cell, stable_hash
from crl.bench.run.measure import as_numbers, failure, outcome, pictures, training_curve
from crl.bench.run.records import DIVERGED, INAPPLICABLE, OK, Result
from crl.bench.run.specs import construct, options_of, with_options
from crl.bench.run.suite import TaskConfig
from crl.check import check_data, check_task
from crl.core import Estimator, MissingClaim, PyTree, Readout, Sample, Task, draw
from crl.parallel import map_replicas
from crl.train import Fit, fit_replicas

# Steps from which on a fit is checkpointed between chunks. A shorter one is cheaper to
# repeat after a kill than to save.
CHECKPOINT_AFTER = 10_000


class Problem(NamedTuple):
    """One task of a suite as built objects, with the programs that draw and judge it."""

    task: Task
    fits: int  # on each world
    seed: int  # of its worlds: tasks and estimators with one DGP share them
    best: dict[str, float | None]  # of each metric
    draw: Callable  # (world ()) -> (train, test): Samples
    score: Callable  # (claims, test) -> metrics
    compare: Callable  # (claims of all fits, test) -> stability metrics


class Team(NamedTuple):
    """Estimators that are fitted in one program: one alone, or all values of a sweep."""

    example: Estimator  # the first of them
    build: Callable  # (**options) -> Estimator
    options: dict[str, dict[str, float]]  # estimator -> option -> value; {} where alone


class Hardware(NamedTuple):
    """Where replicas run; see ``crl.parallel.map_replicas``."""

    devices: tuple[jax.Device, ...]
    backend: str = "shard_map"

    def map(self, fn: Callable) -> Callable:
        """``fn`` over replicas, over all devices."""
        return map_replicas(fn, backend=self.backend, devices=self.devices)

    def judging(self) -> "Hardware":
        """Where claims are judged: batched SVDs may hang on several forced host devices."""
        on_host = self.devices[0].platform == "cpu"
        return self._replace(devices=self.devices[:1] if on_host else self.devices)


class Inapplicable(ValueError):
    """The estimator refuses the data of a task, or claims nothing that the task asks for."""


def make_problem(config: TaskConfig) -> Problem:
    """The task of a suite, built."""
    metrics = {k: construct(v) for k, v in config.metrics.items()}
    stability = {k: construct(v) for k, v in config.stability.items()}
    task = Task(construct(config.dgp), config.num_train, config.num_test, metrics, stability)
    seed = stable_hash(config.dgp)
    return Problem(
        task,
        config.fits,
        seed,
        {name: _best_of(name, fn) for name, fn in (metrics | stability).items()},
        lambda world: draw(task, world_key(seed, world)),
        functools.partial(_claimed, metrics),
        functools.partial(_claimed, stability),
    )


def _best_of(name: str, metric: Callable) -> float | None:
    if not hasattr(metric, "best"):
        raise ValueError(
            f"expected metric {name!r} to say what a perfect claim has: mark the function "
            "with @crl.metric(best=1.0), 0.0, inf, or None where it judges nothing"
        )
    return metric.best


def _claimed(metrics: dict[str, Callable], claims: Readout, sample: Sample) -> dict[str, Any]:
    """The metrics of what is claimed; which those are is static."""
    found = {}
    for name, metric in metrics.items():
        try:
            found[name] = metric(claims, sample)
        except MissingClaim:
            continue
    return found


def make_team(specs: dict[str, dict]) -> Team:
    """The estimators of these specs, which differ in the values of their sweep alone."""
    options = {name: options_of(each) for name, each in specs.items()}
    first = next(iter(specs.values()))

    def build(**values):
        return construct(with_options(first, values))

    example = construct(first)
    if not any(options.values()):
        return Team(example, lambda: example, options)
    return Team(example, build, options)


def check(problem: Problem, estimator: Estimator) -> None:
    """Dry-run by shapes; Inapplicable where the question is not one for this estimator."""
    unclaimed: dict[str, str] = {}

    def forgiving(name, metric):
        def checked(claims, sample):
            try:
                return metric(claims, sample)
            except MissingClaim as error:
                unclaimed[name] = str(error)
                return jnp.zeros(())

        return checked

    task = problem.task
    asked = {name: forgiving(name, fn) for name, fn in task.metrics.items()}
    compared = {name: forgiving(name, fn) for name, fn in task.stability.items()}
    try:
        check_task(task._replace(metrics=asked, stability=compared), estimator)
    except Exception as error:
        # What it says of the data itself explains more than where its program stumbled.
        train, _ = jax.device_get(jax.jit(problem.draw)(0))
        _check_applies(estimator, train)
        raise error
    for sentence in unclaimed.values():
        if " needs truth." in sentence:  # a mistake of the suite
            raise MissingClaim(sentence)
    if unclaimed and len(unclaimed) == len(asked) + len(compared):
        raise Inapplicable(next(iter(unclaimed.values())))


def _check_applies(estimator: Estimator, train: Sample) -> None:
    check_data(train.data)
    try:
        estimator.validate(train.data)
    except ValueError as error:
        raise Inapplicable(str(error)) from error


def world_key(seed: int, world: jax.Array) -> jax.Array:
    """The key of a world; seed: ``Problem.seed``."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), world)


def fit_key(seed: int, world: jax.Array, fit: jax.Array) -> jax.Array:
    """The key of a fit, the same for every estimator."""
    return jax.random.fold_in(
        jax.random.fold_in(world_key(seed, world), stable_hash("fit")), fit
    )


def fit_cells(
    problem: Problem,
    team: Team,
    todo: Sequence[Cell],
    num_worlds: int,
    hardware: Hardware,
    checkpoint: Path | None = None,
    label: str = "",
) -> Iterator[tuple[Cell, Result]]:
    """The result of each cell in ``todo``, from fits of our estimators over the devices.

    num_worlds: worlds of a full batch, to which the replicas are padded. checkpoint: folder
    for the steps of long fits.
    """
    worlds = sorted({cell.world for cell in todo})
    train, test = _draw(problem, worlds, num_worlds, hardware)
    on_host = jax.device_get(train)
    for i, world in enumerate(worlds):
        try:
            _check_applies(team.example, jax.tree.map(lambda a: a[i], on_host))  # noqa: B023
        except ValueError as error:
            refused = [cell for cell in todo if cell.world == world]
            yield from ((cell, as_result(error)) for cell in refused)
            todo = [cell for cell in todo if cell not in refused]
    if not todo:
        return

    # All fits of a world that are compared, and the others that are missing.
    compared = sorted(cell for cell in todo if cell.fit is None)
    cells = {cell for cell in todo if cell.fit is not None}
    cells |= {cell._replace(fit=f) for cell in compared for f in range(problem.fits)}
    cells = sorted(cells)
    full = _padded(cells, len(team.options) * num_worlds * problem.fits)
    index = jnp.asarray([(cell.world, cell.fit) for cell in full], jnp.int32)  # (r, 2)
    train, test = _take((train, test), np.array([worlds.index(cell.world) for cell in full]))
    options = _options(team, full, train.data.x.dtype)
    fit = fit_replicas(
        team.build if options else team.example,
        _fit_keys(problem.seed, index),
        train.data,
        options=options,
        backend=hardware.backend,
        devices=hardware.devices,
        checkpoint=checkpoint if team.example.num_steps > CHECKPOINT_AFTER else None,
        label=label,
    )

    judging = hardware.judging()
    inputs = fit.state, test, options
    if judging != hardware:
        inputs = jax.device_put(inputs, judging.devices[0])
    test = inputs[1]
    metrics, readouts = judging.map(_judge(team.build, problem.score))(*inputs)
    can_converge = team.example.num_steps > 0 and team.example.converged is not None
    results = _results_of(cells, fit, metrics, readouts.diag or {}, can_converge)
    claims = readouts._replace(diag=None)
    for i, (cell, result) in enumerate(results.items()):
        if cell not in todo:
            continue
        if (cell.world, cell.fit) == (0, 0) and result.status == OK:
            shown = pictures(*_take((claims, test.truth), np.array(i)))
            result = result._replace(pictures=shown)
        yield cell, result
    if compared:  # last, so that a metric which fails here costs no fit
        each = [[cell._replace(fit=f) for f in range(problem.fits)] for cell in compared]
        at = {cell: i for i, cell in enumerate(cells)}
        rows = _padded(each, len(team.options) * num_worlds)
        rows = np.array([[at[cell] for cell in fits] for fits in rows])  # (worlds, fits)
        inputs = _take(claims, rows), _take(test, rows[:, 0])
        values = jax.device_get(judging.map(problem.compare)(*inputs))
        for i, (cell, fits) in enumerate(zip(compared, each)):
            bad = any(results[fit].status == DIVERGED for fit in fits)
            yield cell, outcome({k: v[i] for k, v in values.items()}, bad)


def _results_of(
    cells: Sequence[Cell], fit: Fit, metrics: dict, diag: dict, can_converge: bool
) -> dict[Cell, Result]:
    """The result of each fit; metrics, diag: (r,) each, and more where they are padded."""
    metrics, diag = jax.device_get((metrics, diag))
    found = {}
    for i, cell in enumerate(cells):
        result = outcome({k: v[i] for k, v in metrics.items()}, bool(fit.diverged[i]))
        found[cell] = result._replace(
            num_steps=int(fit.num_steps[i]),
            converged=bool(fit.converged[i]) if can_converge else None,
            trace=training_curve({k: v[i] for k, v in fit.trace.items()}),
            diag=as_numbers({k: v[i] for k, v in diag.items()}),
        )
    return found


def call_peers(
    problem: Problem,
    peers: dict[str, Callable],
    todo: Sequence[Cell],
    num_worlds: int,
    hardware: Hardware,
) -> Iterator[tuple[Cell, Result]]:
    """The result of each cell in ``todo``, one by one, from other libraries.

    peers: host functions (key, train, test) -> Readout, by name.
    """
    worlds, calls = sorted({cell.world for cell in todo}), {}
    samples = jax.device_get(_draw(problem, worlds, num_worlds, hardware))
    score, compare = _jitted(problem.score), _jitted(problem.compare)

    def call(cell):
        """(claims, diag, seconds) of one fit, called once."""
        if cell not in calls:
            train, test = sampled(cell)
            key = _fit_keys(problem.seed, jnp.asarray([cell[2:]], jnp.int32))[0]
            begin = time.perf_counter()
            readout = peers[cell.estimator](key, train.data, test.data)
            seconds = round(time.perf_counter() - begin, 4)
            calls[cell] = readout._replace(diag=None), readout.diag or {}, seconds
        return calls[cell]

    def sampled(cell):
        return jax.tree.map(lambda a: a[worlds.index(cell.world)], samples)

    def judged(cell):
        _, test = sampled(cell)
        if cell.fit is None:
            each = [call(cell._replace(fit=f))[0] for f in range(problem.fits)]
            claims = jax.tree.map(lambda *a: np.stack(a), *each)
            found = compare(claims, test)
            _check_claimed(problem.task.stability, found, claims, test)
            return outcome(found, False)
        claims, diag, seconds = call(cell)
        found = score(claims, test)
        _check_claimed(problem.task.metrics, found, claims, test)
        result = outcome(found, False)._replace(peer_seconds=seconds, diag=as_numbers(diag))
        if cell[2:] == (0, 0):
            result = result._replace(pictures=pictures(claims, test.truth))
        return result

    for cell in todo:
        try:
            result = judged(cell)
        except Exception as error:
            result = as_result(error)
        yield cell, result


def _check_claimed(metrics: dict, found: dict, claims: Readout, test: Sample) -> None:
    """Raises the MissingClaim of a metric if none of them found what it asks for."""
    if metrics and not found:
        next(iter(metrics.values()))(claims, test)


def as_result(error: Exception) -> Result:
    """What an error makes of a cell."""
    if isinstance(error, Inapplicable):
        return Result(INAPPLICABLE, error=str(error))
    if isinstance(error, MissingClaim) and " needs truth." not in str(error):
        return Result(INAPPLICABLE, error=str(error))
    return failure(error)


def _options(team: Team, cells: Sequence[Cell], dtype) -> dict[str, jax.Array]:
    """The swept options of each replica, (r,); {} for an estimator alone."""
    names = next(iter(team.options.values()))
    return {
        name: jnp.asarray([team.options[cell.estimator][name] for cell in cells], dtype)
        for name in names
    }


def _draw(
    problem: Problem, worlds: Sequence[int], num_worlds: int, hardware: Hardware
) -> tuple[Sample, Sample]:
    return hardware.map(problem.draw)(jnp.asarray(_padded(worlds, num_worlds), jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def _fit_keys(seed: int, fits: jax.Array) -> jax.Array:
    """Keys of fits; fits: (r, 2) world and fit."""
    return jax.vmap(lambda fit: fit_key(seed, fit[0], fit[1]))(fits)


@functools.lru_cache(maxsize=128)
def _judge(build: Callable, score: Callable) -> Callable:
    def judge(state, test, options):
        readout = build(**options).readout(state, test.data)
        return score(readout._replace(diag=None), test), readout

    return judge


@functools.lru_cache(maxsize=128)
def _jitted(fn: Callable) -> Callable:
    return jax.jit(fn)


@jax.jit
def _take(tree: PyTree, rows: jax.Array) -> PyTree:
    # One program, where indexing leaf by leaf compiles one for each shape.
    return jax.tree.map(lambda a: a[rows], tree)


def _padded(items: Sequence, num: int) -> list:
    return [*items, *[items[-1]] * (num - len(items))]
