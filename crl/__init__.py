"""crl: causal representation learning in JAX.

``import crl`` is light: the names below load their module when first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "crl.core": [
        *("DGP", "Data", "Estimator", "Readout", "Sample", "Task", "Truth"),
        *("draw", "metric", "need"),
    ],
    "crl.check": ["as_data", "check_data", "check_task"],
    "crl.names": ["resolve"],
    "crl.feed": ["Fresh", "Stream"],
    "crl.train": [
        *("Fit", "fit", "fit_replicas", "load", "readout", "readout_replicas", "save"),
    ],
    "crl.combinators": ["best_checkpoint", "descend", "edge_confidence", "restarts", "then"],
    "crl.parallel": ["map_replicas"],
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE)


def __getattr__(name: str):
    if name in _MODULE:
        return getattr(import_module(_MODULE[name]), name)
    raise AttributeError(f"module 'crl' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_MODULE])
