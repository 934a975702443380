import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import parts

from crl.core import Sample, grouped, take_rows
from crl.dgp.scm import NOISES, multi_environment_scm
from crl.metrics.graphs import order_divergence, shd, skeleton_shd
from crl.metrics.interventions import counterfactual_rmse, counterfactual_rmse_all
from crl.scm import edge_search, evidence, linear_law
from crl.scm import score_table as table_of
from crl.scm.check_environments import check_environments
from crl.scm.edge_search import State
from crl.scm.shared_mechanism import shared_mechanism
from crl.train import fit, readout

# One estimator and one shape of data for the fast lane: everything compiles once.
SMALL = shared_mechanism(max_parents=2, num_features=16, num_bootstrap=20)
NUM_TRAIN, NUM_TEST = 500, 200
PAIR = shared_mechanism(num_bootstrap=2)


def _worlds(num_worlds, num_nodes=3, num_train=NUM_TRAIN, num_test=NUM_TEST, **options):
    dgp = multi_environment_scm(num_nodes, **options)

    @jax.jit
    def draw(key):
        n = num_train + num_test
        return parts(dgp.sample(jax.random.fold_in(key, 1), dgp.init(key), n), num_train)

    for seed in range(num_worlds):
        yield draw(jax.random.key(seed))


def _fit(estimator, train, test):
    key = jax.random.key(0)
    done = fit(estimator, key, train.data)
    assert bool(done.converged) and not bool(done.diverged)
    return done, readout(estimator, done.state, test.data)


def _errors(estimator, worlds):
    """The SHD of the fit on each world."""
    return [int(shd(_fit(estimator, *world)[1], world[1])) for world in worlds]


@pytest.fixture(scope="module")
def fitted():
    return [(train, test, *_fit(SMALL, train, test)) for train, test in _worlds(4)]


def test_three_variables_are_ordered_by_two_auxiliary_environments(fitted):
    # 3 edges a world and 4 worlds: a learner blind to direction errs in half of the edges,
    # and has a total of at most 1 with probability below .004.
    assert sum(int(shd(out, test)) for _, test, _, out in fitted) <= 1
    assert sum(int(order_divergence(out, test)) for _, test, _, out in fitted) <= 1
    for _, _, done, out in fitted:
        assert np.all(np.diff(done.trace["loss"][: int(done.num_steps)]) < 1e-5)
        prob = np.array(out.edge_prob)
        assert ((prob >= 0) & (prob <= 1)).all() and np.trace(prob) == 0
        # Where an orientation is decided, the replicates agree with the graph.
        sure = np.array(done.state.edge_z) > 4
        assert (prob[sure] > 0.8).all()


@pytest.mark.slow
def test_absent_edges_are_left_out():
    # The worlds above are complete graphs; in these half of the pairs are joined.
    wrong, absent = 0, 0
    for train, test in _worlds(4, edges_per_node=0.5):
        _, out = _fit(SMALL, train, test)
        wrong += int(skeleton_shd(out, test))
        absent += 3 - int(test.truth.graph.sum())
    assert absent >= 4 and wrong <= 1


ENV = np.repeat(np.arange(3, dtype=np.int32), 500)
DATA = grouped(jnp.zeros((1500, 3)), (500, 500, 500))
DIM = 3  # of the tables below


def _table(gains):
    """All local fits of three variables, made up: ``gains`` {(node, parents): rows of the
    loss below 1 nat}; what is not named gains nothing. Parents are a bitmask."""
    sets = [(i, p) for i in range(DIM) for p in range(2**DIM) if not p >> i & 1]
    loss = np.stack([1 - np.broadcast_to(gains.get(s, 0.0), ENV.shape) for s in sets])
    first = np.flatnonzero(np.diff(np.asarray(evidence.blocks(DATA)), prepend=-1))
    code = jnp.array(sets, jnp.int32)
    return table_of.Table(
        code,
        jnp.asarray(loss.mean(1), jnp.float32),
        jnp.asarray(np.add.reduceat(loss, first, axis=1), jnp.float32),
        None,
        jnp.arange(len(sets), dtype=jnp.int32),  # sorted as they are
        jnp.int32(len(sets)),
    )


