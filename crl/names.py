"""Names of things: ``module:factory(option=3)`` as objects, and the nearest known name.

Imports nothing of jax, so that the command line can answer before it is loaded.
"""

import ast
import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """The sentence for an unknown name: what it should have been, and the nearest one."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, 1, 0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}: {hint}"


def resolve(reference: str) -> Any:
    """The object named ``module:attribute``, e.g. ``crl.ica.fastica:fastica``."""
    module, _, attribute = reference.partition(":")
    if not (module and attribute):
        raise ValueError(f"expected 'module:name', got {reference!r}: e.g. my_lab.tcl:tcl")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        # An import that fails inside the module is its author's to see, unchanged.
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise ValueError(
            f"no module {error.name!r} for {reference!r}: is it installed or on PYTHONPATH?"
        ) from error
    if not hasattr(found, attribute):
        names = [n for n in vars(found) if not n.startswith("_")]
        raise ValueError(f"in {reference!r}: {nearest(attribute, names, 'name')}")
    return getattr(found, attribute)


def reference_of(found: Any) -> str:
    """``module:name`` of a function, the inverse of ``resolve``; a text stays what it is."""
    if isinstance(found, str):
        return found
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    try:
        is_there = resolve(f"{module}:{name}") is found
    except (ValueError, ImportError):
        is_there = False
    if not is_there:
        raise ValueError(
            f"expected a function that a module offers by name, got {found!r}: define it at "
            "the top level of a module that can be imported"
        )
    return f"{module}:{name}"


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """``module:factory(name=literal, ...)`` as reference and options; brackets optional."""
    reference, bracket, rest = text.partition("(")
    try:
        call = ast.parse(f"f({rest}" if bracket else "f()", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("give every option as name=value")
        return reference, {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"expected 'module:factory(name=value, ...)', got {text!r}: {error}"
        ) from error


def build(text: str) -> Any:
    """The result of ``module:factory(name=literal, ...)``; the brackets may be left out."""
    reference, options = parse_call(text)
    return resolve(reference)(**options)
