"""What users get wrong, and the sentence they get: expected, came, what to do.

Data, keys, references and dry runs are in test_check.py; suites, results folders and the
command line in tests/bench.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crl
from crl.check import as_data
from crl.combinators import best_checkpoint, restarts, then
from crl.core import Estimator, Readout, metric, take_rows
from crl.dgp import combinators, latent, mixings, real, scm, sources, superposition
from crl.ica.fastica import fastica
from crl.ica.isometric_autoencoder import isometric_autoencoder
from crl.parallel import map_replicas
from crl.sae.topk_sae import topk_sae
from crl.scm.shared_mechanism import shared_mechanism

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 3)).astype(np.float32)
ONE_ENV = as_data(X)
THREE_ENVS = as_data(X, np.repeat(np.arange(3), 50))


def constant_column(data):
    x = np.array(data.x)
    x[:, 1] = 7.0
    return data._replace(x=x)


def duplicate_column(data):
    x = np.array(data.x)
    x[:, 1] = x[:, 0]
    return data._replace(x=x)


def rows(data, n):
    return take_rows(data, np.arange(n))


def replicas(num, data=ONE_ENV):
    return jax.tree.map(lambda a: np.broadcast_to(a, (num, *a.shape)), data)


FITS = {
    "more latents than columns": (
        fastica(4),
        ONE_ENV,
        r"num_latents=4 and x of shape \(150, 3\)",
    ),
    "fewer rows than columns": (fastica(3), rows(ONE_ENV, 3), r"columns < rows.*\(3, 3\)"),
    "a constant column": (
        fastica(3),
        constant_column(ONE_ENV),
        "effective rank 2 .1 of 3 columns are constant.: lower num_latents to 2",
    ),
    "columns that repeat": (fastica(3), duplicate_column(ONE_ENV), "rank 2 .0 of 3"),
    "codes wider than x": (isometric_autoencoder(4), ONE_ENV, "num_latents"),
    "one environment": (
        shared_mechanism(),
        ONE_ENV,
        "at least 2 environments, got 1: pass env",
    ),
    "environments too small": (
        shared_mechanism(),
        take_rows(THREE_ENVS, np.arange(0, 150, 2)),
        "at least 50 rows in each environment, got 25",
    ),
    "a constant variable": (
        shared_mechanism(),
        constant_column(THREE_ENVS),
        r"columns that vary, got constant ones: \[1\]: drop them",
    ),
    "one variable": (
        shared_mechanism(),
        THREE_ENVS._replace(x=X[:, :1]),
        "shared_mechanism needs at least 2 variables, got 1",
    ),
    "environments mixed": (
        fastica(3),
        THREE_ENVS._replace(env=np.arange(150) % 3),
        "grouped by environment, got them mixed: sort",
    ),
    "a batch smaller than the environments are many": (
        fastica(3)._replace(batch_size=2),
        THREE_ENVS,
        "at least one row for each of the 3 environments, got 2",
    ),
    "a factory in place of an estimator": (
        fastica,
        ONE_ENV,
        r"expected a crl.Estimator, got fastica: call the factory, fastica\(",
    ),
    "a representation without codes": (
        then(Estimator(lambda k, d: 0.0, None, lambda s, d: Readout(x=d.x), 0), fastica(2)),
        ONE_ENV,
        "expected a representation that claims z or codes",
    ),
}


@pytest.mark.parametrize("case", FITS)
def test_data_that_an_estimator_cannot_use(case):
    estimator, data, sentence = FITS[case]
    with pytest.raises((ValueError, TypeError), match=sentence) as error:
        crl.fit(estimator, KEY, data)
    assert "\n" not in str(error.value)


@metric(best=1.0)
def score(claims, sample):
    return 0.0


@metric(best=1.0)
def score_of_rows(claims, sample):
    return claims.z[:, 0]


def traced(dgp):
    return jax.eval_shape(lambda key: dgp.sample(key, dgp.init(key), 3), KEY)


CALLS = {
    "no latents": (lambda: fastica(0), "fastica needs num_latents an integer >= 1, got 0"),
    "tolerance 0": (lambda: fastica(2, tol=0), "fastica needs tol > 0, got 0"),
    "unknown algorithm": (lambda: fastica(2, algorithm="paralel"), "got 'paralel'"),
    "unknown nonlinearity": (
        lambda: fastica(2, nonlinearity="tanh"),
        "'logcosh', 'exp', 'cube', got 'tanh'",
    ),
    "k > num_atoms": (lambda: topk_sae(8, 9), "1 <= k <= num_atoms, got k=9 of 8"),
    "k = 0": (lambda: topk_sae(8, 0), "1 <= k <= num_atoms, got k=0"),
    "no atoms": (lambda: topk_sae(0, 1), "num_atoms an integer >= 1, got 0"),
    "no features": (lambda: shared_mechanism(num_features=0), "num_features an integer >= 1"),
    "too many features": (lambda: shared_mechanism(num_features=65), "<= 64, got 65"),
    "a negative rate": (lambda: topk_sae(8, 2, learning_rate=-1), "learning_rate > 0, got -1"),
    "no latents to encode": (lambda: isometric_autoencoder(0), "num_latents .* >= 1, got 0"),
    "batch of nothing": (
        lambda: crl.fit(fastica(2)._replace(batch_size=0), KEY, ONE_ENV),
        "batch_size to be an integer >= 1 or None, got 0",
    ),
    "a score for each row": (
        lambda: crl.fit(restarts(fastica(2), 2, score_of_rows), KEY, ONE_ENV),
        r"score to return a scalar, got shape \(15,\)",
    ),
    "a stream for each replica": (
        lambda: crl.fit_replicas(
            fastica(2),
            jax.random.split(KEY, 2),
            crl.Stream(ONE_ENV, lambda *_: ONE_ENV),
        ),
        "leading axis r, got Stream: only crl.fit takes a Stream",
    ),
    "an array for each replica": (
        lambda: crl.fit_replicas(fastica(2), jax.random.split(KEY, 2), np.stack([X, X])),
        "leading axis r, got ndarray",
    ),
    "no restarts": (lambda: restarts(fastica(2), 0, score), "num an integer >= 1, got 0"),
    "holdout of all": (
        lambda: crl.fit(fastica(2)._replace(holdout=1.0), KEY, ONE_ENV),
        r"holdout in \[0, 0.5\], got 1.0",
    ),
    "never look": (lambda: best_checkpoint(fastica(2), score, 0), "every an integer >= 1"),
    "chunks of nothing": (
        lambda: crl.fit(fastica(2), KEY, ONE_ENV, chunk_size=0),
        "chunk_size >= 1 steps, got 0",
    ),
    "zero seeds": (
        lambda: crl.fit_replicas(fastica(2), jax.random.split(KEY, 0), replicas(0)),
        "at least one replica, got none",
    ),
    "too many seeds": (
        lambda: crl.fit_replicas(fastica(2), jax.random.split(KEY, 3), replicas(2)),
        r"same leading axis r in every leaf, got 2 at .*x and 3 at .*keys",
    ),
    "a scalar among replicas": (
        lambda: map_replicas(lambda a, b: a + b)(jnp.zeros(3), jnp.zeros(())),
        "leading axis of replicas in every leaf, got a scalar",
    ),
    "unknown backend": (
        lambda: map_replicas(jnp.sin, backend="shardmap"),
        "unknown backend 'shardmap': did you mean 'shard_map'",
    ),
    "no devices": (
        lambda: map_replicas(jnp.sin, devices=[])(jnp.zeros(2)),
        "at least one device, got none",
    ),
    "condition below 1": (lambda: mixings.linear(0.5), "condition >= 1, got 0.5"),
    "fewer observed than latent": (
        lambda: latent.mixed_sources(sources.laplace(), mixings.linear(1, 2), 3).init(KEY),
        "num_observed >= num_latents = 3, got 2",
    ),
    "no variance": (lambda: sources.student_t(2.0), "df > 2.*got 2.0"),
    "negative exponent": (lambda: sources.generalized_normal(-1.0), "alpha > 0, got -1.0"),
    "an empty mixture": (lambda: sources.gaussian_mixture([0.0], [0.0]), "positive scales"),
    "unknown mechanism": (
        lambda: scm.multi_environment_scm(3, mechanism="lineal"),
        "mechanism 'linear', .*, got 'lineal'",
    ),
    "unknown graph": (
        lambda: scm.multi_environment_scm(3, graph="erdos"),
        "graph 'erdos_renyi', .*, got 'erdos'",
    ),
    "a graph of another size": (
        lambda: scm.multi_environment_scm(3, graph=jnp.zeros((2, 2))),
        r"graph of shape \(3, 3\), got \(2, 2\)",
    ),
    "a cyclic graph": (
        lambda: scm.multi_environment_scm(3, graph=np.roll(np.eye(3), 1, axis=1)),
        r"without cycles and self-loops, got \[\[0.0, 1.0, 0.0\].*causal order",
    ),
    "a graph with self-loops": (
        lambda: scm.multi_environment_scm(2, graph=np.eye(2, dtype=int)),
        r"without cycles and self-loops, got \[\[1, 0\], \[0, 1\]\]: remove",
    ),
    "a graph of weights": (
        lambda: scm.multi_environment_scm(2, graph=np.array([[0, 0.5], [0, 0]])),
        "a graph of 0 and 1, got .*0.5.*means i -> j",
    ),
    "fewer than no edges": (
        lambda: scm.multi_environment_scm(3, edges_per_node=-1),
        "needs edges_per_node >= 0, got -1",
    ),
    "edges without number": (
        lambda: scm.multi_environment_scm(3, edges_per_node=float("nan")),
        "needs edges_per_node >= 0, got nan",
    ),
    "half a parent": (
        lambda: scm.multi_environment_scm(3, "scale_free", edges_per_node=1.5),
        "integer edges_per_node for scale_free, got 1.5: .*erdos_renyi",
    ),
    "noise means without scale": (
        lambda: scm.multi_environment_scm(3, mean_shift=float("nan")),
        "needs mean_shift >= 0, got nan",
    ),
    "bent beyond inversion": (
        lambda: combinators.perturbed(latent.mixed_sources(None, mixings.linear()), 5.0),
        "0 <= eta < 1 to be invertible, got 5.0",
    ),
    "more active atoms than there are": (
        lambda: superposition.superposition(8, 4, 5),
        "1 <= k <= num_atoms, got k=5, num_atoms=4",
    ),
    "unknown amplitude": (
        lambda: superposition.superposition(8, 4, 2, amplitude="unifrm"),
        "did you mean 'uniform'",
    ),
    "more rows than the data set has": (
        lambda: real.from_arrays(X).sample(KEY, real.from_arrays(X).init(KEY), 151),
        "at most 112 rows per environment to fit on",
    ),
    "unknown truth": (lambda: real.from_arrays(X, dictionry=X), "did you mean 'dictionary'"),
    "rows of environments mixed": (
        lambda: as_data(X, env=np.arange(150) % 3),
        "grouped by environment, got them mixed: sort",
    ),
    "counterfactuals bent": (
        lambda: traced(combinators.perturbed(scm.multi_environment_scm(2))),
        "without do.. queries",
    ),
    "no Jacobian of real data": (
        lambda: combinators.with_jacobian(real.from_arrays(X)),
        "mix",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_that_cannot_work(case):
    call, sentence = CALLS[case]
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)
