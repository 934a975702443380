"""Plants errors one at a time in a copy of the repository and says which tests notice.

    python tests/planted/plant.py            all of errors.py, a line each
    python tests/planted/plant.py quantile   those whose name holds a word

An error is an edit of one place in the source; the tests named with it must fail. One that
no test notices ends the program with exit code 1: write the test. ``--check`` only looks
whether every edit still finds its place, which takes no time.
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
    parser.add_argument("--timeout", type=int, default=300, help="seconds an error")
    args = parser.parse_args()
    spec = spec_from_file_location("errors", args.errors)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    chosen = [
        e for e in module.ERRORS if not args.words or any(w in e.name for w in args.words)
    ]
    lost = [e.name for e in chosen if (args.root / e.file).read_text().count(e.old) != 1]
    for name in lost:
        print(f"NO SUCH PLACE  {name}")
    if args.check:
        return bool(lost)
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "crl"
        ignore = shutil.ignore_patterns(".git", ".venv", "results", "__pycache__")
        shutil.copytree(args.root, copy, ignore=ignore)
        for error in chosen:
            if error.name not in lost:
                noticed, seconds = plant(error, copy, args.timeout)
                survived += [error.name] * (not noticed)
                print(
                    f"{noticed or 'SURVIVES'}  {error.name}  ({seconds:.0f} CPU s)", flush=True
                )
    print(f"{len(chosen) - len(survived) - len(lost)} of {len(chosen)} are noticed")
    return bool(survived or lost)


def plant(error, copy: pathlib.Path, timeout: int) -> tuple[str, float]:
    """The first test that fails with this error, '' for none; and CPU seconds."""
    file = copy / error.file
    text = file.read_text()
    file.write_text(text.replace(error.old, error.new))
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *error.tests.split()],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        found = SHOWN.search(done.stdout)
        noticed = found[1] if found else ""
        if done.returncode not in (0, 1):
            noticed = f"{noticed} (pytest ended with {done.returncode})"
    except subprocess.TimeoutExpired:
        noticed = "(never ends)"
    finally:
        file.write_text(text)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return noticed, end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime


if __name__ == "__main__":
    sys.exit(main())
