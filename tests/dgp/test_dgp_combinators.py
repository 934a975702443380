import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crl.core import DGP, Sample, Task, Truth, grouped
from crl.core import draw as draw_task
from crl.dgp import mixings, sources
from crl.dgp.combinators import (
    confounded,
    noisy,
    perturbed,
    selected,
    standardized,
    with_jacobian,
)
from crl.dgp.latent import mixed_sources
from crl.dgp.real import from_arrays
from crl.dgp.scm import multi_environment_scm
from crl.metrics.geometry import singular_values

LINEAR = mixed_sources(sources.laplace(), mixings.linear(20.0, num_observed=4), 3)


def draw(dgp, n=4000):
    world = dgp.init(jax.random.key(0))
    return world, dgp.sample(jax.random.key(1), world, n)


def test_standardized_has_unit_columns_and_a_consistent_truth():
    """Columns within five standard errors of mean 0 (n = 4000) and variance 1."""
    world, sample = draw(standardized(LINEAR))
    x = np.asarray(sample.data.x)
    assert np.abs(x.mean(0)).max() < 5 * np.sqrt(1 / 4000 + 1 / 10_000)
    np.testing.assert_allclose(x.std(0), 1, atol=5 * np.sqrt(5 / 4 / 4000 * 1.4))
    centred = sample.truth.z @ sample.truth.mixing.T
    np.testing.assert_allclose(x - x.mean(0), centred - centred.mean(0), atol=1e-4)
    one = standardized(LINEAR).mix(world, sample.truth.z[0])
    np.testing.assert_allclose(one, x[0], atol=1e-5)


def _dictionary_world():
    """Codes, a dictionary and a density: what the linear world lacks."""

    def sample(key, world, n):
        codes = jax.random.exponential(key, (n, 5))
        atoms = world / jnp.linalg.norm(world, axis=1, keepdims=True)
        x = codes @ atoms
        truth = Truth(codes=codes, dictionary=atoms, counterfactual=x, log_prob=x[:, 0])
        aux = {"pair": 2 * x, "do_value": x, "y": codes}
        return Sample(grouped(x, aux=aux, graph=jnp.eye(4)), truth)

    return DGP(lambda key: jax.random.normal(key, (5, 4)), sample, None)


def test_standardized_carries_what_lives_in_the_space_of_x():
    plain = _dictionary_world()
    dgp = standardized(plain)
    (inner, (mean, scale)), (data, truth) = draw(dgp, 50)
    before = plain.sample(jax.random.key(1), inner, 50)
    np.testing.assert_allclose(truth.counterfactual, data.x)
    np.testing.assert_allclose(data.aux["do_value"], data.x)
    np.testing.assert_allclose(data.aux["pair"], (before.data.aux["pair"] - mean) / scale)
    np.testing.assert_array_equal(data.aux["y"], before.data.aux["y"])
    np.testing.assert_array_equal(data.given["graph"], np.eye(4))
    np.testing.assert_allclose(jnp.linalg.norm(truth.dictionary, axis=1), 1, rtol=1e-5)
    rebuilt = truth.codes @ truth.dictionary - mean / scale
    np.testing.assert_allclose(rebuilt, data.x, atol=1e-5)
    jump = truth.log_prob - before.truth.log_prob
    np.testing.assert_allclose(jump, np.log(np.asarray(scale)).sum(), rtol=1e-4)
    assert dgp.mix is None


def test_noisy_adds_noise_of_the_asked_scale():
    """Standard deviation within five standard errors, n = 16000 entries."""
    for dgp in (noisy(LINEAR, 0.5), noisy(LINEAR, 0.5, sources.uniform())):
        _, sample = draw(dgp)
        noise = np.asarray(sample.data.x - sample.truth.z @ sample.truth.mixing.T)
        assert noise.std() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(2 * 16_000))
    assert np.abs(noise).max() <= 0.5 * np.sqrt(3) + 1e-5  # the last is uniform
    _, (data, _) = draw(noisy(_dictionary_world(), 0.1), 50)
    extra = data.aux["pair"] - 2 * data.x  # e' - 2 e: the pair's noise is its own
    assert np.std(extra) == pytest.approx(0.1 * np.sqrt(5), rel=0.2)


