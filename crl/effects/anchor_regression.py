"""Anchor regression: predictions that hold up when the anchors shift.

Rothenhausler, Meinshausen, Buhlmann and Peters, "Anchor regression: heterogeneous data
meet causality" (JRSS-B 2021), equation 5 and Theorem 1: with anchors a (here aux
'instrument') and P the projection onto them,

    beta = argmin |M (y - x beta)|^2 + gamma |P (y - x beta)|^2

has the least worst-case risk over all shifts of the anchors v with E[vv'] <= gamma E[aa'].
Anchors may act on y and on hidden confounders: no exclusion is asked for.
"""

from crl.check import check_options
from crl.core import Estimator
from crl.effects.linear import check_columns, closed_form
from crl.numerics.k_class import solve


def anchor_regression(gamma: float = 5.0) -> Estimator:
    """Linear prediction of aux 'y' from x, robust to shifts of the anchors, aux 'instrument'.

    gamma: how many times the variance of the anchors may grow: 1 is ordinary least squares,
    0 partials the anchors out (they must not determine a column of x), infinity is
    ``two_stage_least_squares``; may be traced.

    Not an effect but a predictor is found: the coefficients are causal at gamma = infinity
    and under exclusion alone. No protection against shifts off the span of the anchors,
    and some loss where nothing shifts. Claims y, other 'effect' (m, q): the coefficients,
    and diag 'weakest_f'.

    Raises ValueError for gamma < 0, for missing or NaN y or anchors, and for linearly
    dependent columns of x.
    """
    check_options("anchor_regression", nonnegative={"gamma": gamma})

    def coefficients(problem, x, y, z):
        del x, y, z
        return solve(problem, gamma, 1)

    def validate(data):
        check_columns("anchor_regression", data)

    return closed_form(coefficients, validate)
