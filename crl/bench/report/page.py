"""The HTML of the report. Everything that a results folder says is escaped."""

import json
import math
import time
from collections import Counter
from html import escape
from typing import NamedTuple

import numpy as np

from crl.bench.report.figures import Figures
from crl.bench.report.frame import PAGE
from crl.bench.report.rows import (
    UNDEFINED,
    Column,
    Entry,
    Row,
    Spread,
    arrow,
    best_values,
    checks,
    column_of,
    columns_of,
    paired_difference,
    spread,
    values_by_world,
    winner,
)
from crl.bench.run.cells import Plan
from crl.bench.run.decode import encode
from crl.bench.run.expect import MISSED, Finding, words
from crl.bench.run.records import DIVERGED, FAILED, INAPPLICABLE, OK, Record
from crl.bench.run.suite import TaskConfig


def render(
    plans: list[Plan],
    entries: list[Entry],
    rows: list[Row],
    findings: dict[str, list[Finding]],
    problems: list[str],
    other: int,
) -> str:
    """The page: what went wrong, then each suite with its tasks, then what made it.

    findings: by suite. problems: a sentence for each file that cannot be read. other: how
    many cells of the folder belong to no plan.
    """
    title = ", ".join(plan.suite for plan in plans) or "no plan"
    every = [finding for plan in plans for finding in findings[plan.suite]]
    body = [
        f"<header><h1>{escape(title)}</h1>{_made_on(entries)}</header>",
        _tiles(entries, rows, every),
        _failures(entries, problems),
        _expectations(every),
        _inapplicable(entries),
    ]
    for plan in plans:
        own = [e for e in entries if e.suite == plan.suite]
        heading = f"<h2>{escape(plan.suite)}</h2>" if len(plans) > 1 else ""
        body.append(_suite(plan, own, [r for r in rows if r.suite == plan.suite], heading))
    body.append(_provenance(entries, other))
    return PAGE.replace("{title}", escape(title)).replace("{body}", "\n".join(body))


def _made_on(entries: list[Entry]) -> str:
    made = [e.record.made_by for e in entries if e.record]
    if not made:
        return ""
    dates = sorted(m.date for m in made)
    devices = sorted({f"{m.num_devices} × {m.device}" for m in made})
    span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    where = sorted({m.machine for m in made})
    return f"<p>{escape(span)} · {escape(', '.join(devices))} · {escape('; '.join(where))}</p>"


def _status(entry: Entry) -> str:
    return entry.record.result.status if entry.record else "missing"


def _tiles(entries: list[Entry], rows: list[Row], findings: list[Finding]) -> str:
    states = Counter(map(_status, entries))
    missed = sum(finding.state == MISSED for finding in findings)
    undefined = sum(r.status == UNDEFINED for r in rows)
    unconverged = sum(bool(e.record) and e.record.result.converged is False for e in entries)
    tiles = [
        ("ok", states[OK], "cells ok"),
        ("failed", states[FAILED], "failed"),
        ("diverged", states[DIVERGED], "diverged"),
        ("missed", missed, f"of {len(findings)} expectations missed"),
        ("unconverged", unconverged, "not converged"),
        ("undefined", undefined, "undefined values"),
        ("missing", states["missing"], "not run yet"),
    ]
    if states[INAPPLICABLE]:
        tiles.append(("inapplicable", states[INAPPLICABLE], "do not apply"))
    shown = "".join(
        f'<div class="tile {kind if count else "none"}"><b>{count}</b>{text}</div>'
        for kind, count, text in tiles
    )
    return f'<div class="tiles">{shown}</div>'


class Cause(NamedTuple):
    """Why cells of a task and estimator have no result."""

    task: str
    estimator: str
    status: str
    sentence: str


def _causes(entries: list[Entry], states: tuple[str, ...]) -> dict[Cause, list[Entry]]:
    """Each cause once, with the cells that it hit."""
    found: dict[Cause, list[Entry]] = {}
    for e in entries:
        if _status(e) in states:
            sentence = e.record.result.error or "the loss or the state is not finite"
            cause = Cause(e.task, e.estimator, _status(e), sentence)
            found.setdefault(cause, []).append(e)
    return dict(sorted(found.items()))


