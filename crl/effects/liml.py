"""Limited-information maximum likelihood: the k-class with k from the data.

Anderson and Rubin (1949); Fuller (1977). Same assumptions as two-stage least squares. Its
median stays on the effect as instruments grow many and weak, where two-stage least squares
drifts towards least squares (Bekker 1994).
"""

import jax

from crl.check import check_options
from crl.core import Estimator
from crl.effects.linear import check_columns, closed_form
from crl.numerics.k_class import liml_k, solve


def liml(fuller: float = 0.0) -> Estimator:
    """Linear effects of x on aux 'y' by aux 'instrument', by maximum likelihood.

    fuller: a of Fuller's correction k - a / (n - instruments - 1): 1 for mean-unbiased
    estimates, 4 for least mean squared error; 0 leaves LIML, whose moments do not exist:
    judge it by medians. May be traced. With as many instruments as columns of x and
    fuller = 0 it is two-stage least squares.

    Identified: as for ``two_stage_least_squares``. Claims y, other 'effect' (m, q), diag
    'weakest_f'. Raises ValueError for fuller < 0, for missing or NaN y or instruments, and
    for instruments that do not move all columns of x.
    """
    check_options("liml", nonnegative={"fuller": fuller})

    def coefficients(problem, x, y, z):
        k = jax.vmap(lambda y: liml_k(x, y[:, None], z), 1)(y)  # (q,), one per outcome
        k = k - fuller / (z.shape[0] - z.shape[1] - 1)
        return solve(problem, 1, 1 - k)

    return closed_form(coefficients, lambda data: check_columns("liml", data, relevance=True))
