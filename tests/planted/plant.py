"""Plants errors one at a time in a copy of the repository and says which tests notice.

    python tests/planted/plant.py            all of errors.py, a line each
    python tests/planted/plant.py quantile   those whose name holds a word

An error is an edit of one place in the source; of the tests named with it, one must fail
that passes without it. An error that no test notices ends the program with exit code 1:
write the test. ``--check`` only looks whether every edit finds its place.
"""

import argparse
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location

ROOT = pathlib.Path(__file__).parents[2]
SHOWN = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def main() -> int:
    """Plant what is asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", help="plant errors whose names hold one of these")
    parser.add_argument("--check", action="store_true", help="only find the places")
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="the repository")
    parser.add_argument(
        "--errors", type=pathlib.Path, default=ROOT / "tests/planted/errors.py"
    )
    parser.add_argument("--timeout", type=int, default=900, help="seconds, each")
    args = parser.parse_args()
    spec = spec_from_file_location("errors", args.errors)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    chosen = [
        e for e in module.ERRORS if not args.words or any(w in e.name for w in args.words)
    ]
    lost = [e.name for e in chosen if not has_place(e, args.root)]
    for name in lost:
        print(f"NO SUCH PLACE  {name}")
    if args.check:
        return bool(lost)
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "crl"
        ignore = shutil.ignore_patterns(".git", ".venv", "results", "__pycache__")
        shutil.copytree(args.root, copy, ignore=ignore)
        chosen = [e for e in chosen if e.name not in lost]
        every = sorted({word for e in chosen for word in e.tests.split()})
        fails, seconds = run(copy, ["--continue-on-collection-errors", *every], args.timeout)
        print(f"without an error fail: {fails or 'none'}  ({seconds:.0f} CPU s)", flush=True)
        for error in chosen:
            noticed, seconds = plant(error, copy, fails, args.timeout)
            survived += [error.name] * (not noticed)
            where = noticed[0] if noticed else "SURVIVES"
            print(f"{where}  {error.name}  ({seconds:.0f} CPU s)", flush=True)
    print(f"{len(chosen) - len(survived)} of {len(chosen) + len(lost)} are noticed")
    return bool(survived or lost)


def has_place(error, root: pathlib.Path) -> bool:
    """Whether what it replaces stands in its file, once."""
    file = root / error.file
    return file.is_file() and file.read_text().count(error.old) == 1


def plant(
    error, copy: pathlib.Path, fails: list[str], timeout: int
) -> tuple[list[str], float]:
    """The first test that fails with this error, besides ``fails``; and CPU seconds."""
    file = copy / error.file
    text = file.read_text()
    file.write_text(text.replace(error.old, error.new))
    broken = {test for test in fails if "::" not in test}  # files that do not import
    others = [f"--deselect={test}" for test in fails]
    tests = [word for word in error.tests.split() if word not in broken]
    try:
        return run(copy, ["-x", *tests, *others], timeout) if tests else ([], 0.0)
    finally:
        file.write_text(text)


def run(copy: pathlib.Path, arguments: list[str], timeout: int) -> tuple[list[str], float]:
    """The tests that fail, and the CPU seconds of them all."""
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        found = SHOWN.findall(done.stdout)
        if done.returncode not in (0, 1, 2):  # 2: an import fails
            raise RuntimeError(
                f"pytest {arguments} ended with {done.returncode}: {done.stdout}"
            )
    except subprocess.TimeoutExpired:
        found = ["(never ends)"]
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found, end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime


if __name__ == "__main__":
    sys.exit(main())