def _failures(entries: list[Entry], problems: list[str]) -> str:
    parts = []
    for cause, hit in _causes(entries, (FAILED, DIVERGED)).items():
        trace = hit[0].record.result.traceback
        worlds = sorted({e.world for e in hit})
        seeds = ", ".join(map(str, worlds[:12])) + (", …" if len(worlds) > 12 else "")
        more = f"<details><summary>traceback</summary><pre>{escape(trace)}</pre></details>"
        parts.append(
            f'<div class="failure"><span class="badge">{escape(cause.status)}</span> '
            f"<b>{escape(cause.task)} · {escape(cause.estimator)}</b> "
            f"<span class=muted>{len(hit)} cells, worlds {seeds}</span>"
            f"<p>{escape(cause.sentence)}</p>{more if trace else ''}</div>"
        )
    for problem in problems:
        parts.append(f'<div class="failure"><b>ignored file</b><p>{escape(problem)}</p></div>')
    if not parts:
        return ""
    return f"<section><h2>What went wrong</h2>{''.join(parts)}</section>"


def _expectations(findings: list[Finding]) -> str:
    """Expected beside observed, the misses first."""
    if not findings:
        return ""
    lines = []
    for f in sorted(findings, key=lambda finding: finding.state != MISSED):
        note = f'<span class="lost">{f.lost} without a value</span>' if f.lost else ""
        worlds = f"{f.worlds} of {f.full_worlds}" if f.is_part() else str(f.worlds)
        badge = "badge" if f.state == MISSED else "tag"
        observed = f"{f.observed:.5g}" if np.isfinite(f.observed) else "–"
        lines.append(
            f'<tr><td><span class="{badge}">{escape(f.state)}</span></td>'
            f"<td>{escape(f.task)}</td><td>{escape(f.estimator)}</td>"
            f"<td>{escape(f.bound.of)} {escape(f.metric)}</td>"
            f"<td>{escape(words(f.bound))}</td>"
            f"{_cell(f.observed, f'{observed} {note}')}{_cell(f.worlds, worlds)}</tr>"
        )
    heads = ("", "task", "estimator", "metric", "expected", "observed", "worlds")
    table = _table(heads, lines)
    if any(f.is_part() for f in findings):
        table += "<p class=muted>Judged on fewer worlds than the bounds are meant for.</p>"
    shown = f"<article>{table}</article>"
    if all(f.state != MISSED for f in findings):
        summary = f"<summary>All {len(lines)} expectations, beside what was observed</summary>"
        shown = f"<details>{summary}{shown}</details>"
    return f"<section><h2>Expected and observed</h2>{shown}</section>"


def _inapplicable(entries: list[Entry]) -> str:
    lines = [
        f"<tr><td>{escape(cause.task)}</td><td>{escape(cause.estimator)}</td>"
        f"{_cell(len(hit), str(len(hit)))}<td>{escape(cause.sentence)}</td></tr>"
        for cause, hit in _causes(entries, (INAPPLICABLE,)).items()
    ]
    if not lines:
        return ""
    table = _table(("task", "estimator", "cells", "why"), lines)
    return f"<section><h2>What does not apply</h2><article>{table}</article></section>"


def _suite(plan: Plan, entries: list[Entry], rows: list[Row], heading: str) -> str:
    draw = Figures(list(dict.fromkeys(e.estimator for e in entries)))
    tasks = "".join(
        _task(
            task,
            config,
            [e for e in entries if e.task == task],
            [r for r in rows if r.task == task],
            draw,
        )
        for task, config in plan.tasks.items()
    )
    sweeps = "".join(draw.against_settings(plan.tasks, rows))
    if sweeps:
        sweeps = f'<h3>Against the settings</h3><div class="figures">{sweeps}</div>'
        sweeps = f"<article>{sweeps}</article>"
    missing = f"<p class=muted>{escape(draw.missing)}</p>" if draw.missing else ""
    return f"<section>{heading}{missing}{_overview(entries, rows)}{tasks}{sweeps}</section>"


