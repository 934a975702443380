"""The command ``crl``. Imports jax only when a command needs it, so that help is instant."""

import argparse
import difflib
import os
import shlex
import sys
from pathlib import Path

EXIT_RESUMABLE = 75  # EX_TEMPFAIL: run the same command again
COMMANDS = {
    "list": "what there is: estimators, dgps, metrics, claims, suites",
    "run": "plan, run and resume a suite",
    "report": "one HTML page, results.csv and results.parquet of a results folder",
    "verify": "check theorems numerically: table, margin, control",
    "doctor": "versions, devices, compile cache, a self test on 8 forced devices",
    "new-estimator": "write an estimator file, its test and a suite that compares it",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        close = difflib.get_close_matches(argv[0], COMMANDS, 1, 0.4)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(COMMANDS)}"
        return _complain(f"unknown command {argv[0]!r}: {hint}", 2)
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    use_compile_cache()
    return globals()[f"_{args.command.replace('-', '_')}"](args, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crl", description=__doc__.partition("\n")[0])
    parser.description = "Causal representation learning in JAX."
    sub = parser.add_subparsers(dest="command", metavar="COMMAND")
    add = {name: sub.add_parser(name, help=text) for name, text in COMMANDS.items()}

    run = add["run"]
    run.add_argument("suite", help="a .py file with get_config(), or the .json of a run")
    run.add_argument("--workdir", help="results folder (default: results/<suite file>)")
    run.add_argument(
        "--seeds", type=_positive, help="worlds of each task, for the suite's own"
    )
    run.add_argument(
        "--estimator",
        action="append",
        default=[],
        metavar="MODULE:FACTORY(...)",
        help="add an estimator from outside to every task",
    )
    run.add_argument("--devices", type=_positive, help="how many to use (default: all)")
    run.add_argument("--backend", choices=["shard_map", "pmap", "vmap"], default="shard_map")
    run.add_argument(
        "--shard", type=_shard, default=(0, 1), metavar="I/N", help="only part I of N"
    )
    run.add_argument(
        "--distributed",
        action="store_true",
        help="as one of the processes of a cluster that jax.distributed detects",
    )
    run.add_argument("--dask", metavar="ADDRESS", help="send batches to this dask scheduler")
    run.add_argument("--dry-run", action="store_true", help="plan and check, compute nothing")
    run.add_argument("--retry-failed", action="store_true", help="and diverged cells")

    add["report"].add_argument("workdir")
    verify = add["verify"]
    verify.add_argument("claim", nargs="*", help="names, or module:name (default: all)")
    verify.add_argument("--small", action="store_true", help="the sweep of seconds")
    verify.add_argument("--seed", type=int, default=0)
    add["new-estimator"].add_argument("name", help="a Python name, lowercase")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    index, _, num = text.partition("/")
    if not (index.isdigit() and num.isdigit() and int(index) < int(num)):
        raise argparse.ArgumentTypeError(f"expected I/N with 0 <= I < N, got {text!r}")
    return int(index), int(num)


def _complain(message: str, code: int = 1) -> int:
    print(f"crl: {message}", file=sys.stderr)
    return code


def cache_folder() -> Path:
    """Where compiled programs are kept: the user's own cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "crl" / "xla"


def use_compile_cache() -> None:
    """Keep compiled programs between runs, unless the user has set a folder or none."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except OSError as error:
        _complain(f"no compile cache: {error}")
        return
    # Who can write there can run code here.
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        _complain(f"compile cache not used: others may write to {folder}; chmod 700 it")
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _run(args: argparse.Namespace, argv: list[str]) -> int:
    if args.dask and (args.devices or args.distributed or args.shard != (0, 1)):
        return _complain(
            "--dask sends whole batches to the scheduler, whose workers use the devices that "
            "they have: drop --devices, --distributed and --shard",
            2,
        )
    if args.devices:
        # More host devices than one exist only if asked for before jax starts.
        flags = os.environ.get("XLA_FLAGS", "")
        if "host_platform_device_count" not in flags:
            flag = f"--xla_force_host_platform_device_count={args.devices}"
            os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
    import logging

    import jax

    from crl.bench import runner, suite
    from crl.bench.store import Store, StoreError

    if args.distributed:
        jax.distributed.initialize()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("crl").setLevel(logging.INFO)
    if args.estimator or not args.suite.endswith(".json"):
        suite.add_to_path(os.getcwd())  # else data is read, beside which code may lie
    workdir = Path(args.workdir or Path("results") / Path(args.suite).stem)
    devices = jax.local_devices()
    if args.devices and len(devices) < args.devices:
        return _complain(f"expected {args.devices} devices, found {len(devices)}")
    try:
        loaded = suite.load(args.suite, tuple(args.estimator), args.seeds)
    except suite.SuiteError as error:
        return _complain(str(error), 2)
    job = runner.Runner(
        loaded,
        Store(workdir),
        devices=devices[: args.devices],
        backend=args.backend,
        retry_failed=args.retry_failed,
    )
    again = shlex.join(["crl", *argv])
    try:
        _print_plan(job, workdir)
        if args.dry_run:
            return _print_dry_run(job)
        if jax.process_index() == 0:
            job.store.write_plan(job.plan())
        if args.dask:
            summary = runner.run_on_dask(job, args.dask)
        else:
            summary = runner.run(job, shard=args.shard)
    except runner.Interrupted as signal:
        _complain(f"stopped by {signal}; finished cells are safe. Resume with:\n{again}")
        return EXIT_RESUMABLE
    except SystemExit as stop:  # a fit that has saved a checkpoint first
        _complain(f"stopped; fits in progress are saved. Resume with:\n{again}")
        return stop.code
    except (StoreError, ModuleNotFoundError) as error:
        sentence = getattr(error, "strerror", None) or error
        return _complain(f"{sentence}. Resume with:\n{again}")
    for task, estimator, cause in summary.failures:
        _complain(f"failed: {task} · {estimator}: {cause.strip()}")
    return _print_outcome(job, workdir, again) or int(bool(summary.failures))


def _print_outcome(job, workdir: Path, again: str) -> int:
    """What the folder now holds of the plan; exit code 1 while cells of it have failed."""
    records = job.store.content().records
    states = [records.get(job.key(c), {}).get("status", "missing") for c in job.cells()]
    failed = states.count("failed")
    counts = [f"{states.count(s)} {s}" for s in ("ok", "diverged", "failed", "missing")]
    print(f"{len(states)} cells: {', '.join(counts)}", end="")
    print(f"; try again with: {again} --retry-failed" if failed else "")
    print(f"look at them: crl report {shlex.quote(str(workdir))}")
    return 1 if failed else 0


def _print_plan(job, workdir: Path) -> None:
    records, problems = job.store.content()
    states: dict[tuple, list] = {}
    for cell in job.cells():
        status = records.get(job.key(cell), {}).get("status")
        states.setdefault(cell[:2], []).append(status)
    rows = []
    for name, each in states.items():
        done, todo = each.count("ok"), each.count(None)
        bad = len(each) - done - todo
        rows.append((*name, len(each), done, bad, todo + bad * job.retry_failed))
    totals = ["all", "", *(sum(r[i] for r in rows) for i in range(2, 6))]
    _print_table(["task", "estimator", "cells", "done", "failed", "to run"], [*rows, totals])
    devices = job.hardware.devices
    print(f"results in {workdir}, on {len(devices)} x {devices[0].device_kind}")
    for problem in problems:
        _complain(f"ignored: {problem}")


def _print_dry_run(job) -> int:
    code = 0
    for name, task in job.suite.tasks.items():
        for estimator in task.estimators:
            error = job.dry_run(name, estimator)
            if error:
                code = _complain(f"{name} · {estimator}: {type(error).__name__}: {error}")
    print("the dry run found errors" if code else "the dry run found no error")
    return code


def _print_table(header: list[str], rows: list) -> None:
    table = [header, *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    right = [
        all(row[i].lstrip("-").isdigit() for row in table[1:]) for i in range(len(header))
    ]
    for row in table:
        cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right)]
        print("  ".join(cells).rstrip())


