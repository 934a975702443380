import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_worlds import linear_world

from crl.core import grouped
from crl.scm.direct_lingam import direct_lingam
from crl.scm.ica_lingam import ica_lingam, noises_by_ica

NOISES = ("exponential", "laplace", "uniform")


@functools.cache
def program(factory):
    return jax.jit(lambda data: factory().init(jax.random.key(0), data))


def fit(x, factory=ica_lingam, **given):
    none = np.zeros((x.shape[1],) * 2)
    nothing = {"required": none, "forbidden": none, "tier": np.zeros(len(none))}
    given = {k: jnp.asarray(v, jnp.float32) for k, v in (nothing | given).items()}
    data = grouped(jnp.asarray(x), **given)
    factory().validate(data)
    return program(factory)(data)


def test_unmixing_is_that_of_the_model_with_noises_in_their_places():
    """(I - B) over the noises' scales, up to errors that grow with the norm of a column."""
    scales = {"exponential": 1, "laplace": 2**0.5, "uniform": 12**-0.5}
    for seed, noise in enumerate(NOISES):
        x, weights = linear_world(seed, 4, 3000, noise)
        find = jax.jit(noises_by_ica, static_argnums=3)
        unmixing, delta = find(jax.random.key(seed), jnp.asarray(x), 1e-4, 100)
        expected = (np.eye(4) - weights.T) / scales[noise]
        signs = np.sign(np.diagonal(unmixing))[:, None]
        gap = np.abs(unmixing * signs - expected) / np.linalg.norm(expected, axis=0)
        assert np.max(gap) < 0.06
        assert delta < 1e-3


def test_the_graph_is_the_true_one_in_any_units():
    """And that of DirectLiNGAM, which shares no step before pruning, in all but one world."""
    same = 0
    for seed in range(6):
        x, weights = linear_world(seed, 4, 3000, NOISES[seed % 3])
        np.testing.assert_array_equal(fit(x).graph, weights != 0)
        units = np.array([1, 1000, 1e-3, 5], np.float32)
        np.testing.assert_array_equal(fit(x * units - 3).graph, weights != 0)
        same += np.array_equal(fit(x, direct_lingam).graph, weights != 0)
    assert same >= 5


def test_gaussian_noises_are_told_by_a_low_negentropy():
    """The control: no rotation is better than another."""
    low = [fit(linear_world(s, 4, 3000, "gaussian")[0]).diag for s in range(3)]
    high = [fit(linear_world(s, 4, 3000, "laplace")[0]).diag for s in range(3)]
    assert max(d["second_negentropy"] for d in low) < 0.01
    assert min(d["second_negentropy"] for d in high) > 0.05


def test_prior_knowledge_is_kept_and_contradictions_refused():
    x, weights = linear_world(1, 4, 3000, "laplace")
    i, j = np.argwhere(weights)[0]
    one = np.zeros((4, 4))
    one[i, j] = 1
    assert fit(x).graph[i, j] == 1 and fit(x, forbidden=one).graph[i, j] == 0
    turned = fit(x, required=one.T)
    assert turned.graph[j, i] == 1 and turned.graph[i, j] == 0
    assert fit(x, tier=[3, 1, 2, 0]).order.tolist() == [3, 1, 2, 0]
    for columns, given, words in [
        (x[:4], {}, "more rows than columns"),
        (np.c_[x[:, :3], x[:, 0]], {}, "column 3 equal to column 0"),
        (x, {"required": np.roll(np.eye(4), 1, 1)}, "without cycles"),
    ]:
        with pytest.raises(ValueError, match=f"^ica_lingam needs .*{words}"):
            fit(columns.astype(np.float32), **given)


def test_ica_lingam_finds_the_graphs_of_lingam():
    """18 of 20 at least; theirs sorts by effects in the units of x, ours by relative error."""
    lingam = pytest.importorskip("lingam")
    same = 0
    for seed in range(20):
        x, _ = linear_world(seed, 6, 3000, NOISES[seed % 3])
        theirs = lingam.ICALiNGAM(0).fit(x.astype(float)).adjacency_matrix_.T != 0
        same += np.array_equal(fit(x).graph, theirs)
    assert same >= 18
