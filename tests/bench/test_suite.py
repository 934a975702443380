import copy
import json
import pathlib
import re
import subprocess
import sys

import pytest

from crl.bench import suite

HERE = pathlib.Path(__file__).parent


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


def test_specs_are_built_recursively():
    dense = {"factory": "bench_tiny:oja", "args": [2], "num_steps": 7}
    spec = {"factory": "crl.combinators:minibatch", "args": [dense], "size": 16}
    assert suite.build(spec).num_steps == 7
    assert suite.build("bench_tiny:corr") is suite.build({"ref": "bench_tiny:corr"})
    assert suite.references(spec) == {"crl.combinators:minibatch", "bench_tiny:oja"}


@pytest.mark.parametrize("reference", ["os:system", "bench_tiny:oja", "subprocess:run"])
def test_json_suite_may_name_only_crl_and_plugins(tmp_path, raw, reference):
    raw["tasks"]["rotated"]["estimators"] = {"x": {"factory": reference}}
    file = tmp_path / "from_a_stranger.json"
    file.write_text(json.dumps(raw))
    with pytest.raises(suite.SuiteError, match="may name only crl and installed plugins"):
        suite.load(str(file))


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
    assert other(more_worlds) == key
    nothing = lambda tasks: None  # noqa: E731
    different = {
        other(nothing, cell._replace(world=1)),
        other(nothing, cell._replace(fit=1)),
        other(nothing, cell._replace(fit=None)),
        other(nothing, x64=True),
        other(lambda t: t["rotated"].update(num_train=65)),
        other(lambda t: t["rotated"]["dgp"].update(num_latents=4)),
        other(lambda t: t["rotated"]["estimators"]["oja"].update(lr=0.2)),
        other(lambda t: t["rotated"]["metrics"].update(again="bench_tiny:corr")),
        other(more_worlds, cell._replace(fit=None)),
    }
    assert len(different) == 9 and key not in different


def test_key_depends_on_the_source_of_the_estimator(tmp_path):
    file = tmp_path / "edited_estimator.py"
    code = (
        "import sys; sys.path[:0] = [{tmp!r}, {here!r}]\n"
        "from crl.bench import suite\n"
        "s = suite.load({path!r}, ('edited_estimator:oja',))\n"
        "print(suite.key_of(s, suite.Cell('rotated', 'oja', 0, 0), False))"
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
