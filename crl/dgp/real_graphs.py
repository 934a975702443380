"""Real data with a graph that somebody knows, read from packages that bring it along.

Nothing is downloaded and nothing of it lies here: the tables are read from where cdt and
pgmpy are installed, without importing either. Whoever publishes numbers cites the sources.
"""

import gzip
import importlib.util
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options
from crl.core import DGP, Sample, Truth, grouped
from crl.dgp.real import from_arrays
from crl.names import nearest
from crl.numerics.linalg import dot

# Rows of each condition of the Sachs table, in the order in which it holds them. The table
# itself does not say: see tests/dgp/test_real_graphs.py.
SACHS_CONDITIONS = {
    "anti-CD3/CD28": 853,
    "ICAM-2": 902,
    "AKT inhibitor": 911,
    "G06976": 723,
    "psitectorigenin": 810,
    "U0126": 799,
    "LY294002": 848,
    "PMA": 913,
    "b2cAMP": 707,
}
_CDT = "cdt", "data", "resources"
_PGMPY = "pgmpy", "utils", "example_models"


def sachs(log: bool = True, test: float = 0.25) -> DGP:
    """Eleven proteins and lipids of human T cells under nine conditions, with a consensus.

    7466 cells, one a row. Environments: the reagents of ``SACHS_CONDITIONS``, base the
    general stimulation alone; what each acts on is not given. log: of the measurements,
    which are positive and skewed. Truth.graph: the 18 edges of the consensus as cdt has
    them; they hold the cycle plcg -> PIP2 -> PIP3 -> plcg, so that no DAG is right and
    ``sid`` is undefined. test: as in ``from_arrays``.

    Raises ModuleNotFoundError without cdt. Source: Sachs et al., Science 308 (2005), 523.
    """
    file = _shipped("sachs", *_CDT, "cyto_full_data.csv")
    x = np.loadtxt(file, np.float32, delimiter=",", skiprows=1)  # (7466, 11)
    names = file.read_text().partition("\n")[0].strip().split(",")
    rows = list(SACHS_CONDITIONS.values())
    if len(x) != sum(rows):
        raise ValueError(
            f"expected the {sum(rows)} rows of the Sachs table, got {len(x)} in {file.name}: "
            "crl knows which condition a row belongs to in cdt 0.6.0"
        )
    edges = _shipped("sachs", *_CDT, "cyto_full_target.csv").read_text().split("\n")[1:]
    graph = _graph(names, [line.replace('"', "").split(",") for line in edges if line])
    env = np.repeat(np.arange(len(rows)), rows)
    return from_arrays(np.log(x) if log else x, env, test=test, graph=graph)


def tuebingen(num_rows: int = 300, test: float = 0.25) -> DGP:
    """Ninety-nine pairs of which one is known to cause the other; a world is one of them.

    Which pair is a draw, among those with ``num_rows`` rows or more (74 have 300), and so is
    which column comes first: whoever always points one way is right half the time. num_rows
    of its rows, in random order; the share ``test`` of them to judge on. Values as they
    are, some of them whole numbers with many ties. Pairs come in groups of one source, so
    that they are fewer than it seems. Truth: the graph.

    Raises ModuleNotFoundError without cdt, and ValueError for more rows than any pair has.
    Source: Mooij et al., JMLR 17 (2016), 32; each pair has a source of its own.
    """
    check_options("tuebingen", at_least_one={"num_rows": num_rows})
    text = _shipped("tuebingen", *_CDT, "Tuebingen_pairs.csv").read_text()
    pairs = [
        np.array([column.split() for column in line.split(",")[1:]], np.float32)
        for line in text.strip().split("\n")[1:]
    ]  # (2, rows) each, the cause first
    size = np.array([p.shape[1] for p in pairs])
    pairs = [p for p in pairs if p.shape[1] >= num_rows]
    num_test = round(test * num_rows)
    if not pairs or not 0 < num_test < num_rows:
        raise ValueError(
            f"expected num_rows <= {size.max()}, the rows of the longest pair, and a share "
            f"test in (0, 1) that leaves rows for both parts, got num_rows={num_rows} and "
            f"test={test}"
        )
    size = jnp.asarray([p.shape[1] for p in pairs])  # (pairs,)
    table = np.zeros((len(pairs), 2, int(size.max())), np.float32)
    for mine, pair in zip(table, pairs):
        mine[:, : pair.shape[1]] = pair

    def init(key):
        key_pair, key_rows, key_side = jax.random.split(key, 3)
        which = jax.random.randint(key_pair, (), 0, len(pairs), jnp.int32)
        place = jax.random.uniform(key_rows, table.shape[2:], jnp.float32)
        place = jnp.where(jnp.arange(len(place)) < size[which], place, jnp.inf)
        rows = jnp.argsort(place)[:num_rows]
        x = jnp.asarray(table)[which][:, rows].T  # (num_rows, 2)
        is_swapped = jax.random.uniform(key_side, (), jnp.float32) < 0.5
        return jnp.where(is_swapped, x[:, ::-1], x), is_swapped

    def law(first, last, part):
        def sample(key, world, n):
            x, is_swapped = world
            if n > last - first:
                raise ValueError(
                    f"expected at most {last - first} rows to {part}, got n={n}: num_rows is "
                    f"{num_rows}, and test={test} the share to judge on"
                )
            rows = jax.random.permutation(key, last - first)[:n] + first
            side = is_swapped.astype(jnp.int32)
            graph = jnp.zeros((2, 2), jnp.int32).at[side, 1 - side].set(1)
            return Sample(grouped(x[rows]), Truth(graph=graph))

        return sample

    return DGP(init, law(num_test, num_rows, "fit on"), None, law(0, num_test, "judge on"))


