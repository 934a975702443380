"""What the conformance suite compares: numbers of trees, perfect and random claims."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import Data, PyTree, Readout, Truth
from crl.numerics.linalg import unit_rows


def numbers(tree: PyTree):
    """(path, numpy array) of every leaf; typed keys as their data."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        yield jax.tree_util.keystr(path), np.asarray(leaf)


def assert_close(a: PyTree, b: PyTree, message: str) -> None:
    """Raise unless the numbers of both trees agree to rounding error in float32."""
    for (path, p), (_, q) in zip(numbers(a), numbers(b), strict=True):
        # Float32 sums of a few thousand terms in another order agree to about 1e-4.
        np.testing.assert_allclose(p, q, rtol=2e-3, atol=2e-4, err_msg=f"{message} {path}")


def first(value):
    """A metric's headline: itself, or the first entry of a dict."""
    return next(iter(value.values())) if isinstance(value, dict) else value


def scalar(value) -> float:
    """A metric's headline as a number."""
    return float(first(value))


def perfect_claims(truth: Truth) -> Readout:
    """The readout that claims exactly the truth."""
    shared = {f: getattr(truth, f) for f in set(Readout._fields) & set(Truth._fields)}
    graph, mixing = truth.graph, truth.mixing
    if graph is not None:
        # In a DAG the number of ancestors sorts causes first.
        d = graph.shape[0]
        ancestors = np.linalg.matrix_power(np.asarray(graph) + np.eye(d), d) > 0
        shared["order"] = jnp.argsort(jnp.asarray(ancestors.sum(0)))
        shared["edge_prob"] = graph.astype(jnp.float32)
    if mixing is not None:
        shared["unmixing"] = jnp.linalg.pinv(mixing)
    return Readout(**shared)


def random_claims(key: Array, like: Readout, data: Data) -> Readout:
    """Claims drawn at random with the shapes of ``like``: what knowing nothing scores."""
    keys = dict(zip(Readout._fields, jax.random.split(key, len(Readout._fields))))

    def draw(name, value):
        k = keys[name]
        if value is None or name == "diag":
            return None
        if name == "z":  # a random linear encoder of what was observed
            x = data.x.reshape(data.x.shape[0], -1)
            return x @ jax.random.normal(k, (x.shape[1], value.shape[1]), x.dtype)
        if name == "order":
            return jax.random.permutation(k, value)
        if name in ("graph", "edge_prob"):
            p = jax.random.permutation(keys["order"], value.shape[0])
            full = jnp.triu(jnp.ones(value.shape, value.dtype), 1)
            return full[p][:, p]
        noise = jax.random.normal(k, value.shape)
        if name == "dictionary":
            noise = unit_rows(noise)
        return noise

    return Readout(**{f: draw(f, v) for f, v in like._asdict().items()})
