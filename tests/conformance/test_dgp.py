"""Every DGP of crl.dgp keeps the contract."""

import importlib.util
from functools import partial

import pytest
from properties import dgps

from crl.dgp import combinators, real, real_graphs, superposition
from crl.dgp.intervened import intervened_scm
from crl.dgp.latent import mixed_sources
from crl.dgp.mixings import flat_torus, leaky_relu_mlp, linear, near_isometric
from crl.dgp.scm import multi_environment_scm as scm
from crl.dgp.sources import (
    alternating,
    gamma,
    gaussian,
    gaussian_mixture,
    generalized_normal,
    gumbel,
    laplace,
    logistic,
    student_t,
    uniform,
)
from crl.dgp.time_series import structural_var


def all_sources():
    laws = [laplace, logistic, uniform, gaussian, student_t, gumbel, gamma]
    laws += [generalized_normal]
    return alternating([law() for law in (*laws, gaussian_mixture)])


def sources(mixing=linear, law=laplace):
    return mixed_sources(law(), mixing(), num_latents=3)


def with_(combinator, *options):
    return lambda: combinator(sources(), *options)


def shipped(package, factory):
    """Where the package is installed whose files it reads."""

    def make():
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
        return factory()

    return make


test_dgp = dgps(
    {
        "uniform, torus": partial(sources, flat_torus, uniform),
        "laplace, near-isometric": partial(sources, near_isometric),
        "scm, general": partial(scm, 3, graph="scale_free"),
        "scm, unequal sizes": partial(scm, 2, mechanism="linear", sizes=(1, 0.5, 2)),
        "structural_var": partial(structural_var, 3, 2),
        "z1": superposition.z1,
        "digits": real.digits,
        "sachs": shipped("cdt", real_graphs.sachs),
        "tuebingen": shipped("cdt", real_graphs.tuebingen),
        "gaussian_network": shipped("pgmpy", real_graphs.gaussian_network),
        "with_jacobian": with_(combinators.with_jacobian),
    },
    noisy=("z1",),
)
# Further settings of a factory that another line checks with all that it draws, combinators
# with tests of their own, and seven laws at once, which compile for long.
test_further_dgp = dgps(
    {
        "sources, linear": lambda: mixed_sources(all_sources(), linear(10.0, 8), 7),
        "uniform, leaky ReLU": partial(sources, leaky_relu_mlp, uniform),
        "scm, linear": partial(scm, 3, mechanism="linear", change="none"),
        "scm, anm": partial(scm, 3, mechanism="anm", noise="laplace"),
        "scm, lsnm": partial(scm, 3, mechanism="lsnm", mean_shift=1.0),
        "scm, gp": partial(scm, 3, "stochastic_block", mechanism="gp", changed=0.5),
        "scm, post-nonlinear": partial(scm, 3, mechanism="post_nonlinear", scaling="internal"),
        "confounded": lambda: combinators.confounded(scm(3, mechanism="polynomial"), 2),
        "selected": with_(combinators.selected),
        "intervened, soft": partial(intervened_scm, 3, "soft", mechanism="general"),
        "song": superposition.song,
        "s1": superposition.s1,
        "standardized": with_(combinators.standardized),
        "noisy": with_(combinators.noisy, 0.1),
        "perturbed": with_(combinators.perturbed, 0.1),
    },
    # Interventions that change a mechanism are not what mix does.
    noisy=("noisy", "intervened, soft"),
    slow=True,
)
