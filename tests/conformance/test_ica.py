"""Every estimator of crl.ica keeps the contract, alone and behind another."""

from functools import partial

from properties import estimators

from crl.combinators import then
from crl.ica.fastica import fastica
from crl.ica.isometric_autoencoder import isometric_autoencoder
from crl.testing.tasks import sources_task

small = partial(isometric_autoencoder, 3, width=16, depth=1)

test_estimator = estimators(
    {
        "fastica": (partial(fastica, 3), sources_task),
        "isometric_autoencoder": (partial(small, num_steps=500), sources_task),
    }
)


def behind_an_autoencoder():
    return then(small(num_steps=20), fastica(3))


test_combined = estimators({"then": (behind_an_autoencoder, sources_task)}, slow=True)
