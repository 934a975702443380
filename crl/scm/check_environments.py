"""What the environments of a fit by ``shared_mechanism`` can carry, in numbers.

The theorem behind it (Montagna, arXiv 2510.13583) asks of a base and two auxiliary
environments that mechanisms stay the same (E1), that every noise changes its variance (E2),
each in a proportion of its own (E3), that environments overlap (E4), and that noises keep
their mean and are Gaussian (E5, E6). The likelihood does with less: it takes shifts of the
mean and other laws, and on most graphs only some noises need to change. Hence values, no
verdicts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from crl.core import Data, num_envs
from crl.numerics import mixtures
from crl.numerics.groups import centred, group_means
from crl.numerics.independence import independence
from crl.numerics.normality import jarque_bera
from crl.scm import monotone
from crl.scm.evidence import change
from crl.scm.shared_mechanism import DECIDED, Fitted


class Checks(NamedTuple):
    """E environments, the base first, and d variables."""

    dependence_p: (
        Array  # (d, d) E1: p-value that two noises are independent within environments
    )
    noise_sd: Array  # (E, d) E2: of the noises, in units of the base's
    change_z: Array  # (d,) E2: how clearly a noise changes, in standard errors
    distinct_z: Array  # (d, d) E3: how clearly two noises change in different proportions
    overlap: (
        Array  # (E,) E4: effective share of the base's rows at weights p_e / p_0, in (0, 1]
    )
    shift_z: Array  # (E, d) E5: how clearly a mean differs from the base's, signed
    normal_p: Array  # (d,) E6: p-value that noises are Gaussian in every environment
    edge_gain: Array  # (E, d, d) nats a row by which an environment speaks for the edge i -> j
    more_rows: Array  # (d, d) the multiple of today's rows at which edge i -> j would have a z
    #   that decides it, if its gain a row stays: at least 1; 0 without an edge


def check_environments(fitted: Fitted, data: Data) -> Checks:
    """What data with environments can carry, by the state of a fit of ``shared_mechanism``.

    data: the rows that it was fitted to, or others of the same environments. Pure; compiles.
    Everything is about the graph that was found: where a ``dependence_p`` is tiny, a mechanism
    changes, a variable is missing or the fit cannot follow, and the rest means little. A z is
    asymptotic; above 4 it is clear. ``distinct_z`` is the clearest over pairs of auxiliary
    environments, and 0 with one of them. ``overlap`` falls with the number of variables, and
    towards 0 with the rows wherever a noise has more than twice the variance of the base's:
    low values warn only those who weight rows by density ratios. A large ``more_rows`` says
    that this environment will not decide an edge, whatever its size: change the noise of one
    of its ends.
    """
    columns = monotone.normalized(fitted.basis, data.x)
    s, _ = monotone.noises(fitted.basis, fitted.law, columns, data.env)
    member = jax.nn.one_hot(data.env, num_envs(data), dtype=s.dtype)
    count = data.given["count"][:, None].astype(s.dtype)  # (E, 1)
    mean, about = group_means(s, member), centred(s, member)
    var, fourth = (group_means(about**k, member) for k in (2, 4))  # (E, d)

    def against_all(i):
        return jax.vmap(lambda c: independence(s[:, i], c, member), 1)(s)

    d = s.shape[1]
    p_value = jax.lax.map(against_all, jnp.arange(d))
    needed = (DECIDED / jnp.maximum(fitted.edge_z, 1e-6)) ** 2
    return Checks(
        dependence_p=jnp.where(jnp.eye(d, dtype=bool), 1, p_value),
        noise_sd=jnp.sqrt(var / var[0]),
        change_z=change(s, data),
        distinct_z=_distinct(var, (fourth / var**2 - 1) / count),
        overlap=_overlap(fitted, s, member),
        shift_z=(mean - mean[0]) / jnp.sqrt(var / count + var[0] / count[0]),
        normal_p=jarque_bera(s, member)[1],
        edge_gain=fitted.edge_gain,
        more_rows=jnp.where(fitted.graph > 0, jnp.maximum(needed, 1), 0),
    )


def _distinct(var: Array, error: Array) -> Array:
    """z (d, d) that the changes of precision of two noises are not proportional.

    var: (E, d), error: (E, d) the relative variance of each. For auxiliary environments e, f
    the changes l of variables i, j are proportional where l_ei l_fj = l_ej l_fi.
    """
    ratio = var[0] / var[1:]
    change, noise = ratio - 1, ratio**2 * (error[1:] + error[0])  # (A, d)
    num = len(change)
    z = jnp.zeros((num, num, *2 * var.shape[1:]), var.dtype)
    for e in range(num):
        for f in range(e):
            cross = change[e][:, None] * change[f] - change[f][:, None] * change[e]
            spread = sum(
                change[a][:, None] ** 2 * noise[b] + change[a] ** 2 * noise[b][:, None]
                for a, b in ((e, f), (f, e))
            )
            z = z.at[e, f].set(jnp.abs(cross) / jnp.sqrt(jnp.maximum(spread, 1e-12)))
    return jnp.max(z, (0, 1))


def _overlap(fitted: Fitted, s: Array, member: Array) -> Array:
    """Kish's effective share of the base's rows, weighted to each environment, (E,)."""

    def log_p(e):
        there = jnp.zeros_like(member).at[:, e].set(1)
        each = jax.vmap(lambda noise, s: mixtures.local(noise, s, there).log_p, (0, 1))
        return jnp.sum(each(fitted.law.noise, s), 0)  # (n,)

    log_p = jax.vmap(log_p)(jnp.arange(member.shape[1]))  # (E, n)
    ratio = jnp.where(member[:, 0] > 0, log_p - log_p[0], -jnp.inf)
    weight = jnp.exp(ratio - jnp.max(ratio, 1, keepdims=True))
    return jnp.sum(weight, 1) ** 2 / jnp.sum(weight**2, 1) / jnp.sum(member[:, 0])
