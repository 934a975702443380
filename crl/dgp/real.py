"""Real data: arrays as a DGP, and the digits of scikit-learn."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from crl.check import as_data
from crl.core import DGP, PER_ROW, Data, Sample, Truth, take_rows
from crl.names import nearest


class World(NamedTuple):
    """All rows, grouped by environment, and the order in which they are divided."""

    data: Data
    truth: Truth
    order: Array  # (n,) rows in random order within their environment: in each the first
    #   are set apart to judge on


def from_arrays(
    x: ArrayLike,
    env: ArrayLike | None = None,
    aux: Mapping[str, ArrayLike] | None = None,
    given: Mapping[str, ArrayLike] | None = None,
    test: float = 0.25,
    **truth: ArrayLike,
) -> DGP:
    """Real data as a DGP, with whatever truth exists.

    x, env, aux, given as in ``crl.as_data``, but environments may be mixed. truth: fields of
    crl.core.Truth by name (``z=``, ``graph=``, ``dictionary=``, ...). test: the share of each
    environment's rows to judge on, static, in (0, 1); which ones is the world's choice.

    ``held_out(key, world, n)`` draws n rows per environment from those, ``sample`` from the
    others, both without replacement and in random order: no row is ever in both. They raise
    ValueError when an environment has fewer. ``mix`` is None: nobody knows it.

    Raises ValueError for shapes that do not fit, for unknown truth, and where an environment
    has less than one row for either part.
    """
    num_rows = len(x)
    known = set(Truth._fields) - {"jacobian", "other"}  # jacobian: bound to the rows' order
    for name, value in truth.items():
        if name not in known:
            raise ValueError(nearest(name, known, "truth"))
        if name in PER_ROW and np.shape(value)[:1] != (num_rows,):
            raise ValueError(
                f"expected {name} with {num_rows} rows like x, got shape {np.shape(value)}"
            )
    x, env, aux, truth = _grouped_by_environment(x, env, aux or {}, truth)
    data = as_data(x, env, aux, given)
    truth = Truth(**{k: jnp.asarray(v) for k, v in truth.items()})
    sizes = np.bincount(data.env)  # (E,)
    if not 0 < test < 1 or sizes.min() < 2:
        raise ValueError(
            f"expected 0 < test < 1 and two rows or more in each environment, got test={test} "
            f"and {sizes.tolist()} rows: one part is to fit on, the other to judge on"
        )
    num_test = np.clip(np.round(test * sizes).astype(int), 1, sizes - 1)
    place = np.arange(num_rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_test = place < np.repeat(num_test, sizes)  # (n,) of places in the world's order

    def init(key):
        return World(data, truth, _shuffled(key, np.asarray(data.env)))

    def law(is_mine, sizes, part):
        def sample(key, world, n):
            if n > sizes.min():
                raise ValueError(
                    f"expected at most {sizes.min()} rows per environment to {part}, got "
                    f"n={n}: the smallest of the {len(sizes)} environments has no more (test "
                    "is the share to judge on)"
                )
            first = np.cumsum(sizes) - sizes
            chosen = (first[:, None] + np.arange(n)).ravel()  # (E * n,)
            order = _shuffled(key, np.asarray(data.env)[is_mine])
            rows = world.order[is_mine][order[chosen]]
            picked = {
                name: value[rows] if name in PER_ROW and value is not None else value
                for name, value in world.truth._asdict().items()
            }
            return Sample(take_rows(world.data, rows), Truth(**picked))

        return sample

    to_fit = law(~is_test, sizes - num_test, "fit on")
    return DGP(init, to_fit, None, law(is_test, num_test, "judge on"))


def _shuffled(key: Array, env: np.ndarray) -> Array:
    """0..n-1 in random order within the environments, which are sorted."""
    return jnp.lexsort((jax.random.uniform(key, env.shape, jnp.float32), env))


def _grouped_by_environment(x, env, aux: Mapping, truth: Mapping) -> tuple:
    """The same with rows sorted by environment, where there are several."""
    if env is None or np.shape(env) != (len(x),):  # as_data says what is wrong with it
        return x, env, aux, truth
    order = np.argsort(np.asarray(env), kind="stable")

    def rows(value):
        return value[order] if np.shape(value)[:1] == order.shape else value

    aux = {name: rows(jnp.asarray(value)) for name, value in aux.items()}
    truth = {
        name: rows(jnp.asarray(value)) if name in PER_ROW else value
        for name, value in truth.items()
    }
    return jnp.asarray(x)[order], np.asarray(env)[order], aux, truth


def digits(test: float = 0.25) -> DGP:
    """The 1797 handwritten digits that scikit-learn ships, as a DGP without latent truth.

    x: (n, 64) pixels of 8 x 8 images, row by row, scaled from 0..16 to [0, 1]; three pixels
    of the border are 0 throughout, so cov(x) has rank 61. aux["y"]: (n, 10) one-hot digit.
    test: the share of rows to judge on. Raises ModuleNotFoundError without scikit-learn (the
    extra ``data``).
    Source: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "digits needs scikit-learn, which is not installed: pip install 'crl[data]'"
        ) from error
    x, y = load_digits(return_X_y=True)
    labels = np.eye(10, dtype=np.float32)[y]
    return from_arrays((x / 16).astype(np.float32), aux={"y": labels}, test=test)
