"""SPECs: calls as JSON, which are looked up, compared with what they call, and made.

``{"factory": "module:name", "args": [...], "option": 3}`` stands for a call, whose values may
be SPECs again; ``{"ref": "module:name"}``, or where a metric is expected that text alone, a
REF, for an object as it is.
"""

import copy
import inspect
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from crl.bench.run.decode import DecodeError, decode
from crl.names import nearest, reference_of, resolve

# Keys of a SPEC beside the options of its factory.
RESERVED = ("factory", "args", "ref", "sweep", "swept")


class SuiteError(ValueError):
    """A suite that cannot be run, in one sentence."""


def construct(each: dict | str) -> Any:
    """The object that a SPEC or a REF names."""
    return resolve(each) if isinstance(each, str) else _construct(each)


def _construct(value: Any) -> Any:
    if isinstance(value, list):
        return [_construct(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "ref" in value:
        return resolve(value["ref"])
    options = {k: _construct(v) for k, v in value.items() if k != "swept"}
    if "factory" not in value:
        return options
    return resolve(options.pop("factory"))(*options.pop("args", []), **options)


def references(each: dict | str) -> set[str]:
    """All ``module:name`` that a SPEC or a REF mentions."""
    if isinstance(each, str):
        return {each}
    return {d[k] for _, d in _dicts(each, "") for k in ("factory", "ref") if k in d}


def _dicts(value: Any, where: str) -> Iterator[tuple[str, dict]]:
    """Every dict at which ``_construct`` looks, after the place where it stands."""
    if isinstance(value, dict):
        yield where, value
        inner = [(f"{where}.{k}", v) for k, v in value.items()]
    else:
        inner = [(f"{where}[{i}]", v) for i, v in enumerate(value)]
    for place, v in inner:
        if isinstance(v, dict | list):
            yield from _dicts(v, place)


def plain(value: Any, where: str) -> Any:
    """Config as JSON types; functions by their names."""
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
        # A ConfigDict iterates by the alphabet; the report keeps the order of the file.
        names = getattr(value, "_fields", value)
        return {str(k): plain(value[k], f"{where}.{k}") for k in names}
    if isinstance(value, list | tuple):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise SuiteError(
            f"expected a finite number at {where}, got {value}: leave it out or give None"
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value):
        try:
            return {"ref": reference_of(value)}
        except ValueError as error:
            raise SuiteError(f"at {where}: {error}") from error
    raise SuiteError(
        f"expected numbers, texts, lists, dicts and functions at {where}, got "
        f"{type(value).__name__}: describe objects by spec(factory, ...)"
    )


def with_options(each: dict, values: Mapping[str, Any]) -> dict:
    """A SPEC with options set by their paths, such as 'representation.weight'.

    Raises KeyError with the part of a path at which there is no SPEC.
    """
    each = copy.deepcopy(each)
    for path, value in values.items():
        *parts, last = path.split(".")
        inner = each
        for part in parts:
            inner = inner[int(part)] if isinstance(inner, list) else inner.get(part)
            if not isinstance(inner, dict | list):
                raise KeyError(part)
        inner[last] = value
    return each


def options_of(each: dict) -> dict[str, float]:
    """The values of a swept estimator, by their paths."""
    found = {}
    for path in each.get("swept", []):
        value: Any = each
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        found[path] = value
    return found


def expanded(name: str, each: dict, where: str) -> dict[str, dict]:
    """An estimator, or one for each value of its sweep, with what was swept in 'swept'."""
    if "sweep" not in each:
        return {name: each}
    sweep = decode(dict[str, list[float]], each["sweep"], f"{where}.sweep")
    if not sweep or not all(sweep.values()):
        raise DecodeError(f"at {where}.sweep: expected values of at least one option")
    fixed = {k: v for k, v in each.items() if k != "sweep"}
    found = {}
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values))
        label = ", ".join(f"{path}={value!r}" for path, value in chosen.items())
        try:
            member = with_options(fixed, chosen)
        except KeyError as error:
            raise DecodeError(
                f"at {where}.sweep: there is no spec at {error}: name options as in "
                "'representation.weight'"
            ) from error
        found[f"{name}[{label}]"] = member | {"swept": list(sweep)}
    return found


def check_spec(each: Any, where: str) -> None:
    """Raise a SuiteError for names and options that do not exist."""
    if not isinstance(each, dict) or not ("factory" in each or "ref" in each):
        raise SuiteError(f"expected spec(factory, ...) at {where}, got {each!r}")
    for place, inner in _dicts(each, where):
        _check_dict(inner, place)


def _check_dict(each: dict, where: str) -> None:
    """One level of a SPEC, or of the options in it."""
    kinds = [k for k in ("factory", "ref") if k in each]
    if not kinds:
        return
    reference, args = each[kinds[0]], each.get("args", [])
    if not isinstance(reference, str):
        got = f"got {reference!r}"
        raise SuiteError(f"at {where}: expected {kinds[0]} as 'module:name', {got}")
    if "ref" in each and len(each) > 1:
        raise SuiteError(f"at {where}: expected ref alone, got {sorted(each)}: use spec()")
    if not isinstance(args, list):
        raise SuiteError(f"at {where}: expected args as a list, got {args!r}")
    try:
        found = resolve(reference)
    except ImportError:
        return  # a library that is not installed fails the cells that need it, no more
    except ValueError as error:
        raise SuiteError(f"at {where}: {error}") from error
    except Exception as error:
        raise SuiteError(
            f"at {where}: importing {reference!r} raised {type(error).__name__}: {error}"
        ) from error
    if "factory" in each:
        _check_call(found, each, where)


def _check_call(factory: Any, each: dict, where: str) -> None:
    name, options = each["factory"], [k for k in each if k not in RESERVED]
    if not callable(factory):
        raise SuiteError(
            f"at {where}: expected a factory, got {name} of type {type(factory).__name__}: "
            "name a function, or write {'ref': ...} for an object that is used as it is"
        )
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some builtins have none
        return
    parameters = signature.parameters
    names = [n for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
    if len(names) == len(parameters):
        for key in options:
            if key not in names:
                raise SuiteError(f"at {where}: {name} has {nearest(key, names, 'option')}")
    try:
        signature.bind(*each.get("args", []), **dict.fromkeys(options))
    except TypeError as error:
        raise SuiteError(
            f"at {where}: {name} cannot be called with these options: {error}"
        ) from error
    for path in each.get("swept", []):
        option = parameters.get(path)
        if option is not None and (option.annotation is int or type(option.default) is int):
            raise SuiteError(
                f"at {where}: {name} takes {path!r} as an int, which sets shapes: a sweep is "
                "over floats; name one estimator for each int"
            )