def _climb(table, penalty=0.004):
    """The graph at which greedy moves over a full table end, and that of exact search."""
    empty = jnp.zeros((DIM, DIM), jnp.int32)
    graph = table_of.climb(table, table.score, empty, penalty)
    return graph.tolist(), table_of.exact(table, table.score, penalty, DIM).tolist()


def test_an_edge_must_gain_more_than_the_penalty_in_climbing_and_in_exact_search():
    one = {(1, 0b001): 0.005, (1, 0b101): 0.005, (2, 0b010): 0.003, (2, 0b011): 0.003}
    climbed, exact = _climb(_table(one))
    assert climbed == exact == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    # Not even a loss that falls a little with every parent adds edges.
    few = {(i, p): 0.003 * p.bit_count() for i in range(3) for p in range(8)}
    climbed, exact = _climb(_table(few))
    assert climbed == exact == np.zeros((3, 3)).tolist()


def test_exact_search_finds_the_graph_that_greedy_moves_miss():
    # An exclusive or: neither cause says anything about the effect without the other.
    climbed, exact = _climb(_table({(2, 0b011): 0.5}))
    assert climbed == np.zeros((3, 3)).tolist()
    assert exact == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_confidence_of_a_weak_edge_is_that_of_its_gain_under_the_bayesian_bootstrap():
    # 0 -> 1 gains .1 nats in each row; 1 -> 2 gains .0055 on average with deviation .1,
    # which is .0015 above the penalty with standard error .1 / sqrt(1500) = .0026.
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 500))
    noise = (noise - noise.mean(1, keepdims=True)) / noise.std(1, keepdims=True)
    weak = 0.0055 + 0.1 * noise.ravel()
    table = _table({(1, 1): 0.1, (1, 5): 0.1, (2, 2): weak, (2, 3): weak})
    graph = jnp.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]], jnp.int32)
    prob = jax.jit(evidence.bootstrap, static_argnums=(4, 5))(
        jax.random.key(0), table, graph, DATA, 400, 0.004
    )
    weight = rng.exponential(size=(4000, 3, 500))
    weight = (weight / weight.mean(2, keepdims=True)).reshape(4000, -1)
    expected = np.mean(weight @ weak / 1500 > 0.004)
    assert 0.6 < expected < 0.8
    # 400 replicates against 4000: four standard errors of a share are .1.
    assert abs(float(prob[1, 2]) - expected) < 0.1
    assert float(prob[0, 1]) == 1 and float(prob.sum() - prob[0, 1] - prob[1, 2]) == 0

    def z(tail, head):
        other = table_of.search_without(table, graph, tail, head, 0.004)
        return float(evidence.excess(table, other, graph, DATA, 0.004)[2])

    # The standard error from 128 blocks of rows in each environment, again in numpy.
    block = np.repeat([0, 1, 2], 500) * 128 + np.tile(np.arange(500) * 128 // 500, 3)
    rest = np.bincount(block, weak) - 0.0055 * np.bincount(block)
    np.testing.assert_allclose(z(1, 2), 0.0015 / (np.sqrt(np.sum(rest**2)) / 1500), rtol=0.01)
    # It is known to a share of 1 / sqrt(2 * 384) = .036.
    np.testing.assert_allclose(z(1, 2), 0.0015 / (0.1 / 1500**0.5), rtol=0.1)
    assert z(0, 1) > 100


def test_edges_are_decided_and_no_hidden_cause_explains_them_better(fitted):
    decided, edges = 0, 0
    for _, test, done, _ in fitted:
        edge = np.array(test.truth.graph) > 0
        decided, edges = decided + np.sum(done.state.decided[edge]), edges + np.sum(edge)
        assert (np.array(done.state.hidden_z)[edge & (done.state.graph > 0)] < 0).all()
    assert edges == 12 and decided >= 9


def test_environments_are_checked_against_what_the_theorem_asks(fitted):
    check = jax.jit(check_environments)
    train, _, done, out = fitted[0]
    checks = check(done.state, train.data)
    env, true = np.array(train.data.env), np.array(train.truth.z)
    sd = np.stack([true[env == e].std(0) for e in range(3)])
    # The sd of 500 rows errs by 3 %, and maps that bend the noises by some more.
    np.testing.assert_allclose(checks.noise_sd, sd / sd[0], rtol=0.15)
    # An sd is at most .65 or at least 1.6 of the base's in each other environment.
    assert (checks.change_z > 4).all()
    assert (np.diagonal(checks.distinct_z) < 1e-3).all() and (checks.distinct_z > 4).any()
    # At a level of 1e-4, three pairs of independent noises; true also where maps misfit.
    assert checks.dependence_p.min() > 1e-4 and np.abs(checks.shift_z).max() < 5
    assert checks.overlap[0] == 1 and (checks.overlap > 0).all()
    edge = np.array(out.graph) > 0
    z, more = np.array(done.state.edge_z), np.array(checks.more_rows)
    np.testing.assert_allclose(more[edge], np.maximum((2.5 / z[edge]) ** 2, 1), rtol=1e-5)
    assert (more[~edge] == 0).all()
    assert (np.array(checks.edge_gain).sum(0)[edge] > 0).all()

    # Control: three copies of the base do not differ, in anything.
    same = check(done.state, grouped(jnp.tile(train.data.x[:500], (3, 1)), (500,) * 3))
    assert same.change_z.max() < 1e-3 and same.distinct_z.max() < 1e-3
    np.testing.assert_allclose(same.noise_sd, 1, rtol=1e-5)


def test_a_wrong_orientation_is_flagged_as_undecided(fitted):
    for _, test, done, out in fitted:
        false = np.array(out.graph) * (1 - np.array(test.truth.graph)) > 0
        assert (np.array(done.state.edge_z)[false] < 2.5).all()
        prob = np.array(out.edge_prob)
        np.testing.assert_allclose(prob[false], prob.T[false])


def test_noises_densities_and_counterfactuals_are_recovered_on_held_out_rows(fitted):
    right = [(test, out) for _, test, _, out in fitted if int(shd(out, test)) == 0]
    assert len(right) >= 3
    for test, out in right:
        corr = [np.corrcoef(out.z[:, i], test.truth.z[:, i])[0, 1] for i in range(3)]
        assert min(corr) > 0.97  # .984 recorded
        # Nats a row short of the true density: .04 to .08 recorded.
        assert -0.02 < float((test.truth.log_prob - out.log_prob).mean()) < 0.15
        error = counterfactual_rmse(out, test)
        factual = counterfactual_rmse(out._replace(counterfactual=test.data.x), test)
        # .10 to .21 recorded, against .72 to .97 for the prediction of no effect.
        assert error < 0.3 < 0.7 < factual


def test_environments_may_have_unequal_sizes(fitted):
    train, test, *_ = fitted[0]
    keep = np.r_[0:500, 500:800, 1000:1200]  # 500, 300 and 200 rows
    data = take_rows(train.data, keep)
    # The rows that remain are repeated up to the size already compiled.
    data = take_rows(data, np.sort(np.r_[0:1000, 0:500]))
    sizes = data.given["count"]
    assert len(set(sizes.tolist())) == 3
    _, out = _fit(SMALL, Sample(data, train.truth), test)
    assert int(shd(out, test)) == 0


@pytest.mark.slow
def test_without_a_change_wrong_orientations_are_not_decided():
    # Three linear Gaussian variables, all joined: no orientation follows from the law.
    wrong, wrong_z = [], []
    for train, test in _worlds(4, mechanism="linear", change="none"):
        done, out = _fit(SMALL, train, test)
        false = np.array(out.graph) * (1 - np.array(test.truth.graph))
        wrong += np.array(done.state.decided)[false > 0].tolist()
        wrong_z += np.array(done.state.edge_z)[false > 0].tolist()
        assert float(out.diag["noise_change"]) < 0.15
    assert len(wrong) >= 1
    assert np.mean(wrong) <= 0.1 and np.mean(np.array(wrong_z) > 2.5) <= 0.1


def test_linear_laws_hold_only_where_they_keep_every_edge_and_all_of_them_hold():
    chain = {(1, 0b001): 0.1, (1, 0b101): 0.1}
    graph = jnp.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], jnp.int32)
    flexible = _table(chain)
    gain, z = jnp.zeros((3, DIM, DIM)), jnp.zeros((DIM, DIM))

    state = State(None, flexible, graph, None, None, None, None, gain, z, z > 0)

    @jax.jit
    def prefer(linear):
        return linear_law.prefer_linear(state, linear, DATA, 0.004)[1:3]

    def holds(linear, fails=()):
        codes = [tuple(code) for code in flexible.code.tolist()]
        each = jnp.array([code not in fails for code in codes])
        law = linear_law.LinearLaw(None, each)
        found, is_linear = prefer(_table(linear)._replace(law=law))
        return bool(is_linear), found.tolist()

    assert holds(chain) == (True, graph.tolist())
    # Another direction may be found, but no edge be lost, as that of a square would be,
    assert holds({(0, 0b010): 0.1, (0, 0b110): 0.1}) == (True, graph.T.tolist())
    assert holds({}) == (False, graph.tolist())
    assert holds(chain, fails=[(1, 0b001)]) == (False, graph.tolist())
    # unless linear laws predict better without it.
    better = {(2, 0b001): 0.2, (2, 0b011): 0.2}
    assert holds(better) == (True, [[0, 0, 1], [0, 0, 0], [0, 0, 0]])


