"""The conformance suite: what every estimator, DGP, metric and claim must keep.

``check_estimator``, ``check_dgp``, ``check_metric``, ``check_stability`` and
``check_claim`` raise an AssertionError that names the broken property; from the command
line, ``pytest --estimator 'my_lab.tcl:tcl(num_latents=3)'``. Import is light, since pytest
loads the plugin that lies here in every run.
"""

from importlib import import_module

_HOME = {
    "check_estimator": "crl.testing.estimators",
    "check_dgp": "crl.testing.worlds",
    "check_metric": "crl.testing.metrics",
    "check_stability": "crl.testing.metrics",
    "check_claim": "crl.testing.claims",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'crl.testing' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
