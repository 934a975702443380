import copy
import json
import pathlib
import re
import subprocess
import sys

import pytest

from crl.bench import cli, runner, suite
from crl.bench.store import Store

HERE = pathlib.Path(__file__).parent
BENCHMARKS = sorted((HERE.parent.parent / "benchmarks").glob("*.py"))
LINEAR = {"factory": "crl.dgp.mixings:linear"}
MIXED = {"factory": "crl.dgp.latent:mixed_sources", "num_latents": 3, "mixing": LINEAR}


@pytest.fixture
def raw(tiny_suite):
    return copy.deepcopy(tiny_suite.to_dict())


def test_resolved_json_gives_the_suite_back(tiny_suite, raw):
    assert suite.parse(json.loads(json.dumps(raw))) == tiny_suite


def test_tasks_and_metrics_keep_the_order_of_the_file(tmp_path):
    file = tmp_path / "ordered_suite.py"
    text = (HERE / "tiny_suite.py").read_text()
    file.write_text(text.replace('"unfit": task', '"a first letter": task'))
    assert list(suite.load(str(file)).tasks) == ["rotated", "a first letter"]


@pytest.mark.parametrize(
    "path, value, sentence",
    [
        (("tusks",), {}, "in the suite: unknown key 'tusks': did you mean 'tasks'?"),
        (("tasks", "rotated", "world"), 3, "unknown key 'world': did you mean 'worlds'?"),
        (("tasks", "rotated", "num_train"), "many", "expected num_train as a positive int"),
        (("tasks", "rotated", "worlds"), 0, "expected worlds as a positive int, got 0"),
        (("tasks", "rotated", "fits"), 1, "stability compares fits: expected fits >= 2"),
        (("tasks", "rotated", "estimators"), ["ojja"], "in task 'rotated': unknown estimator"),
        (("tasks", "rotated", "dgp"), "bench_tiny:rotated", "dgp: expected dict(factory="),
        (("tasks", "rotated", "dgp", "num_latent"), 3, "did you mean 'num_latents'?"),
        (("tasks", "rotated", "dgp", "factory"), "bench_tiny:rotate", "mean 'rotated'?"),
        (("tasks", "rotated", "dgp", "factory"), "bench_tinny:x", "no module 'bench_tinny'"),
        (("tasks", "rotated", "metrics", "corr"), "bench_tiny:cor", "did you mean 'corr'?"),
        (("tasks",), {}, "expected at least one task"),
        (("tasks",), [1], "in the suite: expected tasks as a dict by name, got [1]"),
        (("suite",), 3, "in the suite: expected suite as a name, got 3"),
        (("estimators",), ["oja"], "in the suite: expected estimators as a dict by name"),
        (("tasks", "rotated", "metrics"), ["corr"], "expected metrics as a dict by name"),
        (("tasks", "rotated", "stability"), None, "expected stability as a dict by name"),
        (("tasks", "rotated", "estimators"), "oja", "expected estimators as a list of names"),
        (("tasks", "rotated", "estimators"), [], "'rotated': expected at least one estimator"),
        (("tasks", "rotated", "estimators"), [{}], "unknown estimator '{}'"),
        (("tasks", "rotated", "worlds"), True, "expected worlds as a positive int, got True"),
        (("tasks", "rotated", "note"), 3, "expected note as a text, got 3"),
        (("tasks", "rotated", "dgp"), {"factory": 3}, "expected factory as 'module:name'"),
        (("tasks", "rotated", "dgp"), {"factory": "crl.core:AUX"}, "expected a factory, got"),
        (("tasks", "rotated", "dgp", "args"), 3, "expected args as a list, got 3"),
        (("tasks", "rotated", "dgp", "args"), [3], "multiple values for argument"),
        (("tasks", "rotated", "dgp"), MIXED, "missing a required argument: 'source'"),
        (
            ("tasks", "rotated", "dgp"),
            {**MIXED, "source": {"factroy": "crl.dgp.sources:laplace"}},
            "dgp.source: unknown key 'factroy': did you mean 'factory'?",
        ),
        (
            ("tasks", "rotated", "dgp"),
            {**MIXED, "source": [{"factory": "crl.dgp.sources:laplac"}]},
            "dgp.source[0]: in 'crl.dgp.sources:laplac': unknown name 'laplac'",
        ),
        (
            ("tasks", "rotated", "dgp", "num_latents"),
            {"ref": "bench_tiny:oja", "lr": 1},
            "dgp.num_latents: expected ref alone, got ['lr', 'ref']",
        ),
    ],
)
def test_mistake_is_said_in_one_sentence(raw, path, value, sentence):
    inner = raw
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(suite.SuiteError, match=re.escape(sentence)):
        suite.parse(raw)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("raise RuntimeError('boom')", "'mended:f' raised RuntimeError: boom"),
        ("def f(:", "'mended:f' raised SyntaxError: invalid syntax"),
    ],
)
def test_estimator_module_that_raises_is_named(raw, tmp_path, monkeypatch, text, sentence):
    (tmp_path / "mended.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    raw["tasks"]["rotated"]["estimators"] = {"mine": {"factory": "mended:f"}}
    with pytest.raises(suite.SuiteError, match=re.escape(sentence)):
        suite.parse(raw)


def test_package_that_misses_a_library_fails_its_cells_only(raw, tmp_path, monkeypatch):
    (tmp_path / "poor_lab").mkdir()
    (tmp_path / "poor_lab" / "__init__.py").write_text("import no_such_library")
    (tmp_path / "poor_lab" / "tcl.py").write_text("def tcl(): ...")
    monkeypatch.syspath_prepend(tmp_path)
    raw["tasks"]["rotated"]["estimators"]["tcl"] = {"factory": "poor_lab.tcl:tcl"}
    job = runner.Runner(suite.parse(raw), Store(tmp_path / "results"))
    assert len(job.plan()["cells"]) == 45 + 9
    assert "no_such_library" in str(job.dry_run("rotated", "tcl"))
    assert job.dry_run("rotated", "oja") is None


@pytest.mark.parametrize("value", ["float('inf')", "float('nan')", "__import__('numpy').inf"])
def test_number_that_json_cannot_hold_is_refused_with_its_place(tmp_path, value):
    file = tmp_path / "endless_suite.py"
    text = (HERE / "tiny_suite.py").read_text()
    file.write_text(text.replace('"explode_below": 0.5', f'"explode_below": {value}'))
    place = re.escape("config.estimators.diverging.explode_below")
    with pytest.raises(suite.SuiteError, match=f"expected a finite number at {place}"):
        suite.load(str(file))


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("def get_config():\n    return 1 / 0", "ZeroDivisionError"),
        ("x = (", "SyntaxError"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("x = 1", "has no function get_config()"),
        ("def get_config():\n    return {'a': {}['b']}", "KeyError: 'b'"),
        ("def get_config():\n    return {'suite': print, 'tasks': {}}", "at config.suite"),
    ],
)
def test_suite_file_that_raises_is_named(tmp_path, text, sentence):
    file = tmp_path / "broken_suite.py"
    file.write_text(text)
    with pytest.raises(suite.SuiteError, match=re.escape(sentence)):
        suite.load(str(file))