@pytest.mark.slow
def test_non_gaussian_noise_orients_linear_graphs_without_any_change():
    """As LiNGAM does; two worlds of three edges each, and two Gaussian ones as a control."""

    def outcome(noise):
        worlds = _worlds(2, mechanism="linear", change="none", noise=noise)
        fits = [(*_fit(SMALL, *world), world[1]) for world in worlds]
        wrong = [int(shd(out, test)) for _, out, test in fits]
        return wrong, [int(np.sum(done.state.decided)) for done, *_ in fits], fits

    wrong, decided, fits = outcome("uniform")
    assert wrong == [0, 0] and decided == [3, 3]
    assert all(bool(out.diag["linear"]) for _, out, _ in fits)
    _, decided, fits = outcome("gaussian")
    assert decided == [0, 0]
    for _, out, _ in fits:
        assert int(out.diag["undecided_edges"]) == int(out.graph.sum())


@pytest.mark.slow
@pytest.mark.parametrize("change", ["none", "independent"])
@pytest.mark.parametrize("noise", NOISES)
def test_no_wrong_orientation_of_a_linear_pair_is_decided_whatever_the_noise(noise, change):
    """30 pairs of 300 rows an environment: at a rate of 1 % two and more are wrong and
    decided with probability .04, three and more with .003."""
    wrong, right = 0, 0
    for train, test in _worlds(30, 2, 300, mechanism="linear", change=change, noise=noise):
        done, out = _fit(PAIR, train, test)
        is_wrong = int(shd(out, test)) > 0
        decided = int(np.sum(done.state.decided))
        wrong, right = wrong + decided * is_wrong, right + decided * (not is_wrong)
    assert wrong <= 2
    # Control: Gaussian laws that do not change decide nothing; logistic ones nearly so.
    if change == "none" and noise in ("gaussian", "logistic"):
        assert right <= 3
    elif noise == "student_t5" and change == "none":
        assert right >= 10
    else:
        assert right >= 21


