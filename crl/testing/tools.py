"""What the conformance suite compares: the numbers of two trees."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from crl.core import PyTree


def numbers(tree: PyTree) -> Iterator[tuple[str, np.ndarray]]:
    """(path, numpy array) of every leaf; typed keys as their data."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        yield jax.tree_util.keystr(path), np.asarray(leaf)


def assert_close(a: PyTree, b: PyTree, message: str) -> None:
    """Raise unless the numbers of both trees agree to rounding error in float32."""
    for (path, p), (_, q) in zip(numbers(a), numbers(b), strict=True):
        # Float32 sums of a few thousand terms in another order agree to about 1e-4, and what
        # an iteration made of them to a little less: of the size of the array, not of each
        # entry, which may be next to zero by chance.
        size = np.max(np.abs(p), initial=0, where=np.isfinite(p)) if p.dtype.kind == "f" else 0
        atol = max(2e-4, 1e-3 * float(size))
        np.testing.assert_allclose(p, q, rtol=2e-3, atol=atol, err_msg=f"{message} {path}")


def assert_same(a: PyTree, b: PyTree, message: str) -> None:
    """Raise unless the numbers of both trees agree to the last bit."""
    for (path, p), (_, q) in zip(numbers(a), numbers(b), strict=True):
        equal = p.dtype == q.dtype and np.array_equal(p, q, equal_nan=p.dtype.kind == "f")
        assert equal, f"{message} {path}"


def stacked(trees: list[PyTree]) -> PyTree:
    """Trees of one structure with a leading axis of them in every leaf."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
