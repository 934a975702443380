import copy
import functools
import json
import pathlib
import re

import bench_tiny
import pytest

from crl.bench.run import cells, runner, specs, suite
from crl.bench.run.decode import encode
from crl.bench.run.specs import SuiteError
from crl.bench.run.store import Store
from crl.bench.run.suite import at_least, at_most, between, spec
from crl.dgp.latent import mixed_sources
from crl.dgp.mixings import linear
from crl.dgp.sources import laplace

HERE = pathlib.Path(__file__).parent.parent
TINY = str(HERE / "tiny_suite.py")
BENCHMARKS = sorted((HERE.parent.parent / "benchmarks").glob("*.py"))
MIXED = spec(mixed_sources, num_latents=3, mixing=spec(linear))


@pytest.fixture
def raw(tiny_suite):
    return json.loads(json.dumps(encode(tiny_suite)))


def test_resolved_json_gives_the_suite_back(tiny_suite, raw):
    assert suite.parse(raw) == tiny_suite


def test_spec_names_what_is_imported():
    lr = spec(bench_tiny.oja, lr=0.1, num_steps=3)
    assert lr == {"factory": "bench_tiny:oja", "lr": 0.1, "num_steps": 3}
    assert spec(mixed_sources, laplace, mixing=spec(linear)) == {
        "factory": "crl.dgp.latent:mixed_sources",
        "args": [{"ref": "crl.dgp.sources:laplace"}],
        "mixing": {"factory": "crl.dgp.mixings:linear"},
    }
    assert spec("bench_tiny:oja") == {"factory": "bench_tiny:oja"}
    assert spec("fastica", num_latents=2)["factory"] == "crl.ica.fastica:fastica"


@pytest.mark.parametrize(
    "factory, options, sentence",
    [
        (lambda: None, {}, "define it at the top level of a module"),
        (functools.partial(bench_tiny.oja, 3), {}, "define it at the top level of a module"),
        ("fastca", {}, "did you mean 'fastica'?"),
        (bench_tiny.oja, {"swept": 1}, "the option 'swept' cannot be given by its name"),
        (bench_tiny.oja, {"lr": float("inf")}, "finite number at spec(bench_tiny:oja).lr"),
        (bench_tiny.oja, {"lr": object()}, "numbers, texts, lists, dicts and functions at"),
    ],
)
def test_spec_of_what_has_no_name_is_refused(factory, options, sentence):
    with pytest.raises(SuiteError, match=re.escape(sentence)):
        spec(factory, **options)


def test_tasks_and_metrics_keep_the_order_of_the_file(tmp_path):
    file = tmp_path / "ordered_suite.py"
    text = (HERE / "tiny_suite.py").read_text()
    file.write_text(text.replace('"unfit": task', '"a first letter": task'))
    loaded = suite.load(str(file))
    assert list(loaded.tasks) == ["rotated", "a first letter"]
    assert list(loaded.tasks["rotated"].metrics) == ["corr", "undefined"]


OJA = {"factory": "bench_tiny:oja"}


