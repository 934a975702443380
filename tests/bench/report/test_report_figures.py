import numpy as np

from crl.bench.report import plots
from crl.bench.report.figures import Figures
from crl.bench.report.rows import Entry, Row
from crl.bench.run.suite import TaskConfig


def test_figures_draw_any_name():
    name = r"$\frac{ & <x> \$"
    svg = plots.strips({name: {name: [0.1, np.nan, 0.3]}}, {name: "#000000"}, set())
    assert "1 undefined" in svg and "&lt;x&gt;" in svg
    assert "<svg" in plots.graphs(np.eye(3), {name: np.zeros((3, 3))})
    assert "<svg" in plots.heat({name: np.ones((2, 3))})
    assert "<svg" in plots.curves({name: [([0, 1], [1.0, np.nan], name)]}, {name: "#000000"})
    for first in (10.0, 0.0, -5.0):
        points = {name: {first: [1.0, 2.0], 100.0: [np.nan], 1000.0: [0.5]}}
        svg = plots.sweep(name, {name: points}, {name: "#000000"})
        assert "<svg" in svg and ">1000</text>" in svg and "mathdefault" not in svg


def rows_of(names, estimators=("e",), worlds=3):
    return [
        Row("s", task, e, world, 0, "mcc", 0.5 + 0.1 * world, "ok")
        for task in names
        for e in estimators
        for world in range(worlds)
    ]


def task(num_train=500, noise=0.1, law="laplace", estimators=None):
    dgp = {"factory": "m:f", "noise": noise, "law": law}
    return TaskConfig(dgp, num_train, 10, {"mcc": "m:mcc"}, estimators or {})


def test_tasks_that_differ_in_one_number_give_a_curve_against_it():
    tasks = {f"n = {n}": task(n) for n in (100, 1000, 10000)}
    tasks |= {f"noise {noise}": task(500, noise) for noise in (0.1, 0.2)}  # two are no curve
    tasks["other law"] = task(300, 0.1, law="uniform")
    (figure,) = Figures(["e"]).against_settings(tasks, rows_of(tasks))
    assert "Median and quartiles over worlds against num_train" in figure
    assert Figures(["e"]).against_settings({k: tasks[k] for k in list(tasks)[3:]}, []) == []


def test_sweep_of_an_option_is_drawn_against_it():
    def sae(rate, **others):
        return {"factory": "m:sae", "rate": rate, "swept": ["rate"], **others}

    estimators = {f"sae[rate={rate}]": sae(rate) for rate in (0.0, 0.1, 1.0)}
    config = task(estimators={**estimators, "peer": {"factory": "m:peer"}})
    rows = rows_of(["t"], config.estimators)
    figures = Figures(list(config.estimators))
    entries = [Entry("s", "t", name, 0, 0, None) for name in config.estimators]
    found = figures.task(config, entries, rows, set())
    (figure,) = [f for f in found if "Median and quartiles over worlds against rate" in f]
    assert ">sae<" in figure and ">peer<" not in figure
    (color,) = {figures.colors[name] for name in [*estimators, "sae"]}
    assert color != figures.colors["peer"]
