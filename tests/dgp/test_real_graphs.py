"""Real graphs: files written here in the packages' formats, and the packages' own if there."""

import gzip
import importlib.util
import json
import sys

import jax
import numpy as np
import pytest
import scipy.stats

from crl.dgp.real_graphs import (
    SACHS_CONDITIONS,
    gaussian_network,
    network_graph,
    sachs,
    tuebingen,
)

KEY = jax.random.key(0)


def needs(package):
    is_missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(is_missing, reason=f"{package} is not installed")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A function (path, text or bytes) that writes a file of a package found before others."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(path, content):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.relative_to(tmp_path).parts[0] / "__init__.py").write_text("1 / 0")
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        importlib.invalidate_caches()

    return write


@pytest.mark.parametrize(
    ("make", "package"),
    [(sachs, "cdt"), (tuebingen, "cdt"), (gaussian_network, "pgmpy")],
)
def test_without_its_package_it_says_what_to_install(make, package, monkeypatch, packages):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"crl\[graphs\].*--no-deps {package}"):
        make()
    monkeypatch.delitem(sys.modules, package)
    packages(f"{package}/other", "")
    with pytest.raises(FileNotFoundError, match="this version does not bring"):
        make()


# --- pairs ------------------------------------------------------------------------------


def written_pairs(packages):
    """Pair p of sizes 40, 20, 30: the cause counts from 1000 p, the effect is its negative."""
    lines = ["SampleID,A,B"]
    for p, size in enumerate((40, 20, 30)):
        a = 1000 * p + np.arange(size)
        lines.append(f"pair{p},{' '.join(map(str, a))},{' '.join(map(str, -a))}")
    packages("cdt/data/resources/Tuebingen_pairs.csv", "\n".join(lines) + "\n")


