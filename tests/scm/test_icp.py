import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import crl
from crl.core import grouped
from crl.scm.icp import fisher, icp, welch

D, N, TARGET = 4, 200, 2


def environments(seed, *moved):
    """0 -> 2 <- 1, 2 -> 3, and an environment for each of ``moved``, whose noises it moves."""
    rng = np.random.default_rng(seed)
    found = []
    for columns in [(), *moved]:
        s = rng.normal(size=(N, D))
        s[:, list(columns)] = s[:, list(columns)] * 1.7 + 1
        s[:, 2] += s[:, 0] + s[:, 1]
        s[:, 3] += s[:, 2]
        found.append(s.astype(np.float32))
    return found


def data_of(xs):
    return crl.as_data(np.concatenate(xs), np.repeat(np.arange(len(xs)), [len(x) for x in xs]))


@jax.jit
def fitted(data):
    return icp(TARGET).init(jax.random.key(0), data)


def p_values_by_definition(xs):
    """Of each set of columns, with scipy's tests and regressions on the rows."""
    found = {}
    x = np.concatenate(xs).astype(float)
    others = [i for i in range(D) if i != TARGET]
    for size in range(D):
        for chosen in itertools.combinations(others, size):
            a = np.c_[x[:, list(chosen)], np.ones(len(x))]
            rest = x[:, TARGET] - a @ np.linalg.lstsq(a, x[:, TARGET], rcond=None)[0]
            parts = np.split(rest, np.cumsum([len(e) for e in xs])[:-1])
            p = []
            for e, part in enumerate(parts):
                other = np.concatenate([q for k, q in enumerate(parts) if k != e])
                p.append(scipy.stats.ttest_ind(part, other, equal_var=False).pvalue)
                ratio = np.var(part, ddof=1) / np.var(other, ddof=1)
                law = scipy.stats.f(len(part) - 1, len(other) - 1)
                p.append(2 * min(law.cdf(ratio), law.sf(ratio)))
            tests = 2 * len(xs) if len(xs) > 2 else 2
            found[chosen] = min(1, tests * min(p))
    return found


@pytest.mark.parametrize("moved", [[(0, 3)], [(0, 1), (3,)]])
def test_p_values_are_those_of_all_sets_by_scipy(moved):
    for seed in range(3):
        xs = environments(seed, *moved)
        by_set = p_values_by_definition(xs)
        out = fitted(data_of(xs))
        assert out.num_accepted == sum(p > 0.05 for p in by_set.values())
        for i in set(range(D)) - {TARGET}:
            expected = max(p for chosen, p in by_set.items() if i not in chosen)
            np.testing.assert_allclose(out.p_values[i], expected, rtol=2e-3, atol=1e-6)


def mapped(num, alpha, *moved):
    """Fits of ``num`` datasets in one program."""
    batch = [data_of(environments(seed, *moved)) for seed in range(num)]
    data = jax.tree.map(lambda *a: jnp.stack(a), *batch)
    return jax.jit(jax.vmap(lambda d: icp(TARGET, alpha).init(jax.random.key(0), d)))(data)


def test_causes_that_the_environments_move_are_found_and_effects_are_not():
    out = mapped(40, 0.05, (0,), (1,), (3,))
    found = np.asarray(out.is_cause)
    assert np.mean(found[:, 0] & found[:, 1]) > 0.85 and not found[:, 3].any()
    assert np.mean(mapped(40, 0.05, (), (), ()).is_cause) < 0.05  # no change says nothing


@pytest.mark.slow
def test_false_causes_are_as_rare_as_the_level_says_and_the_control_is_not():
    """Environments that move an effect and a cause of the target."""
    out = mapped(400, 0.2, (0, 3))
    assert np.mean(out.is_cause[:, 3]) <= 0.2 + 2 * (0.2 * 0.8 / 400) ** 0.5
    assert np.mean(out.num_accepted == 0) < 0.2
    # The control: the target's own noise changes, so that no set is right.
    out = mapped(400, 0.2, (2,))
    assert np.mean(out.is_cause[:, 3] | (out.num_accepted == 0)) > 0.9


def test_p_values_stand_for_any_number_of_rows():
    """In single precision, where the incomplete beta function fails from 10,000 rows on."""
    for n in (20, 299, 301, 10_000, 1_000_000):
        spread = (4 / n) ** 0.5
        for z in (0.5, 2.0, 4.0):
            n_a, n_b = jnp.float32(n), jnp.float32(2 * n)
            ratio = np.float32(1 + z * spread)
            law = scipy.stats.f(n, 2 * n)
            found = fisher(ratio, n_a, n_b)
            np.testing.assert_allclose(
                found, 2 * min(law.cdf(ratio), law.sf(ratio)), rtol=0.02
            )
            found = welch(np.float32(z * spread), np.float32(1), n_a, np.float32(3), n_b)
            alike = scipy.stats.ttest_ind_from_stats(
                np.float32(z * spread), 1, n, 0, 3**0.5, 2 * n, equal_var=False
            )
            np.testing.assert_allclose(found, alike.pvalue, rtol=0.02)


def test_icp_equals_causalicp():
    causalicp = pytest.importorskip("causalicp")
    for seed in range(20):
        xs = environments(seed, [(0, 3), (0, 1), (0, 1, 3), (3,)][seed % 4])
        theirs, ours = causalicp.fit(xs, TARGET), fitted(data_of(xs))
        found = set(np.flatnonzero(ours.is_cause).tolist())
        assert found == (theirs.estimate or set())
        assert ours.num_accepted == len(theirs.accepted_sets)


@pytest.mark.parametrize(
    "method, data, words",
    [
        (icp(4), data_of(environments(0, (0,))), r"target in 0\.\.3, a column of x, got 4"),
        (icp(0), grouped(jnp.asarray(environments(0, (0,))[0])), "two environments or more"),
        (
            icp(0),
            data_of([environments(0, (0,))[0], environments(0, (0,))[1][:2]]),
            r"rows \[200, 2\]",
        ),
        (
            icp(0),
            data_of([x[:, [0, 1, 0]] for x in environments(0, (0,))]),
            "copies of one another",
        ),
        (icp(0), data_of([x[:2] for x in environments(0, (0,))]), "3 rows at least"),
        (icp(0), data_of([np.zeros((30, 14), np.float32)] * 2), "at most 13 columns"),
    ],
)
def test_data_in_which_nothing_can_be_tested_is_refused(method, data, words):
    with pytest.raises(ValueError, match=f"icp needs .*{words}"):
        method.validate(data)


def test_options_out_of_range_are_refused():
    for options, words in [((-1,), "target"), ((1.5,), "target"), ((0, 1.0), "alpha < 1")]:
        with pytest.raises(ValueError, match=f"icp needs {words}"):
            icp(*options)
