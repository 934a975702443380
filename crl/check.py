"""Checks at the boundary: one sentence that says what was expected, what came, what to do.

They look at concrete values on the host, before anything is compiled. What only the run
can know is a value in the result (``Fit.diverged``), never an exception.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from crl.core import Data, Estimator, MissingClaim, PyTree, Readout, Task, draw
from crl.feed import draw_batch, hold_out


def is_concrete(value: Any) -> bool:
    """Whether ``value`` can be looked at: False for an option that is traced in a sweep."""
    return not isinstance(value, jax.core.Tracer)


def check_options(
    who: str,
    *,
    at_least_one: Mapping[str, int] | None = None,
    positive: Mapping[str, float] | None = None,
    nonnegative: Mapping[str, float] | None = None,
    one_of: Mapping[str, tuple[Any, Any]] | None = None,
) -> None:
    """Raise a ValueError for the first option of the factory ``who`` that is out of range.

    Each option by name; one_of: name -> (value, the values there are). Traced options pass,
    and so does none of these but a number: inf and NaN are out of every range.
    """
    ranges = [
        ("an integer >= 1", at_least_one, lambda v: hasattr(v, "__index__") and v >= 1),
        ("> 0", positive, lambda v: 0 < v < np.inf),
        (">= 0", nonnegative, lambda v: 0 <= v < np.inf),
    ]
    for words, options, holds in ranges:
        for name, value in (options or {}).items():
            if is_concrete(value) and not holds(value):
                raise ValueError(f"{who} needs {name} {words}, got {value!r}")
    for name, (value, known) in (one_of or {}).items():
        if value not in known:
            raise ValueError(f"{who} has {name} {', '.join(map(repr, known))}, got {value!r}")


def check_variables(who: str, x: np.ndarray) -> None:
    """Raise a ValueError where columns of x (n, d) are constant, or copies up to a scale.

    To rounding: values come rounded to eps of their level.
    """
    eps = np.finfo(x.dtype).eps
    sd = x.std(0, dtype=np.float64)
    constant = np.flatnonzero(sd <= 4 * eps * np.abs(x).max(0))
    if len(constant):
        raise ValueError(
            f"{who} needs columns that vary, got constant ones: {constant[:8].tolist()}: drop "
            "them"
        )
    correlation = np.atleast_2d(np.corrcoef(x, rowvar=False, dtype=np.float64))
    same = np.argwhere(np.triu(np.abs(correlation) >= 1 - 8 * eps, 1))
    if len(same):
        i, j = same[0]
        raise ValueError(
            f"{who} needs columns that are not copies of one another, got column {j} equal to "
            f"column {i} up to scale and shift ({len(same)} such pairs): drop one of each"
        )


def check_key(key: Array, ndim: int = 0) -> None:
    """Raise a TypeError unless ``key`` is typed, a ValueError unless it has ``ndim`` axes."""
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        kind = f"a raw {key.dtype} array" if hasattr(key, "dtype") else f"{key!r}"
        raise TypeError(f"expected a typed PRNG key, got {kind}: pass jax.random.key(seed)")
    if key.ndim != ndim:
        wanted = "one key" if ndim == 0 else "keys of shape (r,)"
        remedy = "keys[0], or fit_replicas" if ndim == 0 else "jax.random.split(key, r)"
        raise ValueError(f"expected {wanted}, got shape {key.shape}: pass {remedy}")


def as_data(
    x: ArrayLike,
    env: ArrayLike | None = None,
    aux: Mapping[str, ArrayLike] | None = None,
    given: Mapping[str, ArrayLike] | None = None,
) -> Data:
    """A Data from arrays of your own.

    x: (n, p) or (n, height, width, channels) numbers; integers become float32. env: (n,)
    environment labels of any kind, renamed 0, 1, ... in sorted order, so that the smallest
    is the base; rows come grouped by it. None: one environment. aux: side information by
    name, each (n, ...), see crl.core.AUX. given: facts about the whole, see crl.core.GIVEN;
    'count' is added.

    Raises ValueError for shapes that do not fit, for values that are not finite and for
    environments that are not grouped.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.float32)
    labels = np.zeros(x.shape[:1], np.int32)
    if env is not None:
        _, labels = np.unique(np.asarray(env), return_inverse=True)
    count = np.bincount(labels).astype(np.int32)
    data = Data(
        x,
        jnp.asarray(labels, jnp.int32),
        {name: jnp.asarray(value) for name, value in (aux or {}).items()},
        {
            "count": jnp.asarray(count),
            **{name: jnp.asarray(value) for name, value in (given or {}).items()},
        },
    )
    check_data(data)
    return data


