"""The report: one HTML page that opens without a network, results.csv, results.parquet.

Reads the plans and cells of a results folder and nothing else: no config is imported, no
estimator is built, and whatever a folder says is escaped, so that a stranger's folder is
safe to look at.
"""

import csv
import os
from pathlib import Path

import numpy as np

from crl.bench.report.page import render
from crl.bench.report.rows import Entry, Row, long_form
from crl.bench.run.expect import judge
from crl.bench.run.store import Store

COLUMNS = ("suite", "task", "estimator", "world", "fit", "metric", "value", "status")


def write_report(folder: Path) -> list[str]:
    """Write report.html, results.csv and results.parquet; returns a line on each."""
    store = Store(folder)
    plans, problems = store.plans()
    content = store.content()
    entries = [
        Entry(plan.suite, *cell[1:], content.records.get(cell.key))
        for plan in plans
        for cell in plan.cells
    ]
    planned = {cell.key for plan in plans for cell in plan.cells}
    other = len(set(content.records) - planned)
    findings = {plan.suite: judge(plan, content.records) for plan in plans}
    rows = [row for entry in entries for row in long_form(entry)]
    lines = [_write(folder / "results.csv", lambda path: _write_csv(path, rows))]
    try:
        lines.append(_write(folder / "results.parquet", lambda p: _write_parquet(p, rows)))
    except ModuleNotFoundError:
        lines.append(
            "no results.parquet: pyarrow is not installed (pip install 'crl[report]')"
        )
    problems = [*problems, *content.problems]
    page = render(plans, entries, rows, findings, problems, other)
    encoded = page.encode()
    lines.append(_write(folder / "report.html", lambda path: path.write_bytes(encoded)))
    return lines


def _write(path: Path, write) -> str:
    # Beside and then renamed: a reader never sees half a file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return f"wrote {path}"


def _write_csv(path: Path, rows: list[Row]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(COLUMNS)
        for row in rows:
            value = repr(row.value) if np.isfinite(row.value) else ""
            fit = "" if row.fit is None else row.fit
            out.writerow([*row[:4], fit, row.metric, value, row.status])


def _write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = (*("string",) * 3, *("int64",) * 2, "string", "float64", "string")
    columns = zip(*rows) if rows else [[] for _ in COLUMNS]
    table = pyarrow.table(
        {
            name: pyarrow.array(list(column), kind, from_pandas=True)
            for name, column, kind in zip(COLUMNS, columns, kinds)
        }
    )
    pyarrow.parquet.write_table(table, path, compression="zstd")
