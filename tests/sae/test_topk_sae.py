import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import crl
from crl.dgp.real import as_data
from crl.dgp.superposition import s1, song, superposition
from crl.metrics.dictionaries import dictionary_mcc, fvu, match_atoms, support_f1
from crl.sae.topk_sae import Params, autoencode, aux_loss, encode, top_codes, topk_sae
from crl.train import run

NUM_TEST = 512
FAST = dict(num_steps=1000, batch_size=256)
SMALL = topk_sae(24, 2, **FAST)
S1 = topk_sae(128, 4, batch_size=256)


def draw(dgp, num_train, seed=0):
    key_world, key_rows = jax.random.split(jax.random.key(seed))
    n = num_train + NUM_TEST
    world = jax.jit(dgp.init)(key_world)
    sample = jax.jit(dgp.sample, static_argnums=2)(key_rows, world, n)
    return crl.split(sample, n, num_train)


def fits(estimator, train, test, num):
    results = [crl.fit(estimator, jax.random.key(i), train.data) for i in range(num)]
    assert not any(r.diverged for r in results)
    return [crl.readout(estimator, r.state, test.data) for r in results]


def mccs(outs, truth):
    return [float(dictionary_mcc(out, truth)["mcc"]) for out in outs]


def pair_mccs(outs):
    pairs = itertools.combinations([out.dictionary for out in outs], 2)
    return [float(jnp.mean(match_atoms(a, b)[2])) for a, b in pairs]


@pytest.fixture(scope="module")
def small():
    return draw(superposition(16, 24, 2), 1024)


@pytest.fixture(scope="module")
def s1_world():
    return draw(s1(), 4096)


def test_top_codes_keeps_the_k_largest_positive_and_exactly_k_in_ties():
    pre = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
    kth = np.sort(pre, axis=1)[:, -4:-3]
    np.testing.assert_array_equal(
        top_codes(jnp.asarray(pre), 4), np.where((pre >= kth) & (pre > 0), pre, 0)
    )
    ties = top_codes(jnp.ones((3, 9)), 4)
    np.testing.assert_array_equal((ties > 0).sum(1), 4)


def random_params(m, p, n):
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = [(m, p), (m,), (m, p), (p,), (n, p)]
    *params, x = (jax.random.normal(k, s) for k, s in zip(keys, shapes))
    return Params(*params), x


def test_sparse_gradient_is_the_dense_one():
    params, x = random_params(m=12, p=5, n=40)
    weight = jnp.cos(jnp.arange(200.0)).reshape(40, 5)

    def dense(params):
        codes = top_codes(encode(params, x), 4)
        return jnp.sum(weight * (codes @ params.w_dec + params.b_dec) ** 2)

    def sparse(params):
        return jnp.sum(weight * autoencode(params, x, 4)[0] ** 2)

    value, gradient = jax.jit(jax.value_and_grad(sparse))(params)
    expected_value, expected = jax.jit(jax.value_and_grad(dense))(params)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    for a, b in zip(gradient, expected):
        np.testing.assert_allclose(a, b, atol=1e-4 * jnp.abs(b).max())
    fired = (top_codes(encode(params, x), 4) > 0).any(0)
    np.testing.assert_array_equal(autoencode(params, x, 4)[1], fired)


def test_aux_gradient_reaches_dead_atoms_only():
    params, x = random_params(m=6, p=4, n=20)
    params = params._replace(b_enc=jnp.zeros(6))  # so that each atom is on for some rows
    residual, is_dead = jnp.sin(x), jnp.arange(6) < 2
    to_params, to_residual = jax.grad(aux_loss, (0, 2))(params, x, residual, is_dead)
    for to_rows in (to_params.w_enc, to_params.w_dec, to_params.b_enc[:, None]):
        assert (jnp.abs(to_rows[:2]).max(axis=1) > 0).all()
        assert (to_rows[2:] == 0).all()
    assert (to_params.b_dec == 0).all() and (to_residual == 0).all()
    assert aux_loss(params, x, residual, is_dead & False) == 0