@pytest.mark.slow
def test_perturbed_bends_by_at_most_eta():
    orthogonal = mixed_sources(sources.laplace(), mixings.linear(), 3)
    world, sample = draw(with_jacobian(perturbed(orthogonal, 0.3), 64), 200)
    s = singular_values(sample.truth.jacobian)
    assert 0.7 <= s.min() < 0.97 and 1.03 < s.max() <= 1.3
    assert sample.truth.mixing is None
    straight = orthogonal.sample(jax.random.key(1), world.inner, 200).data.x
    assert 0.01 < jnp.abs(sample.data.x - straight).max()
    with pytest.raises(ValueError, match="without do"):
        draw(perturbed(_dictionary_world()), 10)


@pytest.mark.slow
def test_a_quadratic_perturbation_keeps_its_bound_on_its_ball_and_not_beyond():
    # Orthogonal mixing, so the singular values of the Jacobian are those of x + eta h(x).
    base = standardized(mixed_sources(sources.laplace(), mixings.linear(), 3))
    world, sample = draw(with_jacobian(perturbed(base, 0.5, "quadratic"), 500), 500)
    x = base.sample(jax.random.key(1), world.inner, 500).data.x
    s = np.linalg.svd(sample.truth.jacobian, compute_uv=False)
    s = s * np.asarray(world.inner.own[1]).mean()  # columns of variance 1 up to 2 %
    inside = np.asarray(jnp.linalg.norm(x, axis=1) <= 2 * np.sqrt(3))
    assert 0.9 < inside.mean() < 1
    assert 0.49 <= s[inside].min() and s[inside].max() <= 1.51
    far = jax.jacfwd(lambda z: perturbed(base, 0.5, "quadratic").mix(world, z))(
        jnp.full(3, 20.0)
    )
    assert np.linalg.svd(far, compute_uv=False)[0] > 1.51


def test_with_jacobian_equals_the_matrix_of_a_linear_mixing():
    _, sample = draw(with_jacobian(LINEAR, 7), 20)
    expected = np.broadcast_to(sample.truth.mixing, (7, 4, 3))
    np.testing.assert_allclose(sample.truth.jacobian, expected, atol=1e-6)
    both = draw(standardized(with_jacobian(LINEAR, 7)), 20)[1]
    np.testing.assert_allclose(both.truth.jacobian[3], both.truth.mixing, atol=1e-6)


def _world_with_another_law_held_out():
    """Sources that are judged at ten times their scale."""

    def held_out(key, world, n):
        z = 10 * LINEAR.sample(key, world, n).truth.z
        return Sample(
            grouped(z @ world.T, (n,), count_of=jnp.ones(1)), Truth(z=z, mixing=world)
        )

    return LINEAR._replace(held_out=held_out)


CHANGES = {
    "standardized": standardized,
    "noisy": noisy,
    "perturbed": perturbed,
    "with_jacobian": with_jacobian,
}
NESTED = pytest.param(lambda dgp: with_jacobian(perturbed(standardized(noisy(dgp)))), id="all")


@pytest.mark.parametrize(
    "change",
    [NESTED, *(pytest.param(f, id=k, marks=pytest.mark.slow) for k, f in CHANGES.items())],
)
def test_the_law_held_out_changes_as_the_other_does(change):
    """With what is held out equal to the first law, both samples of a key are equal."""
    plain, both = change(LINEAR), change(LINEAR._replace(held_out=LINEAR.sample))
    assert plain.held_out is None

    @jax.jit
    def samples(key):
        world = both.init(key)
        return both.sample(key, world, 20), both.held_out(key, world, 20)

    sample, held_out = samples(jax.random.key(0))
    for a, b in zip(jax.tree.leaves(sample), jax.tree.leaves(held_out), strict=True):
        np.testing.assert_array_equal(a, b)


def test_held_out_rows_are_standardised_by_the_law_of_the_training_rows():
    task = Task(standardized(_world_with_another_law_held_out()), 4000, 4000, {})
    train, test = draw_task(task, jax.random.key(0))
    # Laplace sources: the standard deviation of 4000 rows is known to about 2 %.
    np.testing.assert_allclose(train.data.x.std(0), 1, atol=0.1)
    np.testing.assert_allclose(test.data.x.std(0), 10, atol=1)
    assert "count_of" in test.data.given


