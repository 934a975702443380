"""Every DGP of ours keeps the contract."""

import pytest

from crl import testing


@pytest.mark.parametrize("name", testing.DGPS)
def test_dgp(name):
    testing.check_dgp(testing.DGPS[name](), exact=not name.endswith("noise"))
