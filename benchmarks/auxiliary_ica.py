"""ICA by what changes between environments, beside modulations too poor for it.

crl run benchmarks/auxiliary_ica.py --workdir results/auxiliary_ica
"""

from ml_collections import ConfigDict

from crl.bench.run.suite import at_least, at_most, spec
from crl.combinators import restarts
from crl.dgp.mixings import leaky_relu_mlp, xtanh_mlp
from crl.dgp.segments import ivae_sources, modulated_sources
from crl.dgp.sources import gaussian, laplace
from crl.ica.ivae import ivae
from crl.ica.tcl import tcl
from crl.metrics.latents import affine_r2, mcc
from crl.metrics.likelihood import held_out_log_prob
from crl.metrics.statistics import affine_r2_abs


def get_config() -> ConfigDict:
    config = {"suite": "auxiliary_ica", "tasks": {**contrastive(), **variational()}}
    return ConfigDict(config, allow_dotted_keys=True)


def contrastive() -> dict:
    """Laplace sources that differ in scale, through a leaky ReLU network of two layers."""

    def task(rank, note, bound):
        mixing = spec(leaky_relu_mlp, num_layers=2)
        return {
            "dgp": spec(modulated_sources, source=spec(laplace), mixing=mixing, rank=rank),
            "num_train": 8000,
            "num_test": 500,
            "metrics": [affine_r2_abs],
            "estimators": {"tcl": spec(tcl, num_latents=5)},
            "expect": {"tcl": {"affine_r2_abs": bound}},
            "worlds": 5,
            "note": note,
        }

    return {
        "tcl": task(None, "modulation of full rank: |s| up to an affine map", at_least(0.97)),
        "tcl_rank_3": task(
            3,
            "control: two pairs of sources share a modulation, and of their statistics only "
            "the sums can be seen: .65 by arithmetic",
            at_most(0.8),
        ),
    }


def variational() -> dict:
    """Gaussian sources through xtanh networks of three layers."""

    def model(prior, posterior="full"):
        one = spec(ivae, num_latents=5, prior=prior, posterior=posterior)
        return spec(restarts, estimator=one, num=3, score=held_out_log_prob)

    def task(dgp, note, estimators, **bounds):
        return {
            "dgp": dgp,
            "num_train": 1000,
            "num_test": 200,
            "metrics": [mcc, affine_r2, held_out_log_prob],
            "estimators": estimators,
            "expect": {name: {"mcc": bound} for name, bound in bounds.items()},
            "worlds": 5,
            "note": note,
        }

    def modulated(mixing, **options):
        return spec(modulated_sources, source=spec(gaussian), mixing=mixing, **options)

    def both(prior):
        return {"ivae": model(prior), "diagonal": model(prior, "diagonal")}

    return {
        "ivae": task(
            spec(ivae_sources),
            "scales differ; diagonal: a posterior of independent latents prefers decoders "
            "with orthogonal columns to the law of the data",
            both("scale"),
            ivae=at_least(0.95),
            diagonal=at_most(0.95),
        ),
        "ivae_means": task(
            modulated(spec(xtanh_mlp), max_mean=5.0),
            "means and scales differ",
            both("location_scale"),
            ivae=at_least(0.95),
            diagonal=at_most(0.95),
        ),
        "ivae_leaky": task(
            modulated(spec(leaky_relu_mlp, num_layers=2)),
            "scales differ, through a network of two layers with kinks",
            both("scale"),
            ivae=at_least(0.95),
            diagonal=at_most(0.9),
        ),
        "ivae_rank_1": task(
            modulated(spec(xtanh_mlp), rank=1),
            "control: all scales differ alike, which leaves a rotation open",
            {"ivae": model("scale")},
            ivae=at_most(0.8),
        ),
    }
