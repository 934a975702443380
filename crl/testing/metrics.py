"""What every metric keeps: pure, mappable, best where it says so, and clear when it cannot."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import MissingClaim, Readout, Sample, Truth, grouped, merit
from crl.numerics.linalg import unit_rows
from crl.testing.guesses import constants, perfect_claims
from crl.testing.tools import assert_close, stacked


def check_metric(metric: Callable, sample: Sample | None = None) -> None:
    """Raise an AssertionError naming the first property that the metric breaks.

    sample: where its kind of truth occurs; the default has all that ``Truth`` names. A
    metric gives one scalar, has ``best`` for perfect claims and is worse for random ones,
    is pure, jit- and vmappable, and says which claim or truth is missing.
    """
    sample = _example() if sample is None else sample
    perfect = perfect_claims(sample)
    guess = random_claims(jax.random.key(1), perfect)
    bad = [guess, *constants(sample, perfect)]
    value, *others = _judged(metric, perfect, bad, sample)
    batch = _mapped(metric)(stacked([perfect, *bad]), sample)
    assert_close(jnp.stack([value, *others]), batch, "vmap over claims differs")
    _says_what_is_missing(lambda claims: metric(claims, sample), perfect)

    def without(truth):
        return metric(perfect, sample._replace(truth=truth))

    _says_what_is_missing(without, sample.truth)


def check_stability(metric: Callable, sample: Sample | None = None) -> None:
    """Raise an AssertionError naming the first property that the stability metric breaks.

    sample: as in ``check_metric``. It is best for fits that agree, worse for unrelated
    ones, and does not depend on the order of the fits; the rest is as for any metric.
    """
    sample = _example() if sample is None else sample
    keys = jax.random.split(jax.random.key(1), 3)
    fits = [random_claims(key, perfect_claims(sample)) for key in keys]
    agreeing, unrelated = stacked([fits[0]] * 3), stacked(fits)
    value, worse = _judged(metric, agreeing, [unrelated], sample)
    # Every fit takes the first place once: a metric may compare all with it by mistake.
    for order in ([1, 2, 0], [2, 1, 0]):
        moved = stacked([fits[i] for i in order])
        other = jax.jit(metric)(moved, sample)
        assert_close(worse, other, f"the fits in order {order} score another value")
    batch = _mapped(metric)(stacked([agreeing, unrelated]), sample)
    assert_close(jnp.stack([value, worse]), batch, "vmap over worlds differs")
    _says_what_is_missing(lambda claims: metric(claims, sample), unrelated)


def _mapped(metric: Callable) -> Callable:
    return jax.jit(jax.vmap(metric, in_axes=(0, None)))


def _judged(metric, good: Readout, bad: list[Readout], sample: Sample) -> list[Array]:
    """The values of good and bad claims, once they are what ``metric.best`` promises."""
    assert hasattr(metric, "best"), "mark it with @crl.metric(best=...), see crl.core.metric"
    jitted = jax.jit(metric)
    values = [jitted(claims, sample) for claims in (good, *bad)]
    shape = jax.tree.map(jnp.shape, values[0])
    assert shape == (), f"expected one scalar, got {shape}"
    if metric.best is not None:
        if np.isfinite(metric.best):
            assert abs(values[0] - metric.best) < 2e-3, (
                f"claims that are perfect have {values[0]}, not the best value {metric.best}"
            )
        merits = [float(merit(metric, v)) for v in values]
        assert merits[0] > np.nanmin(merits) + 0.05, (
            f"bad claims have {values[1:]}, none worse than perfect ones: {values[0]}"
        )
    return values


def _says_what_is_missing(judge: Callable, record: Readout | Truth) -> None:
    """Every field is named when it is missing, or is not needed."""
    side = "readout" if isinstance(record, Readout) else "truth"
    for field, without in _each_missing(record):
        try:
            jax.eval_shape(judge, without)
        except MissingClaim as error:
            assert field in str(error), f"the error must name {side}.{field}: {error}"
        except Exception as error:
            raise AssertionError(
                f"without {side}.{field} it raises {type(error).__name__} ({error}): read it "
                f"with need(..., {field!r}, ...)"
            ) from error


def _each_missing(record: Readout | Truth) -> Iterator[tuple[str, Readout | Truth]]:
    """Each field that there is, and each entry of ``other``, with the record without it."""
    for field, value in record._asdict().items():
        if field == "other":
            for name in value or ():
                rest = {k: v for k, v in value.items() if k != name}
                yield name, record._replace(other=rest)
        elif value is not None:
            yield field, record._replace(**{field: None})


def random_claims(key: Array, like: Readout) -> Readout:
    """Claims drawn at random with the shapes of ``like``."""

    def draw(name, value, key):
        if name == "order":
            return jax.random.permutation(key, value)
        if name in ("graph", "edge_prob", "graph_samples"):
            order = jax.random.permutation(key, value.shape[-1])
            full = jnp.triu(jnp.ones(value.shape[-2:], value.dtype), 1)[order][:, order]
            return jnp.broadcast_to(full, value.shape)
        if name == "targets":
            return jax.random.bernoulli(key, 0.5, value.shape).astype(value.dtype)
        if name == "log_prob":
            return value - 1 + jax.random.normal(key, value.shape)
        noise = jax.random.normal(key, value.shape)
        return unit_rows(noise) if name == "dictionary" else noise

    fields = {k: v for k, v in like._asdict().items() if v is not None and k != "diag"}
    keys = dict(zip(fields, jax.random.split(key, len(fields))))
    other = fields.pop("other", None)
    found = {name: draw(name, value, keys[name]) for name, value in fields.items()}
    if other:
        noise = {k: jax.random.normal(keys["other"], v.shape) for k, v in other.items()}
        found["other"] = noise
    return Readout(**found)


def _example(n: int = 256) -> Sample:
    kz, kd, kc, kp = jax.random.split(jax.random.key(0), 4)
    d, p, k = 4, 6, 8
    z = jax.random.laplace(kz, (n, d))
    dictionary = unit_rows(jax.random.normal(kd, (k, p)))
    codes = jax.nn.relu(jax.random.normal(kc, (n, k)) - 1)
    x = codes @ dictionary
    graph = jnp.triu(jnp.ones((d, d), jnp.int32), 1).at[0, 3].set(0)
    truth = Truth(
        z=z,
        y=x[:, :2] - 1,
        graph=graph,
        targets=jnp.eye(2, d, dtype=jnp.int32),
        mixing=jnp.eye(p, d) + 0.3,
        dictionary=dictionary,
        codes=codes,
        counterfactual=x + 1,
        affected=jnp.ones((n, p), bool),
        log_prob=jax.random.normal(kp, (n,)),
        jacobian=jnp.broadcast_to(jnp.eye(p, d), (8, p, d)),
    )
    return Sample(grouped(x, (n // 2, n // 2)), truth)