def test_data_that_cannot_be_used_is_refused_in_a_sentence(fitted):
    train = fitted[0][0].data
    with pytest.raises(ValueError, match="at least 2 environments, got 1: pass env"):
        SMALL.validate(grouped(train.x))
    with pytest.raises(ValueError, match=r"constant ones: \[1\]"):
        SMALL.validate(train._replace(x=train.x.at[:, 1].set(3.0)))
    with pytest.raises(ValueError, match="column 2 equal to column 0"):
        SMALL.validate(train._replace(x=train.x.at[:, 2].set(2 * train.x[:, 0])))
    with pytest.raises(ValueError, match="reads no prior knowledge, got given 'required'"):
        known = {"required": jnp.zeros((3, 3))}
        SMALL.validate(train._replace(given=train.given | known))
    with pytest.raises(ValueError, match="at least 50 rows"):
        SMALL.validate(take_rows(train, np.arange(490, 1500)))
    with pytest.raises(ValueError, match="at least 2 variables, got 1"):
        narrow = grouped(jnp.zeros((300, 1)), (100,) * 3)
        jax.eval_shape(SMALL.init, jax.random.key(0), narrow)


def test_the_state_keeps_the_dtype_of_the_data_in_float64_mode():
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            data = grouped(jnp.zeros((300, 3), dtype), (100,) * 3)
            key = jax.random.key(0)
            states = [jax.eval_shape(SMALL.init, key, data)]
            states.append(jax.eval_shape(SMALL.step, key, states[0], data)[0])
            states.append(jax.eval_shape(SMALL.finish, key, states[1], data))
            kinds = [[a.dtype for a in jax.tree.leaves(state)] for state in states]
            assert kinds[0] == kinds[1]
            floats = {a for kind in kinds for a in kind if jnp.issubdtype(a, jnp.floating)}
            assert floats == {jnp.dtype(dtype)}


