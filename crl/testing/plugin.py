"""pytest plugin: ``pytest --estimator 'my_lab.tcl:tcl(num_latents=3)'``.

Runs the conformance suite on an estimator from outside, one test for each property. The
task is the first of crl's easy ones whose metric finds its claim; ``--task`` names another
one as ``module:factory`` returning a ``crl.Task``.
"""

import pathlib
import sys


def pytest_addoption(parser):
    """Add ``--estimator`` and ``--task``."""
    group = parser.getgroup("crl")
    group.addoption(
        "--estimator",
        metavar="MODULE:FACTORY(...)",
        help="run crl's conformance suite on this estimator, and nothing else",
    )
    group.addoption(
        "--task",
        metavar="MODULE:FACTORY(...)",
        help="the easy task on which --estimator must beat knowing nothing",
    )


def pytest_configure(config):
    """With ``--estimator``, collect crl's conformance suite and nothing else."""
    if config.getoption("--estimator"):
        # Where the user's module lies; the command pytest leaves that folder out.
        sys.path.insert(0, str(config.invocation_params.dir))
        # These tests stand in for the project's own.
        config.args[:] = [str(pathlib.Path(__file__).with_name("cases.py"))]
