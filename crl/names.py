"""Names of things: which there are, ``module:factory(option=3)`` as an object, the nearest.

Imports nothing of jax, so that the command line can answer before it is loaded.
"""

import ast
import difflib
import functools
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """The sentence for an unknown name: what it should have been, and the nearest one."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, 1, 0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}: {hint}"


class Entry(NamedTuple):
    """One thing that crl offers."""

    kind: str  # see KINDS
    name: str
    reference: str  # module:name
    summary: str  # first line of its docstring


# What a function is, by the type that it returns; metrics are told by their arguments.
KINDS = {
    "Estimator": "estimators",
    "DGP": "dgps",
    "Source": "sources",
    "Mixing": "mixings",
    "Claim": "claims",
}
METRIC_ARGUMENTS = ["claims", "sample"]
_HOUSE = ("bench", "testing")  # offers no methods


@functools.cache
def catalogue() -> tuple[Entry, ...]:
    """The estimators, worlds, metrics and claims of crl, read from its files.

    A public function at the top level of a file that says that it returns an Estimator, a
    DGP, a Source, a Mixing or a Claim; or, in crl/metrics, that takes (claims, sample). In
    the family folders the estimator of a file has the file's name.
    """
    root, found = Path(__file__).parent, []
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if parts[0].startswith(_HOUSE):
            continue
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                if kind := _kind(node, parts):
                    module = ".".join(("crl", *parts))
                    summary = (ast.get_docstring(node) or "").partition("\n")[0]
                    found.append(Entry(kind, node.name, f"{module}:{node.name}", summary))
    return tuple(sorted(found))


def _kind(node: ast.FunctionDef, parts: tuple[str, ...]) -> str | None:
    if parts[0] == "metrics":
        names = [a.arg for a in node.args.args]
        return "metrics" if names[:2] == METRIC_ARGUMENTS else None
    if node.returns is None:
        return None
    kind = KINDS.get(ast.unparse(node.returns).strip("'\"").rpartition(".")[2])
    # One method, one file, one factory of its name: what else returns one helps to write it.
    is_helper = kind == "estimators" and len(parts) > 1 and node.name != parts[-1]
    return None if is_helper else kind


def plugins(kind: str) -> dict[str, str]:
    """{name: reference} of what other installed packages offer in the group ``crl.KIND``."""
    from importlib.metadata import entry_points  # slow, and mostly not needed

    return {entry.name: entry.value for entry in entry_points(group=f"crl.{kind}")}


def full_reference(name: str) -> str:
    """``module:name`` for a name that ``crl list`` shows; others stay as they are."""
    if ":" in name:
        return name
    kinds = [*dict.fromkeys(KINDS.values()), "metrics"]
    known = [(e.name, e.reference) for e in catalogue()]
    known += [item for kind in kinds for item in plugins(kind).items()]
    found = sorted({reference for short, reference in known if short == name})
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"the name {name!r} has several owners: write {' or '.join(found)}")
    close = difflib.get_close_matches(name, [short for short, _ in known], 1, 0.6)
    hint = f"did you mean {close[0]!r}?" if close else "e.g. my_lab.tcl:tcl"
    raise ValueError(
        f"expected 'module:name', or a name that crl list shows, got {name!r}: {hint}"
    )


def resolve(reference: str) -> Any:
    """The object named ``module:attribute``, or by a name that ``crl list`` shows."""
    reference = full_reference(reference)
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
    """``module:name`` of a function, the inverse of ``resolve``; a text is taken as one."""
    if isinstance(found, str):
        return full_reference(found)
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
