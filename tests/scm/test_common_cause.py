import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from toys import parts

from crl.core import grouped
from crl.dgp.combinators import confounded
from crl.dgp.scm import multi_environment_scm
from crl.metrics.decisions import hidden_cause_auroc
from crl.scm import common_cause
from crl.scm.shared_mechanism import shared_mechanism
from crl.train import fit, readout

COUNT = (500, 400, 300)


def test_one_covariance_in_all_environments_gains_what_scipy_says():
    rng, env = np.random.default_rng(0), np.repeat([0, 1, 2], COUNT)
    scale = np.array([[1, 2, 0.5], [1, 0.6, 1.5]])[:, env]
    hidden = rng.normal(size=1200)
    a, b = scale * rng.normal(size=(2, 1200)) + 0.7 * hidden * np.array([[1], [-1]])
    data = grouped(jnp.zeros((1200, 1)), COUNT)
    gain = jax.jit(lambda a, b: common_cause._gain(a, b, data))
    ours = gain(a.astype(np.float32), b.astype(np.float32))

    def log_ratio(cov):
        rows = []
        for e in range(3):
            x = np.stack([a, b], 1)[env == e]
            x = x - x.mean(0)
            diagonal = np.diag((x**2).mean(0))
            joint = diagonal + cov * (1 - np.eye(2))
            law = scipy.stats.multivariate_normal
            rows.append(law.logpdf(x, cov=joint) - law.logpdf(x, cov=diagonal))
        return np.concatenate(rows)

    best = scipy.optimize.minimize_scalar(lambda c: -log_ratio(c).sum(), bounds=(-1, 1))
    # A grid of 201 covariances loses less than .05 nats in all.
    assert 50 < -best.fun < ours.sum() + 0.05 < -best.fun + 0.1
    # Half a step of the grid, .004, times the slope of outlying rows.
    np.testing.assert_allclose(ours, log_ratio(best.x), atol=0.05)
    # Independent noises gain half a chi-squared: at most 5 nats with probability .998.
    assert gain(a.astype(np.float32), rng.normal(size=1200).astype(np.float32)).sum() < 5


@pytest.mark.slow
def test_hidden_causes_are_told_from_edges_and_leave_them_undecided():
    """8 worlds of 5 variables with two hidden causes each, and 1000 rows: AUROC over pairs."""
    dgp = confounded(multi_environment_scm(5), 2)
    estimator = shared_mechanism(num_features=16, num_bootstrap=2)
    draw = jax.jit(
        lambda key: parts(dgp.sample(jax.random.fold_in(key, 1), dgp.init(key), 1100), 1000)
    )
    aurocs, false, right, edges = [], 0, 0, 0
    for seed in range(8):
        train, test = draw(jax.random.key(seed))
        state = fit(estimator, jax.random.key(0), train.data).state
        out = readout(estimator, state, test.data)
        aurocs.append(float(hidden_cause_auroc(out, test)))
        decided, truth = np.asarray(state.decided), np.asarray(test.truth.graph)
        false += int(np.sum(decided & (truth == 0)))
        right, edges = right + int(np.sum(decided & (truth > 0))), edges + int(truth.sum())
    assert np.nanmean(aurocs) >= 0.95 and np.sum(np.isfinite(aurocs)) >= 4
    assert false == 0 and right >= 0.7 * edges
