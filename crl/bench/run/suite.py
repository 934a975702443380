"""Suites: a file names tasks, estimators and what to expect; here it is checked and resolved.

A suite is a ``.py`` file with ``get_config()``, which returns a ConfigDict of

    suite       its name
    tasks       {name: {dgp: SPEC, num_train, num_test,
                        metrics: [function, ...] or {name: function or SPEC},
                        stability: the same, estimators: {name: SPEC} or names of shared ones,
                        expect: {estimator: {metric: at_least(0.9)}},
                        worlds: int, fits: int, note: str}}
    estimators  {name: SPEC}: what tasks share

A SPEC is ``spec(factory, option=3)``, JSON: ``{"factory": "module:name", "option": 3}``,
whose values may be SPECs again, or ``{"ref": "module:name"}`` for an object that is used as
it is. ``spec(factory, sweep={"weight": [0.1, 1.0]})`` stands for one estimator a value,
fitted in one compilation.

A suite is code, and running it runs the code that it names. What a run leaves is data.
"""

import pathlib
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from crl.bench.run.decode import DecodeError, decode
from crl.bench.run.specs import RESERVED, SuiteError, check_spec, expanded, plain
from crl.names import nearest, parse_call, reference_of

STATISTICS = ("median", "mean", "worst")


class Bound(NamedTuple):
    """What a metric is expected to be, over the worlds of a task."""

    at_least: float | None = None
    at_most: float | None = None
    of: str = "median"  # or the mean, or the worst world; see STATISTICS

    def says_something(self) -> bool:
        """Whether it bounds something that is known."""
        return self.of in STATISTICS and not (self.at_least is None and self.at_most is None)


class TaskConfig(NamedTuple):
    """One task, resolved: names and numbers, nothing built yet."""

    dgp: dict
    num_train: int  # rows per environment to fit on
    num_test: int  # rows per environment to judge on
    metrics: dict[str, Any]  # REF or SPEC
    estimators: dict[str, dict]  # a swept one once for each value, with its path in 'swept'
    stability: dict[str, Any] = {}  # noqa: RUF012  (nobody writes to it)
    expect: dict[str, dict[str, Bound]] = {}  # noqa: RUF012  estimator -> metric -> bound
    worlds: int = 5
    fits: int = 1  # on each world
    note: str = ""
    full_worlds: int | None = None  # of the suite's file, where fewer or more were asked for


class Suite(NamedTuple):
    """A checked suite; ``encode`` and ``parse`` turn it into JSON and back."""

    suite: str
    tasks: dict[str, TaskConfig]


