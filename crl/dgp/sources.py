"""Laws of independent latents, standardised: mean zero, variance one.

Non-Gaussianity is what linear ICA lives on; ``gaussian`` is the negative control, of which
no method that uses the law of x alone can undo a rotation (Darmois-Skitovich). Log
densities are mostly those of ``numpyro.distributions``, loaded when first asked for; samples
come from ``jax.random``, because numpyro's samplers draw in the default float type, so
that enabling x64 would change the data.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln
from jax.typing import DTypeLike

from crl.check import check_options, is_concrete


class Source(NamedTuple):
    """A univariate law with mean zero and variance one.

    ``log_prob`` is in nats and works entry by entry: (..., d) -> (..., d).
    """

    sample: Callable[[Array, tuple[int, ...], DTypeLike], Array]  # (key, shape, dtype)
    log_prob: Callable[[Array], Array]


def _source(draw: Callable, scale: float, law: Callable) -> Source:
    """``scale`` times ``draw``, with the log density of the numpyro law ``law(numpyro)``."""

    def sample(key, shape, dtype):
        return scale * draw(key, shape, dtype)

    def log_prob(s):
        import numpyro.distributions as dist

        return law(dist).log_prob(s).astype(s.dtype)

    return Source(sample, log_prob)


def laplace() -> Source:
    """Super-Gaussian, excess kurtosis 3."""
    b = math.sqrt(0.5)
    return _source(jax.random.laplace, b, lambda dist: dist.Laplace(0.0, b))


def logistic() -> Source:
    """Super-Gaussian, excess kurtosis 1.2."""
    b = math.sqrt(3) / math.pi
    return _source(jax.random.logistic, b, lambda dist: dist.Logistic(0.0, b))


def gaussian() -> Source:
    """The negative control: independent Gaussians stay so under every rotation."""
    return _source(jax.random.normal, 1.0, lambda dist: dist.Normal(0.0, 1.0))


def uniform() -> Source:
    """Sub-Gaussian, on [-sqrt 3, sqrt 3], excess kurtosis -1.2."""
    b = math.sqrt(3)

    def sample(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -b, b)

    def log_prob(s):
        # numpyro's does not vanish outside of the support.
        return jnp.where(jnp.abs(s) <= b, -math.log(2 * b), -jnp.inf).astype(s.dtype)

    return Source(sample, log_prob)


def student_t(df: float = 5.0) -> Source:
    """Heavy tails, ``df`` > 2; the kurtosis is infinite up to df = 4."""
    if is_concrete(df) and not 2 < df < math.inf:
        raise ValueError(f"student_t needs df > 2 to have a variance, got {df}")

    def unit(dtype):
        nu = jnp.asarray(df, dtype)
        return jnp.sqrt((nu - 2) / nu)

    def sample(key, shape, dtype):
        return unit(dtype) * jax.random.t(key, df, shape, dtype)

    def log_prob(s):
        import numpyro.distributions as dist

        return dist.StudentT(df, 0.0, unit(s.dtype)).log_prob(s).astype(s.dtype)

    return Source(sample, log_prob)


def gumbel() -> Source:
    """The law of maxima, skewness 1.14, excess kurtosis 2.4."""
    b = math.sqrt(6) / math.pi
    euler = 0.5772156649015329  # the mean of the standard law

    def sample(key, shape, dtype):
        return b * (jax.random.gumbel(key, shape, dtype) - euler)

    def log_prob(s):
        y = s / b + euler
        return -math.log(b) - y - jnp.exp(-y)

    return Source(sample, log_prob)


def gamma(shape: float = 2.0) -> Source:
    """Gamma of this ``shape`` > 0, skewness 2 / sqrt(shape); nothing below -sqrt(shape).

    Shape 1 is exponential, k / 2 chi-squared with k degrees of freedom.
    """
    check_options("gamma", positive={"shape": shape})

    def sample(key, dims, dtype):
        a = jnp.asarray(shape, dtype)
        return (jax.random.gamma(key, a, dims, dtype) - a) * jax.lax.rsqrt(a)

    def log_prob(s):
        a = jnp.asarray(shape, s.dtype)
        y = s * jnp.sqrt(a) + a
        inside = (a - 1) * jnp.log(jnp.where(y > 0, y, 1)) - y - gammaln(a) + jnp.log(a) / 2
        return jnp.where(y > 0, inside, -jnp.inf)

    return Source(sample, log_prob)


def generalized_normal(alpha: float = 1.5) -> Source:
    """Density proportional to exp(-|s / b|^alpha), ``alpha`` > 0.

    alpha 1 is Laplace, 2 Gaussian, larger ones are sub-Gaussian. numpyro has no such law;
    the log density is written here.
    """
    check_options("generalized_normal", positive={"alpha": alpha})

    def exponent_and_scale(dtype):
        a = jnp.asarray(alpha, dtype)
        return a, jnp.exp((gammaln(1 / a) - gammaln(3 / a)) / 2)

    def sample(key, shape, dtype):
        a, b = exponent_and_scale(dtype)
        # |s / b|^alpha is Gamma(1 / alpha); the sign is drawn in float32 whatever x64 says.
        k_size, k_sign = jax.random.split(key)
        size = b * jax.random.gamma(k_size, 1 / a, shape, dtype) ** (1 / a)
        return jnp.where(jax.random.bernoulli(k_sign, jnp.float32(0.5), shape), size, -size)

    def log_prob(s):
        a, b = exponent_and_scale(s.dtype)
        return jnp.log(a / (2 * b)) - gammaln(1 / a) - jnp.abs(s / b) ** a

    return Source(sample, log_prob)


def gaussian_mixture(
    means: Sequence[float] = (-1.0, 1.0),
    scales: Sequence[float] = (0.3, 0.3),
    weights: Sequence[float] | None = None,
) -> Source:
    """Gaussians with these means, standard deviations and weights (equal by default).

    The mixture is standardised afterwards. The default is bimodal and sub-Gaussian.
    """
    weights = [1.0] * len(means) if weights is None else weights
    fits = len(means) == len(scales) == len(weights)
    if not fits or any(is_concrete(v) and not v > 0 for v in (*scales, *weights)):
        raise ValueError(
            "gaussian_mixture needs as many positive scales and weights as means, got "
            f"{len(means)} means, scales {list(scales)}, weights {list(weights)}"
        )

    def standard(dtype):
        """Weights, means and standard deviations of the standardised mixture, each (k,)."""
        m, s, w = (jnp.asarray(v, dtype) for v in (means, scales, weights))
        p = w / jnp.sum(w)
        mean = jnp.sum(p * m)
        sd = jnp.sqrt(jnp.sum(p * ((m - mean) ** 2 + s**2)))
        return p, (m - mean) / sd, s / sd

    def sample(key, shape, dtype):
        p, m, s = standard(dtype)
        k_component, k_noise = jax.random.split(key)
        c = jax.random.choice(k_component, len(means), shape, p=p.astype(jnp.float32))
        return m[c] + s[c] * jax.random.normal(k_noise, shape, dtype)

    def log_prob(x):
        import numpyro.distributions as dist

        p, m, s = standard(x.dtype)
        law = dist.MixtureSameFamily(dist.CategoricalProbs(p), dist.Normal(m, s))
        return law.log_prob(x).astype(x.dtype)

    return Source(sample, log_prob)


def alternating(sources: Sequence[Source]) -> Source:
    """A different law for each latent: latent i (last axis) has law i modulo their number."""
    if not sources:
        raise ValueError("alternating needs at least one source, got none")

    def sample(key, shape, dtype):
        keys = jax.random.split(key, shape[-1])
        columns = [
            sources[i % len(sources)].sample(k, shape[:-1], dtype) for i, k in enumerate(keys)
        ]
        return jnp.stack(columns, -1)

    def log_prob(s):
        columns = [sources[i % len(sources)].log_prob(s[..., i]) for i in range(s.shape[-1])]
        return jnp.stack(columns, -1)

    return Source(sample, log_prob)