def test_combinators_refuse_what_they_cannot_change():
    with pytest.raises(ValueError, match="real data"):
        with_jacobian(from_arrays(np.eye(4, 2, dtype=np.float32)))
    with pytest.raises(ValueError, match="num_reference >= 2"):
        standardized(LINEAR, 1)
    with pytest.raises(ValueError, match="noisy needs scale >= 0, got -1"):
        noisy(LINEAR, -1.0)
    for eta in (5.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="perturbed needs 0 <= eta < 1"):
            perturbed(LINEAR, eta)
    jax.vmap(lambda eta: draw(perturbed(LINEAR, eta), 2)[1].data.x)(jnp.array([0.1, 0.2]))


def compiled_draw(dgp, n):
    @jax.jit
    def both(key):
        world = dgp.init(key)
        return world, dgp.sample(jax.random.fold_in(key, 1), world, n)

    return both(jax.random.key(0))


def test_confounders_join_the_noises_of_their_pairs_and_no_others():
    """Correlations of 6000 normal rows, five standard errors of .013."""
    plain = multi_environment_scm(4, "chain", mechanism="linear", num_envs=2)
    dgp = confounded(plain, num_pairs=2, loading=1.5)
    world, (data, truth) = compiled_draw(dgp, 6000)
    pairs = np.asarray(truth.other["confounded"])
    assert pairs.sum() == 4 and (pairs == pairs.T).all() and not pairs.diagonal().any()
    loads = np.asarray(world.own)
    base = np.cov(truth.z[:6000].T)
    np.testing.assert_allclose(base, np.eye(4) + 1.5**2 * loads.T @ loads, atol=0.6)
    correlation = np.abs(np.corrcoef(truth.z[:6000].T))
    assert correlation[pairs > 0].min() > 0.35
    others = np.triu((pairs == 0) & (loads.T @ loads == 0), 1)
    assert correlation[others].max() < 0.065
    x = jax.vmap(lambda z: dgp.mix(world, z))(truth.z)
    np.testing.assert_allclose(x, data.x, atol=1e-4)
    assert truth.counterfactual is None and truth.log_prob is None and not data.aux


def test_selection_makes_the_chosen_columns_dependent_and_no_others():
    """Independent variables; correlations of 6000 rows, five standard errors of .013."""

    def sample(key, world, n):
        x = jax.random.normal(key, (n, 3))
        return Sample(grouped(x), Truth(z=x))

    plain = DGP(jax.random.normal, sample, lambda world, z: z)

    def correlations(dgp):
        world, (data, truth) = draw(dgp, 6000)
        # Rows of everything are rows of one candidate.
        np.testing.assert_allclose(data.x, truth.z, atol=1e-6)
        return (
            np.sign(world.own),
            np.corrcoef(np.asarray(data.x).T),
            truth.other["selected_on"],
        )

    sign, found, chosen = correlations(selected(plain))
    a, b = np.flatnonzero(chosen)
    assert sign[a] * sign[b] * found[a, b] < -0.15  # recorded -.27
    rest = np.triu(~np.outer(chosen, chosen).astype(bool), 1)
    assert np.abs(found[rest]).max() < 0.065
    _, control, _ = correlations(selected(plain, strength=0.0))
    assert np.abs(control[np.triu_indices(3, 1)]).max() < 0.065


def test_assumptions_are_broken_only_where_they_can_be():
    three = multi_environment_scm(3, mechanism="linear")
    with pytest.raises(ValueError, match="num_pairs <= 3, the pairs of 3 variables, got 4"):
        jax.eval_shape(confounded(three, 4).init, jax.random.key(0))
    with pytest.raises(ValueError, match="needs a world with mix and truth"):
        jax.eval_shape(confounded(_dictionary_world()).init, jax.random.key(0))
    with pytest.raises(ValueError, match="num_columns <= 3, got 4"):
        jax.eval_shape(selected(three, num_columns=4).init, jax.random.key(0))
