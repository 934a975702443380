"""Linear effects of confounded treatments, judged under do(x), and predictions under shifts.

crl run benchmarks/effects.py --workdir results/effects
"""

from ml_collections import ConfigDict

from crl.bench.run.suite import at_least, at_most, between, spec
from crl.dgp.anchors import shifted_anchors
from crl.dgp.instruments import augmented_regression, linear_instruments
from crl.effects.anchor_regression import anchor_regression
from crl.effects.liml import liml
from crl.effects.two_stage_least_squares import two_stage_least_squares
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
    }
    return ConfigDict({"suite": "effects", "tasks": tasks}, allow_dotted_keys=True)
