import functools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from importlib.metadata import EntryPoint

import jax
import pytest

from crl.bench import cli, doctor
from crl.bench.run.store import Store

HERE = pathlib.Path(__file__).parent
PATH = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
SUITE = str(HERE / "tiny_suite.py")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def python(code):
    environment = {**os.environ, "PYTHONPATH": PATH}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_help_answers_at_once_and_without_jax():
    code = (
        "import sys; from crl.bench import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'jax', 'numpy', 'matplotlib'} & set(sys.modules), 'heavy import'"
    )
    begin = os.times().children_user
    done = python(code)
    assert done.returncode == 0, done.stderr
    # CPU seconds, which other processes on the machine do not inflate; measured: 0.05.
    assert os.times().children_user - begin < 0.3


@pytest.mark.parametrize(
    "args, sentence",
    [
        (["rn"], "unknown command 'rn': did you mean 'run'?"),
        (["xyz"], "unknown command 'xyz': known: list, run, report"),
        (["run", "nowhere.py"], "there is no file nowhere.py"),
        (["run", SUITE, "--estimator", "bench_tiny:ojja"], "did you mean 'oja'?"),
        (
            ["run", "results/plans/a.json"],
            "expected a .py file with get_config()",
        ),
        (["run", SUITE, "--estimator", "fastca"], "did you mean 'fastica'?"),
        (["run", SUITE, "--devices", "9"], "expected 9 devices, found"),
        (["report", "nowhere"], "no results in nowhere: start with crl run SUITE"),
        (["verify", "nothing"], "unknown claim 'nothing'"),
        (["verify", "no_module:claim"], "no module 'no_module'"),
        (["run", SUITE, "--dask", "tcp://a:1", "--shard", "0/2"], "drop --devices"),
        (["new-estimator", "My ICA"], "expected a lowercase Python name, got 'My ICA'"),
        (["new-estimator", "class"], "expected a lowercase Python name, got 'class'"),
        (["new-estimator", "jax"], "jax.py would hide the module 'jax': e.g. my_jax"),
        (["new-estimator", "tomllib"], "would hide the module 'tomllib'"),
    ],
)
def test_mistake_is_said_in_one_sentence(args, sentence, capsys):
    assert cli.main(args) != 0
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--worlds", "0"], ["--shard", "3/3"], ["--shard", "1"]])
def test_bad_number_is_refused_by_the_parser(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", SUITE, *option])
    assert "expected" in capsys.readouterr().err


def test_run_prints_its_plan_resumes_and_counts_failures(tiny_results, capsys):
    first = sorted((tiny_results / "cells").glob("*/*.json"))[0]
    status = json.loads(first.read_text())["result"]["status"]
    first.unlink()
    assert cli.main(["run", SUITE, "--workdir", str(tiny_results)]) == 1  # cells have failed
    out = capsys.readouterr().out
    head, *_, total = out[: out.index("results in")].splitlines()
    assert head.split() == ["task", "estimator", "cells", "done", "failed", "to", "run"]
    states = [r.result.status for r in Store(tiny_results).content().records.values()]
    bad = states.count("failed") + states.count("diverged")
    was_bad = status in ("failed", "diverged")
    numbers = 42 - bad - (not was_bad), bad - was_bad
    assert total.split() == ["all", "42", *map(str, numbers), "1"]
    assert f"{states.count('ok')} ok" in out and "6 does not apply" in out
    assert "try again with: crl run" in out and "--retry-failed" in out


def test_run_ends_with_the_misses(tiny_results, capsys):
    cli.main(["run", SUITE, "--workdir", str(tiny_results)])
    out = capsys.readouterr().out
    misses = [line for line in out.splitlines() if line.startswith("missed: ")]
    assert misses[0].startswith("missed: rotated · oja: median agreement is")
    assert misses[0].endswith("; expected at most 0.5")
    assert "broken: median corr is nan, 3 of 3 worlds without a value" in misses[1]
    assert "expectations: 2 of 4 missed\n" in out


@pytest.mark.parametrize(
    "bound, code, said",
    [
        ("at_most(0.5)", 3, "expectations: 1 of 1 missed"),
        ("at_least(0.5)", 0, "0 of 1 missed"),
    ],
)
def test_exit_code_says_that_nothing_failed_but_a_number_is_not_as_expected(
    bound, code, said, tmp_path, capsys
):
    file = tmp_path / "peer_suite.py"
    file.write_text(PEER_SUITE.replace("BOUND", bound))
    assert cli.main(["run", str(file), "--worlds", "1"]) == code
    out = capsys.readouterr().out
    assert f"{said} (judged on fewer worlds than meant)" in out


def test_part_of_a_suite_is_not_judged(tmp_path, capsys):
    file = tmp_path / "peer_suite.py"
    file.write_text(PEER_SUITE.replace("BOUND", "at_most(0.5)").replace("4, #", "16, #"))
    assert cli.main(["run", str(file), "--shard", "0/2"]) == 0
    assert "0 of 1 missed, 1 not judged before their cells are run" in capsys.readouterr().out


PEER_SUITE = """
from bench_tiny import corr, numpy_pca, rotated
from crl.bench.run.suite import at_least, at_most, spec

def get_config():
    task = {
        "dgp": spec(rotated), "num_train": 64, "num_test": 32, "metrics": [corr],
        "estimators": {"pca": spec(numpy_pca)}, "expect": {"pca": {"corr": BOUND}},
        "worlds": 4, # of which one is looked at
    }
    return {"suite": "peer", "tasks": {"rotated": task}}
"""


def test_help_of_run_says_what_the_exit_codes_mean(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    assert "3 nothing failed, but a number is not what" in " ".join(
        capsys.readouterr().out.split()
    )


def test_dry_run_finds_what_does_not_fit_and_writes_nothing(capsys, tmp_path):
    assert cli.main(["run", SUITE, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "unfit · oja does not apply: metric shd needs readout.graph" in said.out
    wrong = "bench_tiny:oja(lr=-1.0)"
    assert cli.main(["run", SUITE, "--dry-run", "--estimator", wrong]) == 1
    assert "rotated · oja(lr=-1.0): ValueError: oja needs lr > 0" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_report_command_writes_three_files(tiny_results, capsys):
    assert cli.main(["report", str(tiny_results)]) == 0
    out = capsys.readouterr().out
    for name in ("report.html", "results.csv", "results.parquet"):
        assert f"wrote {tiny_results / name}" in out
        assert (tiny_results / name).stat().st_size > 0


def test_list_shows_the_rest_beside_a_broken_plugin(monkeypatch, capsys, tmp_path):
    plugins = {
        "crl.estimators": [
            EntryPoint("oja", "bench_tiny:oja", "crl.estimators"),
            EntryPoint("gone", "no_such_lab:gone", "crl.estimators"),
        ]
    }
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: plugins.get(group, [])
    )
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "mine.py").write_text('"""My suite."""\nraise SystemExit')
    assert cli.main(["list"]) == 0
    said = capsys.readouterr()
    assert "oja                      Subspace iteration by" in said.out
    assert "fastica                  Linear ICA" in said.out
    assert "benchmarks/mine.py       My suite." in said.out
    assert "warning: estimator gone (no_such_lab:gone)" in said.err


def test_compile_cache_is_private_and_a_shared_one_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli.use_compile_cache()
    folder = tmp_path / "crl" / "xla"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    folder.chmod(0o777)
    cli.use_compile_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert "others may write" in capsys.readouterr().err


def test_two_cores_get_four_threads_unless_the_user_says_how_many(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setenv("PJRT_NPROC", "3")
    cli.use_enough_threads()
    assert os.environ["PJRT_NPROC"] == "3"
    monkeypatch.delenv("PJRT_NPROC")
    cli.use_enough_threads()
    assert os.environ["PJRT_NPROC"] == "4"
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("PJRT_NPROC")
    cli.use_enough_threads()
    assert "PJRT_NPROC" not in os.environ


def test_verify_exits_1_when_a_claim_fails_or_its_control_holds(monkeypatch, capsys):
    from crl.theory.claim import Claim, slack

    def claim(error, broken_error):
        return Claim(
            statement="the mean of n draws is 0",
            reference="derived",
            points=[{"error": error}],
            small=[{"error": error}],
            measure=lambda key, point: {"mean": point["error"]},
            predict=lambda key, point: {"mean": 0.0},
            margins=lambda rows: {"mean": slack(rows[0]["mean"], 1.0)},
            control=lambda point: {"error": broken_error},
            broken="the draws are shifted",
        )

    for name, made in {"good": (0.1, 3.0), "bad": (2.0, 3.0), "blind": (0.1, 0.2)}.items():
        monkeypatch.setitem(sys.modules, f"claim_{name}", type(sys)(f"claim_{name}"))
        sys.modules[f"claim_{name}"].claim = functools.partial(claim, *made)
    assert cli.main(["verify", "claim_good:claim"]) == 0
    assert "fails, as it must" in capsys.readouterr().out
    assert cli.main(["verify", "claim_good:claim", "claim_bad:claim"]) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
    assert cli.main(["verify", "claim_blind:claim"]) == 1
    assert "HOLDS: the check is blind" in capsys.readouterr().out
    assert not jax.config.jax_enable_x64


def test_doctor_finds_this_machine_well(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"jax            {jax.__version__}" in out
    assert "vmap, shard_map and pmap agree" in out


def test_self_test_that_is_killed_says_so(monkeypatch):
    monkeypatch.setattr(doctor, "SELF_TEST", "import os; os.kill(os.getpid(), 9)")
    assert doctor.self_test() == "ended with exit code -9"


def test_sigterm_ends_a_run_with_the_command_that_resumes_it(tmp_path):
    code = (
        "import os, signal, sys; from crl.bench import cli\nfrom crl.bench.run import runner\n"
        "def compute(self, batch): signal.raise_signal(signal.SIGTERM)\n"
        "runner.Runner.compute = compute\n"
        f"sys.exit(cli.main(['run', {SUITE!r}, '--worlds', '1']))"
    )
    done = python(code)
    assert done.returncode == 75, done.stderr
    assert f"Resume with:\ncrl run {SUITE} --worlds 1" in done.stderr


def test_new_estimator_never_overwrites(capsys, tmp_path):
    assert cli.main(["new-estimator", "my_ica"]) == 0
    assert cli.main(["new-estimator", "my_ica"]) == 2
    assert "my_ica.py exists already" in capsys.readouterr().err
    assert len((tmp_path / "my_ica.py").read_text().splitlines()) < 45


def test_commands_of_the_readme_for_a_new_estimator_find_no_error():
    readme = (HERE.parent.parent / "README.md").read_text()
    (command,) = re.findall(r"^crl (run .* --dry-run)", readme, re.MULTILINE)
    assert cli.main(["new-estimator", "my_ica"]) == 0
    assert cli.main(shlex.split(command)) == 0
    del sys.modules["my_ica"]  # or it could not be written again


@pytest.mark.slow
def test_new_estimator_passes_its_test_and_its_suite_runs(tmp_path):
    """What the command writes works unchanged: conformance, and MCC beside FastICA's."""
    assert cli.main(["new-estimator", "my_ica"]) == 0
    done = python("import sys, pytest; sys.exit(pytest.main(['-q', 'test_my_ica.py']))")
    assert done.returncode == 0, done.stdout
    done = python(
        "import sys; from crl.bench import cli; sys.exit(cli.main(['run', 'suite_my_ica.py']))"
    )
    assert done.returncode == 0, done.stderr
    values = {"my_ica": [], "fastica": []}
    for record in Store(tmp_path / "results" / "suite_my_ica").content().records.values():
        values[record.estimator].append(record.result.metrics["mcc"])
    # Measured on these 8 worlds: my_ica 0.998 to 0.9995, fastica 0.997 to 0.999.
    assert min(values["my_ica"]) > 0.99 and min(values["fastica"]) > 0.99


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    command = f"{sys.executable} -m crl.bench.cli list | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "estimators:\n" and done.stderr == ""
