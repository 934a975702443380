"""Linear effects of confounded treatments, judged under do(x), and predictions under shifts.

crl run benchmarks/effects.py --workdir results/effects
"""

from ml_collections import ConfigDict

from crl.bench.run.suite import at_least, at_most, between, spec
from crl.dgp.anchors import shifted_anchors
from crl.dgp.instruments import augmented_regression, linear_instruments
from crl.dgp.spurious import spurious_effects
from crl.effects.anchor_regression import anchor_regression
from crl.effects.irm import irm
from crl.effects.liml import liml
from crl.effects.two_stage_least_squares import two_stage_least_squares
from crl.effects.vrex import vrex
from crl.metrics.effects import causal_excess_risk, effect_error
from crl.metrics.interventions import y_rmse

# k = 0 is least squares, k = 1 two-stage least squares.
INSTRUMENTAL = {
    "k-class": spec(two_stage_least_squares, sweep={"k": [0.0, 1.0]}),
    "liml": spec(liml),
}
# k = 1 / (1 + alpha): alpha = infinity, 1, .11, .0101 and .001.
AUGMENTED = {
    "k-class": spec(two_stage_least_squares, sweep={"k": [0.0, 0.5, 0.9, 0.99, 0.999]})
}
# gamma = 1 is least squares, 10,000 as good as instrumental variables.
ANCHORED = {"anchor": spec(anchor_regression, sweep={"gamma": [0.0, 1.0, 5.0, 10_000.0]})}

# weight = 0 is least squares.
INVARIANT = {"irm": spec(irm, sweep={"weight": [0.0, 1000.0]}), "vrex": spec(vrex)}


def _instruments(note, expect, worlds=20, **options):
    return {
        "dgp": spec(linear_instruments, **options),
        "num_train": 2000,
        "num_test": 1000,
        "metrics": [effect_error, y_rmse],
        "estimators": INSTRUMENTAL,
        "expect": expect,
        "worlds": worlds,
        "note": note,
    }


def _augmented(note, expect, **options):
    return {
        "dgp": spec(augmented_regression, **options),
        "num_train": 2048,
        "num_test": 500,
        "metrics": [causal_excess_risk, y_rmse],
        "estimators": AUGMENTED,
        "expect": expect,
        "worlds": 30,
        "note": note,
    }


def _anchored(note, expect, **options):
    return {
        "dgp": spec(shifted_anchors, **options),
        "num_train": 5000,
        "num_test": 20_000,
        "metrics": [y_rmse, effect_error],
        "estimators": ANCHORED,
        "expect": {
            f"anchor[gamma={float(gamma)}]": {"y_rmse": bound}
            for gamma, bound in expect.items()
        },
        "worlds": 20,
        "note": note,
    }


def _spurious(note, expect, **options):
    """expect: least squares, irm, vrex. Predicting from y's causes alone has y_rmse 1."""
    names = "irm[weight=0.0]", "irm[weight=1000.0]", "vrex"
    return {
        "dgp": spec(spurious_effects, **options),
        "num_train": 4000,
        "num_test": 4000,
        "metrics": [y_rmse, effect_error],
        "estimators": INVARIANT,
        "expect": {name: {"y_rmse": bound} for name, bound in zip(names, expect)},
        "worlds": 12,
        "note": note,
    }


def get_config() -> ConfigDict:
    valid = {"effect_error": at_most(0.08), "y_rmse": at_most(0.25)}
    off = {"effect_error": at_least(0.25), "y_rmse": at_least(0.8)}
    tasks = {
        "valid instruments": _instruments(
            "instruments find the effect; least squares takes confounding for it",
            {"k-class[k=1.0]": valid, "liml": valid, "k-class[k=0.0]": off},
        ),
        "direct effect (control)": _instruments(
            "instruments act on y past x: worse than doing without them",
            {"k-class[k=1.0]": off, "liml": off},
            exclusion=1.0,
        ),
        "many weak instruments": _instruments(
            "two-stage least squares leans towards least squares, by 1 / F; liml does not",
            {
                "k-class[k=1.0]": {"effect_error": at_least(0.15)},
                "liml": {"effect_error": at_most(0.12)},
                "k-class[k=0.0]": {"effect_error": at_least(0.35)},
            },
            worlds=40,
            num_treatments=1,
            num_instruments=100,
            strength=0.036,
        ),
        "augmented": _augmented(
            "augmentations that leave y alone are instruments, one too few",
            {
                "k-class[k=0.99]": {"causal_excess_risk": at_most(0.02)},
                "k-class[k=0.9]": {"causal_excess_risk": at_most(0.04)},
                "k-class[k=0.0]": {"causal_excess_risk": between(0.04, 0.12)},
            },
        ),
        "not augmented (control)": _augmented(
            "nothing to learn from",
            {
                f"k-class[k={k}]": {"causal_excess_risk": at_least(0.3)}
                for k in (0.0, 0.5, 0.9, 0.99, 0.999)
            },
            augmentation="none",
        ),
        "augmented along the effect (control)": _augmented(
            "an instrument that moves what y depends on is none",
            {"k-class[k=0.99]": {"causal_excess_risk": at_least(0.3)}},
            augmentation="violating",
        ),
        # Roots of (2 - delta)^2 + delta^2 (1 + 2.25 shift), delta = 2 / (2 + 2.25 gamma).
        "anchors shift by 5": _anchored(
            "gamma = 5 is the best for this shift",
            {
                0: between(3.45, 3.83),
                1: between(2.14, 2.36),
                5: between(1.89, 1.955),
                10_000: between(1.965, 2.035),
            },
        ),
        "no shift (control)": _anchored(
            "where nothing shifts, least squares is the best, and robustness costs",
            {
                1: between(1.71, 1.785),
                5: between(1.825, 1.9),
                10_000: at_least(1.95),
            },
            shift=1.0,
        ),
        "anchors shift by 50": _anchored(
            "past what gamma insures against",
            {
                1: at_least(5.0),
                5: between(2.35, 2.65),
                10_000: at_most(2.06),
            },
            shift=50.0,
        ),
        "confounder shifts (control)": _anchored(
            "off the span of the anchors: the more robust, the worse",
            {
                0: at_most(3.0),
                1: between(3.4, 3.62),
                5: at_least(4.0),
                10_000: at_least(4.3),
            },
            target="confounder",
        ),
        # Without sampling error, in eight worlds: least squares 1.1 to 1.8, irm 1.01 to 1.05,
        # and vrex 1, but 1.25 to 1.4 in the worlds where it ends in a local minimum.
        "effects turn": _spurious(
            "six environments for three columns: both know what is invariant",
            [at_least(1.15), at_most(1.1), at_most(1.25)],
        ),
        # The same: 1.92, 1.08 and 2.82.
        "noise changes": _spurious(
            "causes predict worse here than there, so that equal risks need y's effects",
            [between(1.82, 2.02), at_most(1.18), at_least(2.5)],
            change="noise",
        ),
        # Least squares has (b, 1) / 2, hence the root of 3.5; nothing is there to penalise.
        "one environment (control)": _spurious(
            "irm is least squares, and so is vrex",
            [between(1.8, 1.94)] * 3,
            num_envs=1,
            spread=0.0,
        ),
        # An invariant predictor that uses effects: no better than least squares.
        "as many effects as environments (control)": _spurious(
            "too few environments: effects in one direction look invariant",
            [at_least(1.4), at_least(1.25), at_least(1.25)],
            num_effects=4,
            num_envs=4,
        ),
    }
    return ConfigDict({"suite": "effects", "tasks": tasks}, allow_dotted_keys=True)
