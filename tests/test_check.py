"""Boundary checks: one sentence naming what was expected, what came and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crl
from crl.check import check_data, check_key, check_options
from crl.core import DGP, Data, Estimator, Readout, Sample, Task, Truth, grouped, metric, need
from crl.names import build, nearest, resolve

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
ENV = np.zeros(20, np.int32)


def good(**changes) -> Data:
    data = Data(X, ENV, {}, {"count": np.array([20])})._replace(**changes)
    if "env" in changes and isinstance(data.env, np.ndarray) and data.env.dtype.kind == "i":
        data.given["count"] = np.bincount(np.maximum(data.env.ravel(), 0))
    return data


def with_value(value):
    x = X.copy()
    x[4, 1] = value
    return x


BAD_DATA = {
    "an array instead of Data": (X, "expected a crl.Data, got ndarray"),
    "a vector": (good(x=X[:, 0]), r"expected x of shape \(n, p\).*got shape \(20,\)"),
    "integers": (good(x=X.astype(int)), "floating dtype.*int64.*astype"),
    "booleans": (good(x=X > 0), "floating dtype.*bool"),
    "complex numbers": (good(x=X + 1j), "floating dtype.*complex"),
    "one row": (good(x=X[:1], env=ENV[:1]), "at least 2 rows of x, got 1"),
    "nothing at all": (good(x=X[:0], env=ENV[:0]), "at least 2 rows of x, got 0"),
    "NaN": (good(x=with_value(np.nan)), "NaN or inf in 1 of 20 rows .first: row 4."),
    "inf": (good(x=with_value(-np.inf)), "NaN or inf in 1 of 20 rows"),
    "a list of rows": (good(x=X.tolist()), "x to be an array, got list: .*np.asarray"),
    "no columns": (good(x=X[:, :0]), r"at least one column|got shape \(20, 0\)"),
    "text": (good(x=X.astype(str)), "floating dtype.*<U"),
    "no environments": (good(env=None), "env to be an array, got NoneType: .*zeros when"),
    "labels as a list": (good(env=ENV.tolist()), "env to be an array, got list"),
    "too few labels": (good(env=ENV[:9]), r"expected env with 20 rows.*\(9,\)"),
    "labels as a column": (good(env=ENV[:, None]), r"env of shape \(20,\)"),
    "float labels": (good(env=ENV.astype(np.float32)), "integer dtype.*float32"),
    "a gap in the labels": (good(env=np.repeat([0, 2], 10)), r"0..E-1.*got \[0, 2\].*renames"),
    "labels from 1": (good(env=ENV + 1), r"0..E-1 without gaps, got \[1\]"),
    "negative labels": (good(env=ENV - 1), r"got \[-1\]"),
    "no aux": (good(aux=None), "aux to be a dict, got None: pass {}"),
    "aux as a list": (good(aux={"y": [0.0] * 20}), "y to be an array, got list"),
    "environments mixed": (good(env=np.arange(20) % 2), "grouped by environment.*argsort"),
    "a count of other rows": (
        good(given={"count": np.array([19])}),
        r"given\['count'\] = \[20\] as in env, got \[19\]",
    ),
    "no count": (good(given={}), r"given\['count'\].* got none: make the Data"),
    "given as a list": (good(given=[20]), r"given to be a dict, got \[20\]"),
    "NaN held out": (good(held=good(x=with_value(np.nan))), "NaN or inf in 1 of 20 rows"),
    "short aux": (good(aux={"pair": X[:5]}), r"expected pair with 20 rows.*\(5, 3\)"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused_in_one_sentence(case):
    data, sentence = BAD_DATA[case]
    with pytest.raises(ValueError, match=sentence) as error:
        check_data(data)
    assert "\n" not in str(error.value)


def test_good_data_passes():
    check_data(good())
    check_data(good(env=np.repeat([0, 1], 10), aux={"y": X}))
    check_data(good(aux={"y": np.full(20, np.nan)}))  # missing, for the estimator to judge
    check_data(good(env=np.repeat([0, 1], [15, 5])))
    # The sum overflows, the entries do not.
    check_data(good(x=np.full_like(X, 3e38)))


@pytest.mark.parametrize(
    "key, came",
    [(jax.random.PRNGKey(0), "raw uint32 array"), (0, "0"), (None, "None")],
    ids=["raw", "int", "None"],
)
def test_only_typed_keys_are_taken(key, came):
    with pytest.raises(TypeError, match=rf"typed PRNG key, got .*{came}.*jax.random.key"):
        check_key(key)


@pytest.mark.parametrize(
    "reference, sentence",
    [
        ("crl.check", "expected 'module:name'"),
        (":fit", "expected 'module:name'"),
        ("crl.no_such:thing", "no module 'crl.no_such'.*PYTHONPATH"),
        ("nowhere.at.all:thing", "no module 'nowhere'"),
        ("crl.check:check_dat", "unknown name 'check_dat': did you mean 'check_data'"),
    ],
)
def test_unknown_references_name_the_nearest(reference, sentence):
    with pytest.raises(ValueError, match=sentence):
        resolve(reference)


def test_an_import_error_inside_the_users_module_is_shown_unchanged(tmp_path, monkeypatch):
    (tmp_path / "broken_lab.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        resolve("broken_lab:thing")


def test_build_calls_a_factory_with_literals():
    assert build("builtins:dict(a=1, b=[2.5])") == {"a": 1, "b": [2.5]}
    assert build("builtins:dict") == {}
    with pytest.raises(ValueError, match="name=value"):
        build("builtins:dict(3)")


def test_nearest_lists_all_when_nothing_is_near():
    assert "did you mean 'fastica'" in nearest("fastika", ["fastica", "topk_sae"], "estimator")
    assert "known: fastica, topk_sae" in nearest("zzz", ["topk_sae", "fastica"], "estimator")


# --- the dry run ------------------------------------------------------------------------


def world(p=3):
    def sample(key, world, n):
        x = jax.random.normal(key, (n, p))
        return Sample(grouped(x), Truth(z=x))

    return DGP(lambda key: jnp.zeros(()), sample)


def identity(**changes) -> Estimator:
    def step(key, state, data):
        return state + 1, {"loss": jnp.sum(state)}

    made = Estimator(
        init=lambda key, data: jnp.zeros(()),
        step=step,
        readout=lambda state, data: Readout(z=data.x),
        num_steps=2,
    )
    return made._replace(**changes)


@metric(best=0.0)
def distance(claims, sample):
    return jnp.mean((need(claims, "z", "distance") - sample.truth.z) ** 2)


@metric(best=0.0)
def shd(claims, sample):
    return jnp.sum(need(claims, "graph", "shd") != sample.truth.graph)


def task(**changes) -> Task:
    return Task(world(), 10, 5, {"distance": distance}, {})._replace(**changes)


def test_dry_run_gives_the_shapes_of_the_readout():
    spread = {"spread": lambda claims, sample: jnp.std(claims.z, axis=0).mean()}  # (2, 5, 3)
    assert crl.check_task(task(stability=spread), identity()).z.shape == (5, 3)


@pytest.mark.parametrize(
    "bad_task, bad_estimator, sentence",
    [
        (
            task(metrics={"shd": shd}),
            identity(),
            "metric shd needs readout.graph, which is None",
        ),
        (task(num_train=1), identity(), "num_train >= 2 rows, got 1"),
        (task(num_test=0), identity(), "num_test >= 2 rows, got 0"),
        (
            task(),
            identity(step=lambda key, state, data: ((state, state), {})),
            "step to keep the form of the state, got structure",
        ),
        (
            task(),
            identity(step=lambda key, state, data: (state[None], {})),
            r"got state \(\) float32 became \(1,\) float32",
        ),
        (
            task(),
            identity(step=lambda key, state, data: (state, {"loss": data.x[0]})),
            r"info to hold scalars, got loss of shape \(3,\)",
        ),
        (
            task(),
            identity(step=lambda key, state, data: (state, None)),
            "info a dict, got None",
        ),
        (task(), identity(num_steps=-3), "num_steps to be an integer >= 0, got -3"),
        (task(), identity(num_steps=2.5), "num_steps to be an integer >= 0, got 2.5"),
        (
            task(stability={"shd": shd}),
            identity(),
            "metric shd needs readout.graph, which is None",
        ),
        (
            task(stability={"agree": lambda claims, sample: claims.z[0] @ claims.z[1]}),
            identity(),
            "stability metric agree does not fit this task",
        ),
        (
            task(metrics={"bad": lambda claims, sample: claims.z @ sample.truth.z}),
            identity(),
            "metric bad does not fit this task",
        ),
        (
            task(metrics={"many": lambda claims, sample: {"a": claims.z[0, 0]}}),
            identity(),
            "expected metric many to return one scalar, got {'a'",
        ),
        (
            task(),
            identity(readout=lambda state, data: data.x),
            "expected readout to return a Readout, got ",
        ),
        (task(), identity(holdout=0.7), r"holdout in \[0, 0.5\], got 0.7"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_dry_run_says_what_does_not_fit(bad_task, bad_estimator, sentence):
    with pytest.raises(ValueError, match=sentence):
        crl.check_task(bad_task, bad_estimator)


def test_the_dry_run_sees_the_batch_and_the_rows_held_out():
    seen = {}

    def step(key, state, batch):
        seen.update(batch=batch.x.shape, held=batch.held.x.shape, count=batch.given["count"])
        return state, {}

    crl.check_task(task(), identity(step=step, batch_size=4, holdout=0.2))
    assert seen["batch"] == (4, 3) and seen["held"] == (2, 3)


@pytest.mark.parametrize(
    "ranges, sentence",
    [
        ({"at_least_one": {"k": 0}}, "lab needs k an integer >= 1, got 0"),
        ({"at_least_one": {"k": 1.5}}, "lab needs k an integer >= 1, got 1.5"),
        ({"positive": {"tol": 0.0}}, "lab needs tol > 0, got 0.0"),
        ({"positive": {"tol": float("inf")}}, "lab needs tol > 0, got inf"),
        ({"nonnegative": {"weight": -1}}, "lab needs weight >= 0, got -1"),
        ({"nonnegative": {"weight": float("nan")}}, "lab needs weight >= 0, got nan"),
        ({"one_of": {"kind": ("a", ("b", "c"))}}, "lab has kind 'b', 'c', got 'a'"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name_and_a_traced_one_passes(ranges, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_options("lab", **ranges)

    def traced(value):
        check_options("lab", positive={"tol": value}, nonnegative={"weight": value})
        return value

    jax.eval_shape(traced, -1.0)


def test_fit_refuses_before_compiling():
    def never(key, state, data):
        raise AssertionError("traced")

    with pytest.raises(ValueError, match="NaN or inf"):
        crl.fit(identity(step=never), jax.random.key(0), good(x=with_value(np.nan)))
    with pytest.raises(TypeError, match="typed PRNG key"):
        crl.fit(identity(step=never), jax.random.PRNGKey(0), good())


def test_import_is_lazy_and_names_are_listed():
    assert "fit" in dir(crl)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = crl.fitt
