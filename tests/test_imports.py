"""The direction of imports of design.md, section 2: they point down."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# A module may import from its own layer and those below it; families never one another.
LAYERS = [
    {"testing", "bench"},
    {"theory"},
    {"ica", "scm", "sae", "interventional", "effects", "dynamics", "disentangle"}
    | {"dgp", "metrics"},
    {"loop", "train", "combinators", "checkpoint", "parallel", "files", "progress"}
    | {"nets", "numerics"},
    {"check"},
    {"feed"},
    {"core", "names"},
]
FAMILIES = LAYERS[2]
MODULES = sorted((ROOT / "crl").rglob("*.py"))


def part(module: str) -> str:
    """'crl.ica.fastica' -> 'ica'; the package itself -> ''."""
    return (module.split(".") + [""])[1]


def level(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def imported(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows():
    for path in MODULES:
        here = part(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if here in ("", "__init__"):
            continue
        for module in imported(path):
            there = part(module) if module.startswith("crl.") else ""
            if there in set().union(*LAYERS):
                yield path, here, there


def test_imports_point_down():
    upward = [
        f"{path.relative_to(ROOT)} imports crl.{there}"
        for path, here, there in arrows()
        if level(there) < level(here)
    ]
    assert not upward, upward


def test_families_never_import_one_another():
    across = [
        f"{path.relative_to(ROOT)} imports crl.{there}"
        for path, here, there in arrows()
        if here in FAMILIES and there in FAMILIES and here != there
    ]
    assert not across, across


def test_core_imports_jax_and_numpy_alone():
    names = {m.split(".")[0] for m in imported(ROOT / "crl" / "core.py")}
    assert names <= {"jax", "numpy", "collections", "typing"}


def test_names_are_resolved_without_jax():
    names = {m.split(".")[0] for m in imported(ROOT / "crl" / "names.py")}
    assert not names & {"jax", "numpy"}


@pytest.mark.parametrize("word", ["jax._src", "jax.interpreters", "jax.extend", "pickle"])
def test_no_private_or_unsafe_import(word):
    bad = [p.name for p in MODULES if any(m.startswith(word) for m in imported(p))]
    assert not bad, f"{word} in {bad}"


def test_only_parallel_knows_devices():
    words = ("pmap", "shard_map", "PartitionSpec", "make_mesh", "NamedSharding")
    for path in MODULES:
        if path.name == "parallel.py":
            continue
        used = {
            n.attr
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Attribute)
        }
        assert not used & set(words), f"{path.name} uses {used & set(words)}"