def test_missing_suite_file_has_a_nearest_name():
    with pytest.raises(suite.SuiteError, match=r"did you mean .*tiny_suite\.py"):
        suite.load(str(HERE / "tiny_suit.py"))


def test_estimator_from_outside_joins_every_task():
    path = str(HERE / "tiny_suite.py")
    loaded = suite.load(path, ("bench_tiny:oja(lr=0.1)",), worlds=2)
    for task in loaded.tasks.values():
        assert task.estimators["oja(lr=0.1)"] == {"factory": "bench_tiny:oja", "lr": 0.1}
        assert task.worlds == 2
    with pytest.raises(suite.SuiteError, match="did you mean 'num_latents'"):
        suite.load(path, ("bench_tiny:oja(num_latent=3)",))
    with pytest.raises(suite.SuiteError, match="in --estimator: expected 'module:factory"):
        suite.load(path, ("bench_tiny:oja(3)",))
    with pytest.raises(suite.SuiteError, match=r"finite number at --estimator oja\(lr=1e999"):
        suite.load(path, ("bench_tiny:oja(lr=1e999)",))


@pytest.mark.parametrize(
    "extra", [("bench_tiny:oja",), ("bench_tiny:oja(lr=1)", "bench_tiny:oja(lr=1)")]
)
def test_estimator_from_outside_takes_no_name_of_another(extra):
    path = str(HERE / "tiny_suite.py")
    with pytest.raises(suite.SuiteError, match=r"is taken: .* so write '([^']*)'") as refused:
        suite.load(path, extra)
    proposed = str(refused.value).split("'")[-2]
    task = suite.load(path, (*extra[1:], proposed)).tasks["unfit"]
    assert len(task.estimators) == 1 + len(extra)
    assert task.estimators["oja"] == {"factory": "bench_tiny:oja"}