def gaussian_network(name: str = "ecoli70") -> DGP:
    """Rows of a linear Gaussian network that was fitted to real data.

    name: 'ecoli70' (46 genes, 70 edges), 'arth150' (107, 150), 'magic-niab' (44, 66) or
    'magic-irri' (64, 102). The same world whatever the key: graph and coefficients are the
    package's. Real are structure, strength of effects and units; additive Gaussian noises
    are the model's. Truth: z the noises, graph, log_prob.

    Raises ModuleNotFoundError without pgmpy, and ValueError for another name. Source: the
    network repository of bnlearn, M. Scutari, which names that of each.
    """
    file = _network("gaussian_network", name, ".json")
    network = json.loads(file.read_text())
    names, laws = network["nodes"], network["cpds"]
    graph = _graph(names, network["arcs"])
    d = len(names)
    weights, constant, sd = np.zeros((d, d)), np.zeros(d), np.zeros(d)
    for j, node in enumerate(names):
        slopes = dict(laws[node]["coefficients"])
        constant[j] = slopes.pop("(Intercept)")[0]
        sd[j] = np.sqrt(laws[node]["variance"][0])
        for cause, (slope,) in slopes.items():
            weights[names.index(cause), j] = slope
    total = np.linalg.inv(np.eye(d) - weights)  # x = (constant + z) total
    world = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (constant, sd, total))

    def init(key):
        del key  # there is one world
        return world

    def sample(key, world, n):
        constant, sd, total = world
        unit = jax.random.normal(key, (n, d), jnp.float32)
        log_prob = jnp.sum(jax.scipy.stats.norm.logpdf(unit) - jnp.log(sd), 1)
        truth = Truth(z=unit * sd, graph=jnp.asarray(graph), log_prob=log_prob)
        return Sample(grouped(dot(constant + unit * sd, total)), truth)

    def mix(world, z):
        constant, _, total = world
        return dot(constant + z, total)

    return DGP(init, sample, mix)


def network_graph(name: str) -> Array:
    """The (d, d) int32 graph of a discrete network of pgmpy, [i, j] for i -> j.

    name: 'asia' (8 nodes), 'sachs' (11), 'child' (20), 'insurance' (27), 'alarm' (37), ...
    A real structure for ``multi_environment_scm(graph=...)``, whose mechanisms are drawn: the
    learners of crl take continuous variables, and the network's own tables are not read.

    Raises ModuleNotFoundError without pgmpy, and ValueError for another name.
    """
    text = gzip.decompress(_network("network_graph", name, ".bif.gz").read_bytes()).decode()
    names = re.findall(r"^variable\s+(\S+)", text, re.MULTILINE)
    laws = re.findall(r"^probability\s*\(\s*(\S+)\s*\|\s*([^)]*)\)", text, re.MULTILINE)
    return _graph(names, [(i.strip(), j) for j, all_i in laws for i in all_i.split(",")])


def _graph(names: list[str], edges: list) -> np.ndarray:
    """The (d, d) int32 adjacency of edges (cause, effect) by name."""
    place = {name: i for i, name in enumerate(names)}
    graph = np.zeros((len(names), len(names)), np.int32)
    for cause, effect in edges:
        graph[place[cause], place[effect]] = 1
    return graph


def _network(who: str, name: str, ending: str) -> Path:
    """The file of a network of pgmpy."""
    folder = _shipped(who, *_PGMPY)
    known = sorted(f.name.removesuffix(ending) for f in folder.glob(f"*{ending}"))
    if name not in known:
        raise ValueError(nearest(name, known, "network"))
    return folder / f"{name}{ending}"


def _shipped(who: str, package: str, *parts: str) -> Path:
    """A file of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{who} needs the files of {package}, which is not installed: pip install "
            f"'crl[graphs]', or pip install --no-deps {package} for the files alone"
        )
    file = Path(found.submodule_search_locations[0], *parts)
    if not file.exists():
        raise FileNotFoundError(
            f"{who} needs {'/'.join(parts)} of {package}, which this version does not bring: "
            "cdt 0.6.0 and pgmpy 1.1.2 do"
        )
    return file