def check_data(data: Data) -> None:
    """Raise a ValueError for ``data`` that no estimator can use.

    Looks at shapes, dtypes, finiteness of x, the environment labels, their order and their
    count. What entries of aux may be (NaN for missing ones) is up to the estimator that
    reads it.
    """
    if not isinstance(data, Data):
        raise ValueError(
            f"expected a crl.Data, got {type(data).__name__}: wrap an array with "
            "crl.as_data(x), pass sample.data of a sample"
        )
    x, env, aux, given, held = data
    for name, side in (("aux", aux), ("given", given)):
        if not isinstance(side, dict):
            raise ValueError(f"expected {name} to be a dict, got {side!r}: pass {{}} for none")
    if "count" not in given:
        raise ValueError(
            "expected given['count'], the rows of each environment, got none: make the Data "
            "with crl.as_data, or with crl.core.grouped inside a DGP"
        )
    for name, leaf in [("x", x), ("env", env), *aux.items(), *given.items()]:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise ValueError(
                f"expected {name} to be an array, got {type(leaf).__name__}: wrap it with "
                "np.asarray (env: zeros when there is one environment)"
            )
    if x.ndim < 2 or 0 in x.shape[1:] or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"expected x of shape (n, p) with a floating dtype, got shape {x.shape} and "
            f"dtype {x.dtype}: one row per observation, at least one column, "
            "x.astype('float32')"
        )
    n = x.shape[0]
    if n < 2:
        raise ValueError(f"expected at least 2 rows of x, got {n}: give more data")
    for name, leaf in [("x", x), ("env", env), *aux.items()]:
        if leaf.shape[:1] != (n,):
            raise ValueError(
                f"expected {name} with {n} rows like x, got shape {leaf.shape}: x, env and "
                "aux have one entry per row, what has none belongs in given"
            )
    if not jnp.issubdtype(env.dtype, jnp.integer) or env.ndim != 1:
        raise ValueError(
            f"expected env of shape ({n},) and integer dtype, got {env.shape} and "
            f"{env.dtype}: label environments 0, 1, 2, ..."
        )
    _check_finite(x)
    _check_environments(np.asarray(jax.device_get(env)), np.asarray(given["count"]))
    if held is not None:
        check_data(held)


def _check_environments(env: np.ndarray, count: np.ndarray) -> None:
    if env.min() < 0 or env.max() >= len(env) or not np.bincount(env).all():
        raise ValueError(
            "expected environment labels 0..E-1 without gaps, got "
            f"{np.unique(env).tolist()[:8]}: crl.as_data renames them"
        )
    if np.any(np.diff(env) < 0):
        raise ValueError(
            "expected rows grouped by environment, got them mixed: sort x, env and aux with "
            "np.argsort(env, kind='stable')"
        )
    found = np.bincount(env)
    if count.shape != found.shape or np.any(count != found):
        raise ValueError(
            f"expected given['count'] = {found.tolist()} as in env, got {count.tolist()}: "
            "make the Data with crl.as_data"
        )


@jax.jit
def all_finite(x: Array) -> Array:
    """Whether the sum of x is finite: one reduction, without a mask in memory."""
    return jnp.isfinite(jnp.sum(x))


def _check_finite(x: Array) -> None:
    if all_finite(x):  # the slow look is for the message only
        return
    bad = ~np.isfinite(jax.device_get(x))
    if not bad.any():  # finite entries whose sum overflows
        return
    rows = np.unique(np.nonzero(bad)[0])
    raise ValueError(
        f"expected finite x, got NaN or inf in {len(rows)} of {len(bad)} rows (first: row "
        f"{rows[0]}): drop or impute them"
    )