def test_a_pair_keeps_its_rows_and_its_cause_whichever_column_comes_first(packages):
    """24 worlds: that one of 2 sides or of 2 pairs is missing has probability 1e-7."""
    written_pairs(packages)
    dgp = tuebingen(num_rows=24)
    seen = set()
    for seed in range(24):
        world = dgp.init(jax.random.key(seed))
        fit, judge = dgp.sample(KEY, world, 18), dgp.held_out(KEY, world, 6)
        x = np.concatenate([fit.data.x, judge.data.x])
        assert len(set(x[:, 0])) == 24  # no row twice, none in both parts
        np.testing.assert_array_equal(x[:, 0], -x[:, 1])
        cause = int(fit.truth.graph[1, 0])  # the column that the edge leaves from
        np.testing.assert_array_equal(fit.truth.graph, [[0, 1 - cause], [cause, 0]])
        assert np.all(x[:, cause] >= 0)
        seen.add((cause, int(x[:, cause].max()) // 1000))
    assert seen == {(0, 0), (1, 0), (0, 2), (1, 2)}  # the pair of 20 rows is left out


def test_pairs_with_too_few_rows_are_refused(packages):
    written_pairs(packages)
    with pytest.raises(ValueError, match="num_rows <= 40, the rows of the longest pair"):
        tuebingen(num_rows=41)
    dgp = tuebingen(num_rows=24)
    with pytest.raises(ValueError, match="at most 18 rows to fit on, got n=19"):
        dgp.sample(KEY, dgp.init(KEY), 19)


# --- networks ---------------------------------------------------------------------------


def law(variance, constant, **slopes):
    coefficients = {"(Intercept)": [constant], **{k: [v] for k, v in slopes.items()}}
    return {"coefficients": coefficients, "variance": [variance], "parents": list(slopes)}


NETWORK = {
    "nodes": ["c", "a", "b"],
    "arcs": [["a", "b"], ["a", "c"], ["b", "c"]],
    "cpds": {"a": law(4.0, 1.0), "b": law(1.0, -2.0, a=0.5), "c": law(0.25, 0.0, a=-1.0, b=3)},
}


def test_rows_of_a_gaussian_network_have_its_law(packages):
    """Against the moments worked out by hand: a, then b = a / 2 - 2, then c = 3 b - a.

    Of 4000 rows; tolerances are five standard errors.
    """
    packages("pgmpy/utils/example_models/small.json", json.dumps(NETWORK))
    dgp = gaussian_network("small")
    data, truth = dgp.sample(KEY, dgp.init(KEY), 4000)
    np.testing.assert_array_equal(truth.graph, [[0, 0, 0], [1, 0, 1], [1, 0, 0]])
    mean = np.array([3 * -1.5 - 1, 1, -1.5])
    of_a, of_b = 2.0, 1.0  # cov(b, a), and the noise of b
    var_b = 0.25 * 4 + of_b
    cov_ca, cov_cb = 3 * of_a - 4, 3 * var_b - of_a
    var_c = 9 * var_b + 4 - 6 * of_a + 0.25
    cov = np.array([[var_c, cov_ca, cov_cb], [cov_ca, 4, of_a], [cov_cb, of_a, var_b]])
    x = np.asarray(data.x, float)
    error = np.sqrt(np.diag(cov) / 4000)
    assert np.all(np.abs(x.mean(0) - mean) < 5 * error)
    scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    assert np.all(np.abs(np.cov(x.T) - cov) < 5 * scale * np.sqrt(2 / 4000))
    expected = scipy.stats.multivariate_normal(mean, cov).logpdf(x)
    np.testing.assert_allclose(truth.log_prob, expected, rtol=1e-4, atol=1e-3)


def test_an_unknown_network_is_answered_with_the_nearest(packages):
    packages("pgmpy/utils/example_models/small.json", json.dumps(NETWORK))
    with pytest.raises(ValueError, match="did you mean 'small'"):
        gaussian_network("smal")


def test_the_graph_of_a_discrete_network_is_read_from_its_laws(packages):
    text = (
        "network unknown {\n}\nvariable b-1 {\n  type discrete [ 2 ] { yes, no };\n}\n"
        "variable a {\n}\nvariable c {\n}\nprobability ( a ) {\n  table 0.5, 0.5;\n}\n"
        "probability ( b-1 | a ) {\n  (yes) 0.1, 0.9;\n}\n"
        "probability ( c | a, b-1 ) {\n  (yes, no) 1.0, 0.0;\n}\n"
    )
    packages("pgmpy/utils/example_models/tiny.bif.gz", gzip.compress(text.encode()))
    np.testing.assert_array_equal(network_graph("tiny"), [[0, 0, 1], [1, 0, 1], [0, 0, 0]])


# --- the packages' own ------------------------------------------------------------------


@needs("cdt")
def test_the_conditions_of_the_sachs_table_begin_where_its_law_changes():
    """By 11 squared t statistics of the 150 rows before and after a row, summed.

    At every named row the sum is larger than anywhere within a condition. Of 160 rows around
    it the named one is the largest, but for the first, ICAM-2, whose change is the weakest:
    there it is so to 10 rows.
    """
    world, width = sachs().init(KEY), 150
    x = np.asarray(world.data.x, float)
    begins = np.cumsum(list(SACHS_CONDITIONS.values()))[:-1]

    def change(row):
        a, b = x[row - width : row], x[row : row + width]
        return np.sum((a.mean(0) - b.mean(0)) ** 2 / ((a.var(0) + b.var(0)) / width))

    rows = range(width, len(x) - width, 3)
    within = [change(row) for row in rows if np.min(np.abs(row - begins)) > width]
    assert min(change(row) for row in begins) > 1.5 * max(within)
    off = [max(range(b - 80, b + 80), key=change) - b for b in begins]
    assert abs(off[0]) <= 10 and not np.any(off[1:])


@needs("cdt")
def test_the_consensus_has_eighteen_edges_and_a_cycle():
    sample = sachs().sample(KEY, sachs().init(KEY), 500)
    assert sample.data.x.shape == (9 * 500, 11) and sample.truth.graph.sum() == 18
    plcg, pip2, pip3 = 2, 3, 4
    assert all(sample.truth.graph[i, j] for i, j in [(plcg, pip2), (pip2, pip3), (pip3, plcg)])


@needs("pgmpy")
@pytest.mark.parametrize(
    ("name", "nodes", "edges"),
    [("asia", 8, 8), ("sachs", 11, 17), ("alarm", 37, 46), ("hailfinder", 56, 66)],
)
def test_discrete_networks_have_the_sizes_that_their_repository_states(name, nodes, edges):
    graph = network_graph(name)
    assert graph.shape == (nodes, nodes) and graph.sum() == edges
