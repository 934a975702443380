"""Every DGP of ours keeps the contract."""

import pytest

from crl import testing

# Further settings of a factory that another row checks with all that it draws, combinators
# with tests of their own, and seven laws at once, which compile for long.
SLOW = {"scm, linear", "scm, anm", "scm, lsnm", "song", "s1", "sources, linear"}
SLOW |= {"standardized", "noisy + noise", "perturbed", "uniform, leaky ReLU"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in testing.DGPS],
)
def test_dgp(name):
    testing.check_dgp(testing.DGPS[name](), exact=not name.endswith("noise"))
