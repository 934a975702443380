"""Checks at the boundary: one sentence that says what was expected, what came, what to do.

They look at concrete values on the host, before anything is compiled. What only the run
can know is a value in the result (``Fit.diverged``), never an exception.
"""

import ast
import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.core import Data, Estimator, MissingClaim, PyTree, Readout, Task, split


def check_key(key: Array, ndim: int = 0) -> None:
    """Raise a TypeError unless ``key`` is typed, a ValueError unless it has ``ndim`` axes."""
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        kind = f"a raw {key.dtype} array" if hasattr(key, "dtype") else f"{key!r}"
        raise TypeError(f"expected a typed PRNG key, got {kind}: pass jax.random.key(seed)")
    if key.ndim != ndim:
        wanted = "one key" if ndim == 0 else "keys of shape (r,)"
        remedy = "keys[0], or fit_replicas" if ndim == 0 else "jax.random.split(key, r)"
        raise ValueError(f"expected {wanted}, got shape {key.shape}: pass {remedy}")


def check_data(data: Data) -> None:
    """Raise a ValueError for ``data`` that no estimator can use.

    Looks at shapes, dtypes, finiteness of x and the environment labels. That environments
    are grouped and of one size is checked where it matters (``crl.dgp.real.as_data``,
    combinators that draw rows): some estimators do without. What entries of aux may be (NaN
    for missing ones) is up to the estimator that reads it.
    """
    if not isinstance(data, Data):
        raise ValueError(
            f"expected a crl.Data, got {type(data).__name__}: wrap an array with "
            "crl.dgp.real.as_data(x)"
        )
    x, env, aux = data
    if not isinstance(aux, dict):
        raise ValueError(f"expected aux to be a dict, got {aux!r}: pass {{}} for none")
    for name, leaf in [("x", x), ("env", env), *aux.items()]:
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
    for name, leaf in [("env", env), *aux.items()]:
        if leaf.shape[:1] != (n,):
            raise ValueError(
                f"expected {name} with {n} rows like x, got shape {leaf.shape}: every leaf "
                "of Data has one entry per row"
            )
    if not jnp.issubdtype(env.dtype, jnp.integer) or env.ndim != 1:
        raise ValueError(
            f"expected env of shape ({n},) and integer dtype, got {env.shape} and "
            f"{env.dtype}: label environments 0, 1, 2, ..."
        )
    _check_finite(x)
    env = np.asarray(jax.device_get(env))
    if env.min() < 0 or env.max() >= n or not np.bincount(env).all():
        labels = np.unique(env)
        raise ValueError(
            f"expected environment labels 0..E-1 without gaps, got {labels.tolist()[:8]}: "
            "relabel with np.unique(env, return_inverse=True)[1]"
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


def check_num_steps(num_steps: int) -> None:
    """Raise a ValueError unless ``num_steps`` is a count."""
    if not hasattr(num_steps, "__index__") or num_steps < 0:
        raise ValueError(f"expected num_steps to be an integer >= 0, got {num_steps!r}")


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


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """The sentence for an unknown name: what it should have been, and the nearest one."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, 1, 0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}: {hint}"


def resolve(reference: str) -> Any:
    """The object named ``module:attribute``, e.g. ``crl.ica.fastica:fastica``."""
    module, _, attribute = reference.partition(":")
    if not (module and attribute):
        raise ValueError(f"expected 'module:name', got {reference!r}: e.g. my_lab.tcl:tcl")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        # An import that fails inside the module is its author's to see, unchanged.
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise ValueError(
            f"no module {error.name!r} for {reference!r}: is it installed or on PYTHONPATH?"
        ) from error
    if not hasattr(found, attribute):
        names = [n for n in vars(found) if not n.startswith("_")]
        raise ValueError(f"in {reference!r}: {nearest(attribute, names, 'name')}")
    return getattr(found, attribute)


def check_task(task: Task, estimator: Estimator) -> Readout:
    """Dry-run a task with an estimator by shapes alone, in about a second.

    Returns the shapes of the readout. Raises ValueError with one sentence for what does
    not fit: "metric shd needs readout.graph, which is None here: ...".
    """
    check_num_steps(estimator.num_steps)
    for name in ("num_train", "num_test"):
        if getattr(task, name) < 2:
            raise ValueError(f"expected {name} >= 2 rows, got {getattr(task, name)}")

    def whole(key):
        n = task.num_train + task.num_test
        train, test = split(task.dgp.sample(key, task.dgp.init(key), n), n, task.num_train)
        state = jax.tree.map(jnp.asarray, estimator.init(key, train.data))
        if estimator.num_steps:
            check_step(state, *estimator.step(key, state, train.data))
        state = estimator.finish(key, state, train.data)
        return estimator.readout(state, test.data), test.truth

    out, truth = jax.eval_shape(whole, jax.random.key(0))
    one = out._replace(diag=None)
    two = jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), one)
    asked = [(f"metric {k}", metric, (out, truth)) for k, metric in task.metrics.items()]
    asked += [(f"stability metric {k}", v, (two,)) for k, v in task.stability.items()]
    for name, metric, args in asked:
        try:
            jax.eval_shape(metric, *args)
        except MissingClaim:
            raise
        except Exception as error:
            raise ValueError(f"{name} does not fit this task: {error}") from error
    return out


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """``module:factory(name=literal, ...)`` as reference and options; brackets optional."""
    reference, bracket, rest = text.partition("(")
    try:
        call = ast.parse(f"f({rest}" if bracket else "f()", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("give every option as name=value")
        return reference, {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"expected 'module:factory(name=value, ...)', got {text!r}: {error}"
        ) from error


def build(text: str) -> Any:
    """The result of ``module:factory(name=literal, ...)``; the brackets may be left out."""
    reference, options = parse_call(text)
    return resolve(reference)(**options)
