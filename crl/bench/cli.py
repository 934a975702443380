"""The command ``crl``. Imports jax only when a command needs it, so that help is instant."""

import argparse
import difflib
import os
import shlex
import signal
import sys
from pathlib import Path

EXIT_FAILED, EXIT_USAGE = 1, 2
EXIT_MISSED = 3  # nothing failed, but a number is not what the suite expects
EXIT_RESUMABLE = 75  # EX_TEMPFAIL: run the same command again
TEMPLATE_NAME = "my_ica"  # what the method is called in crl/bench/templates
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
    use_enough_threads()
    handlers = {
        "list": _list,
        "run": _run,
        "report": _report,
        "verify": _verify,
        "doctor": _doctor,
        "new-estimator": _new_estimator,
    }
    try:
        code = handlers[args.command](args, argv)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough, as `crl list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crl", description=__doc__.partition("\n")[0])
    parser.description = "Causal representation learning in JAX."
    sub = parser.add_subparsers(dest="command", metavar="COMMAND")
    add = {name: sub.add_parser(name, help=text) for name, text in COMMANDS.items()}

    run = add["run"]
    run.epilog = (
        "Exit codes: 0 all cells are there and as expected; 1 a cell failed; 2 the command or "
        "the suite is wrong; 3 nothing failed, but a number is not what the suite expects; "
        "75 stopped by a signal, run the same command again."
    )
    run.add_argument("suite", help="a .py file with get_config()")
    run.add_argument("--workdir", help="results folder (default: results/<suite file>)")
    run.add_argument(
        "--worlds", "--seeds", type=_positive, help="of each task, in place of the suite's own"
    )
    run.add_argument(
        "--estimator",
        action="append",
        default=[],
        metavar="MODULE:FACTORY(...)",
        help="add an estimator to every task, from outside or by its name in crl list",
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


def use_enough_threads() -> None:
    """Give XLA four threads where there are fewer cores, unless the user says how many.

    In jaxlib 0.10 a batched LAPACK call waits, on a thread of the pool, for others of the
    pool: as many such calls at once as there are threads never end.
    """
    if (os.cpu_count() or 1) < 4:
        os.environ.setdefault("PJRT_NPROC", "4")


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

    from crl.bench.run import runner, suite
    from crl.bench.run.specs import SuiteError
    from crl.bench.run.store import Store, StoreError

    if args.distributed:
        jax.distributed.initialize()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("crl").setLevel(logging.INFO)
    suite.add_to_path(os.getcwd())
    workdir = Path(args.workdir or Path("results") / Path(args.suite).stem)
    devices = jax.local_devices()
    if args.devices and len(devices) < args.devices:
        return _complain(f"expected {args.devices} devices, found {len(devices)}")
    try:
        loaded = suite.load(args.suite, args.estimator, args.worlds)
    except SuiteError as error:
        return _complain(str(error), EXIT_USAGE)
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
            tally = runner.run_on_dask(job, args.dask)
        else:
            tally = runner.run(job, shard=args.shard)
    except runner.Interrupted as signal:
        _complain(f"stopped by {signal}; finished cells are safe. Resume with:\n{again}")
        return EXIT_RESUMABLE
    except SystemExit as stop:  # a fit that has saved a checkpoint first
        _complain(f"stopped; fits in progress are saved. Resume with:\n{again}")
        return stop.code
    except (StoreError, ModuleNotFoundError) as error:
        sentence = getattr(error, "strerror", None) or error
        return _complain(f"{sentence}. Resume with:\n{again}")
    for task, estimator, cause in tally.failures:
        _complain(f"failed: {task} · {estimator}: {cause.strip()}")
    return _print_outcome(job, workdir, again)


def _print_outcome(job, workdir: Path, again: str) -> int:
    """What the folder now holds of the plan, and what is not as expected; the exit code."""
    from crl.bench.run.expect import MISSED, PENDING, judge
    from crl.bench.run.records import FAILED, STATES

    plan, records = job.plan(), job.store.content().records
    found = [records.get(cell.key) for cell in plan.cells]
    states = [r.result.status if r is not None else "missing" for r in found]
    counts = [f"{states.count(s)} {s}" for s in (*STATES, "missing") if states.count(s)]
    failed = states.count(FAILED)
    print(f"{len(states)} cells: {', '.join(counts)}", end="")
    print(f"; try again with: {again} --retry-failed" if failed else "")
    judged = judge(plan, records)
    missed = [finding for finding in judged if finding.state == MISSED]
    pending = sum(finding.state == PENDING for finding in judged)
    for finding in missed:
        print(f"missed: {finding.sentence()}")
    if judged:
        on = " (judged on fewer worlds than meant)" if any(f.is_part() for f in judged) else ""
        later = f", {pending} not judged before their cells are run" if pending else ""
        print(f"expectations: {len(missed)} of {len(judged)} missed{later}{on}")
    print(f"look at them: crl report {shlex.quote(str(workdir))}")
    if failed:
        return EXIT_FAILED
    return EXIT_MISSED if missed else 0


def _print_plan(job, workdir: Path) -> None:
    from crl.bench.run.store import is_done

    records, problems = job.store.content()
    counts: dict[tuple[str, str], list[int]] = {}  # cells, done, failed
    for cell in job.cells():
        record = records.get(job.key(cell))
        count = counts.setdefault((cell.task, cell.estimator), [0, 0, 0])
        count[0] += 1
        if record is not None:
            count[1 if is_done(record) else 2] += 1
    rows = []
    for name, (all_cells, done, bad) in counts.items():
        todo = all_cells - done - (0 if job.retry_failed else bad)
        rows.append((*name, all_cells, done, bad, todo))
    totals = ["all", "", *(sum(r[i] for r in rows) for i in range(2, 6))]
    _print_table(["task", "estimator", "cells", "done", "failed", "to run"], [*rows, totals])
    devices = job.hardware.devices
    print(f"results in {workdir}, on {len(devices)} x {devices[0].device_kind}")
    for problem in problems:
        _complain(f"ignored: {problem}")


def _print_dry_run(job) -> int:
    from crl.bench.run.fitting import Inapplicable

    code = 0
    for name, task in job.suite.tasks.items():
        for estimator in task.estimators:
            error = job.refusal(name, estimator)
            if isinstance(error, Inapplicable):
                print(f"{name} · {estimator} does not apply: {error}")
            elif error is not None:
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
    from crl.bench.report.write import write_report

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

    from crl import names

    for kind in dict.fromkeys([*names.KINDS.values(), "metrics"]):
        print(f"{kind}:")
        offered = [e for e in names.catalogue() if e.kind == kind]
        for entry in [*offered, *_described_plugins(kind)]:
            print(f"  {entry.name:24} {entry.summary}")
    print("suites:")
    for file in sorted(Path("benchmarks").glob("*.py")):
        text = ast.get_docstring(ast.parse(file.read_text())) or ""
        print(f"  {file!s:24} {text.partition(chr(10))[0]}")
    return 0


def _described_plugins(kind: str):
    """What installed packages offer; one that is broken must not hide the others."""
    from crl import names

    for name, reference in sorted(names.plugins(kind).items()):
        try:
            summary = (names.resolve(reference).__doc__ or "").strip().partition("\n")[0]
        except Exception as error:
            _complain(f"warning: {kind[:-1]} {name} ({reference}): {error}")
            continue
        yield names.Entry(kind, name, reference, summary)


def _verify(args: argparse.Namespace, argv: list[str]) -> int:
    import jax

    from crl.bench.run.suite import add_to_path
    from crl.names import catalogue, nearest, plugins, resolve
    from crl.theory.claim import verify

    add_to_path(os.getcwd())
    known = {e.name: e.reference for e in catalogue() if e.kind == "claims"}
    known |= plugins("claims")
    claims = {}
    for name in args.claim or sorted(known):
        try:
            if name not in known and ":" not in name:
                return _complain(nearest(name, known, "claim"), 2)
            claims[name] = resolve(known.get(name, name))()
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

    name = args.name
    if not (name.isidentifier() and name.islower()) or iskeyword(name):
        return _complain(f"expected a lowercase Python name, got {name!r}: e.g. my_ica", 2)
    templates = sorted((Path(__file__).parent / "templates").glob("*.py"))
    files = {file.name.replace(TEMPLATE_NAME, name): file.read_text() for file in templates}
    taken = [path for path in files if Path(path).exists()]
    if taken:
        return _complain(f"{taken[0]} exists already: choose another name", 2)
    if name in sys.modules or find_spec(name):
        return _complain(f"{name}.py would hide the module {name!r}: e.g. my_{name}", 2)
    for path, text in files.items():
        Path(path).write_text(text.replace(TEMPLATE_NAME, name))
        print(f"wrote {path}")
    print(f"now: pytest test_{name}.py && crl run suite_{name}.py && crl report", end=" ")
    print(f"results/suite_{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
