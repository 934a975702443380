"""Suites: a config file names tasks and estimators; a plan lists the cells to compute.

A suite is a ``.py`` file with ``get_config()`` or the ``.json`` that a run leaves. It holds

    suite       its name
    estimators  {name: SPEC}
    tasks       {name: {dgp: SPEC, num_train, num_test, metrics: {name: REF or SPEC},
                        stability: {the same}, estimators: [names] or {name: SPEC},
                        worlds: int, fits: int, note: str}}

A SPEC is ``dict(factory="module:name", args=[...], **kwargs)`` whose values may be SPECs
again, or ``dict(ref="module:name")`` for an object that is used as it is. A REF is such a
``"module:name"``. Running a suite runs the code that it names; what a ``.json`` suite may
name is what crl and installed plugins offer.
"""

import difflib
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import math
import pathlib
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from crl.check import nearest, parse_call, resolve

SCHEMA = 1
PLUGIN_GROUPS = ("crl.estimators", "crl.dgps", "crl.metrics", "crl.claims")
# What a suite that came as data may name beside the entry points of plugins: what is
# defined in modules that only compute.
OPEN_MODULES = ("crl.dgp", "crl.ica", "crl.scm", "crl.sae", "crl.metrics", "crl.combinators")

_NAMED = "a dict by name"
_COUNT = "a positive int"
SUITE_FIELDS = {
    "suite": (str, "a name"),
    "tasks": (dict, _NAMED),
    "estimators": (dict, _NAMED),
}
TASK_FIELDS = {
    "dgp": (object, "a SPEC"),
    "num_train": (int, _COUNT),
    "num_test": (int, _COUNT),
    "metrics": (dict, _NAMED),
    "stability": (dict, _NAMED),
    "estimators": ((list, dict), "a list of names or a dict by name"),
    "worlds": (int, _COUNT),
    "fits": (int, _COUNT),
    "note": (str, "a text"),
}


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
        except (ValueError, RecursionError) as error:
            raise SuiteError(f"{path} is not JSON: {error}") from error
        raw = _without_plan(raw)
    else:
        try:
            raw = runpy.run_path(str(file))["get_config"]()
        except KeyError as error:
            if error.args != ("get_config",):
                raise SuiteError(_raised(path)) from error
            raise SuiteError(f"{path} has no function get_config()") from error
        except Exception as error:
            raise SuiteError(_raised(path)) from error
    return adapt(parse(_plain(raw, "config"), trusted=not is_data), extra, worlds)


def _without_plan(raw: Any) -> Any:
    """The config in what ``Store.write_plan`` leaves: cells follow from it."""
    if not isinstance(raw, dict) or "schema" not in raw:
        return raw
    if raw["schema"] != SCHEMA:
        raise SuiteError(
            f"expected a plan of schema {SCHEMA}, got {raw['schema']!r}: run it with the "
            "version of crl that wrote it"
        )
    return {k: v for k, v in raw.items() if k not in ("schema", "cells")}


def _raised(path: str) -> str:
    return f"{path} raised an error:\n{traceback.format_exc(limit=-3)}"


