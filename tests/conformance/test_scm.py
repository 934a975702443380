"""Every estimator of crl.scm keeps the contract."""

from properties import estimators

from crl.scm.shared_mechanism import shared_mechanism
from crl.testing.tasks import scm_task

test_estimator = estimators({"shared_mechanism": (shared_mechanism, scm_task)})
