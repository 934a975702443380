"""One finished sweep of the tiny suite, shared by the tests of this folder."""

import pathlib
import shutil

import pytest

from crl.bench.run import runner, suite
from crl.bench.run.store import Store

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="session")
def tiny_suite():
    return suite.load(str(HERE / "tiny_suite.py"))


@pytest.fixture(scope="session")
def tiny_runner(tiny_suite, tmp_path_factory):
    """A runner that has finished the suite; its programs are compiled."""
    store = Store(tmp_path_factory.mktemp("tiny"))
    finished = runner.Runner(tiny_suite, store)
    store.write_plan(finished.plan())
    runner.run(finished, bar=False)
    return finished


@pytest.fixture
def tiny_results(tiny_runner, tmp_path):
    """A copy of the finished results folder, to be damaged."""
    shutil.copytree(tiny_runner.store.root, tmp_path / "results")
    return tmp_path / "results"