def parse(raw: dict, trusted: bool = True) -> Suite:
    """A checked suite from its config.

    trusted: whether the specs may name any code, or only what crl and plugins offer.
    """
    _check_fields(raw, SUITE_FIELDS, {"suite", "tasks"}, "the suite")
    shared, tasks = raw.get("estimators", {}), {}
    if not raw["tasks"]:
        raise SuiteError(f"expected at least one task in suite {raw['suite']!r}, got none")
    required = {"dgp", "num_train", "num_test", "metrics", "estimators"}
    for name, fields in raw["tasks"].items():
        where = f"task {name!r}"
        _check_fields(fields, TASK_FIELDS, required, where)
        own = fields["estimators"]
        if not own:
            raise SuiteError(f"in {where}: expected at least one estimator, got none")
        if isinstance(own, list):
            unknown = next((e for e in map(str, own) if e not in shared), None)
            if unknown is not None:
                raise SuiteError(f"in {where}: {nearest(unknown, shared, 'estimator')}")
            own = {str(e): shared[str(e)] for e in own}
        task = TaskConfig(**{"stability": {}, **fields, "estimators": own})
        if task.stability and task.fits < 2:
            raise SuiteError(f"in {where}: stability compares fits: expected fits >= 2")
        check_spec = functools.partial(_check_spec, trusted=trusted)
        check_spec(task.dgp, f"{where}, dgp")
        for estimator, spec in task.estimators.items():
            check_spec(spec, f"estimator {estimator!r}")
        for metric, spec in [*task.metrics.items(), *task.stability.items()]:
            check_spec(spec, f"{where}, metric {metric!r}", may_be_ref=True)
        tasks[name] = task
    return Suite(raw["suite"], tasks)


def adapt(suite: Suite, extra: tuple[str, ...] = (), worlds: int | None = None) -> Suite:
    """The suite with further estimators in every task, and another number of worlds."""
    taken = {name for task in suite.tasks.values() for name in task.estimators}
    added = {}
    for text in extra:
        try:
            reference, options = parse_call(text)
        except ValueError as error:
            raise SuiteError(f"in --estimator: {error}") from error
        name = text[reference.rfind(":") + 1 :]
        if name in taken:
            other = f"{text[:-1]} )" if text.endswith(")") else f"{text}()"
            raise SuiteError(
                f"in --estimator: the name {name!r} is taken: what follows the colon is the "
                f"name as it is spelled, so write {other!r}"
            )
        taken.add(name)
        added[name] = _plain({"factory": reference, **options}, f"--estimator {name}")
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


def _dicts(value: Any, where: str = "") -> Iterator[tuple[str, dict]]:
    """Every dict at which ``_build`` looks, after the place where it stands."""
    if isinstance(value, dict):
        yield where, value
        inner = [(f"{where}.{k}", v) for k, v in value.items()]
    else:
        inner = [(f"{where}[{i}]", v) for i, v in enumerate(value)]
    for place, v in inner:
        if isinstance(v, dict | list):
            yield from _dicts(v, place)


