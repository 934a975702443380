"""Anchor regression lies between three regressions, and insures against shifts of anchors.

With P the projection onto the anchors A, M = I - P and r = y - x beta,

    beta(gamma) = argmin |M r|^2 + gamma |P r|^2

partials the anchors out at gamma = 0, is least squares at 1 and instrumental variables at
infinity, which it approaches like 1 / gamma. With x and y linear in A, r = A c + rest, where
the rest is uncorrelated with A. Shifted anchors v in place of A have the risk

    E(v'c)^2 + |M r|^2 / n,

of which |M r|^2 / n + gamma |P r|^2 / n is the largest over all v with E vv' <= gamma E AA'
(Rothenhausler, Meinshausen, Buhlmann and Peters, JRSS B 2021, theorem 1). beta(gamma) has
the least of these largest risks. All of it holds of the law of finitely many rows, and is
checked on such laws without sampling error.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.dgp.instruments import linear_instruments
from crl.effects.anchor_regression import anchor_regression
from crl.effects.two_stage_least_squares import two_stage_least_squares
from crl.theory.claim import Claim, Row, rate, slack

NUM_SHIFTS = 500  # random laws of the anchors, within what gamma allows
NUM_OTHERS = 500  # other coefficients
LARGE = 1e3  # from this gamma on the approach to instrumental variables is judged
TOL = 1e-9


def anchor_limits() -> Claim:
    """Anchor regression: gamma = 0, 1, infinity, and the worst risk over shifted anchors."""

    def points(gammas, num_worlds):
        return [
            {"gamma": gamma, "off_span": False, "world": world}
            for world in range(num_worlds)
            for gamma in gammas
        ]

    large = (LARGE, 10 * LARGE, 100 * LARGE)
    return Claim(
        statement=(
            "beta(gamma) partials out, is least squares and tends to instrumental variables "
            "at gamma = 0, 1, infinity; it has the least worst risk over shifts <= gamma."
        ),
        reference="Rothenhausler, Meinshausen, Buhlmann and Peters, JRSS B 2021, theorem 1",
        points=points((0.0, 0.3, 1.0, 3.0, 30.0, *large), 5),
        small=points((0.0, 1.0, 5.0, *large), 1),
        measure=_measure,
        predict=lambda key, point: {"excess": 0.0, "gap": 0.0, "regret": 0.0},
        margins=_margins,
        control=lambda point: point | {"off_span": True},
        broken="shifts in the span of the anchors: what they leave of x and y grows instead",
    )


def _margins(rows: list[Row]) -> dict[str, float]:
    large = [r for r in rows if r["gamma"] >= LARGE]
    worlds = {r["world"] for r in rows}

    def exponent(world):
        sweep = [r for r in large if r["world"] == world]
        return rate([r["gamma"] for r in sweep], [r["to_instrumental"] for r in sweep])

    def at(gamma, name):
        return max(r[name] for r in rows if r["gamma"] == gamma)

    return {
        "partialling out": slack(at(0.0, "to_partialled"), TOL),
        "least squares": slack(at(1.0, "to_least_squares"), TOL),
        "instrumental variables": min(slack(exponent(w) + 1, 0.02) for w in worlds),
        "no shift is worse": slack(max(0, max(r["excess"] for r in rows)), TOL),
        "one is as bad": slack(max(abs(r["gap"]) for r in rows), TOL),
        "least worst risk": slack(max(0, max(r["regret"] for r in rows)), TOL),
    }


def _measure(key: Array, point: Row) -> dict[str, float]:
    key = jax.random.fold_in(key, point["world"])
    key_world, key_sample, key_shift = jax.random.split(key, 3)
    gamma = point["gamma"]
    found = _fitted(key_world, key_sample, jnp.asarray(gamma))
    x, y, a, beta, instrumental = map(np.asarray, found)
    x, y, a = (v - v.mean(0) for v in (x, y, a))

    def least_squares(x, y):
        return np.linalg.lstsq(x, y, rcond=None)[0]

    response_x, response_y = least_squares(a, x), least_squares(a, y)
    rest_x, rest_y = x - a @ response_x, y - a @ response_y

    def parts(beta):
        """What anchors make of the residual, (..., k, 1), and the risk of the rest, (...)."""
        rest = rest_y - rest_x @ beta
        return response_y - response_x @ beta, np.mean(rest**2, (-2, -1))

    def risk(beta, covariance):
        """Of anchors with E vv' = covariance (..., k, k)."""
        response, rest = parts(beta)
        if point["off_span"]:
            # As large a growth, of what the anchors do not reach.
            share = np.trace(covariance, axis1=-2, axis2=-1) / np.trace(own)
            covariance, rest = own, share * rest
        inner = response.swapaxes(-2, -1) @ covariance @ response
        return inner[..., 0, 0] + rest

    def promised(beta):
        response, rest = parts(beta)
        return gamma * np.mean((a @ response) ** 2, (-2, -1)) + rest

    own = a.T @ a / len(a)  # E AA'
    root = np.linalg.cholesky(own)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key_shift)))
    turned = np.linalg.qr(rng.normal(size=(NUM_SHIFTS, *root.shape)))[0]
    shares = rng.uniform(size=(NUM_SHIFTS, 1, len(root)))
    allowed = gamma * root @ (turned * shares) @ turned.swapaxes(1, 2) @ root.T
    distance = 10 ** rng.uniform(-4, 0, (NUM_OTHERS, 1, 1))
    others = beta + distance * rng.normal(size=(NUM_OTHERS, *beta.shape))
    worst = promised(beta)
    return {
        "to_partialled": np.abs(beta - least_squares(rest_x, rest_y)).max(),
        "to_least_squares": np.abs(beta - least_squares(x, y)).max(),
        "to_instrumental": np.abs(beta - instrumental).max(),
        "excess": np.max(risk(beta, allowed)) / worst - 1,
        "gap": risk(beta, gamma * own) / worst - 1,
        "regret": 1 - np.min(promised(others)) / worst,
    }


@jax.jit
def _fitted(key_world: Array, key_sample: Array, gamma: Array) -> tuple[Array, ...]:
    """x, y and anchors of one world, the coefficients at gamma, and the instrumental ones."""
    # Anchors that act on y past x, too: instruments they are not.
    dgp = linear_instruments(exclusion=0.5, dtype=jnp.float64)
    data = dgp.sample(key_sample, dgp.init(key_world), 400).data
    fits = anchor_regression(gamma), two_stage_least_squares()
    coefficients = [e.init(key_sample, data).coefficients for e in fits]  # closed forms
    return data.x, data.aux["y"], data.aux["instrument"], *coefficients
