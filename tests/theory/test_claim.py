"""A claim holds where its theorem does, and its control must fail."""

import jax
import jax.numpy as jnp
import pytest

from crl.theory.claim import Claim, rate, slack, verify


def _mean_error(heavy_tailed_control=True):
    """The error of a mean falls like n^(-1/2) if the variance is finite."""

    def measure(key, point):
        draw = {"normal": jax.random.normal, "cauchy": jax.random.cauchy}[point["law"]]
        means = draw(key, (400, point["n"]), jnp.float64).mean(axis=1)
        return {"error": jnp.sqrt(jnp.mean(means**2))}

    def margins(rows):
        exponent = rate([r["n"] for r in rows], [r["error"] for r in rows])
        off = max(r["error"] / r["predicted_error"] - 1 for r in rows)
        return {"rate": slack(exponent + 0.5, 0.1), "value": slack(off, 0.2)}

    law = "cauchy" if heavy_tailed_control else "normal"
    return Claim(
        statement="The root mean square error of a mean of n unit normals is n^(-1/2).",
        reference="textbook",
        points=[{"n": n, "law": "normal"} for n in (100, 1000, 10_000)],
        small=[{"n": n, "law": "normal"} for n in (100, 1000)],
        measure=measure,
        predict=lambda key, point: {"error": point["n"] ** -0.5},
        margins=margins,
        control=lambda point: point | {"law": law},
        broken="finite variance",
    )


def test_true_claim_holds_and_its_control_fails():
    verdict = verify(_mean_error(), jax.random.key(0), small=True)
    assert verdict.holds and 0 < verdict.margin <= 1
    assert verdict.margin == min(verdict.margins.values())
    assert verdict.control_fails and min(verdict.control_margins.values()) < 0
    assert [r["n"] for r in verdict.rows] == [100, 1000]
    assert {type(v) for r in verdict.rows for v in r.values()} == {int, str, float}


def test_control_that_breaks_nothing_is_caught():
    assert not verify(_mean_error(False), jax.random.key(0), small=True).control_fails


def test_nan_violates_a_claim():
    claim = _mean_error()._replace(margins=lambda rows: {"a": 1.0, "b": float("nan")})
    assert not verify(claim, jax.random.key(0), small=True).holds


def test_claims_are_measured_in_float64():
    def measure(key, point):
        draw = jax.random.normal(key, (2, point["n"]))
        assert draw.dtype == jnp.float64
        return {"error": jnp.abs(draw).mean()}

    verify(_mean_error()._replace(measure=measure), jax.random.key(0), small=True)
    assert jnp.zeros(()).dtype == jnp.float32


def test_raw_key_is_refused():
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        verify(_mean_error(), 0)
