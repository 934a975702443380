"""What the sparse autoencoders share, and what holds for each of them."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import crl
from crl import core
from crl.core import Sample, Task, Truth, grouped
from crl.dgp.superposition import s1, song, superposition
from crl.feed import draw_batch
from crl.metrics.dictionaries import dictionary_mcc, fvu, match_atoms, support_f1
from crl.metrics.stability import pw_mcc
from crl.sae.autoencoder import Params, aux_loss, top_codes
from crl.sae.batch_topk_sae import batch_topk_sae
from crl.sae.topk_sae import topk_sae

HERE = pathlib.Path(__file__).parent
FACTORIES = [topk_sae, batch_topk_sae]
SMALL = dict(num_atoms=24, k=2, num_steps=1000, batch_size=256)


def draw(dgp, num_train, num_test=512, seed=0):
    task = Task(dgp, num_train, num_test, {})
    return jax.jit(functools.partial(core.draw, task))(jax.random.key(seed))


def claims_of_fits(estimator, train, test, num):
    """The claims of ``num`` fits on one dataset, stacked."""
    keys = jax.random.split(jax.random.key(0), num)
    fits = crl.fit_replicas(estimator, keys, train.data, shared=True)
    assert not fits.diverged.any()
    return crl.readout_replicas(estimator, fits.state, test.data, shared=True)


def mccs(claims, sample):
    return jax.vmap(lambda c: dictionary_mcc(c, sample))(claims)


@pytest.fixture(scope="module")
def small():
    return draw(superposition(16, 24, 2), 1024)


def test_top_codes_keeps_the_k_largest_positive_and_exactly_k_in_ties():
    pre = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
    kth = np.sort(pre, axis=1)[:, -4:-3]
    np.testing.assert_array_equal(
        top_codes(jnp.asarray(pre), 4), np.where((pre >= kth) & (pre > 0), pre, 0)
    )
    ties = top_codes(jnp.ones((3, 9)), 4)
    np.testing.assert_array_equal((ties > 0).sum(1), 4)


def test_aux_gradient_reaches_dead_atoms_only():
    shapes = [(6, 4), (6, 4), (4,), (20, 4)]
    keys = jax.random.split(jax.random.key(0), 4)
    w_enc, w_dec, b_dec, x = (jax.random.normal(k, s) for k, s in zip(keys, shapes))
    params = Params(w_enc, jnp.zeros(6), w_dec, b_dec)
    residual, is_dead = jnp.sin(x), jnp.arange(6) < 2
    to_params, to_residual = jax.grad(aux_loss, (0, 2))(params, x, residual, is_dead)
    for to_rows in (to_params.w_enc, to_params.w_dec, to_params.b_enc[:, None]):
        assert (jnp.abs(to_rows[:2]).max(axis=1) > 0).all()
        assert (to_rows[2:] == 0).all()
    assert (to_params.b_dec == 0).all() and (to_residual == 0).all()
    assert aux_loss(params, x, residual, is_dead & False) == 0


def test_twins_and_dead_atoms_are_replaced_and_auxk_acts_before(small):
    train, _ = small
    estimator = topk_sae(**SMALL)
    data = draw_batch(jax.random.key(1), train.data, 256)
    state, step = estimator.init(jax.random.key(0), data), jax.jit(estimator.step)
    w = state.params.w_dec
    wasteful = state._replace(
        params=state.params._replace(
            w_dec=w.at[5].set(w[3]),
            b_enc=state.params.b_enc.at[7].set(-1e3),  # atom 7 never fires
        ),
        step=jnp.asarray(99),  # twins are looked for after the 100th step
        age=state.age.at[7].set(10**6),
    )
    after, info = step(jax.random.key(1), wasteful, data)
    assert info["num_replaced"] == 2
    assert after.params.w_dec[5] @ after.params.w_dec[3] < 0.9
    np.testing.assert_array_equal(after.params.b_enc[jnp.asarray([5, 7])], 0)
    np.testing.assert_array_equal(after.params.w_enc[7], after.params.w_dec[7])
    moments = [s for s in jax.tree.leaves(after.opt) if s.shape == (24, 16)]
    assert len(moments) == 4  # two moments of encoder and decoder
    for moment in moments:
        assert (moment[jnp.asarray([5, 7])] == 0).all()
        assert (jnp.abs(moment).max(axis=1) > 0).sum() == 22
    late = wasteful._replace(step=jnp.asarray(799))  # the last fifth
    assert step(jax.random.key(1), late, data)[1]["num_replaced"] == 0

    gradient = {}  # of an atom, as the first moment of Adam holds it, by its age
    for age in (0, 9, 10):  # of the 20 steps after which it is replaced
        silent = state._replace(age=state.age.at[7].set(age))
        after, info = step(jax.random.key(1), silent, data)
        assert info["num_replaced"] == 0
        gradient[age] = optax.tree_utils.tree_get(after.opt, "mu").w_dec[7]
    np.testing.assert_array_equal(gradient[9], gradient[0])
    change = jnp.linalg.norm(gradient[10] - gradient[0]) / jnp.linalg.norm(gradient[0])
    assert change > 1e-3


def test_a_sweep_of_learning_rates_compiles_once_and_equals_single_fits(small):
    data = small[0].data
    options = dict(num_atoms=24, k=2, num_steps=5, batch_size=64, population_control=False)
    rates = jnp.asarray([1e-3, 1e-2])
    keys = jax.random.split(jax.random.key(0), 2)
    sweep = crl.fit_replicas(
        functools.partial(topk_sae, **options),
        keys,
        data,
        options={"learning_rate": rates},
        shared=True,
    )
    assert sweep.trace["loss"].shape == (2, 5)
    alone = crl.fit(topk_sae(**options, learning_rate=1e-2), keys[1], data)
    together, apart = sweep.state.params.w_dec[1], alone.state.params.w_dec
    np.testing.assert_allclose(together, apart, atol=1e-6)
    # What is kept of a fit is the autoencoder: the moments of Adam would triple it.
    sizes = [a.size for a in jax.tree.leaves(alone.state)]
    assert sum(sizes) == 2 * 24 * 16 + 24 + 16 + 1


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_atoms=0, k=1), "num_atoms an integer >= 1, got 0"),
        (dict(num_atoms=4, k=5), "1 <= k <= num_atoms, got k=5 of 4"),
        (dict(num_atoms=4, k=0), "1 <= k <= num_atoms, got k=0 of 4"),
        (dict(num_atoms=4, k=1, num_steps=0), "num_steps an integer >= 1, got 0"),
        (dict(num_atoms=4, k=1, batch_size=0), "batch_size an integer >= 1, got 0"),
        (dict(num_atoms=4, k=1, dead_after=0), "dead_after an integer >= 1, got 0"),
        (dict(num_atoms=4, k=1, learning_rate=-1.0), "learning_rate > 0, got -1.0"),
        (dict(num_atoms=4, k=1, aux_weight=-1.0), "aux_weight >= 0, got -1.0"),
    ],
)
def test_errors_name_what_was_expected(factory, options, message):
    with pytest.raises(ValueError, match=f"{factory.__name__} needs {message}"):
        factory(**options)


@pytest.mark.slow
@pytest.mark.parametrize("factory", FACTORIES)
def test_population_control_makes_the_dictionary_of_s1_come_out(factory):
    train, test = draw(s1(), 16384)
    claims = claims_of_fits(factory(128, 4), train, test, 3)
    assert mccs(claims, test).min() >= 0.99 and pw_mcc(claims, test) >= 0.985
    assert (claims.diag["dead_fraction"] < 0.02).all()  # an atom or two of 128
    first = jax.tree.map(lambda a: a[0], claims)
    assert support_f1(first, test) > 0.9
    np.testing.assert_allclose(first.diag["fvu"], fvu(first, test), rtol=1e-4)
    # Held-out codes are in the units of x.
    rows, columns, _ = match_atoms(first.dictionary, test.truth.dictionary)
    codes, true_codes = first.codes[:, rows], test.truth.codes[:, columns]
    both = (codes > 0) & (true_codes > 0)
    assert abs(jnp.mean(codes[both] / true_codes[both]) - 1) < 0.1

    plain = factory(128, 4, population_control=False, aux_weight=0.0)
    control = claims_of_fits(plain, train, test, 3)
    assert mccs(control, test).max() < 0.96 and pw_mcc(control, test) < 0.91


@pytest.mark.slow
@pytest.mark.parametrize("factory", FACTORIES)
def test_amplitudes_near_zero_defeat_one_look(factory):
    train, test = draw(song(), 8192)
    claims = claims_of_fits(factory(32, 3), train, test, 2)
    # A support found in one look is wrong where an active amplitude is small.
    assert mccs(claims, test).max() < 0.98 and pw_mcc(claims, test) < 0.96


@pytest.mark.slow
@pytest.mark.parametrize("factory", FACTORIES)
def test_units_and_origin_of_x_do_not_matter(factory, small):
    train, test = small
    estimator = factory(**{**SMALL, "num_steps": 50})
    shift = jnp.arange(16.0) - 5

    def moved(data):
        return data._replace(x=1024 * (data.x + shift))

    outs = []
    for change in (lambda data: data, moved):
        fitted = crl.fit(estimator, jax.random.key(0), change(train.data)).state
        outs.append(crl.readout(estimator, fitted, change(test.data)))
    ours, theirs = outs
    np.testing.assert_allclose(theirs.dictionary, ours.dictionary, atol=1e-4)
    np.testing.assert_allclose(theirs.codes / 1024, ours.codes, atol=1e-3)
    np.testing.assert_allclose(theirs.x / 1024 - shift, ours.x, atol=1e-3)


@pytest.mark.slow
def test_fvu_of_constant_data_is_undefined(small):
    estimator = topk_sae(**SMALL)

    @jax.jit
    def both(level):
        data = grouped(jnp.full((64, 16), level))
        state = estimator.init(jax.random.key(0), data)
        out = estimator.readout(estimator.finish(jax.random.key(1), state, data), data)
        return out.diag["fvu"], fvu(out, Sample(data, Truth()))

    assert np.isnan([both(0.0), both(0.1)]).all()


@pytest.mark.slow
def test_each_of_eight_devices_works_on_its_rows():
    """A program of its own: the number of devices is fixed when jax starts."""
    out = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "on_eight_devices.py")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
        env={
            **os.environ,
            "PYTHONPATH": str(HERE.parents[1]),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        },
    ).stdout
    measured = json.loads(out.splitlines()[-1])
    assert measured.pop("rows_of_plain_top_k") == [64]  # the control
    for factory, found in measured.items():
        # Encoding, decoding and top-k of a batch of 64 rows on 8 devices see 8 rows.
        assert found["rows_of_products"] == [8], factory
        assert found["rows_of_top_k"] == [8], factory
        assert found["gathered_entries"] <= 64, factory  # the sizes of the residuals
        assert found["difference"] < 1e-6, factory
        # One sum over devices for all the gradient, not one for each of the k active atoms.
        assert found["sums_of_gradients_in_loops"] == 0, factory