def test_specs_are_built_recursively():
    dense = {"factory": "bench_tiny:oja", "args": [2], "num_steps": 7}
    spec = {"factory": "crl.combinators:minibatch", "args": [dense], "size": 16}
    assert suite.build(spec).num_steps == 7
    assert suite.build("bench_tiny:corr") is suite.build({"ref": "bench_tiny:corr"})
    assert suite.references(spec) == {"crl.combinators:minibatch", "bench_tiny:oja"}


def strangers(touch):
    """SPECs that would run the command ``touch``, or any code of this folder."""
    call = {"factory": "os:system", "args": [touch]}
    yield call
    yield {"factory": "crl.check:build", "args": [f"os:system(command={touch!r})"]}
    yield {**MIXED, "source": {"note": call}}
    yield {**MIXED, "source": [[call]]}
    yield {"factory": "crl.dgp.real:from_arrays", "args": [call]}
    for reference in [
        *("benchmarks.stranger:f", "stran-ger:f", "stranger:f", "bench_tiny:oja"),
        *("crl.bench.cli:main", "crl.testing:check_dgp", "crl.check:resolve"),
        *("crl.dgp.scm:jax", "crl.metrics.latents:jnp", "crl.dgp.real:nearest"),
        *("crl.dgp.scm:jax.numpy", "crl.dgp.scm:__loader__", "crl.dgp/../x:f", "crl.dgpx:f"),
    ]:
        yield {"factory": reference}
        yield {**MIXED, "source": {"ref": reference}}


def test_json_suite_runs_no_code_of_a_stranger(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "benchmarks").mkdir()
    for name in ("stranger", "stran-ger", "benchmarks/stranger", "sklearn"):
        text = "import pathlib; pathlib.Path('touched').touch()\ndef f(): ..."
        (tmp_path / f"{name}.py").write_text(text)
    good = {
        "suite": "from a stranger",
        "tasks": {
            "t": {
                "dgp": {**MIXED, "source": {"ref": "crl.dgp.sources:laplace"}},
                **{"num_train": 10, "num_test": 10, "metrics": {}},
                "estimators": {"f": {"factory": "crl.ica.fastica:fastica", "num_latents": 2}},
            }
        },
    }
    file = tmp_path / "from_a_stranger.json"
    file.write_text(json.dumps(good))
    assert suite.load(str(file)).name == "from a stranger"
    for i, spec in enumerate(strangers("touch touched")):
        for place in ("dgp", "metrics", "estimators"):
            raw = copy.deepcopy(good)
            raw["tasks"]["t"][place] = spec if place == "dgp" else {"x": spec}
            file.write_text(json.dumps(raw))
            assert cli.main(["run", str(file), "--dry-run"]) == 2, (i, spec)
            said = capsys.readouterr().err
            sentences = "only crl and installed plugins|unknown name|no module 'crl.dgp/"
            assert re.search(sentences, said), (spec, said)
    assert not (tmp_path / "touched").exists()
    assert str(tmp_path) not in sys.path  # what lies there could pose as a library


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda f: f.stem)
def test_plan_that_a_run_leaves_is_a_suite(file, tmp_path):
    whole = suite.load(str(file))
    ours = suite.Suite(
        whole.name,
        {
            name: task._replace(
                estimators={
                    k: v
                    for k, v in task.estimators.items()
                    if not v["factory"].startswith("benchmarks.peers.")
                }
            )
            for name, task in whole.tasks.items()
        },
    )
    for planned in (ours, whole):
        store = Store(tmp_path / "results")
        store.write_plan(runner.Runner(planned, store).plan())
        (plan,) = store.root.glob("plans/*.json")
        if planned == ours:
            assert suite.load(str(plan)) == ours
            assert list(suite.load(str(plan)).tasks) == list(ours.tasks)
        else:
            with pytest.raises(suite.SuiteError, match=r"peers.*: run the \.py suite"):
                suite.load(str(plan))
    newer = json.loads(plan.read_text()) | {"schema": 2}
    plan.write_text(json.dumps(newer))
    with pytest.raises(suite.SuiteError, match="expected a plan of schema 1, got 2"):
        suite.load(str(plan))


