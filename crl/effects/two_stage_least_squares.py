"""Two-stage least squares, and the k-class around it.

Theil (1958); Basmann (1957). With y = x beta + u, an instrument z that is independent of u
(exclusion, exogeneity) and moves every direction of x (relevance) identifies beta, however
x and u are confounded. With k = 1 / (1 + alpha) the estimator is IV-like regression of
Akbar et al. (NeurIPS 2025), for instruments fewer than columns of x, such as the
parameters of a data augmentation; it minimises the worst risk over stronger ones.
"""

from crl.check import check_options, is_concrete
from crl.core import Estimator
from crl.effects.linear import check_columns, closed_form
from crl.numerics.k_class import solve


def two_stage_least_squares(k: float = 1.0) -> Estimator:
    """Linear effects of x on aux 'y' by aux 'instrument': the k-class estimator.

    k: 1 for two-stage least squares, 0 for ordinary least squares, in between a compromise
    that no longer needs as many instruments as columns of x. Any number up to the k of
    ``liml``; may be traced.

    Identified at k = 1: the effect, where instruments reach y through x alone, share no
    cause with it and move every direction of x; otherwise the estimate is off, by more than
    least squares where instruments are weak. With many of them it leans towards least
    squares: see ``liml``. Claims y, other 'effect' (m, q), diag 'weakest_f'.

    Raises ValueError for k > 1, for missing or NaN y or instruments, for linearly dependent
    columns of x and, at k = 1, for instruments that do not move all of them.
    """
    check_options("two_stage_least_squares", nonnegative={"1 - k": 1 - k})
    needs_all = is_concrete(k) and k == 1

    def coefficients(problem, x, y, z):
        del x, y, z
        return solve(problem, 1, 1 - k)

    def validate(data):
        check_columns("two_stage_least_squares", data, relevance=needs_all)

    return closed_form(coefficients, validate)