@pytest.mark.parametrize(
    "path, value, sentence",
    [
        (("tusks",), {}, "at config: unknown key 'tusks': did you mean 'tasks'?"),
        (("tasks", "rotated", "world"), 3, "unknown key 'world': did you mean 'worlds'?"),
        (("tasks", "rotated", "num_train"), "many", "expected an integer at config.tasks.rot"),
        (("tasks", "rotated", "worlds"), 0, "a positive integer at config.tasks.rotated.wor"),
        (("tasks", "rotated", "fits"), 1, "stability compares fits: expected fits >= 2"),
        (
            ("tasks", "rotated", "estimators"),
            ["ojja"],
            "estimators: unknown estimator",
        ),
        (("tasks", "rotated", "dgp"), "bench_tiny:rotated", "expected a dict by name at"),
        (
            ("tasks", "rotated", "dgp"),
            {},
            "expected spec(factory, ...) at config.tasks",
        ),
        (("tasks", "rotated", "dgp", "num_latent"), 3, "did you mean 'num_latents'?"),
        (("tasks", "rotated", "dgp", "factory"), "bench_tiny:rotate", "mean 'rotated'?"),
        (("tasks", "rotated", "dgp", "factory"), "bench_tinny:x", "no module 'bench_tinny'"),
        (("tasks", "rotated", "metrics", "corr"), "bench_tiny:cor", "did you mean 'corr'?"),
        (("tasks",), {}, "expected at least one task"),
        (("tasks",), [1], "expected a dict by name at config.tasks, got [1]"),
        (("suite",), 3, "expected a text at config.suite, got 3"),
        (("estimators",), ["oja"], "expected a dict by name at config.estimators"),
        (
            ("tasks", "rotated", "metrics"),
            "corr",
            "a dict by name at config.tasks.rot",
        ),
        (
            ("tasks", "rotated", "stability"),
            None,
            "a dict by name at config.tasks.rot",
        ),
        (("tasks", "rotated", "estimators"), "oja", "expected a dict by name at config.tasks"),
        (("tasks", "rotated", "estimators"), {}, "rotated: expected at least one estimator"),
        (("tasks", "rotated", "estimators"), [{}], "unknown estimator '{}'"),
        (
            ("tasks", "rotated", "worlds"),
            True,
            "an integer at config.tasks.rotated.worlds",
        ),
        (
            ("tasks", "rotated", "note"),
            3,
            "expected a text at config.tasks.rotated.note",
        ),
        (("tasks", "rotated", "dgp"), {"factory": 3}, "expected factory as 'module:name'"),
        (("tasks", "rotated", "dgp"), {"factory": "crl.core:AUX"}, "expected a factory, got"),
        (("tasks", "rotated", "dgp", "args"), 3, "expected args as a list, got 3"),
        (("tasks", "rotated", "dgp", "args"), [3], "multiple values for argument"),
        (("tasks", "rotated", "dgp"), MIXED, "missing a required argument: 'source'"),
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
        (("tasks", "rotated", "expect", "ojja"), {}, "expect: unknown estimator 'ojja'"),
        (
            ("tasks", "rotated", "expect", "oja"),
            {"cor": at_least(1)},
            "expect.oja: unknown metric 'cor': did you mean 'corr'?",
        ),
        (("tasks", "rotated", "expect", "oja", "corr"), {}, "at_most(value) or between(low"),
        (
            ("tasks", "rotated", "expect", "oja", "corr"),
            at_most(1, of="medium"),
            "of median, mean, worst at config.tasks.rotated.expect.oja.corr",
        ),
        (
            ("tasks", "rotated", "stability"),
            ["bench_tiny:agreement", "bench_tiny:corr"],
            "metrics and stability both have 'corr'",
        ),
        *(
            (("tasks", "rotated", "estimators", "oja"), {**OJA, "sweep": sweep}, sentence)
            for sweep, sentence in [
                (
                    {"lr": "fast"},
                    "expected a list at config.tasks.rotated.estimators.oja",
                ),
                ({"lr": []}, "sweep: expected values of at least one option"),
                ({}, "sweep: expected values of at least one option"),
                ({"rl": [1.0]}, "bench_tiny:oja has unknown option 'rl': did you mean 'lr'?"),
                ({"inner.lr": [1.0]}, "there is no spec at 'inner'"),
                ({"num_steps": [3, 5]}, "'num_steps' as an int, which sets shapes"),
            ]
        ),
    ],
)
def test_mistake_is_said_in_one_sentence(raw, path, value, sentence):
    inner = raw
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(SuiteError, match=re.escape(sentence)):
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
    raw["tasks"]["rotated"] |= {"estimators": {"mine": {"factory": "mended:f"}}, "expect": {}}
    with pytest.raises(SuiteError, match=re.escape(sentence)):
        suite.parse(raw)


def test_package_that_misses_a_library_fails_its_cells_only(raw, tmp_path, monkeypatch):
    (tmp_path / "poor_lab").mkdir()
    (tmp_path / "poor_lab" / "__init__.py").write_text("import no_such_library")
    (tmp_path / "poor_lab" / "tcl.py").write_text("def tcl(): ...")
    monkeypatch.syspath_prepend(tmp_path)
    raw["tasks"]["rotated"]["estimators"]["tcl"] = {"factory": "poor_lab.tcl:tcl"}
    job = runner.Runner(suite.parse(raw), Store(tmp_path / "results"))
    assert len(job.plan().cells) == 36 + 6 + 9
    assert "no_such_library" in str(job.refusal("rotated", "tcl"))
    assert job.refusal("rotated", "oja") is None


@pytest.mark.parametrize("value", ["float('inf')", "float('nan')", "__import__('numpy').inf"])
def test_number_that_json_cannot_hold_is_refused_with_its_place(tmp_path, value):
    file = tmp_path / "endless_suite.py"
    text = (HERE / "tiny_suite.py").read_text()
    file.write_text(text.replace("explode_below=0.5", f"explode_below={value}"))
    place = re.escape("spec(bench_tiny:oja).explode_below")
    with pytest.raises(SuiteError, match=f"expected a finite number at {place}"):
        suite.load(str(file))


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("def get_config():\n    return 1 / 0", "ZeroDivisionError"),
        ("x = (", "SyntaxError"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("x = 1", "has no function get_config()"),
        ("def get_config():\n    return {'a': {}['b']}", "KeyError: 'b'"),
        ("def get_config():\n    return {'suite': {1}, 'tasks': {}}", "at config.suite"),
        ("def get_config():\n    return {'suite': get_config}", "define it at the top level"),
    ],
)
def test_suite_file_that_raises_is_named(tmp_path, text, sentence):
    file = tmp_path / "broken_suite.py"
    file.write_text(text)
    with pytest.raises(SuiteError, match=re.escape(sentence)):
        suite.load(str(file))