@pytest.mark.slow
def test_auxk_alone_recovers_more_than_plain_topk(s1_world):
    """One fit each; experiments/sae_population_control.py has 0.03 and 0.07 more."""
    train, test = s1_world

    @jax.jit
    def fit(aux_weight):
        estimator = topk_sae(
            128, 4, population_control=False, aux_weight=aux_weight, batch_size=256
        )
        lane = run(estimator, jax.random.key(0), train.data)
        return lane.diverged, estimator.readout(lane.state, test.data)

    (failed, plain), (failed_too, revived) = fit(0.0), fit(1 / 32)
    assert not failed and not failed_too
    plain, revived = mccs([plain, revived], test.truth)
    assert revived > plain + 0.02


def test_auxk_acts_before_atoms_are_replaced(small):
    """An atom silent for 10 of the 20 steps after which it is replaced."""
    train, _ = small
    state, step = SMALL.init(jax.random.key(0), train.data), jax.jit(SMALL.step)
    gradient = {}  # of the atom, as the first moment of Adam holds it
    for age in (0, 9, 10):
        silent = state._replace(age=state.age.at[7].set(age))
        after, info = step(jax.random.key(1), silent, train.data)
        assert info["num_replaced"] == 0
        gradient[age] = optax.tree_utils.tree_get(after.opt, "mu").w_dec[7]
    np.testing.assert_array_equal(gradient[9], gradient[0])
    change = jnp.linalg.norm(gradient[10] - gradient[0]) / jnp.linalg.norm(gradient[0])
    assert change > 1e-3


def test_fvu_of_constant_data_is_undefined(small):
    @jax.jit
    def both(level):
        data = small[0].data._replace(x=jnp.full_like(small[0].data.x, level))
        out = SMALL.readout(SMALL.init(jax.random.key(0), data), data)
        return out.diag["fvu"], fvu(out, crl.Truth(x=data.x))

    assert np.isnan([both(0.0), both(0.1)]).all()


def test_topk_sae_recovers_s1(s1_world):
    train, test = s1_world
    (out,) = fits(S1, train, test, 1)
    # 1 fit of 1 world, seen 0.999; without population control 0.90 to 0.94.
    assert mccs([out], test.truth)[0] >= 0.98
    assert support_f1(out, test.truth)["f1"] > 0.9
    assert out.diag["dead_fraction"] == 0 and out.diag["l0"] == 4
    np.testing.assert_allclose(out.diag["fvu"], fvu(out, test.truth), rtol=1e-4)
    # Held-out codes are in the units of x.
    rows, columns, _ = match_atoms(out.dictionary, test.truth.dictionary)
    codes, true_codes = out.codes[:, rows], test.truth.codes[:, columns]
    both = (codes > 0) & (true_codes > 0)
    assert abs(jnp.mean(codes[both] / true_codes[both]) - 1) < 0.1


def test_duplicates_and_dead_atoms_are_replaced(small):
    train, _ = small
    step = jax.jit(SMALL.step)
    state = SMALL.init(jax.random.key(0), train.data)
    w = state.params.w_dec
    state = state._replace(
        params=state.params._replace(w_dec=w.at[5].set(w[3])),
        step=jnp.asarray(99),  # pairs are looked at after the 100th step
        age=state.age.at[7].set(10**6),
    )
    # Atom 7 never fires: its bias is far below the others.
    state = state._replace(
        params=state.params._replace(b_enc=state.params.b_enc.at[7].set(-1e3))
    )
    after, info = step(jax.random.key(1), state, train.data)
    assert info["num_replaced"] == 2
    assert after.params.w_dec[5] @ after.params.w_dec[3] < 0.9
    np.testing.assert_array_equal(after.params.b_enc[jnp.asarray([5, 7])], 0)
    np.testing.assert_array_equal(after.params.w_enc[7], after.params.w_dec[7])
    moments = [s for s in jax.tree.leaves(after.opt) if s.shape == (24, 16)]
    assert len(moments) == 4  # two moments of encoder and decoder
    for moment in moments:
        assert (moment[jnp.asarray([5, 7])] == 0).all()
        assert (jnp.abs(moment).max(axis=1) > 0).sum() == 22
    late = state._replace(step=jnp.asarray(799))  # the last fifth
    assert step(jax.random.key(1), late, train.data)[1]["num_replaced"] == 0


