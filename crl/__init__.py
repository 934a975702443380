"""crl: causal representation learning in JAX.

``import crl`` is light: the names below load their module when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from crl.check import check_data, check_task, resolve
    from crl.core import DGP, Data, Estimator, Readout, Sample, Task, Truth, split
    from crl.train import Fit, Stream, fit, readout

_HOME = {
    **dict.fromkeys(
        ["DGP", "Data", "Estimator", "Readout", "Sample", "Task", "Truth", "split"],
        "crl.core",
    ),
    **dict.fromkeys(["check_data", "check_task", "resolve"], "crl.check"),
    **dict.fromkeys(
        [
            "Fit",
            "Stream",
            "best_checkpoint",
            "fit",
            "fit_replicas",
            "minibatch",
            "readout",
            "restarts",
            "then",
        ],
        "crl.train",
    ),
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'crl' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
