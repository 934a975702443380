"""A hundred methods, to see what the fast lane will cost: ``make test-hundred``.

Each is FastICA with other numbers in all of its programs, so that each compiles for itself.
"""

from properties import estimators

from crl.ica.fastica import fastica
from crl.testing.tasks import sources_task


def copy(i):
    """The i-th: a factory without options of its own but those of FastICA."""
    factor = 1 + i / 1000

    def factory(tol: float = 1e-4):
        inner = fastica(3, tol=tol)

        def init(key, data):
            return inner.init(key, data._replace(x=data.x * factor))

        def step(key, state, data):
            return inner.step(key, state, data._replace(x=data.x * factor))

        def finish(key, state, data):
            return inner.finish(key, state, data._replace(x=data.x * factor))

        def readout(fitted, data):
            return inner.readout(fitted, data._replace(x=data.x * factor))

        return inner._replace(init=init, step=step, finish=finish, readout=readout)

    return factory


test_estimator = estimators({f"copy {i}": (copy(i), sources_task) for i in range(100)})
