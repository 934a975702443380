"""The source that a number follows from: what the modules of its factories import, all of it.

Found by reading, without running anything: imports at the top of a file and inside its
functions, transitively, through crl and through whatever else is not an installed library.
Of each file its syntax tree counts; comments, docstrings and line breaks do not.
"""

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

# What fits and draws batches whatever the factories are.
DRIVER = "crl.train"


def digests(references: Iterable[str]) -> dict[str, str]:
    """{module: digest of its source} of all that the ``module:name`` in references import."""
    named = {reference.partition(":")[0] for reference in references}
    tops = frozenset(name.partition(".")[0] for name in named) | {"crl"}
    found, todo = set(), [DRIVER, *named]
    while todo:
        name = todo.pop()
        if name not in found and (name.partition(".")[0] in tops or not _is_library(name)):
            found.add(name)
            todo += _imports(name)
    found = {name: _digest(file) for name in sorted(found) if (file := _locate(name))}
    found.pop("crl", None)  # its version and lazy names: nothing follows from these
    return found


@functools.cache
def _is_library(name: str) -> bool:
    """Whether the module is Python's or installed: its version stands for its source."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    file = _locate(top)
    paths = sysconfig.get_paths()
    installed = [Path(paths[k]).resolve() for k in ("stdlib", "purelib", "platlib")]
    places = [file] if file else map(Path, _folders(top))
    return any(place.resolve().is_relative_to(i) for place in places for i in installed)


@functools.cache
def _spec(top: str):
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def _folders(top: str) -> list[str]:
    spec = _spec(top)
    return list(spec.submodule_search_locations or []) if spec else []


@functools.cache
def _locate(name: str) -> Path | None:
    """The file of a module; None for a folder without ``__init__.py``, and for none at all.

    Looked up by hand, since ``find_spec`` of a submodule would run the package's code.
    """
    top, *rest = name.split(".")
    if not rest:
        spec = _spec(top)
        file = Path(spec.origin) if spec and spec.has_location and spec.origin else None
        return file if file and file.is_file() else None
    for folder in _folders(top):
        base = Path(folder, *rest)
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None


@functools.cache
def _tree(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # no Python, or too deep to read
        return None


@functools.cache
def _imports(name: str) -> tuple[str, ...]:
    """Modules that the file of a module imports, and the packages that it lies in."""
    file = _locate(name)
    parent = name.rpartition(".")[0]
    parents = [parent] if parent not in ("", "crl") else []  # crl/__init__.py is lazy names
    tree = _tree(file) if file and file.suffix == ".py" else None
    if tree is None:
        return tuple(parents)
    is_package = file.name == "__init__.py"
    named = [n for node in ast.walk(tree) for n in _named(node, name, is_package)]
    if is_package:
        # One that loads its names when first used says where they are in texts.
        texts = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
        named += [t for t in texts if isinstance(t, str) and t.startswith(f"{name}.")]
    return tuple(dict.fromkeys([*parents, *named]))


def _named(node: ast.AST, name: str, is_package: bool) -> Iterator[str]:
    """Modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            up = node.level - is_package
            package = name.split(".")[: -up or None]
            base = ".".join([*package, *([base] if base else [])])
        for inner in (f"{base}.{alias.name}" for alias in node.names):
            yield inner if _locate(inner) else base


@functools.cache
def _digest(file: Path) -> str:
    tree = _tree(file) if file.suffix == ".py" else None
    try:
        content = file.read_bytes() if tree is None else _code(tree).encode()
    except RecursionError:  # an expression of a thousand terms, as in tables of numbers
        content = file.read_bytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _code(tree: ast.Module) -> str:
    """The text of a syntax tree without its docstrings."""
    kinds = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