@pytest.mark.slow
def test_units_and_origin_of_x_do_not_matter(small):
    train, test = small
    estimator = topk_sae(24, 2, **{**FAST, "num_steps": 50})
    shift = jnp.arange(16.0) - 5

    def moved(data):
        return data._replace(x=1024 * (data.x + shift))

    outs = []
    for change in (lambda data: data, moved):
        state = crl.fit(estimator, jax.random.key(0), change(train.data)).state
        outs.append(crl.readout(estimator, state, change(test.data)))
    ours, theirs = outs
    np.testing.assert_allclose(theirs.dictionary, ours.dictionary, atol=1e-4)
    np.testing.assert_allclose(theirs.codes / 1024, ours.codes, atol=1e-3)
    np.testing.assert_allclose(theirs.x / 1024 - shift, ours.x, atol=1e-3)


@pytest.mark.slow
def test_streaming_from_disk_recovers_the_dictionary(s1_world, tmp_path):
    train, test = s1_world
    np.save(tmp_path / "x.npy", np.asarray(train.data.x, np.float16))
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    size = 256
    reads = []

    def read(start, num):
        reads.append((start, num))
        batches = []
        for step in range(start, start + num):  # a new permutation in each epoch
            epoch, first = divmod(step * size, len(rows))
            order = np.random.default_rng(epoch).permutation(len(rows))
            batches.append(rows[np.sort(order[first : first + size])].astype(np.float32))
        x = np.stack(batches)
        return crl.Data(jnp.asarray(x), jnp.zeros(x.shape[:2], jnp.int32), {})

    stream = crl.Stream(as_data(rows[:1024].astype(np.float32)), read)
    result = crl.fit(S1, jax.random.key(0), stream, chunk_size=500)
    assert reads == [(0, 500), (500, 500), (1000, 500), (1500, 500)]
    out = crl.readout(S1, result.state, test.data)
    assert mccs([out], test.truth)[0] >= 0.98


@pytest.mark.slow
def test_topk_sae_fails_on_amplitudes_near_zero():
    train, test = draw(song(), 8192)
    outs = fits(topk_sae(32, 3), train, test, 2)
    # 2 fits of 1 world, seen 0.91 and 0.94, pair 0.90: support found in one look is wrong
    # where an active amplitude is small.
    assert max(mccs(outs, test.truth)) < 0.98 and pair_mccs(outs)[0] < 0.96


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_atoms=0, k=1), "num_atoms >= 1, got 0"),
        (dict(num_atoms=4, k=5), "1 <= k <= num_atoms, got k=5 of 4"),
        (dict(num_atoms=4, k=0), "1 <= k <= num_atoms, got k=0 of 4"),
        (dict(num_atoms=4, k=1, num_steps=0), "num_steps >= 1, got 0"),
        (dict(num_atoms=4, k=1, batch_size=0), "batch_size >= 1, got 0"),
        (dict(num_atoms=4, k=1, dead_after=0), "dead_after >= 1, got 0"),
    ],
)
def test_errors_name_what_was_expected(options, message):
    with pytest.raises(ValueError, match=message):
        topk_sae(**options)


@pytest.mark.slow
def test_population_control_makes_topk_recover_s1():
    train, test = draw(s1(), 16384)
    plain = fits(topk_sae(128, 4, population_control=False, aux_weight=0.0), train, test, 3)
    outs = fits(topk_sae(128, 4), train, test, 3)
    # 3 fits of 1 world. Spec 0.99 and 0.985; seen 0.9995 and 0.9999.
    assert min(mccs(outs, test.truth)) >= 0.99 and min(pair_mccs(outs)) >= 0.985
    # Seen 0.90 to 0.94 and 0.86.
    assert max(mccs(plain, test.truth)) < 0.96 and np.mean(pair_mccs(plain)) < 0.91
