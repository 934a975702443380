# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A causal graph from two auxiliary environments
#
# An SCM $x_i = f_i(x_{\mathrm{pa}(i)}, s_i)$ keeps its mechanisms in every environment; the
# variances of the independent noises $s = f^{-1}(x)$ change (Montagna, arXiv 2510.13583;
# Montagna & Locatello, arXiv 2605.13589). In $T_e = \log p_e - \log p_0$ the Jacobian of
# $f^{-1}$ cancels:
# $T_e(x) = \sum_i r_{i,e}(s_i)$. At $x^* = f(0)$ both gradients vanish and
#
# $$ H_e = \nabla^2 T_e(x^*) = J^\top \operatorname{diag}(r''_{i,e})\, J, \qquad
#    J = \partial s / \partial x, \qquad
#    H_2^{-1} H_1 = J^{-1} \operatorname{diag}(r''_{i,1} / r''_{i,2})\, J. $$
#
# If the ratios are finite and pairwise distinct, the eigenvectors hold $J$ up to the order
# and scale of its rows. $J$ is triangular in a causal order, so only one order of rows has no
# zero on the diagonal, and $I - \operatorname{diag}(J)^{-1} J$ has entries
# $\partial f_i / \partial x_j$: its support is the graph. The densities here are exact, the
# mechanisms nonlinear and not additive in the noise. In the control the two environments
# change all precisions in proportion, so that the ratios coincide.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

from crl.theory.claim import verify
from crl.theory.two_environments import two_environments

claim = two_environments()
verdict = verify(claim, jax.random.key(0), small="FAST" in os.environ)
for check, margin in verdict.margins.items():
    print(f"{check:28} margin {margin:.6f}, control {verdict.control_margins[check]:.3g}")

# %% [markdown]
# The largest error in any $\partial f_i / \partial x_j$, for every world of the sweep.

# %%
figure, panel = plt.subplots(figsize=(6, 3.6), layout="constrained")
for label, rows in [("independent", verdict.rows), ("proportional", verdict.control_rows)]:
    errors = np.maximum([r["slope_error"] for r in rows], np.finfo(float).eps)
    sizes = np.array([r["num_nodes"] for r in rows]) + np.linspace(-0.2, 0.2, len(rows))
    panel.plot(sizes, errors, "o", label=label)
panel.set(
    yscale="log", xlabel="variables", ylabel=r"largest error in $\partial f_i/\partial x_j$"
)
panel.legend(title="change of variances")

# %%
assert verdict.holds, verdict.margins
assert verdict.control_fails, "proportional environments should hide the graph"
