import csv
import html.parser
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from crl import testing
from crl.bench import figures
from crl.bench.report import COLUMNS, write_report
from crl.bench.rows import Row, difference, less_is_better, summarize
from crl.bench.store import Store


@pytest.fixture(scope="module")
def page(tiny_runner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "results"
    shutil.copytree(tiny_runner.store.root, folder)
    write_report(folder)
    return folder


def test_failures_come_before_the_tables_and_are_escaped(page):
    text = (page / "report.html").read_text()
    assert text.index("fell over") < text.index("<table")
    assert "&lt;b&gt;peer&lt;/b&gt; fell over" in text and "<b>peer</b>" not in text
    assert "MissingClaim: metric shd needs readout.graph" in text


def test_page_fetches_nothing(page):
    text = (page / "report.html").read_text()
    assert not re.findall(r"<(?:link|iframe|object)|src=[\"'](?!data:)|@import", text)
    for url in re.findall(r"(?:href|src)=[\"']([^\"']*)", text):
        assert url.startswith(("#", "data:")), url


def test_page_is_well_formed_and_ids_are_unique(page):
    class Reader(html.parser.HTMLParser):
        void = ("meta", "link", "br", "path", "use", "image", "rect")
        stack, ids = [], []

        def handle_starttag(self, tag, attributes):
            self.ids += [v for k, v in attributes if k == "id"]
            if tag not in self.void:
                self.stack.append(tag)

        def handle_startendtag(self, tag, attributes):
            self.ids += [v for k, v in attributes if k == "id"]

        def handle_endtag(self, tag):
            if tag not in self.void:
                assert self.stack.pop() == tag

    reader = Reader()
    reader.feed((page / "report.html").read_text())
    assert reader.stack == []
    # matplotlib names groups figure_1, axes_1 in each figure; only paths are referred to.
    hashed = [i for i in reader.ids if re.fullmatch(r"[mpC]\w*[0-9a-f]{8,}\w*", i)]
    assert len(hashed) == len(set(hashed))


def test_long_form_has_every_value_of_every_cell(page):
    with open(page / "results.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    records = Store(page).content().records.values()
    values = sorted(v for r in records for v in r["metrics"].values() if v is not None)
    assert sorted(float(r[6]) for r in rows if r[6]) == values
    states = [r[7] for r in rows]
    good = [r for r in records if r["status"] == "ok"]
    assert states.count("ok") == len(good)  # a fit has one defined metric, so has stability
    assert states.count("undefined") == sum(r["fit"] is not None for r in good)
    assert states.count("failed") == 18
    assert states.count("diverged") == sum(
        len(r["metrics"]) for r in records if r["status"] == "diverged"
    )


def test_parquet_equals_csv(page):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(page / "results.parquet").to_pylist()
    with open(page / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    as_text = [{k: "" if v is None else str(v) for k, v in row.items()} for row in table]
    assert as_text == rows


def test_table_shows_median_quartiles_and_paired_difference(page):
    records = Store(page).content().records.values()
    text = (page / "report.html").read_text()
    medians = {}
    for name in ("oja", "pca"):
        worlds = [
            np.median(
                [
                    r["metrics"]["corr.mean"]
                    for r in records
                    if (r["estimator"], r["world"], r["task"]) == (name, w, "rotated")
                    and r["fit"] is not None
                ]
            )
            for w in range(3)
        ]
        medians[name] = worlds
        low, mid, high = np.percentile(worlds, [25, 50, 75])
        assert f"{mid:.3f}" in text and f"[{low:.3f}, {high:.3f}]" in text
    delta = np.median(np.subtract(medians["oja"], medians["pca"]))
    assert f"Δ {delta:+.3f}".replace("-", "−") in text or f"{delta:+.1e}"[:4] in text


def test_what_fits_report_of_themselves_is_shown(tiny_results):
    store = Store(tiny_results)
    key = next(k for k, r in sorted(store.content().records.items()) if r.get("diag"))
    record = {**json.loads(store.path(key).read_text()), "converged": False}
    store.path(key).write_text(json.dumps(record))
    write_report(tiny_results)
    text = (tiny_results / "report.html").read_text()
    assert "<b>1</b>not converged" in text
    table = text[text.index("What the fits report of themselves") :]
    assert "<th>effective_rank</th>" in table and "<th>converged</th>" in table
    assert "3.000 <span class=muted>[3.000, 3.000] 3.000</span>" in table


def test_missing_cells_are_counted_and_damage_is_named(tiny_results):
    store = Store(tiny_results)
    first, second = sorted(store.content().records)[:2]
    store.path(first).unlink()
    store.path(second).write_text("{")
    write_report(tiny_results)
    text = (tiny_results / "report.html").read_text()
    assert "<b>2</b>not run yet" in text and f"{second}.json" in text


POISON = [
    {"task": "<script>alert(1)</script>"},
    {"pictures": {"graph": {"claim": "<script>", "truth": [[1]]}, "latents": 3}},
    {"pictures": []},
    {"trace": {"step": ["<script>", 1], "loss": [None, {}]}},
    {"trace": 7},
    {"seconds": {"run": "<script>", "cells": 0}},
    {"seconds": None},
    {"made_by": ["<script>"]},
    {"made_by": {"versions": "<script>", "date": "<script>"}},
    {"metrics": {"<script>$x^": 1.0, "deep": {"a": 1}, "text": "<script>"}},
    {"status": "<script>", "error": "<script>", "traceback": "<script>"},
    {"metrics": {"corr": 10**400}, "seconds": {"run": 10**400, "cells": 1}},
    {"pictures": {"graph": {"claim": [[10**400]], "truth": [[1]]}}},
    {"diag": [1], "converged": "<script>"},
    {"diag": {"<script>": "<script>", "huge": 10**400}},
    {"task": "half a pair: \ud800"},
]


def test_a_strangers_folder_is_safe_to_look_at(tiny_results):
    store = Store(tiny_results)
    for i, key in enumerate(sorted(store.content().records)):
        record = {**json.loads(store.path(key).read_text()), **POISON[i % len(POISON)]}
        store.path(key).write_text(json.dumps(record))
    plan = json.loads(next((tiny_results / "plans").iterdir()).read_text())
    key, *names, _, _ = plan["cells"][0]
    damages = [{"tasks": []}, {"cells": ["<script>"]}, {"suite": 3}]
    damages += [{"cells": [[key, *names, *end]]} for end in ((0, "x"), (0, [1]), (10**30, 0))]
    for i, damage in enumerate(damages):
        (tiny_results / "plans" / f"{i}.json").write_text(json.dumps({**plan, **damage}))
    write_report(tiny_results)
    text = (tiny_results / "report.html").read_text()
    assert text.count("<script>") == 1  # ours
    assert text.count("not a plan") == 6 and "surrogates not allowed" in text


def test_report_is_written_without_matplotlib_and_pyarrow(tiny_results):
    code = (
        "import sys; sys.modules.update(matplotlib=None, pyarrow=None)\n"
        "from pathlib import Path; from crl.bench.report import write_report\n"
        f"print(write_report(Path({str(tiny_results)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pyarrow is not installed" in done.stdout, done.stderr
    assert "matplotlib is not installed" in (tiny_results / "report.html").read_text()


def test_summary_is_over_worlds_and_a_lost_fit_loses_its_world():
    values = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 10.0, (1, 1): np.nan, (2, 0): 4.0, (2, 1): 4.0}
    rows = [Row("s", "t", "e", w, f, "m", v, "ok") for (w, f), v in values.items()]
    summary, worlds = summarize(rows)
    assert worlds[0] == 2.0 and np.isnan(worlds[1]) and worlds[2] == 4.0
    assert summary == (3.0, 3.0, 2.5, 3.5, 2, 3)
    assert difference(worlds, {0: 1.0, 1: 1.0, 2: 1.0}).median == 2.0


@pytest.mark.parametrize("name", testing.METRICS)
def test_direction_of_a_metric_is_known_by_its_name(name):
    _, _, best = testing.METRICS[name]
    if best is not None:
        assert less_is_better(name) == (best == 0)


def test_direction_of_a_metric_is_known_by_its_function():
    function = "crl.metrics.interventions:counterfactual_rmse"
    assert less_is_better("answers.all", function)
    assert less_is_better("answers.all", {"factory": function, "scale": 1})
    assert less_is_better("pairwise_rigid") and less_is_better("x.mse")
    # Words count whole: neither sid nor dead is in these.
    assert not any(map(less_is_better, ("inside", "considered", "deadline", "pw_mcc", "f1")))


def test_figures_draw_any_name():
    name = r"$\frac{ & <x> \$"
    svg = figures.strips({name: {name: [0.1, np.nan, 0.3]}}, {name: "#000000"}, set())
    assert "1 undefined" in svg and "&lt;x&gt;" in svg
    assert "<svg" in figures.graphs(np.eye(3), {name: np.zeros((3, 3))})
    assert "<svg" in figures.heat({name: np.ones((2, 3))})
    assert "<svg" in figures.curves({name: [([0, 1], [1.0, np.nan], name)]}, {name: "#000000"})
    points = {name: {"10": [1.0, 2.0], "100": [np.nan], "1000": [0.5]}}
    assert "<svg" in figures.sweep(name, {name: points}, {name: "#000000"})


def test_tasks_that_differ_in_one_number_give_a_curve_against_it():
    from crl.bench.drawings import Figures

    def task(num_train, noise, law="laplace"):
        return {"dgp": {"factory": "m:f", "noise": noise, "law": law}, "num_train": num_train}

    tasks = {f"n = {n}": task(n, 0.1) for n in (100, 1000, 10000)}
    tasks |= {f"noise {noise}": task(500, noise) for noise in (0.1, 0.2)}  # two are no curve
    tasks["other law"] = task(300, 0.1, law="uniform")
    rows = [
        Row("s", name, "e", world, 0, "mcc", 0.5 + 0.1 * world, "ok")
        for name in tasks
        for world in range(3)
    ]
    (figure,) = Figures(["e"]).sweeps(tasks, rows)
    assert "Median and quartiles over worlds against num_train" in figure
    assert Figures(["e"]).sweeps({k: tasks[k] for k in list(tasks)[3:]}, rows) == []
