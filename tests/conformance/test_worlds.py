"""Every DGP of ours keeps the contract."""

import pytest

from crl import testing

# Further settings of a factory that another row checks with all that it draws.
SLOW = {"scm, linear", "scm, anm", "scm, lsnm", "song", "s1"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in testing.DGPS],
)
def test_dgp(name):
    testing.check_dgp(testing.DGPS[name](), exact=not name.endswith("noise"))
