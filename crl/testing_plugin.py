"""pytest plugin: ``pytest --estimator 'my_lab.tcl:tcl(num_latents=3)'``.

Runs the conformance suite on an estimator from outside, one test for each property. The
task is the first of crl's easy ones whose metric finds its claim; ``--task`` names another
one as ``module:factory`` returning a ``crl.Task``.
"""

import pytest


def pytest_addoption(parser):
    group = parser.getgroup("crl")
    group.addoption(
        "--estimator",
        metavar="MODULE:FACTORY(...)",
        help="run crl's conformance suite on this estimator",
    )
    group.addoption(
        "--task",
        metavar="MODULE:FACTORY(...)",
        help="the easy task on which --estimator must beat random claims",
    )


def pytest_configure(config):
    if config.getoption("--estimator"):
        # The conformance tests below stand in for the project's own.
        config.args[:] = [__file__]


def pytest_generate_tests(metafunc):
    if metafunc.module.__name__.endswith("testing_plugin"):
        from crl.testing import ESTIMATOR_PROPERTIES

        metafunc.parametrize("holds", ESTIMATOR_PROPERTIES, ids=lambda f: f.__name__)


@pytest.fixture(scope="session")
def estimator_trial(request):
    from crl.check import build
    from crl.testing import easy_task, trial

    estimator = build(request.config.getoption("--estimator"))
    named = request.config.getoption("--task")
    return trial(estimator, build(named) if named else easy_task(estimator))


def test_estimator(holds, estimator_trial):
    holds(estimator_trial)
