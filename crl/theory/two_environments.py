"""A causal graph from three environments: generalised eigenvectors of two Hessians.

Montagna, arXiv 2510.13583 (Gaussian noise); Montagna & Locatello, arXiv 2605.13589. The
mechanisms x_i = f_i(x_pa(i), s_i) of an SCM are shared by all environments, the laws of
the independent noises s = f^-1(x) are not. In the log-ratio of two densities the Jacobian
of f^-1 cancels,

    T_e(x) = log p_e(x) - log p_0(x) = sum_i r_ie(s_i),    r_ie = log p_ie - log p_i0,

and at the point x* where all r'_ie vanish (Gaussian noise with changed variances: s = 0)

    grad T_e = 0,    H_e = hess T_e = J' diag(r''_e) J,    J = ds/dx at x*.

So H_2^-1 H_1 = J^-1 diag(r''_1 / r''_2) J: if these ratios are finite and pairwise distinct,
its eigenvectors are the columns of J^-1 up to order and scale. J is triangular in a causal
order, with no zero on its diagonal, and only one order of its rows has none there (the
argument of LiNGAM). With the diagonal scaled to one, B = I - J holds B_ij = df_i/dx_j,
whose support is the graph, transposed, unless a derivative vanishes at x* by accident.

With one auxiliary environment the second Hessian could only be that of log p_0 itself,

    hess log p_0 = -J' diag(sd_0^-2) J + hess log |det ds/dx|    at x*,

whose last term is unknown. It is 0 where noises are additive: there one is enough, as in a
pair of variables where it concerns the cause alone, which is what location-scale noise does.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from crl.check import check_options
from crl.dgp.mechanisms import KINDS, pull, push
from crl.dgp.scm import World, log_density, multi_environment_scm
from crl.numerics.assignment import assign
from crl.theory.claim import Claim, Row, slack

# What to break, the parts of a point that do, and the words for it.
CONTROLS = {
    "proportional": (
        {"change": "proportional"},
        "distinct ratios: the environments change all precisions in proportion",
    ),
    "one": (
        {"second": "log p_0"},
        "two auxiliary environments: the second Hessian is that of the base's log density",
    ),
    "means": (
        {"change": "none", "mean_shift": 1.0},
        "changed variances: the environments shift the noises, whose log ratios are linear",
    ),
}
ZERO = 1e-6  # below it a derivative is taken to vanish; in float64 errors are near 1e-12


def two_environments(control: str = "proportional") -> Claim:
    """Two auxiliary environments, with distinct changes of variance, give the graph.

    control: what is broken in it, 'proportional' changes of all precisions, 'one': a single
    auxiliary environment, which is enough for additive noise alone, or 'means': environments
    that shift the noises and leave their variances.
    """
    check_options("two_environments", one_of={"control": (control, tuple(CONTROLS))})
    parts, broken = CONTROLS[control]
    whole = {"change": "independent", "mean_shift": 0.0, "second": "log p_2 - log p_0"}

    def points(sizes, kinds, num_worlds):
        return [
            {"num_nodes": d, "mechanism": kind, **whole, "world": world}
            for d in sizes
            for kind in kinds
            for world in range(num_worlds)
        ]

    return Claim(
        statement=(
            "The generalised eigenvectors of the Hessians of two log density ratios, where "
            "both gradients vanish, hold the derivatives of all mechanisms and the graph."
        ),
        reference="Montagna, arXiv 2510.13583; Montagna & Locatello, arXiv 2605.13589",
        points=points((2, 3, 5, 10), KINDS, 3),
        small=points((3,), ("general",), 3),
        measure=_measure,
        predict=lambda key, point: {"shd": 0, "slope_error": 0.0},
        margins=lambda rows: {
            "structural Hamming distance": slack(max(r["shd"] for r in rows), 0.5),
            "derivatives": slack(np.max([r["slope_error"] for r in rows]), 1e-6),
            "gradients at x*": slack(np.max([r["gradient"] for r in rows]), 1e-8),
        },
        control=lambda point: point | parts,
        broken=broken,
    )


def _measure(key: Array, point: Row) -> dict[str, float]:
    """Structural Hamming distance, largest error in df_i/dx_j, largest gradient at x*."""
    key = jax.random.fold_in(key, point["world"])
    kind, d = point["mechanism"], point["num_nodes"]
    dgp = multi_environment_scm(
        d,
        mechanism=kind,
        change=point["change"],
        mean_shift=point["mean_shift"],
        dtype=jnp.float64,
    )
    found = jax.device_get(_hessians(kind, jax.jit(dgp.init)(key)))
    by_one = point["second"] == "log p_0"
    estimate = _derivatives(found["hessians"][[0, 2 if by_one else 1]])
    truth = np.eye(d) - found["jacobian"] / np.diag(found["jacobian"])[:, None]
    graph = np.abs(estimate.T) > ZERO  # graph[i, j]: i causes j
    wrong = graph != found["graph"]
    # A reversed edge is one error, not two.
    return {
        "edges": found["graph"].sum(),
        "shd": (wrong | wrong.T)[np.triu_indices(d)].sum(),
        "slope_error": np.abs(estimate - truth).max(),
        "gradient": np.abs(found["gradients"]).max(),
    }


@functools.partial(jax.jit, static_argnums=0)
def _hessians(mechanism: str, world: World) -> dict[str, Array]:
    """H_1, H_2 and hess log p_0 at x*, and the true graph and ds/dx there."""
    x = push(mechanism, world.mechanisms, jnp.zeros(world.sd.shape[1]))

    def ratio(x, env):
        base = log_density(mechanism, world, 0, x)
        return log_density(mechanism, world, env, x) - base

    ratios = [jax.hessian(ratio)(x, env) for env in (1, 2)]
    base = jax.hessian(lambda x: log_density(mechanism, world, 0, x))(x)
    return {
        "hessians": jnp.stack([*ratios, base]),
        "gradients": jnp.stack([jax.grad(ratio)(x, env) for env in (1, 2)]),
        "jacobian": jax.jacfwd(lambda x: pull(mechanism, world.mechanisms, x)[0])(x),
        "graph": world.mechanisms.graph,
    }


def _derivatives(hessians: np.ndarray) -> np.ndarray:
    """B (d, d), B_ij = df_i/dx_j at x*, from H_1 and H_2 (2, d, d)."""
    d = hessians.shape[-1]
    # The pseudo-inverse, for environments that leave a Hessian without rank.
    _, vectors = np.linalg.eig(np.linalg.pinv(hessians[1]) @ hessians[0])
    # Rounding makes conjugate pairs of ratios that coincide: two real vectors of each.
    jacobian = np.linalg.inv(vectors.real + vectors.imag)  # rows in any order and scale
    # The one order without zeros on the diagonal has the largest product there.
    score = np.log(np.abs(jacobian) + np.finfo(float).tiny)
    _, rows = assign(jnp.asarray(score.T))
    jacobian = jacobian[np.asarray(rows)]
    return np.eye(d) - jacobian / np.diag(jacobian)[:, None]
