"""Five fits that converge at different steps: what one and two processes both run."""

import jax
from toys import as_data, regression

from crl import loop

ESTIMATOR = regression(40, tol=1e-3)
KEYS = jax.random.split(jax.random.key(0), 5)
DATA = jax.vmap(as_data)(jax.random.normal(jax.random.key(1), (5, 8, 3)))


def whole(key, data):
    lane = loop.run(ESTIMATOR, key, data)
    return lane.state, lane.step
