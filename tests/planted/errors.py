"""Errors that the tests must notice, each an edit of one place; see plant.py."""

from typing import NamedTuple


class Planted(NamedTuple):
    """One error and where the tests are that should notice it."""

    name: str
    file: str
    old: str  # stands there exactly once
    new: str
    tests: str  # files and options of pytest


TRAIN = "tests/test_train.py"
COMBINED = "tests/test_combinators.py"
SCM = "tests/scm/test_shared_mechanism.py tests/conformance/test_scm.py"
SAE = "tests/sae/test_atoms.py tests/sae/test_topk_sae.py tests/test_survivors_estimators.py"
ISOMETRIC = "tests/ica/test_isometric_autoencoder.py tests/test_survivors_estimators.py"
INVARIANCE = "tests/effects/test_invariance.py"
WORLDS = "tests/test_survivors_worlds.py"
RUN, REPORT = "tests/bench/run", "tests/bench/report"

ERRORS = [
    # --- data, and what a fit makes of it -------------------------------------------------
    Planted(
        "environments interleaved in a world",
        "crl/core.py",
        "env = np.repeat(np.arange(len(count), dtype=np.int32), count)",
        "env = np.resize(np.arange(len(count), dtype=np.int32), count.sum())",
        "tests/test_check.py tests/dgp/test_scm_dgp.py",
    ),
    Planted(
        "test rows are training rows",
        "crl/core.py",
        "(key_test, world, task.num_test)",
        "(key_train, world, task.num_test)",
        "tests/test_core.py",
    ),
    Planted(
        "environments interleaved in the rows held out",
        "crl/feed.py",
        "held = take_rows(data, np.flatnonzero(is_held))",
        "index = np.flatnonzero(is_held).reshape(num_envs(data), -1).T.ravel()\n"
        "    held = take_rows(data, index)",
        f"{TRAIN} {COMBINED}",
    ),
    Planted(
        "held rows seen by the step",
        "crl/feed.py",
        "return take_rows(data, np.flatnonzero(~is_held))._replace(held=held)",
        "return data._replace(held=held)",
        f"{TRAIN} {COMBINED}",
    ),
    Planted(
        "a batch from the wrong environment",
        "crl/feed.py",
        "index = first[env] + jax.random.randint",
        "index = first[0 * env] + jax.random.randint",
        f"{TRAIN} {COMBINED}",
    ),
    Planted(
        "one key for every step",
        "crl/loop.py",
        "jax.random.split(jax.random.fold_in(key, lane.step))",
        "jax.random.split(key)",
        TRAIN,
    ),
    Planted(
        "finish with the key of init",
        "crl/loop.py",
        "key = jax.random.fold_in(key, 2**31 - 2)",
        "key = jax.random.fold_in(key, 2**31 - 1)",
        TRAIN,
    ),
    Planted(
        "a NaN made by finish",
        "crl/loop.py",
        "lane._replace(state=state, diverged=lane.diverged | _has_nan(state))",
        "lane._replace(state=state)",
        TRAIN,
    ),
    Planted(
        "a loss that is not finite goes on",
        "crl/loop.py",
        'diverged |= ~converged & ~jnp.isfinite(info["loss"])',
        "diverged |= False",
        TRAIN,
    ),
    Planted(
        "steps counted after the end",
        "crl/loop.py",
        "step = jnp.where(has_stopped, lane.step, lane.step + 1)",
        "step = lane.step + 1",
        f"{TRAIN} {COMBINED}",
    ),
    Planted(
        "converged ignored",
        "crl/loop.py",
        "return (i < count) & ~lane.diverged & ~lane.converged",
        "return (i < count) & ~lane.diverged",
        TRAIN,
    ),
    Planted(
        "converged never said",
        "crl/loop.py",
        "converged |= ~diverged & estimator.converged(state)",
        "converged |= False",
        TRAIN,
    ),
    Planted(
        "trace shifted by one",
        "crl/train.py",
        "        return np.pad(trace, missing, constant_values=np.nan)",
        "        return np.roll(np.pad(trace, missing, constant_values=np.nan), 1, -1)",
        TRAIN,
    ),
    Planted(
        "resuming on other data",
        "crl/train.py",
        "disk.digest((options, key, data, state, source))",
        "disk.digest((options, key, state, source))",
        TRAIN,
    ),
    Planted(
        "resuming another estimator",
        "crl/train.py",
        'if meta["program"] != identity["program"]:',
        "if False:",
        TRAIN,
    ),
    Planted(
        "a resumed fit forgets its steps",
        "crl/train.py",
        '    return tree["lane"], done, [tree["trace"]]',
        '    return tree["lane"]._replace(step=0 * tree["lane"].step), done, [tree["trace"]]',
        TRAIN,
    ),
    Planted(
        "a replica skipped on resume",
        "crl/train.py",
        "        lane = pad(lane)\n",
        "        lane = pad(lane)\n"
        "        if key.ndim and done:\n"
        "            lane = lane._replace(diverged=lane.diverged.at[-1].set(True))\n",
        f"{TRAIN} tests/test_parallel.py",
    ),
    Planted(
        "a flipped bit in a checkpoint",
        "crl/checkpoint.py",
        'if _digest(np.asarray(arrays[f"leaf{i}"])) != leaf["digest"]:',
        "if False:",
        "tests/test_checkpoint.py",
    ),
    Planted(
        "gradient times devices",
        "crl/parallel.py",
        "compiled = jax.jit(jax.value_and_grad(loss, **options), out_shardings=everywhere)",
        "compiled = jax.jit(\n"
        "        lambda p, b: jax.value_and_grad(\n"
        "            lambda p, b: loss(p, b) * len(devices), **options)(p, b),\n"
        "        out_shardings=everywhere)",
        "tests/test_parallel.py",
    ),
    Planted(
        "padding of replicas in front",
        "crl/parallel.py",
        "return jnp.concatenate([a, copies])",
        "return jnp.concatenate([copies, a])",
        "tests/test_parallel.py",
    ),
    Planted(
        "every device has the whole batch",
        "crl/parallel.py",
        "    return map_rows(lambda a: jax.lax.with_sharding_constraint(a, by_row), data)",
        "    by_row = NamedSharding(_mesh(devices, 'data'), PartitionSpec())\n"
        "    return map_rows(lambda a: jax.lax.with_sharding_constraint(a, by_row), data)",
        "tests/conformance/test_devices.py",
    ),
    # --- combinators ----------------------------------------------------------------------
    Planted(
        "the worst restart wins",
        "crl/combinators.py",
        "rank = jnp.where(is_defined, merit(score, scores),",
        "rank = jnp.where(is_defined, -merit(score, scores),",
        COMBINED,
    ),
    Planted(
        "the last state is the best",
        "crl/combinators.py",
        "better = is_defined & (merit(score, value) > merit(score, state.score))",
        "better = is_defined",
        COMBINED,
    ),
    Planted(
        "replicates see other rows than their key draws",
        "crl/combinators.py",
        "        data = resample(key_rows, data)\n",
        "        data = resample(key_fit, data)\n",
        COMBINED,
    ),
    Planted(
        "replicates that diverged count as graphs",
        "crl/combinators.py",
        "has_edge & ~is_lost[:, None, None]",
        "has_edge",
        COMBINED,
    ),
    Planted(
        "a score that counts the wrong way",
        "crl/core.py",
        "        return value if best > 0 else -value",
        "        return value",
        "tests/test_core.py",
    ),
    # --- numerics, estimators -------------------------------------------------------------
    Planted(
        "whitening without centring",
        "crl/numerics/whitening.py",
        "    centred = x - mean\n",
        "    centred = x\n",
        "tests/numerics/test_whitening.py tests/ica/test_fastica.py",
    ),
    Planted(
        "an order read backwards",
        "crl/numerics/graphs.py",
        "return position[:, None] < position[None, :]",
        "return position[:, None] > position[None, :]",
        "tests/metrics/test_graphs.py tests/numerics",
    ),
    Planted(
        "wrong sign in FastICA",
        "crl/numerics/fastica.py",
        "/ z.shape[1] - mean_slope[:, None] * w",
        "/ z.shape[1] + mean_slope[:, None] * w",
        "tests/ica/test_fastica.py tests/conformance/test_ica.py",
    ),
    Planted(
        "no isometry penalty",
        "crl/ica/isometric_autoencoder.py",
        "return error + weight * distortion,",
        "return error + 0 * weight * distortion,",
        ISOMETRIC,
    ),
    Planted(
        "the Jacobian per unit of standardised codes",
        "crl/ica/isometric_autoencoder.py",
        "jacobian = jax.vmap(jax.jacfwd(decoded))(z[:NUM_JACOBIANS])",
        "jacobian = fitted.scale * jax.vmap(jax.jacfwd(decoded))(z[:NUM_JACOBIANS])",
        "tests/test_survivors_estimators.py",
    ),
    Planted(
        "the Jacobian at standardised codes",
        "crl/ica/isometric_autoencoder.py",
        "jacobian = jax.vmap(jax.jacfwd(decoded))(z[:NUM_JACOBIANS])",
        "jacobian = jax.vmap(jax.jacfwd(decoded))(z[:NUM_JACOBIANS] / fitted.scale)",
        "tests/test_survivors_estimators.py",
    ),
    Planted(
        "wrong axis in the gradient of atoms",
        "crl/sae/atoms.py",
        "g = g - jnp.sum(g * atoms, axis=1, keepdims=True) * atoms",
        "g = g - jnp.sum(g * atoms, axis=0, keepdims=True) * atoms",
        SAE,
    ),
    Planted(
        "atoms that are not normalised",
        "crl/sae/atoms.py",
        "moved = unit_rows(atoms + updates.w_dec)",
        "moved = atoms + updates.w_dec",
        SAE,
    ),
    Planted(
        "wrong sign in the sparse gradient",
        "crl/sae/topk_sae.py",
        "b_dec = jnp.sum(to_estimate, axis=0) - b_enc @ params.w_enc",
        "b_dec = jnp.sum(to_estimate, axis=0) + b_enc @ params.w_enc",
        SAE,
    ),
    Planted(
        "codes of standardised x",
        "crl/sae/autoencoder.py",
        "codes=scale * codes,",
        "codes=codes,",
        SAE,
    ),
    Planted(
        "a transposed graph",
        "crl/scm/shared_mechanism.py",
        "            graph=fitted.graph,",
        "            graph=fitted.graph.T,",
        SCM,
    ),
    Planted(
        "a query that is not obeyed",
        "crl/scm/monotone.py",
        "jnp.where(mask[:, i], value[:, i], z)",
        "jnp.where(mask[:, i] & False, value[:, i], z)",
        SCM,
    ),
    Planted(
        "noise of the environment before",
        "crl/scm/monotone.py",
        "log_s = mixtures.local(law.noise, s, member).log_p",
        "log_s = mixtures.local(law.noise, s, jnp.roll(member, 1, 1)).log_p",
        SCM,
    ),
    Planted(
        "linear laws adopted where they lose an edge",
        "crl/scm/linear_law.py",
        "holds = jnp.all(linear.law.holds[own]) & ~(is_lost & is_worse)",
        "holds = jnp.all(linear.law.holds[own])",
        "tests/scm/test_shared_mechanism.py",
    ),
    Planted(
        "a table that finds its neighbours' codes",
        "crl/scm/score_table.py",
        "return jnp.where(found, table.rank[at], -1)",
        "return jnp.where(found | True, table.rank[at], -1)",
        "tests/scm/test_shared_mechanism.py",
    ),
    Planted(
        "the edge searched without is another",
        "crl/scm/score_table.py",
        "members(table.code, len(graph))[:, tail]",
        "members(table.code, len(graph))[:, head]",
        "tests/scm/test_shared_mechanism.py",
    ),
    Planted(
        "a common cause that need not replace what the edge explains",
        "crl/scm/common_cause.py",
        "table.loss[other] - table.loss[entry[head]]",
        "0 * table.loss[other]",
        "tests/scm/test_shared_mechanism.py",
    ),
    Planted(
        "a covariance of its own in each environment",
        "crl/scm/common_cause.py",
        "best = rho[jnp.argmax(jnp.sum(count * log_ratio(rho, 2.0, r), 1))]",
        "best = r",
        "tests/scm/test_common_cause.py",
    ),
    Planted(
        "a transposed adjustment set",
        "crl/metrics/graphs.py",
        "~is_valid_adjustment(g0, g.T)",
        "~is_valid_adjustment(g0, g)",
        "tests/metrics/test_equivalence.py",
    ),
    Planted(
        "required edges read the other way round",
        "crl/scm/prior.py",
        "before = transitive_closure(required |",
        "before = transitive_closure(required.T |",
        "tests/scm/test_direct_lingam.py",
    ),
    # --- invariance -----------------------------------------------------------------------
    Planted(
        "slopes squared after their mean over environments",
        "crl/effects/irm.py",
        "jnp.mean(jnp.sum(2 * dot(member.T, (f - y) * f), 1) ** 2)",
        "jnp.mean(jnp.sum(2 * dot(member.T, (f - y) * f), 1)) ** 2",
        INVARIANCE,
    ),
    Planted(
        "standard deviation of the risks in place of their variance",
        "crl/effects/vrex.py",
        "jnp.var(risks(f, y, member))",
        "jnp.std(risks(f, y, member))",
        INVARIANCE,
    ),
    Planted(
        "environments weighted by their rows",
        "crl/effects/invariance.py",
        "is_in / jnp.maximum(jnp.sum(is_in, 0), 1)",
        "is_in / jnp.mean(jnp.sum(is_in, 0))",
        INVARIANCE,
    ),
    Planted(
        "a penalty that never grows beyond its first weight",
        "crl/effects/invariance.py",
        "jnp.where(2 * state.time < num_steps, early, weight)",
        "early",
        INVARIANCE,
    ),
    Planted(
        "effects that do not turn",
        "crl/dgp/spurious.py",
        "-jnp.ones((1, k), dtype)",
        "jnp.ones((1, k), dtype)",
        "tests/dgp/test_spurious.py",
    ),
    Planted(
        "a gradient of h that is not transposed",
        "crl/numerics/graphs.py",
        "return value, paths.T + jnp.eye(len(a), dtype=a.dtype)",
        "return value, paths + jnp.eye(len(a), dtype=a.dtype)",
        "tests/theory/test_acyclicity.py",
    ),
    Planted(
        "anchors that are insured by the root of gamma",
        "crl/effects/anchor_regression.py",
        "solve(problem, gamma, 1)",
        "solve(problem, gamma**0.5, 1)",
        "tests/theory/test_anchors.py",
    ),
    # --- worlds ---------------------------------------------------------------------------
    Planted(
        "off-by-one environment in a world",
        "crl/dgp/scm.py",
        "* world.sd[env] + world.mean[env]",
        "* world.sd[env - 1] + world.mean[env]",
        "tests/dgp/test_scm_dgp.py",
    ),
    Planted(
        "effects of the causes",
        "crl/dgp/scm.py",
        "transitive_closure(world.mechanisms.graph)[",
        "transitive_closure(world.mechanisms.graph).T[",
        WORLDS,
    ),
    Planted(
        "log-determinant of the inverse",
        "crl/dgp/scm.py",
        "- jnp.log(sd)) + log_det",
        "- jnp.log(sd)) - log_det",
        WORLDS,
    ),
    Planted(
        "one key for support and amplitude",
        "crl/dgp/superposition.py",
        "(key_amplitude, (n, k), dtype)",
        "(key_support, (n, k), dtype)",
        "tests/conformance/test_dgp.py::test_dgp[z1]",
    ),
    Planted(
        "common atoms last",
        "crl/dgp/superposition.py",
        "return World(atoms, mean, -zipf",
        "return World(atoms, mean, zipf",
        WORLDS,
    ),
    # --- metrics, claims ------------------------------------------------------------------
    Planted(
        "SHD counts reversals twice",
        "crl/metrics/graphs.py",
        "return jnp.sum(jnp.triu(differ | differ.T))",
        "return jnp.sum(differ)",
        "tests/metrics/test_graphs.py",
    ),
    Planted(
        "AUROC without ties",
        "crl/metrics/graphs.py",
        "jnp.where(edge, rankdata(score), 0)",
        'jnp.where(edge, rankdata(score, method="ordinal"), 0)',
        "tests/metrics/test_graphs.py",
    ),
    Planted(
        "MCC without abs",
        "crl/metrics/latents.py",
        "mean_matched(jnp.abs(correlations(z_est, z, rank)))",
        "mean_matched(correlations(z_est, z, rank))",
        "tests/metrics/test_latents.py",
    ),
    Planted(
        "an error of which more is better",
        "crl/metrics/graphs.py",
        "@metric(best=0.0)\ndef shd(",
        "@metric(best=1.0)\ndef shd(",
        "tests/conformance/test_metrics.py",
    ),
    Planted(
        "pairs of a fit with itself",
        "crl/metrics/stability.py",
        "itertools.combinations(",
        "itertools.combinations_with_replacement(",
        "tests/metrics/test_stability.py",
    ),
    Planted(
        "precision is recall",
        "crl/metrics/dictionaries.py",
        "    return hits / claimed\n",
        "    return hits / _support_counts(claims, sample, '')[2]\n",
        "tests/metrics/test_dictionaries.py",
    ),
    Planted(
        "a control that is not looked at",
        "crl/theory/claim.py",
        "control_fails=not np.min(list(control_margins.values())) > 0",
        "control_fails=True",
        "tests/theory/test_claim.py",
    ),
    # --- runner and report ----------------------------------------------------------------
    Planted(
        "a wrong quantile in the report",
        "crl/bench/report/rows.py",
        "np.percentile(values, [25, 50, 75])",
        "np.percentile(values, [10, 50, 90])",
        REPORT,
    ),
    Planted(
        "a difference with the wrong sign",
        "crl/bench/report/rows.py",
        "worlds[w] - peer[w]",
        "peer[w] - worlds[w]",
        REPORT,
    ),
    Planted(
        "a bound that everything meets",
        "crl/bench/run/expect.py",
        "np.where(np.isnan(worlds), -np.inf, worlds)) >= bound.at_least",
        "np.where(np.isnan(worlds), -np.inf, worlds)) >= -np.inf",
        f"{RUN}/test_expect.py",
    ),
    Planted(
        "a cell skipped on resume",
        "crl/bench/run/runner.py",
        "        return [cell for cell, todo in zip(each, _agreed(missing)) if todo]",
        "        todo = [cell for cell, todo in zip(each, _agreed(missing)) if todo]\n"
        "        return todo[1:] if len(todo) < len(each) else todo",
        RUN,
    ),
    Planted(
        "test rows left out of the key of a cell",
        "crl/bench/run/cells.py",
        '        "num_test": task.num_test,\n',
        "",
        f"{RUN}/test_cells.py {RUN}/test_suite.py",
    ),
    Planted(
        "one key for all fits of a world",
        "crl/bench/run/fitting.py",
        '        jax.random.fold_in(world_key(seed, world), stable_hash("fit")), fit\n',
        '        jax.random.fold_in(world_key(seed, world), stable_hash("fit")), 0\n',
        f"{RUN}/test_runner.py",
    ),
    Planted(
        "a diverged fit has a result",
        "crl/bench/run/fitting.py",
        "bool(fit.diverged[i]))",
        "False)",
        f"{RUN}/test_runner.py",
    ),
]