def _overview(entries: list[Entry], rows: list[Row]) -> str:
    """One line a task and estimator: its first metric, its cells, its time."""
    lines = []
    for task, estimator in dict.fromkeys((e.task, e.estimator) for e in entries):
        own = [e for e in entries if (e.task, e.estimator) == (task, estimator)]
        have = [r for r in rows if (r.task, r.estimator) == (task, estimator) and r.metric]
        ok = sum(_status(e) == OK for e in own)
        metric = next(iter(dict.fromkeys(r.metric for r in have)), "")
        found = spread(values_by_world([r for r in have if r.metric == metric]))
        seconds = [_seconds(e.record) for e in own if e.record and e.fit is not None]
        run, compiling = np.median(np.array(seconds or [(math.nan, math.nan)]), 0)
        lines.append(
            f"<tr><td>{escape(task)}</td><td>{escape(estimator)}</td><td>{escape(metric)}</td>"
            f"{_spread_cell(found)}{_cell(ok, f'{ok}/{len(own)}')}"
            f"{_cell(run, f'{run:.2g}')}{_cell(compiling, f'{compiling:.2g}')}</tr>"
        )
    heads = (
        "task",
        "estimator",
        "first metric",
        "median [quartiles] mean",
        "ok",
        "s / cell",
        "s compile",
    )
    return f"<article><h3>Overview</h3>{_table(heads, lines)}</article>"


def _seconds(record: Record) -> tuple[float, float]:
    """(per cell, compiling its batch); a peer's own time if it is one."""
    seconds, own = record.seconds, record.result.peer_seconds
    return seconds.run / max(1, seconds.cells) if own is None else own, seconds.compile


def _task(
    name: str, config: TaskConfig, entries: list[Entry], rows: list[Row], draw: Figures
) -> str:
    badge = ""
    if config.note.lower().startswith(("control", "negative control")):
        badge = '<span class="badge control">negative control</span>'
    sizes = f"{config.num_train} rows to fit, {config.num_test} held out"
    seeds = f"{config.worlds} worlds × {config.fits} fits"
    peers = {e.estimator for e in entries if e.record and e.record.is_peer}
    return (
        f"<article><h3>{escape(name)} {badge}</h3><p>{escape(config.note)}</p>"
        f"<p class=muted>{escape(sizes)} · {escape(seeds)}</p>"
        f"{_metrics_table(entries, rows, peers)}{_checks_table(entries)}"
        f'<div class="figures">{"".join(draw.task(config, entries, rows, peers))}</div>'
        "</article>"
    )


def _worlds(
    estimators: list[str], columns: list[Column], rows: list[Row]
) -> dict[tuple[str, Column], dict[int, float]]:
    """The value of each world, for each place of a table."""
    own: dict[tuple[str, Column], list[Row]] = {
        (e, c): [] for e in estimators for c in columns
    }
    for row in rows:
        if (place := (row.estimator, column_of(row))) in own:
            own[place].append(row)
    return {place: values_by_world(found) for place, found in own.items()}


def _metrics_table(entries: list[Entry], rows: list[Row], peers: set[str]) -> str:
    columns = columns_of(rows)
    if not columns:
        return ""
    estimators = list(dict.fromkeys(e.estimator for e in entries))
    worlds = _worlds(estimators, columns, rows)
    spreads = {place: spread(values) for place, values in worlds.items()}
    best_value = best_values(entries)

    def best_among(names, column):
        medians = {e: spreads[e, column].median for e in names}
        return winner(medians, best_value.get(column.metric))

    best = {c: best_among(estimators, c) for c in columns}
    best_peer = {c: best_among([e for e in estimators if e in peers], c) for c in columns}
    lines = []
    for e in estimators:
        tag = " <span class=tag>peer</span>" if e in peers else ""
        cells = [f"<td>{escape(e)}{tag}</td>"]
        for c in columns:
            peer, delta = best_peer[c], None
            if peer is not None and peer != e:
                delta = paired_difference(worlds[e, c], worlds[peer, c])
            cells.append(_spread_cell(spreads[e, c], is_best=e == best[c], delta=delta))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    heads = ["estimator", *(c.title() + arrow(best_value.get(c.metric)) for c in columns)]
    note = "Median [quartiles] mean over worlds; a dash: not claimed."
    if any(best_peer.values()):
        note += " Δ: paired difference to the best peer on the same worlds."
    return f"{_table(heads, lines)}<p class=muted>{note}</p>"


