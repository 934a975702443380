"""Suites: a config file names tasks and estimators; a plan lists the cells to compute.

A suite is a ``.py`` file with ``get_config()`` or the ``.json`` that a run leaves. It holds

    suite       its name
    estimators  {name: SPEC}
    tasks       {name: {dgp: SPEC, num_train, num_test, metrics: {name: REF or SPEC},
                        stability: {the same}, estimators: [names] or {name: SPEC},
                        worlds: int, fits: int, note: str}}

A SPEC is ``dict(factory="module:name", args=[...], **kwargs)`` whose values may be SPECs
again, or ``dict(ref="module:name")`` for an object that is used as it is. A REF is such a
``"module:name"``. Running a suite runs the code that it names.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import pathlib
import re
import runpy
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

from crl.check import nearest, parse_call, resolve

SCHEMA = 1
PLUGIN_GROUPS = ("crl.estimators", "crl.dgps", "crl.metrics", "crl.claims")


class SuiteError(ValueError):
    """A suite that cannot be run, in one sentence."""


class TaskConfig(NamedTuple):
    """One task as the suite file gives it: names and numbers, nothing built yet."""

    dgp: dict
    num_train: int  # rows per environment to fit on
    num_test: int  # further rows per environment to judge on
    metrics: dict[str, Any]
    estimators: dict[str, dict]
    stability: dict[str, Any]
    worlds: int = 5
    fits: int = 1
    note: str = ""


class Suite(NamedTuple):
    """A checked suite."""

    name: str
    tasks: dict[str, TaskConfig]

    def to_dict(self) -> dict:
        """The resolved config, JSON; ``parse`` gives the suite back."""
        return {
            "suite": self.name,
            "tasks": {name: task._asdict() for name, task in self.tasks.items()},
        }


class Cell(NamedTuple):
    """One number of the plan. ``fit`` None: stability over all fits of the world."""

    task: str
    estimator: str
    world: int
    fit: int | None


def load(path: str, extra: tuple[str, ...] = (), worlds: int | None = None) -> Suite:
    """The suite of a file.

    extra: estimators from outside, ``module:factory`` or ``module:factory(option=3)``,
    which join every task. worlds: in place of the number in each task.
    Raises SuiteError with one sentence for what is wrong with it.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        known = [str(f) for f in sorted(file.parent.glob("*.py"))]
        close = f"; {nearest(str(path), known, 'suite')}" if known else ""
        raise SuiteError(f"there is no file {path}{close}")
    is_data = file.suffix == ".json"
    if is_data:
        try:
            raw = json.loads(file.read_text())
        except ValueError as error:
            raise SuiteError(f"{path} is not JSON: {error}") from error
    else:
        try:
            raw = runpy.run_path(str(file))["get_config"]()
        except KeyError as error:
            if error.args != ("get_config",):
                raise SuiteError(_raised(path)) from error
            raise SuiteError(f"{path} has no function get_config()") from error
        except Exception as error:
            raise SuiteError(_raised(path)) from error
    if is_data:
        _check_trusted(raw)
    return adapt(parse(_plain(raw, "config")), extra, worlds)


def _raised(path: str) -> str:
    return f"{path} raised an error:\n{traceback.format_exc(limit=-3)}"


