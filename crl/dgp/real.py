"""Real data: arrays as Data, arrays as a DGP, and the digits of scikit-learn."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from crl.check import check_data, nearest
from crl.core import DGP, PER_ROW, Data, Sample, Truth


def as_data(
    x: ArrayLike, env: ArrayLike | None = None, aux: Mapping[str, ArrayLike] | None = None
) -> Data:
    """A Data from arrays.

    x: (n, p) or (n, height, width, channels) numbers; integers become float32.
    env: (n,) environment labels of any kind, renamed 0, 1, ... in sorted order, so that
    the smallest is the base; rows come grouped by it, the same number in each. None: one
    environment. aux: side information by name, each (n, ...); see crl.core.AUX.

    Raises ValueError for shapes that do not fit, for values that are not finite and for
    environments that are not grouped or of different sizes.
    """
    data = _gather(x, env, aux)
    check_data(data)
    labels = np.asarray(data.env)
    sizes = np.bincount(labels)
    if np.any(np.diff(labels) < 0):
        raise ValueError(
            "expected rows grouped by environment, got them mixed: sort x, env and aux with "
            "np.argsort(env, kind='stable')"
        )
    if np.any(sizes != sizes[0]):
        raise ValueError(
            f"expected the same number of rows in each environment, got {sizes.tolist()}: "
            "drop rows, or draw equal numbers with crl.dgp.real.from_arrays"
        )
    return data


def from_arrays(
    x: ArrayLike,
    env: ArrayLike | None = None,
    aux: Mapping[str, ArrayLike] | None = None,
    **truth: ArrayLike,
) -> DGP:
    """Real data as a DGP, with whatever truth exists.

    x, env, aux as in ``as_data``, but environments may be mixed and of any sizes.
    truth: fields of crl.core.Truth by name (``z=``, ``graph=``, ``dictionary=``, ...);
    truth.x is x. There is one world, whatever the key. ``sample(key, world, n)`` draws n
    rows per environment without replacement, in random order, and raises ValueError when
    an environment has fewer; to judge on held-out rows, sample once and ``crl.split``.
    ``mix`` is None: nobody knows it.

    Raises ValueError for shapes that do not fit and for unknown truth.
    """
    data = _gather(x, env, aux)
    check_data(data)
    num_rows = data.x.shape[0]
    known = set(Truth._fields) - {"x", "jacobian"}  # jacobian: bound to the order of rows
    for name, value in truth.items():
        if name not in known:
            raise ValueError(nearest(name, known, "truth"))
        if name in PER_ROW and np.shape(value)[:1] != (num_rows,):
            raise ValueError(
                f"expected {name} with {num_rows} rows like x, got shape {np.shape(value)}"
            )
    truth = Truth(x=data.x, **{k: jnp.asarray(v) for k, v in truth.items()})
    sizes = np.bincount(data.env)  # (E,)
    first = np.cumsum(sizes) - sizes  # where each environment starts, once sorted

    def init(key):
        del key
        return Sample(data, truth)

    def sample(key, world, n):
        if n > sizes.min():
            raise ValueError(
                f"expected at most {sizes.min()} rows per environment, got n={n}: the "
                f"smallest of the {len(sizes)} environments has no more"
            )
        order = jnp.lexsort(
            (jax.random.uniform(key, (num_rows,), jnp.float32), world.data.env)
        )
        rows = order[(first[:, None] + np.arange(n)).ravel()]  # (E * n,)
        truth = {
            f: v[rows] if f in PER_ROW and v is not None else v
            for f, v in world.truth._asdict().items()
        }
        return Sample(jax.tree.map(lambda a: a[rows], world.data), Truth(**truth))

    return DGP(init, sample, None)


def digits() -> DGP:
    """The 1797 handwritten digits that scikit-learn ships, as a DGP without latent truth.

    x: (n, 64) pixels of 8 x 8 images, row by row, scaled from 0..16 to [0, 1]; three pixels
    of the border are 0 throughout, so cov(x) has rank 61. aux["y"]: (n, 10) one-hot digit.
    Raises ModuleNotFoundError without scikit-learn (the extra ``data``).
    Source: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "digits needs scikit-learn, which is not installed: pip install 'crl[data]'"
        ) from error
    x, y = load_digits(return_X_y=True)
    return from_arrays((x / 16).astype(np.float32), aux={"y": np.eye(10, dtype=np.float32)[y]})


def _gather(x: ArrayLike, env: ArrayLike | None, aux: Mapping | None) -> Data:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.float32)
    labels = np.zeros(x.shape[:1], np.int32)
    if env is not None:
        _, labels = np.unique(np.asarray(env), return_inverse=True)
    aux = {name: jnp.asarray(value) for name, value in (aux or {}).items()}
    return Data(x, jnp.asarray(labels, jnp.int32), aux)