def _checks_table(entries: list[Entry]) -> str:
    """What the fits report of themselves; a column where an estimator has it not is empty."""
    rows = [row for e in entries for row in checks(e)]
    columns = columns_of(rows)
    if not columns:
        return ""
    estimators = list(dict.fromkeys(r.estimator for r in rows))
    worlds = _worlds(estimators, columns, rows)
    lines = []
    for e in estimators:
        cells = "".join(_spread_cell(spread(worlds[e, c])) for c in columns)
        lines.append(f"<tr><td>{escape(e)}</td>{cells}</tr>")
    heads = ["estimator", *(c.metric for c in columns)]
    summary = "<summary>What the fits report of themselves</summary>"
    return f"<details>{summary}{_table(heads, lines)}</details>"


def _spread_cell(s: Spread, is_best: bool = False, delta: Spread | None = None) -> str:
    if not s.defined:
        return _cell(math.nan, "undefined" if s.total else "–")
    text = f"<b>{_short(s.median)}</b>" if is_best else _short(s.median)
    quartiles = f"[{_short(s.low)}, {_short(s.high)}]"
    text += f" <span class=muted>{quartiles} {_short(s.mean)}</span>"
    if s.defined < s.total:
        text += f' <span class="lost">{s.defined} of {s.total} worlds</span>'
    if delta is not None and delta.defined:
        low, high = _short(delta.low, "+"), _short(delta.high, "+")
        text += f'<div class="delta">Δ {_short(delta.median, "+")} [{low}, {high}]</div>'
    return _cell(s.median, text)


def _cell(value: float, html: str) -> str:
    sort = value if np.isfinite(value) else ""
    return f'<td class="number" data-v="{sort}">{html}</td>'


def _short(x: float, sign: str = "") -> str:
    if not np.isfinite(x):
        return "–"
    size = abs(x)
    digits = ".3f" if 0.001 <= size < 100 or x == 0 else ".0f" if 100 <= size < 1e5 else ".1e"
    return f"{x:{sign}{digits}}".replace("-", "−")


def _table(heads, lines: list[str]) -> str:
    head = "".join(f"<th>{escape(h)}</th>" for h in heads)
    body = "".join(lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _provenance(entries: list[Entry], other: int) -> str:
    """Which versions, commits and devices made how many cells."""
    makers = [e.record.made_by._replace(date="") for e in entries if e.record]
    texts = [json.dumps(encode(maker)) for maker in makers]
    by_text = dict(zip(texts, makers))
    lines = []
    for text, count in Counter(texts).most_common():
        m = by_text[text]
        versions = ", ".join(f"{k} {v}" for k, v in m.versions.items())
        commit = (m.commit or "not in a repository")[:12]
        commit += " (edited since)" if m.dirty else ""
        device = f"{m.num_devices} × {m.device} ({m.platform})"
        cells = "".join(f"<td>{escape(c)}</td>" for c in (device, m.machine, commit, versions))
        lines.append(f"<tr>{_cell(count, str(count))}{cells}</tr>")
    note = ""
    if other:
        note = (
            f"<p class=muted>{other} further cells in the folder belong to other versions of "
            "the code or of the suite and are not shown.</p>"
        )
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    heads = ("cells", "device", "machine", "commit", "versions")
    return (
        f"<section><h2>What made it</h2>{_table(heads, lines)}{note}"
        f"<p class=muted>Report written {date}. Long form: results.csv, results.parquet.</p>"
        "</section>"
    )