def test_key_depends_on_what_the_number_depends_on(tiny_suite, raw):
    cell = suite.Cell("rotated", "oja", 0, 0)
    key = suite.key_of(tiny_suite, cell, x64=False)
    assert re.fullmatch("[0-9a-f]{32}", key)

    def other(change, cell=cell, x64=False):
        changed = copy.deepcopy(raw)
        change(changed["tasks"])
        return suite.key_of(suite.parse(changed), cell, x64)

    def rename(tasks):
        tasks["turned"] = tasks.pop("rotated")
        tasks["turned"]["note"] = "another note"
        tasks["turned"]["estimators"]["mine"] = tasks["turned"]["estimators"].pop("oja")

    def more_worlds(tasks):
        tasks["rotated"].update(worlds=9, fits=5)

    assert other(rename, cell._replace(task="turned", estimator="mine")) == key

    def judge(field):
        return lambda tasks: tasks["rotated"][field].update(again="bench_tiny:agreement")

    whole = cell._replace(fit=None)
    assert other(more_worlds) == key
    assert other(judge("stability")) == key
    nothing = lambda tasks: None  # noqa: E731
    different = {
        other(nothing, cell._replace(world=1)),
        other(nothing, cell._replace(fit=1)),
        other(nothing, whole),
        other(judge("stability"), whole),
        other(judge("metrics"), whole),
        other(nothing, x64=True),
        other(lambda t: t["rotated"].update(num_train=65)),
        other(lambda t: t["rotated"]["dgp"].update(num_latents=4)),
        other(lambda t: t["rotated"]["estimators"]["oja"].update(lr=0.2)),
        other(judge("metrics")),
        other(more_worlds, whole),
    }
    assert len(different) == 11 and key not in different


def test_key_depends_on_the_source_of_the_estimator(tmp_path):
    file = tmp_path / "edited_estimator.py"
    code = (
        "import sys; sys.path[:0] = [{tmp!r}, {here!r}]\n"
        "from crl.bench import suite\n"
        "s = suite.load({path!r}, ('edited_estimator:oja()',))\n"
        "print(suite.key_of(s, suite.Cell('rotated', 'oja()', 0, 0), False))"
    ).format(tmp=str(tmp_path), here=str(HERE), path=str(HERE / "tiny_suite.py"))
    keys = []
    for text in ("from bench_tiny import oja", "from bench_tiny import oja\n"):
        file.write_text(text)
        command = [sys.executable, "-c", code]
        keys.append(subprocess.run(command, capture_output=True, check=True).stdout)
    assert keys[0] != keys[1]


def test_keys_are_the_same_in_every_process(tiny_suite):
    # Recorded; another value would orphan every results folder there is.
    assert suite.stable_hash({"b": [1, 2.5], "a": "x"}) == 0xC51DF4D1