def test_codes_of_many_variables_hold_their_parent_sets():
    rng, d = np.random.default_rng(0), 70
    graph = np.triu(rng.random((d, d)) < 0.3, 1)
    codes = np.asarray(table_of.around(jnp.asarray(graph, jnp.int32)))
    assert codes.shape == (d, d, 4) and (codes[:, :, 0] == np.arange(d)[:, None]).all()
    assert len(np.unique(codes.reshape(d * d, 4), axis=0)) == d * d
    expected = np.broadcast_to(graph.T[:, None], (d, d, d)).copy()
    for i in range(d):
        for j in set(range(d)) - {i}:
            expected[i, j, j] ^= True
    np.testing.assert_array_equal(table_of.members(jnp.asarray(codes), d), expected)
    np.testing.assert_array_equal(table_of.num_parents(jnp.asarray(codes)), expected.sum(-1))


def test_a_table_finds_the_codes_that_it_holds_and_fits_those_that_it_lacks_once():
    rng, d = np.random.default_rng(0), 40  # two words
    graphs = jnp.asarray(np.triu(rng.random((3, d, d)) < 0.1, 1), jnp.int32)
    held, lacking, both = (table_of.around(g).reshape(d * d, -1) for g in graphs)
    both = both.at[: d * d // 2].set(held[: d * d // 2])

    def fit(code):
        return (), jnp.zeros(1), jnp.sum(code.astype(jnp.float32))

    @jax.jit
    def run():
        none = table_of.empty_table(d, 1, (), jnp.float32)
        one = table_of.grow(fit, none, held, d)
        two = table_of.grow(fit, one, both, d)
        return one, two, [table_of.find(two, c) for c in (held, both, lacking)]

    one, two, places = jax.device_get(run())
    known = {tuple(c) for c in np.asarray(held).tolist()}
    assert one.size == len(known)
    known |= {tuple(c) for c in np.asarray(both).tolist()}
    assert two.size == len(known) == len({tuple(c) for c in two.code[: two.size].tolist()})
    for codes, place in zip((held, both, lacking), places):
        for code, at in zip(np.asarray(codes).tolist(), place):
            assert (at >= 0) == (tuple(code) in known)
            assert at < 0 or two.code[at].tolist() == code


@pytest.mark.slow
def test_linear_graphs_with_two_edges_a_node_are_found_and_no_wrong_edge_is_decided():
    # Greedy moves and a table grown around one optimum erred by 1.4 on such worlds, with
    # wrong edges at z up to 32, where the truth had the better score.
    estimator = shared_mechanism()
    wrong = []
    for train, test in _worlds(6, 10, 1000, mechanism="linear", edges_per_node=2.0):
        done, out = _fit(estimator, train, test)
        wrong.append(int(shd(out, test)))
        is_wrong = (out.graph > 0) & (test.truth.graph == 0)
        assert not np.any(np.asarray(done.state.edge_z)[is_wrong] > 2.5)
    assert np.mean(wrong) <= 0.5, wrong


@pytest.mark.slow
def test_variables_with_as_many_parents_as_are_allowed_are_counted():
    collider = [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    (world,) = _worlds(1, graph=collider)
    _, out = _fit(SMALL, *world)
    assert out.graph.tolist() == collider and out.diag["num_bound"] == 0  # two of two
    _, out = _fit(shared_mechanism(max_parents=1, num_features=16), *world)
    assert out.diag["num_bound"] >= 1


@pytest.mark.slow
def test_climbing_alone_finds_the_graphs_of_the_exact_search(monkeypatch):
    estimators = [shared_mechanism(num_features=16, num_bootstrap=10) for _ in range(2)]
    for train, test in _worlds(3, 8, 400):
        exact, _ = _fit(estimators[0], train, test)
        with monkeypatch.context() as patch:
            patch.setattr(edge_search, "EXACT", 2)
            patch.setattr(table_of, "_EXACT_OFTEN", 2)
            climbed, _ = _fit(estimators[1], train, test)
        np.testing.assert_array_equal(exact.state.graph, climbed.state.graph)
        np.testing.assert_allclose(
            exact.state.edge_prob, climbed.state.edge_prob, atol=0.2
        )  # .1 recorded
        # The best graph without an edge may be missed, never bettered.
        assert (climbed.state.edge_z > exact.state.edge_z - 1e-2).all()


@pytest.mark.slow
def test_graphs_of_thirty_variables_are_recovered_from_500_rows():
    estimator = shared_mechanism(num_features=16)
    wrong = _errors(estimator, _worlds(2, 30, 500))
    assert np.mean(wrong) <= 2, wrong  # 0 and 2 recorded, of 23 and 24 edges


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_nodes", "edges_per_node", "num_worlds", "most"),
    # Mean SHD at most .1, .1 and .5; three variables with 1 a node are always all joined.
    # With .5 a node 13 of 30 pairs are joined, and 10 of 10 graphs were right.
    [(3, 1.0, 10, 1), (3, 0.5, 10, 1), (10, 1.0, 8, 4)],
)
def test_graphs_are_recovered_from_1000_rows(num_nodes, edges_per_node, num_worlds, most):
    estimator = shared_mechanism()
    wrong = _errors(
        estimator, _worlds(num_worlds, num_nodes, 1000, edges_per_node=edges_per_node)
    )
    assert sum(wrong) <= most, wrong


@pytest.mark.slow
def test_graphs_of_twenty_variables_are_recovered_from_2000_rows():
    estimator = shared_mechanism(num_bootstrap=2)
    wrong = _errors(estimator, _worlds(2, 20, 2000))
    assert np.mean(wrong) <= 1, wrong  # 0 recorded in 1 world, 10 edges, 943 fits


@pytest.mark.slow
def test_counterfactuals_of_10000_rows_err_by_a_tenth_of_a_sd_over_all_columns():
    estimator = shared_mechanism()
    for train, test in _worlds(4, 3, 10_000, 1000):
        _, out = _fit(estimator, train, test)
        assert int(shd(out, test)) == 0
        error = counterfactual_rmse_all(out, test)
        # Over all columns, most of which a query leaves as they were: .03 to .06
        # recorded in four worlds, and .05 to .11 over the columns affected.
        assert error < 0.1


@pytest.mark.slow
def test_direction_of_a_pair_is_decided_by_a_change_of_the_noises_and_by_nothing_else():
    estimator = shared_mechanism()

    def outcome(**options):
        right, decided = [], []
        for train, test in _worlds(30, 2, 1000, **options):
            done, out = _fit(estimator, train, test)
            right.append(int(shd(out, test)) == 0)
            decided.append(bool(done.state.decided.any()))
        return np.mean(right), np.mean(decided)

    right, decided = outcome()
    assert right >= 0.97 and decided >= 0.9  # 1 and 1 recorded
    # Control: two linear Gaussian laws are equivalent. A fair coin leaves [.2, .8] of 30
    # with probability .0003; .53 and 0 recorded.
    right, decided = outcome(change="none", mechanism="linear")
    assert 0.2 <= right <= 0.8 and decided <= 0.1
    # A general mechanism is above chance, for its scale depends on the cause: .87 and .07
    # recorded here, .67 and .13 in the 60 worlds of benchmarks/scm.py.
    _, decided = outcome(change="none")
    assert decided <= 0.1


@pytest.mark.slow
def test_shifts_of_the_noise_means_add_no_edges():
    estimator = shared_mechanism()
    wrong = _errors(estimator, _worlds(4, 10, 1000, mean_shift=1.0))
    assert np.mean(wrong) <= 1, wrong
