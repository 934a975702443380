import copy
import json
import re

import pytest

from crl.bench.run import cells, sources, suite
from crl.bench.run.cells import Cell
from crl.bench.run.decode import encode


@pytest.fixture
def raw(tiny_suite):
    return json.loads(json.dumps(encode(tiny_suite)))


def test_plan_has_every_fit_of_every_world_and_their_comparison(tiny_suite):
    plan = cells.cells(tiny_suite)
    assert len(plan) == len(set(plan)) == 4 * 3 * 3 + 1 * 3 * 2
    assert plan[:3] == [Cell("rotated", "oja", 0, fit) for fit in (0, 1, None)]


def test_key_depends_on_what_the_number_depends_on(tiny_suite, raw):
    cell = Cell("rotated", "oja", 0, 0)
    key = cells.key_of(tiny_suite, cell, x64=False)
    assert re.fullmatch("[0-9a-f]{32}", key)

    def other(change, cell=cell, x64=False):
        changed = copy.deepcopy(raw)
        change(changed["tasks"])
        return cells.key_of(suite.parse(changed), cell, x64)

    def rename(tasks):
        tasks["turned"] = tasks.pop("rotated")
        own = tasks["turned"]
        own["estimators"]["mine"] = own["estimators"].pop("oja")
        own |= {"note": "another note", "expect": {"mine": {"corr": {"at_least": 0.1}}}}

    def more_worlds(tasks):
        tasks["rotated"].update(worlds=9, fits=5)

    assert other(rename, cell._replace(task="turned", estimator="mine")) == key

    def judge(field):
        return lambda tasks: tasks["rotated"][field].update(again="bench_tiny:corr")

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
        other(lambda t: t["rotated"].update(num_test=33)),
        other(lambda t: t["rotated"].update(num_train=32, num_test=64)),
        other(lambda t: t["rotated"]["dgp"].update(num_latents=4)),
        other(lambda t: t["rotated"]["estimators"]["oja"].update(lr=0.2)),
        other(lambda t: t["rotated"]["estimators"]["oja"].update(lr=0.3, swept=["lr"])),
        other(judge("metrics")),
        other(more_worlds, whole),
    }
    assert len(different) == 14 and key not in different


def test_keys_are_the_same_in_every_process():
    # Recorded; another value would orphan every results folder there is.
    assert cells.stable_hash({"b": [1, 2.5], "a": "x"}) == 0xC51DF4D1


LAB = {
    "__init__.py": "",
    "tcl.py": 'from lab import nets\ndef tcl(n=1):\n    "Learn."\n    return nets.f(n)\n',
    "nets.py": "def f(n):\n    from .inner import deep\n    return deep.g(n)\n",
    "inner/__init__.py": "",
    "inner/deep.py": "import numpy\nimport beside\ndef g(n):\n    return beside.h(n)\n",
    "unrelated.py": "x = 1\n",
    "../beside.py": "def h(n):\n    return n\n",
}


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """edited(file, text): digests of what ``lab.tcl:tcl`` imports, after that edit."""
    monkeypatch.syspath_prepend(tmp_path)

    def digests(file=None, text=""):
        for name, content in LAB.items():
            path = tmp_path / "lab" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text if name == file else content)
        for cached in (sources._spec, sources._locate, sources._is_library, sources._tree):
            cached.cache_clear()
        for cached in (sources._imports, sources._digest):
            cached.cache_clear()
        return sources.digests(["lab.tcl:tcl"])

    return digests


def test_key_covers_the_source_of_all_that_a_factory_imports(edited):
    before = edited()
    own = {"lab", "lab.tcl", "lab.nets", "lab.inner", "lab.inner.deep", "beside"}
    assert {name for name in before if not name.startswith("crl.")} == own
    for file in ("tcl.py", "nets.py", "inner/deep.py", "inner/__init__.py", "../beside.py"):
        assert edited(file, LAB[file] + "y = 2\n") != before, file
    assert edited("unrelated.py", "x = 2\n") == before


def test_comments_docstrings_and_line_breaks_change_no_key(edited):
    before = edited()
    text = '"""Mine, said better."""\n\nfrom lab import nets  # flows\n\n\ndef tcl(n=1):\n'
    assert (
        edited("tcl.py", text + '    "Learn it."\n    return nets.f(\n        n)\n') == before
    )
    assert edited("tcl.py", text + '    "Learn it."\n    return nets.f(n + 1)\n') != before


@pytest.mark.parametrize("terms", [600, 3000], ids=["to print", "to parse"])
def test_a_file_too_deep_still_has_a_key(edited, terms):
    table = "x = " + " + ".join(map(str, range(terms))) + "\n"
    assert edited("nets.py", table) != edited("nets.py", table + "y = 1\n")


def test_key_covers_what_crl_imports_and_no_more():
    scm = set(sources.digests(["crl.scm.shared_mechanism:shared_mechanism"]))
    assert {"crl.scm.monotone", "crl.core", "crl.feed", "crl.train"} <= scm
    assert not any(name.startswith(("crl.bench", "crl.testing", "crl.ica")) for name in scm)
    assert not any(name.startswith(("jax", "numpy", "optax")) for name in scm)


def test_lazy_names_of_a_package_are_followed(tmp_path, monkeypatch, edited):
    text = "import crl\ndef tcl(n=1):\n    return crl.then(n)\n"
    assert {"crl.combinators", "crl.train"} <= set(edited("tcl.py", text))
    text = "from crl import then\ndef tcl(n=1):\n    return then(n)\n"
    assert "crl.combinators" in edited("tcl.py", text)