def parse(raw: dict) -> Suite:
    """A checked suite from its config."""
    _check_keys(raw, {"suite", "tasks", "estimators"}, {"suite", "tasks"}, "the suite")
    shared, tasks = raw.get("estimators", {}), {}
    if not raw["tasks"]:
        raise SuiteError(f"expected at least one task in suite {raw['suite']!r}, got none")
    required = {"dgp", "num_train", "num_test", "metrics", "estimators"}
    for name, fields in raw["tasks"].items():
        _check_keys(fields, set(TaskConfig._fields), required, f"task {name!r}")
        own = fields["estimators"]
        if isinstance(own, list):
            unknown = next((e for e in own if e not in shared), None)
            if unknown is not None:
                raise SuiteError(f"in task {name!r}: {nearest(unknown, shared, 'estimator')}")
            own = {e: shared[e] for e in own}
        task = TaskConfig(**{"stability": {}, **fields, "estimators": own})
        for field in ("num_train", "num_test", "worlds", "fits"):
            if not isinstance(getattr(task, field), int) or getattr(task, field) < 1:
                got = getattr(task, field)
                raise SuiteError(
                    f"in task {name!r}: expected {field} as a positive int, got {got!r}"
                )
        if task.stability and task.fits < 2:
            raise SuiteError(f"in task {name!r}: stability compares fits: expected fits >= 2")
        _check_spec(task.dgp, f"task {name!r}, dgp")
        for estimator, spec in task.estimators.items():
            _check_spec(spec, f"estimator {estimator!r}")
        for metric, spec in {**task.metrics, **task.stability}.items():
            _check_spec(spec, f"task {name!r}, metric {metric!r}", may_be_ref=True)
        tasks[name] = task
    return Suite(raw["suite"], tasks)


def adapt(suite: Suite, extra: tuple[str, ...] = (), worlds: int | None = None) -> Suite:
    """The suite with further estimators in every task, and another number of worlds."""
    added = {}
    for text in extra:
        try:
            reference, options = parse_call(text)
        except ValueError as error:
            raise SuiteError(f"in --estimator: {error}") from error
        name = text[reference.rfind(":") + 1 :]
        added[name] = {"factory": reference, **options}
        _check_spec(added[name], f"estimator {name!r}")
    tasks = {
        name: task._replace(
            estimators={**task.estimators, **added}, worlds=worlds or task.worlds
        )
        for name, task in suite.tasks.items()
    }
    return Suite(suite.name, tasks)


def build(spec: Any) -> Any:
    """The object that a SPEC or a REF names."""
    return resolve(spec) if isinstance(spec, str) else _build(spec)