def test_missing_suite_file_has_a_nearest_name():
    with pytest.raises(SuiteError, match=r"did you mean .*tiny_suite\.py"):
        suite.load(str(HERE / "tiny_suit.py"))


def test_estimator_from_outside_joins_every_task():
    loaded = suite.load(TINY, ("bench_tiny:oja(lr=0.1)", "fastica(num_latents=2)"), worlds=2)
    for task in loaded.tasks.values():
        assert task.estimators["oja(lr=0.1)"] == {"factory": "bench_tiny:oja", "lr": 0.1}
        assert task.estimators["fastica(num_latents=2)"]["factory"].startswith("crl.ica.")
        assert (task.worlds, task.full_worlds) == (2, 3)
    with pytest.raises(SuiteError, match="did you mean 'num_latents'"):
        suite.load(TINY, ("bench_tiny:oja(num_latent=3)",))
    with pytest.raises(SuiteError, match="expected 'module:factory"):
        suite.load(TINY, ("bench_tiny:oja(3)",))
    with pytest.raises(SuiteError, match=r"finite number at spec\(bench_tiny:oja\).lr"):
        suite.load(TINY, ("bench_tiny:oja(lr=1e999)",))


@pytest.mark.parametrize(
    "extra", [("bench_tiny:oja",), ("bench_tiny:oja(lr=1)", "bench_tiny:oja(lr=1)")]
)
def test_estimator_from_outside_takes_no_name_of_another(extra):
    with pytest.raises(SuiteError, match=r"is taken: .* so write '([^']*)'") as refused:
        suite.load(TINY, extra)
    proposed = str(refused.value).split("'")[-2]
    task = suite.load(TINY, (*extra[1:], proposed)).tasks["unfit"]
    assert len(task.estimators) == 1 + len(extra)
    assert task.estimators["oja"] == {"factory": "bench_tiny:oja"}


def test_specs_are_constructed_recursively():
    inner = spec(bench_tiny.oja, 2, num_steps=7)
    assert specs.construct(inner).num_steps == 7
    outer = spec(bench_tiny.paused, inner, seconds=[{"each": 3}])
    estimator, seconds = specs.construct(outer)
    assert estimator.num_steps == 7 and seconds == [{"each": 3}]
    assert specs.construct("bench_tiny:corr") is specs.construct({"ref": "bench_tiny:corr"})
    assert specs.references(outer) == {"bench_tiny:paused", "bench_tiny:oja"}


def test_sweep_stands_for_one_estimator_a_value():
    oja = spec(bench_tiny.oja, num_steps=3)
    swept = spec(bench_tiny.paused, oja, sweep={"args.0.lr": [0.1, 1], "seconds": [2]})
    raw = {
        "suite": "s",
        "tasks": {
            "t": {
                **{"dgp": spec(bench_tiny.rotated), "num_train": 8, "num_test": 8},
                **{"metrics": [], "estimators": {"x": swept}},
            }
        },
    }
    found = suite.parse(raw).tasks["t"].estimators
    assert list(found) == ["x[args.0.lr=0.1, seconds=2.0]", "x[args.0.lr=1.0, seconds=2.0]"]
    first, second = found.values()
    assert first["args"] == [{**oja, "lr": 0.1}] and second["args"] == [{**oja, "lr": 1.0}]
    assert specs.options_of(second) == {"args.0.lr": 1.0, "seconds": 2.0}
    assert "lr" not in oja  # the spec of the file is as it was


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda f: f.stem)
def test_suites_of_the_repository_load_and_their_plans_are_read_back(file, tmp_path):
    whole = suite.load(str(file))
    assert any(task.expect for task in whole.tasks.values()), "a suite says what it expects"
    store = Store(tmp_path)
    plan = runner.Runner(whole, store).plan()
    store.write_plan(plan)
    assert store.plans() == ([plan], [])
    assert suite.parse(encode(whole)) == whole
    with pytest.raises(SuiteError, match="a suite is code"):
        suite.load(str(next(tmp_path.glob("plans/*.json"))))
    assert len({c.key for c in plan.cells}) == len(plan.cells) == len(cells.cells(whole))


def test_bounds_are_data():
    assert at_least(0.9) == {"at_least": 0.9, "of": "median"}
    assert between(1, 2, of="mean") == {"at_least": 1, "at_most": 2, "of": "mean"}
    assert copy.deepcopy(at_most(0)) == {"at_most": 0, "of": "median"}
