import csv
import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from crl.bench.report.write import COLUMNS, write_report
from crl.bench.run.records import OK
from crl.bench.run.store import Store


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
    assert "RuntimeError" in text


def test_misses_come_next_with_what_was_expected_and_observed(page):
    text = (page / "report.html").read_text()
    assert "<b>2</b>of 4 expectations missed" in text
    table = text[text.index("Expected and observed") : text.index("What does not apply")]
    assert text.index("fell over") < text.index("Expected and observed")
    rows = re.findall(r"<tr><td><span class=\"\w+\">([a-z ]+)</span></td>(.*?)</tr>", table)
    assert [state for state, _ in rows] == ["missed", "missed", "met", "met"]
    assert "<td>at most 0.5</td>" in rows[0][1] and "median agreement" in rows[0][1]
    assert "<td>broken</td>" in rows[1][1] and "3 without a value" in rows[1][1]


def test_what_does_not_apply_is_listed_apart(page):
    text = (page / "report.html").read_text()
    apart = text[text.index("What does not apply") :]
    assert "metric shd needs readout.graph" in apart
    assert "metric shd needs readout.graph" not in text[: text.index("What does not apply")]
    assert "<b>6</b>do not apply" in text


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
    results = [r.result for r in records]
    values = sorted(v for r in results for v in r.metrics.values() if v is not None)
    assert sorted(float(r[6]) for r in rows if r[6]) == values
    states = [r[7] for r in rows]
    good = [r for r in records if r.result.status == OK]
    assert states.count("ok") == len(good)  # a fit has one defined metric, so has stability
    assert states.count("undefined") == sum(r.fit is not None for r in good)
    assert states.count("failed") == 9 and states.count("does not apply") == 6
    assert states.count("diverged") == sum(
        len(r.metrics) for r in results if r.status == "diverged"
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
                    r.result.metrics["corr"]
                    for r in records
                    if (r.estimator, r.world, r.task) == (name, w, "rotated")
                    and r.fit is not None
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
    key = next(k for k, r in sorted(store.content().records.items()) if r.result.diag)
    record = json.loads(store.path(key).read_text())
    record["result"]["converged"] = False
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


# What a stranger may write: in a field of text it is shown escaped, elsewhere the file is no
# record and is named as such.
SCRIPT = "<script>alert(1)</script>"
TEXTS = [
    {"task": SCRIPT},
    {"suite": SCRIPT},
    {"status": "failed", "error": SCRIPT, "traceback": SCRIPT},
    {"metrics": {f"{SCRIPT}$x^": 1.0}},
    {"diag": {SCRIPT: 1.0}},
    {"trace": {"step": [0.0, 1.0], SCRIPT: [1.0, None]}},
    {"trace": {"step": [0.0, 1.0], "loss": [1.0]}},
    {"pictures": {"graph": {"claim": [[1.0], []], "truth": [[1.0]]}}},
    {"pictures": {"graph": {"claim": [[]], "truth": []}, SCRIPT: {}}},
    {"versions": {SCRIPT: SCRIPT}, "device": SCRIPT, "machine": SCRIPT, "date": SCRIPT},
    {"commit": SCRIPT},
]
DAMAGES = [
    {"pictures": {"graph": {"claim": SCRIPT, "truth": [[1]]}}},
    {"pictures": []},
    {"trace": {"step": [SCRIPT, 1], "loss": [None, {}]}},
    {"trace": 7},
    {"run": SCRIPT},
    {"seconds": None},
    {"made_by": [SCRIPT]},
    {"versions": SCRIPT},
    {"metrics": {"deep": {"a": 1}}},
    {"status": SCRIPT},
    {"metrics": {"corr": 10**400}},
    {"pictures": {"graph": {"claim": [[10**400]], "truth": [[1]]}}},
    {"diag": [1]},
    {"converged": SCRIPT},
    {"best": {"corr": SCRIPT}},
    {"world": 10**30},
    {"task": "half a pair: \ud800"},
]


def damaged(record, changes):
    """The record with fields changed, at whichever level they are."""
    if not isinstance(record, dict):
        return record
    inner = {k: damaged(v, changes) for k, v in record.items()}
    return {**inner, **{k: v for k, v in changes.items() if k in record}}


def test_a_strangers_folder_is_safe_to_look_at(tiny_results):
    store = Store(tiny_results)
    keys = sorted(store.content().records)
    changes = TEXTS + DAMAGES
    assert len(keys) > len(changes)
    for key, change in zip(keys, changes):
        record = damaged(json.loads(store.path(key).read_text()), change)
        store.path(key).write_text(json.dumps(record))
    bad = [key for key, change in zip(keys, changes) if change in DAMAGES]
    assert {pathlib.Path(p.split(": ")[0]).stem for p in store.content().problems} == set(bad)
    plan = json.loads(next((tiny_results / "plans").iterdir()).read_text())
    first = plan["cells"][0]
    task = plan["tasks"]["rotated"]
    damages = [{"tasks": []}, {"cells": [SCRIPT]}, {"suite": 3}, {"schema": 1}]
    ends = ({"world": 0, "fit": "x"}, {"fit": [1]}, {"world": 10**30}, {"world": -1})
    damages += [{"cells": [first | end]} for end in ends]
    for bound in ({}, {"at_least": SCRIPT}, {"at_least": 1, "of": SCRIPT}):
        expect = {"expect": {"oja": {"corr": bound}}}
        damages.append({"tasks": {"rotated": task | expect}})
    for i, damage in enumerate(damages):
        (tiny_results / "plans" / f"{i}.json").write_text(json.dumps({**plan, **damage}))
    swept = {SCRIPT: {"swept": [SCRIPT, 3], "lr": SCRIPT}, "b": {"swept": 3}, "c": {}}
    odd = {"suite": SCRIPT, "tasks": {SCRIPT: task | {"estimators": swept, "note": SCRIPT}}}
    odd["tasks"][SCRIPT]["dgp"] = {"n": 10**400, "deep": [[{"x": None}]]}
    (tiny_results / "plans" / "odd.json").write_text(json.dumps({**plan, **odd}))
    write_report(tiny_results)
    text = (tiny_results / "report.html").read_text()
    assert text.count("<script>") == 1  # ours
    assert text.count("not a plan") == len(damages) and "surrogates not allowed" in text


def test_report_is_written_without_matplotlib_and_pyarrow(tiny_results):
    code = (
        "import sys; sys.modules.update(matplotlib=None, pyarrow=None)\n"
        "from pathlib import Path; from crl.bench.report.write import write_report\n"
        f"print(write_report(Path({str(tiny_results)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pyarrow is not installed" in done.stdout, done.stderr
    assert "matplotlib is not installed" in (tiny_results / "report.html").read_text()