def references(spec: Any) -> set[str]:
    """All ``module:name`` that a SPEC or a REF mentions."""
    if isinstance(spec, str):
        return {spec}
    return {d[k] for _, d in _dicts(spec) for k in ("factory", "ref") if k in d}


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
    free to change, and more worlds, fits or stability metrics leave the finished fits valid.
    The stability of fits depends on ``metrics`` too: where those fail there are no fits.
    """
    task = suite.tasks[cell.task]
    estimator = task.estimators[cell.estimator]
    metrics = [task.metrics] if cell.fit is not None else [task.metrics, task.stability]
    specs = [task.dgp, estimator, *(spec for each in metrics for spec in each.values())]
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
    try:
        spec = importlib.util.find_spec(reference.partition(":")[0])
    except ImportError:  # of a library that its package needs: these cells will say so
        spec = None
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
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise SuiteError(
            f"expected a finite number at {where}, got {value}: leave it out or give None"
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise SuiteError(
        f"expected numbers, strings, lists and dicts at {where}, got {type(value).__name__}: "
        "name objects as 'module:name'"
    )


def _check_fields(fields: Any, kinds: dict, required: set[str], where: str) -> None:
    """kinds: {field: (type, what it is in words)}."""
    if not isinstance(fields, dict):
        raise SuiteError(f"expected a dict for {where}, got {type(fields).__name__}")
    for key, value in fields.items():
        if key not in kinds:
            raise SuiteError(f"in {where}: {nearest(key, kinds, 'key')}")
        kind, words = kinds[key]
        if not isinstance(value, kind) or (kind is int and (value is True or value < 1)):
            raise SuiteError(f"in {where}: expected {key} as {words}, got {value!r}")
    missing = sorted(required - set(fields))
    if missing:
        raise SuiteError(f"in {where}: {missing[0]!r} is missing")


def _check_spec(spec: Any, where: str, may_be_ref: bool = False, trusted: bool = True) -> None:
    """Raise a SuiteError for names and options that do not exist, or are not allowed."""
    if may_be_ref and isinstance(spec, str):
        spec = {"ref": spec}
    if not isinstance(spec, dict) or not ("factory" in spec or "ref" in spec):
        raise SuiteError(
            f"in {where}: expected dict(factory='module:name', ...), got {spec!r}"
        )
    for place, inner in _dicts(spec, where):
        _check_dict(inner, f"in {place}", trusted)


def _check_dict(spec: dict, where: str, trusted: bool) -> None:
    """One level of a SPEC, or of the options in it."""
    kinds = [k for k in ("factory", "ref") if k in spec]
    if not kinds:
        for key, value in spec.items():
            close = difflib.get_close_matches(key, ("factory", "ref"), 1, 0.7)
            if close and isinstance(value, str) and ":" in value:
                raise SuiteError(f"{where}: {nearest(key, close, 'key')}")
        return
    reference, args = spec[kinds[0]], spec.get("args", [])
    if not isinstance(reference, str):
        raise SuiteError(f"{where}: expected {kinds[0]} as 'module:name', got {reference!r}")
    if "ref" in spec and len(spec) > 1:
        raise SuiteError(f"{where}: expected ref alone, got {sorted(spec)}: write factory")
    if not isinstance(args, list):
        raise SuiteError(f"{where}: expected args as a list, got {args!r}")
    try:
        if not trusted:
            _check_allowed(reference)
        found = resolve(reference)
    except ImportError:
        return  # a library that is not installed fails the cells that need it, no more
    except ValueError as error:
        raise SuiteError(f"{where}: {error}") from error
    except Exception as error:
        raise SuiteError(
            f"{where}: importing {reference!r} raised {type(error).__name__}: {error}"
        ) from error
    if "factory" in spec:
        _check_call(found, spec, where)


def _check_call(factory: Any, spec: dict, where: str) -> None:
    name, options = spec["factory"], [k for k in spec if k not in ("factory", "args")]
    if not callable(factory):
        raise SuiteError(
            f"{where}: expected a factory, got {name} of type {type(factory).__name__}: name "
            "a function, or write ref for an object that is used as it is"
        )
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some builtins have none
        return
    parameters = signature.parameters.values()
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if len(names) == len(parameters):
        for key in options:
            if key not in names:
                raise SuiteError(f"{where}: {name} has {nearest(key, names, 'option')}")
    try:
        signature.bind(*spec.get("args", []), **dict.fromkeys(options))
    except TypeError as error:
        raise SuiteError(
            f"{where}: {name} cannot be called with these options: {error}"
        ) from error


@functools.cache
def _entry_points() -> set[str]:
    entries = [importlib.metadata.entry_points(group=group) for group in PLUGIN_GROUPS]
    return {entry.value for each in entries for entry in each}


def _check_allowed(reference: str) -> None:
    """A suite that came as data may name what crl and installed plugins offer, no more.

    Looks before anything else is imported, since an import runs code too.
    """
    module, _, name = reference.partition(":")
    is_open = any(f"{module}.".startswith(f"{m}.") for m in OPEN_MODULES)
    if is_open and all(part.isidentifier() for part in (*module.split("."), name)):
        # What the module has imported from elsewhere is not its own to give away.
        if getattr(resolve(reference), "__module__", None) == module:
            return
    if reference not in _entry_points():
        raise ValueError(
            f"a .json suite may name only crl and installed plugins, got {reference!r}: run "
            "the .py suite that it came from, if you trust that"
        )


def add_to_path(*folders: str) -> None:
    """Let the suite name modules that lie in these folders."""
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