def check_estimator(estimator: Estimator) -> None:
    """Raise an error unless ``estimator`` is one, with numbers that make sense."""
    if not isinstance(estimator, Estimator):
        name = getattr(estimator, "__name__", type(estimator).__name__)
        hint = f"call the factory, {name}(...)" if callable(estimator) else "see crl.Estimator"
        raise TypeError(f"expected a crl.Estimator, got {name}: {hint}")
    num_steps, size, share = estimator.num_steps, estimator.batch_size, estimator.holdout
    if not hasattr(num_steps, "__index__") or num_steps < 0:
        raise ValueError(f"expected num_steps to be an integer >= 0, got {num_steps!r}")
    if size is not None and (not hasattr(size, "__index__") or size < 1):
        raise ValueError(f"expected batch_size to be an integer >= 1 or None, got {size!r}")
    if not 0 <= share <= 0.5:
        raise ValueError(f"expected holdout in [0, 0.5], got {share!r}")


def check_step(before: PyTree, after: PyTree, info: dict[str, Array]) -> None:
    """Raise a ValueError unless a step may follow on one that returned this.

    before, after: states, arrays or their shapes. info: scalars by name.
    """
    if changed := difference(before, after):
        raise ValueError(f"expected step to keep the form of the state, got {changed}")
    if not isinstance(info, dict):
        raise ValueError(
            f"expected step to return (state, info), info a dict, got {type(info).__name__}: "
            "return {} for none"
        )
    for name, value in info.items():
        if np.shape(value):
            raise ValueError(
                f"expected info to hold scalars, got {name} of shape {np.shape(value)}: "
                "return its mean"
            )


def difference(a: PyTree, b: PyTree) -> str:
    """The first structure, shape or dtype in which b differs from a; empty for none."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return f"structure {jax.tree.structure(a)} became {jax.tree.structure(b)}"

    def kind(leaf):
        return f"{np.shape(leaf)} {getattr(leaf, 'dtype', type(leaf).__name__)}"

    for (path, p), q in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b)):
        if kind(p) != kind(q):
            return f"state{jax.tree_util.keystr(path)} {kind(p)} became {kind(q)}"
    return ""


def check_task(task: Task, estimator: Estimator) -> Readout:
    """Dry-run a task with an estimator by shapes alone, in about a second.

    Returns the shapes of the readout. Raises ValueError with one sentence for what does
    not fit: "metric shd needs readout.graph, which is None here: ...".
    """
    check_estimator(estimator)
    for name in ("num_train", "num_test"):
        if getattr(task, name) < 2:
            raise ValueError(f"expected {name} >= 2 rows, got {getattr(task, name)}")

    def whole(key):
        train, test = draw(task, key)
        data = hold_out(train.data, estimator.holdout)
        state = jax.tree.map(jnp.asarray, estimator.init(key, data))
        if estimator.num_steps:
            batch = draw_batch(key, data, estimator.batch_size)
            check_step(state, *estimator.step(key, state, batch))
        return estimator.readout(estimator.finish(key, state, data), test.data), test

    out, test = jax.eval_shape(whole, jax.random.key(0))
    if not isinstance(out, Readout):
        raise ValueError(f"expected readout to return a Readout, got {type(out).__name__}")
    one = out._replace(diag=None)
    two = jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), one)
    asked = [(f"metric {k}", metric, out) for k, metric in task.metrics.items()]
    asked += [(f"stability metric {k}", metric, two) for k, metric in task.stability.items()]
    for name, metric, claims in asked:
        try:
            value = jax.eval_shape(metric, claims, test)
        except MissingClaim:
            raise
        except Exception as error:
            raise ValueError(f"{name} does not fit this task: {error}") from error
        if getattr(value, "shape", None) != ():
            raise ValueError(f"expected {name} to return one scalar, got {value}")
    return out