def _report(args: argparse.Namespace, argv: list[str]) -> int:
    from crl.bench.report import write_report

    if not (Path(args.workdir) / "plans").is_dir():
        return _complain(f"no results in {args.workdir}: start with crl run SUITE")
    try:
        lines = write_report(Path(args.workdir))
    except OSError as error:
        return _complain(f"cannot write the report: {error}")
    for line in lines:
        print(line)
    return 0


def _list(args: argparse.Namespace, argv: list[str]) -> int:
    import ast

    for group in ("estimators", "dgps", "metrics", "claims"):
        print(f"{group}:")
        for name, entry in sorted(_plugins(group).items()):
            try:
                text = entry.load().__doc__ or ""
            except Exception as error:  # one broken plugin must not hide the others
                _complain(f"warning: {group[:-1]} {name} ({entry.value}): {error}")
                continue
            print(f"  {name:24} {text.strip().partition(chr(10))[0]}")
    print("suites:")
    for file in sorted(Path("benchmarks").glob("*.py")):
        text = ast.get_docstring(ast.parse(file.read_text())) or ""
        print(f"  {file!s:24} {text.partition(chr(10))[0]}")
    return 0


def _plugins(group: str) -> dict:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=f"crl.{group}")}


def _verify(args: argparse.Namespace, argv: list[str]) -> int:
    import jax

    from crl.bench.suite import add_to_path
    from crl.check import nearest, resolve
    from crl.theory.claim import verify

    add_to_path(os.getcwd())
    known, claims = _plugins("claims"), {}
    for name in args.claim or sorted(known):
        try:
            if name not in known and ":" not in name:
                return _complain(nearest(name, known, "claim"), 2)
            claims[name] = (known[name].load() if name in known else resolve(name))()
        except (ValueError, ImportError) as error:
            return _complain(str(error), 2)
    rows, good = [], True
    for name, claim in claims.items():
        print(f"{name}: {claim.statement} [{claim.reference}]")
        print(f"  control: {claim.broken}", flush=True)
        try:
            verdict = verify(claim, jax.random.key(args.seed), small=args.small)
        except Exception as error:
            rows.append((name, "raised", type(error).__name__, "", ""))
            _complain(f"{name} raised {type(error).__name__}: {error}")
            good = False
            continue
        for check, margin in verdict.margins.items():
            print(f"  {check}: margin {margin:.3g}, control {_margin(verdict, check)}")
        good &= verdict.holds and verdict.control_fails
        control = min(verdict.control_margins.values())
        says = "fails, as it must" if verdict.control_fails else "HOLDS: the check is blind"
        held = "holds" if verdict.holds else "DOES NOT HOLD"
        rows.append((name, held, f"{verdict.margin:.3g}", f"{control:.3g}, {says}"))
        rows[-1] += (f"{verdict.seconds:.1f} s",)
    print()
    _print_table(["claim", "verdict", "margin", "control", "time"], rows)
    return 0 if good else 1


def _margin(verdict, check: str) -> str:
    margin = verdict.control_margins.get(check)
    return "none" if margin is None else f"{margin:.3g}"


def _doctor(args: argparse.Namespace, argv: list[str]) -> int:
    from crl.bench.doctor import examine

    return examine()


def _new_estimator(args: argparse.Namespace, argv: list[str]) -> int:
    from importlib.util import find_spec
    from keyword import iskeyword

    from crl.bench.templates import TEMPLATES

    name = args.name
    if not (name.isidentifier() and name.islower()) or iskeyword(name):
        return _complain(f"expected a lowercase Python name, got {name!r}: e.g. my_ica", 2)
    files = {path.format(name=name): text for path, text in TEMPLATES.items()}
    taken = [path for path in files if Path(path).exists()]
    if taken:
        return _complain(f"{taken[0]} exists already: choose another name", 2)
    if name in sys.modules or find_spec(name):
        return _complain(f"{name}.py would hide the module {name!r}: e.g. my_{name}", 2)
    for path, text in files.items():
        Path(path).write_text(text.replace("NAME", name))
        print(f"wrote {path}")
    print(f"now: pytest test_{name}.py && crl run suite_{name}.py && crl report", end=" ")
    print(f"results/suite_{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