def _build(value: Any) -> Any:
    if isinstance(value, list):
        return [_build(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "ref" in value:
        return resolve(value["ref"])
    options = {k: _build(v) for k, v in value.items()}
    if "factory" not in value:
        return options
    return resolve(options.pop("factory"))(*options.pop("args", []), **options)


def references(spec: Any) -> set[str]:
    """All ``module:name`` that a SPEC or a REF mentions."""
    if isinstance(spec, str):
        return {spec}
    if isinstance(spec, list):
        return set().union(*(references(v) for v in spec if isinstance(v, dict | list)))
    own = {spec[k] for k in ("factory", "ref") if k in spec}
    return own.union(*(references(v) for v in spec.values() if isinstance(v, dict | list)))


def canonical(value: Any) -> str:
    """JSON that depends on the content alone."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def stable_hash(value: Any) -> int:
    """32 bits of a JSON value, the same in every process: for ``jax.random.fold_in``."""
    digest = hashlib.blake2b(canonical(value).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def cells(suite: Suite) -> list[Cell]:
    """The plan: every cell of the suite, a world's fits together, then its stability."""
    plan = []
    for name, task in suite.tasks.items():
        for estimator in task.estimators:
            for world in range(task.worlds):
                plan += [Cell(name, estimator, world, fit) for fit in range(task.fits)]
                plan += [Cell(name, estimator, world, None)] * bool(task.stability)
    return plan


def key_of(suite: Suite, cell: Cell, x64: bool) -> str:
    """The content address of a cell: what its number depends on, and nothing else.

    Covers the specs, sizes, seeds, precision and the source of each file that the specs
    name; not the versions of the libraries, which a cell records. Names and notes are
    free to change, and more worlds or fits leave the finished cells valid.
    """
    task = suite.tasks[cell.task]
    estimator = task.estimators[cell.estimator]
    metrics = [task.metrics, task.stability]
    specs = [task.dgp, estimator, *task.metrics.values(), *task.stability.values()]
    named = set().union(*map(references, specs))
    content = {
        "schema": SCHEMA,
        "dgp": task.dgp,
        "estimator": estimator,
        "metrics": metrics,
        "sizes": [task.num_train, task.num_test],
        "world": cell.world,
        "fit": cell.fit if cell.fit is not None else ["all", task.fits],
        "dtype": "float64" if x64 else "float32",
        "code": {r: _source(r) for r in sorted(named)},
    }
    return hashlib.blake2b(canonical(content).encode(), digest_size=16).hexdigest()


@functools.cache
def _source(reference: str) -> str:
    # An edited estimator is another estimator: its old numbers must not stand for it.
    spec = importlib.util.find_spec(reference.partition(":")[0])
    file = spec and spec.origin and pathlib.Path(spec.origin)
    content = file.read_bytes() if file and file.is_file() else b""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _plain(value: Any, where: str) -> Any:
    """Config as JSON types."""
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
        # A ConfigDict iterates by the alphabet; the report keeps the order of the file.
        names = getattr(value, "_fields", value)
        return {str(k): _plain(value[k], f"{where}.{k}") for k in names}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    raise SuiteError(
        f"expected numbers, strings, lists and dicts at {where}, got {type(value).__name__}: "
        "name objects as 'module:name'"
    )


def _check_keys(fields: Any, known: set[str], required: set[str], where: str) -> None:
    if not isinstance(fields, dict):
        raise SuiteError(f"expected a dict for {where}, got {type(fields).__name__}")
    for key in fields:
        if key not in known:
            raise SuiteError(f"in {where}: {nearest(key, known, 'key')}")
    missing = sorted(required - set(fields))
    if missing:
        raise SuiteError(f"in {where}: {missing[0]!r} is missing")


def _check_spec(spec: Any, where: str, may_be_ref: bool = False) -> None:
    """Raise a SuiteError for names and options that do not exist."""
    if may_be_ref and isinstance(spec, str):
        spec = {"ref": spec}
    if not isinstance(spec, dict) or not ("factory" in spec or "ref" in spec):
        raise SuiteError(
            f"in {where}: expected dict(factory='module:name', ...), got {spec!r}"
        )
    try:
        found = resolve(spec.get("factory") or spec["ref"])
    except ValueError as error:
        raise SuiteError(f"in {where}: {error}") from error
    except ImportError:
        return  # a library that is not installed fails the cells that need it, no more
    for value in [*spec.get("args", []), *spec.values()]:
        if isinstance(value, dict) and ("factory" in value or "ref" in value):
            _check_spec(value, where)
    if "ref" in spec:
        return
    parameters = inspect.signature(found).parameters.values()
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    for key in spec:
        if key not in (*names, "factory", "args"):
            hint = nearest(key, names, "option")
            raise SuiteError(f"in {where}: {spec['factory']} has {hint}")


def _check_trusted(value: Any) -> None:
    """A suite that came as data may name our code and installed plugins, nothing else.

    Looks before anything is imported, since an import runs code too.
    """
    trusted = {"crl", "benchmarks"}
    for group in PLUGIN_GROUPS:
        entries = importlib.metadata.entry_points(group=group)
        trusted |= {e.module.partition(".")[0] for e in entries}
    strings = [value] if isinstance(value, str) else []
    if isinstance(value, dict):
        value = [v for k, v in value.items() if k != "note"]
    for v in value if isinstance(value, list) else []:
        _check_trusted(v)
    for text in strings:
        if re.fullmatch(r"[\w.]+:[\w.]+", text) and text.partition(".")[0] not in trusted:
            raise SuiteError(
                f"a .json suite may name only crl and installed plugins, got {text!r}: "
                "write a .py suite if you trust it"
            )


def add_to_path(*folders: str) -> None:
    """Let the suite name modules that lie in these folders."""
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