def spec(
    factory: Callable | str,
    /,
    *args: Any,
    sweep: Mapping[str, Sequence[float]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """``factory(*args, **options)`` as JSON, to be called where the suite runs.

    factory, and any function among the options, is named by its module; a text names one
    without importing it. sweep: {option: values}, floats; 'representation.weight' is the
    option of an inner spec. Several options: all combinations.
    """
    try:
        found: dict[str, Any] = {"factory": reference_of(factory)}
        taken = next((name for name in options if name in RESERVED), None)
        if taken is not None:
            raise ValueError(f"the option {taken!r} cannot be given by its name in a suite")
    except ValueError as error:
        raise SuiteError(f"in spec(): {error}") from error
    if args:
        found["args"] = list(args)
    found |= options
    if sweep is not None:
        found["sweep"] = dict(sweep)
    return plain(found, f"spec({found['factory']})")


def at_least(value: float, of: str = "median") -> dict[str, Any]:
    """The bound that a metric is ``value`` or more, in the median over worlds.

    of: 'median', 'mean' or 'worst'. A world without a value lies on the wrong side.
    """
    return {"at_least": value, "of": of}


def at_most(value: float, of: str = "median") -> dict[str, Any]:
    """The bound that a metric is ``value`` or less; see ``at_least``."""
    return {"at_most": value, "of": of}


def between(low: float, high: float, of: str = "median") -> dict[str, Any]:
    """Both bounds at once; see ``at_least``."""
    return {"at_least": low, "at_most": high, "of": of}


def load(path: str, extra: Sequence[str] = (), worlds: int | None = None) -> Suite:
    """The suite of a file.

    extra: estimators from outside, ``module:factory`` or ``module:factory(option=3)``,
    which join every task. worlds: in place of the number in each task.
    Raises SuiteError with one sentence for what is wrong with it.
    """
    file = pathlib.Path(path)
    if file.suffix != ".py":
        raise SuiteError(
            f"expected a .py file with get_config(), got {path}: a suite is code; the plan in "
            "a results folder is a record of one"
        )
    if not file.is_file():
        known = [str(f) for f in sorted(file.parent.glob("*.py"))]
        close = f"; {nearest(str(path), known, 'suite')}" if known else ""
        raise SuiteError(f"there is no file {path}{close}")
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
        raw = get_config() if get_config else None
    except SuiteError:
        raise
    except Exception as error:
        trace = traceback.format_exc(limit=-3)
        raise SuiteError(f"{path} raised an error:\n{trace}") from error
    if raw is None:
        raise SuiteError(f"{path} has no function get_config() that returns a config")
    suite = parse(plain(raw, "config"))
    return with_worlds(with_estimators(suite, extra), worlds)


def parse(raw: Any) -> Suite:
    """A checked suite from its config as JSON: each name is looked up, each call compared."""
    try:
        suite = _decode(raw)
    except DecodeError as error:
        raise SuiteError(str(error)) from error
    for name, task in suite.tasks.items():
        where = f"config.tasks.{name}"
        _check_numbers(task, where)
        check_spec(task.dgp, f"{where}.dgp")
        for estimator, each in task.estimators.items():
            check_spec(each, f"{where}.estimators.{estimator}")
        for metric, each in [*task.metrics.items(), *task.stability.items()]:
            check_spec({"ref": each} if isinstance(each, str) else each, f"{where}.{metric}")
        _check_expect(task, f"{where}.expect")
    return suite


class _File(NamedTuple):
    """The outer level of a suite's file."""

    suite: str
    tasks: dict[str, dict]
    estimators: dict[str, dict] = {}  # noqa: RUF012


def _decode(raw: Any) -> Suite:
    file, tasks = decode(_File, raw, "config"), {}
    if not file.tasks:
        raise DecodeError(f"expected at least one task in suite {file.suite!r}, got none")
    for name, fields in file.tasks.items():
        where, own = f"config.tasks.{name}", fields.get("estimators")
        if isinstance(own, list):
            for estimator in map(str, own):
                if estimator not in file.estimators:
                    unknown = nearest(estimator, file.estimators, "estimator")
                    raise DecodeError(f"at {where}.estimators: {unknown}")
            fields = fields | {"estimators": {str(e): file.estimators[str(e)] for e in own}}
        for side in ("metrics", "stability"):
            if side in fields:
                fields = fields | {side: _by_name(fields[side])}
        task = decode(TaskConfig, fields, where)
        estimators: dict[str, dict] = {}
        for estimator, each in task.estimators.items():
            estimators |= expanded(estimator, each, f"{where}.estimators.{estimator}")
        tasks[name] = task._replace(estimators=estimators)
    return Suite(file.suite, tasks)


def _by_name(metrics: Any) -> Any:
    """Metrics as {name: REF or SPEC}; those of a list are called what they are."""
    if isinstance(metrics, list):
        metrics = {_reference(m).rpartition(":")[2]: m for m in metrics}
    if not isinstance(metrics, dict):
        return metrics
    return {
        name: m["ref"] if isinstance(m, dict) and set(m) == {"ref"} else m
        for name, m in metrics.items()
    }


def _reference(metric: Any) -> str:
    if isinstance(metric, dict):
        metric = metric.get("ref", metric.get("factory"))
    return str(metric)


def with_estimators(suite: Suite, extra: Sequence[str]) -> Suite:
    """The suite with further estimators in every task; see ``load``."""
    taken = {name for task in suite.tasks.values() for name in task.estimators}
    added = {}
    for text in extra:
        try:
            reference, options = parse_call(text)
            added_spec = spec(reference, **options)
        except ValueError as error:
            raise SuiteError(f"in --estimator {text}: {error}") from error
        name = text[text.partition("(")[0].rfind(":") + 1 :]
        if name in taken:
            other = f"{text[:-1]} )" if text.endswith(")") else f"{text}()"
            raise SuiteError(
                f"in --estimator: the name {name!r} is taken: what follows the colon is the "
                f"name as it is spelled, so write {other!r}"
            )
        taken.add(name)
        check_spec(added_spec, f"--estimator {name}")
        added[name] = added_spec
    tasks = {
        name: task._replace(estimators=task.estimators | added)
        for name, task in suite.tasks.items()
    }
    return Suite(suite.suite, tasks)


def with_worlds(suite: Suite, worlds: int | None) -> Suite:
    """The suite with another number of worlds in each task; None: as it is."""
    if worlds is None:
        return suite
    tasks = {
        name: task._replace(worlds=worlds, full_worlds=task.full_worlds or task.worlds)
        for name, task in suite.tasks.items()
    }
    return Suite(suite.suite, tasks)


def _check_numbers(task: TaskConfig, where: str) -> None:
    for name in ("num_train", "num_test", "worlds", "fits"):
        if getattr(task, name) < 1:
            got = getattr(task, name)
            raise SuiteError(f"expected a positive integer at {where}.{name}, got {got}")
    if not task.estimators:
        raise SuiteError(f"at {where}: expected at least one estimator, got none")
    both = set(task.metrics) & set(task.stability)
    if both:
        raise SuiteError(
            f"at {where}: metrics and stability both have {min(both)!r}: rename one, as in "
            "stability={'pairwise': ...}"
        )
    if task.stability and task.fits < 2:
        raise SuiteError(f"at {where}: stability compares fits: expected fits >= 2")


def _check_expect(task: TaskConfig, where: str) -> None:
    for estimator, bounds in task.expect.items():
        if estimator not in task.estimators:
            raise SuiteError(f"at {where}: {nearest(estimator, task.estimators, 'estimator')}")
        for metric, bound in bounds.items():
            known = task.metrics | task.stability
            if metric not in known:
                raise SuiteError(f"at {where}.{estimator}: {nearest(metric, known, 'metric')}")
            if not bound.says_something():
                raise SuiteError(
                    f"expected at_least(value), at_most(value) or between(low, high) of "
                    f"{', '.join(STATISTICS)} at {where}.{estimator}.{metric}, got {bound}"
                )


def add_to_path(*folders: str) -> None:
    """Let the suite name modules that lie in these folders."""
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
