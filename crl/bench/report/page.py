"""The HTML of the report. Everything that a results folder says is escaped."""

import json
import time
from collections import Counter
from html import escape

import numpy as np

from crl.bench.drawings import Figures
from crl.bench.frame import PAGE
from crl.bench.rows import (
    Entry,
    Row,
    Summary,
    checks,
    difference,
    less_is_better,
    mapping,
    metrics_of,
    number,
    summarize,
)


def render(plans, entries, rows, problems, other) -> str:
    """The page. Failures come first; then each suite with its tasks; then what made it."""
    title = ", ".join(str(plan["suite"]) for plan in plans) or "no plan"
    body = [
        f"<header><h1>{escape(title)}</h1>{_made_on(entries)}</header>",
        _tiles(entries, rows),
        _failures(entries, problems),
    ]
    for plan in plans:
        own = [e for e in entries if e.suite == plan["suite"]]
        body.append(_suite(plan, own, rows, shows_name=len(plans) > 1))
    body.append(_provenance(entries, other))
    return PAGE.replace("{title}", escape(title)).replace("{body}", "\n".join(body))


def _made_on(entries: list[Entry]) -> str:
    made = [mapping(e.record.get("made_by")) for e in entries if e.record]
    if not made:
        return ""
    dates = sorted(str(m.get("date", "")) for m in made)
    devices = sorted({f"{m.get('num_devices')} × {m.get('device')}" for m in made})
    span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    where = sorted({str(m.get("machine", "")) for m in made})
    return f"<p>{escape(span)} · {escape(', '.join(devices))} · {escape('; '.join(where))}</p>"


def _tiles(entries: list[Entry], rows: list[Row]) -> str:
    states = Counter(e.record["status"] if e.record else "missing" for e in entries)
    states["undefined"] = sum(r.status == "undefined" for r in rows)
    records = [e.record for e in entries if e.record]
    states["unconverged"] = sum(r.get("converged") is False for r in records)
    names = {
        "ok": "cells ok",
        "failed": "failed",
        "diverged": "diverged",
        "unconverged": "not converged",
        "undefined": "undefined values",
        "missing": "not run yet",
    }
    tiles = "".join(
        f'<div class="tile {state if states[state] else "none"}">'
        f"<b>{states[state]}</b>{name}</div>"
        for state, name in names.items()
    )
    return f'<div class="tiles">{tiles}</div>'


def _failures(entries: list[Entry], problems: list[str]) -> str:
    """Each cause once, with the cells that it hit and the traceback."""
    causes: dict[tuple, list[Entry]] = {}
    for e in entries:
        if e.record and e.record["status"] != "ok":
            sentence = str(e.record.get("error", "")) or "NaN in the state, or info not finite"
            causes.setdefault((e.task, e.estimator, e.record["status"], sentence), []).append(
                e
            )
    parts = []
    for (task, estimator, status, sentence), hit in sorted(causes.items()):
        trace = str(hit[0].record.get("traceback", ""))
        worlds = sorted({e.world for e in hit})
        seeds = ", ".join(map(str, worlds[:12])) + ", …" * (len(worlds) > 12)
        more = f"<details><summary>traceback</summary><pre>{escape(trace)}</pre></details>"
        parts.append(
            f'<div class="failure"><span class="badge">{escape(status)}</span> '
            f"<b>{escape(task)} · {escape(estimator)}</b> <span class=muted>{len(hit)} cells, "
            f"worlds {seeds}</span><p>{escape(sentence)}</p>{more if trace else ''}</div>"
        )
    for problem in problems:
        parts.append(f'<div class="failure"><b>ignored file</b><p>{escape(problem)}</p></div>')
    if not parts:
        return ""
    return f"<section><h2>What went wrong</h2>{''.join(parts)}</section>"


def _suite(plan: dict, entries: list[Entry], rows: list[Row], shows_name: bool) -> str:
    name = plan["suite"]
    estimators = list(dict.fromkeys(e.estimator for e in entries))
    rows = [r for r in rows if r.suite == name]
    draw = Figures(estimators)
    tasks = "".join(
        _task(
            task,
            plan["tasks"].get(task, {}),
            [e for e in entries if e.task == task],
            [r for r in rows if r.task == task],
            draw,
        )
        for task in dict.fromkeys(e.task for e in entries)
    )
    sweeps = "".join(draw.sweeps(plan["tasks"], rows))
    if sweeps:
        sweeps = f'<h3>Against the settings</h3><div class="figures">{sweeps}</div>'
        sweeps = f"<article>{sweeps}</article>"
    missing = f"<p class=muted>{escape(draw.missing)}</p>" if draw.missing else ""
    overview = _overview(entries, rows)
    heading = f"<h2>{escape(name)}</h2>" * shows_name
    return f"<section>{heading}{missing}{overview}{tasks}{sweeps}</section>"


def _overview(entries: list[Entry], rows: list[Row]) -> str:
    """One line a task and estimator: its first metric, its cells, its time."""
    lines = []
    for task, estimator in dict.fromkeys((e.task, e.estimator) for e in entries):
        own = [e for e in entries if (e.task, e.estimator) == (task, estimator)]
        have = [r for r in rows if (r.task, r.estimator) == (task, estimator) and r.metric]
        ok = sum(bool(e.record) and e.record["status"] == "ok" for e in own)
        metric = next(iter(dict.fromkeys(r.metric for r in have)), "")
        summary = summarize([r for r in have if r.metric == metric])[0]
        seconds = [_seconds(e.record) for e in own if e.record and e.fit is not None]
        run, compiling = np.nanmedian(np.array(seconds or [(np.nan, np.nan)]), 0)
        lines.append(
            f"<tr><td>{escape(task)}</td><td>{escape(estimator)}</td><td>{escape(metric)}</td>"
            f"{_summary_cell(summary)}{_cell(ok, f'{ok}/{len(own)}')}"
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


def _seconds(record: dict) -> tuple[float, float]:
    """(per cell, compiling its batch); a peer's own time if it is one."""
    seconds = mapping(record.get("seconds"))
    run = number(seconds.get("run")) / max(1.0, number(seconds.get("cells")))
    return number(record.get("peer_seconds", run)), number(seconds.get("compile"))


def _task(name: str, config: dict, entries: list[Entry], rows: list[Row], draw) -> str:
    note = str(config.get("note", ""))
    is_control = note.lower().startswith(("control", "negative control"))
    badge = '<span class="badge control">negative control</span>' * is_control
    sizes = f"{config.get('num_train')} rows to fit, {config.get('num_test')} held out"
    seeds = f"{config.get('worlds')} worlds × {config.get('fits')} fits"
    peers = {e.estimator for e in entries if e.record and e.record.get("peer")}
    return (
        f"<article><h3>{escape(name)} {badge}</h3><p>{escape(note)}</p>"
        f"<p class=muted>{escape(sizes)} · {escape(seeds)}</p>"
        f"{_metrics_table(config, entries, rows, peers)}{_checks_table(entries)}"
        f'<div class="figures">{"".join(draw.task(entries, rows, peers))}</div></article>'
    )


def _summaries(estimators: list[str], metrics: list[tuple], rows: list[Row]) -> dict:
    """{(estimator, metric): (Summary, value of each world)}"""
    own: dict[tuple, list[Row]] = {(e, m): [] for e in estimators for m in metrics}
    for row in rows:
        if (key := (row.estimator, (row.metric, row.fit is None))) in own:
            own[key].append(row)
    return {key: summarize(found) for key, found in own.items()}


def _metrics_table(
    config: dict, entries: list[Entry], rows: list[Row], peers: set[str]
) -> str:
    metrics = metrics_of(rows)
    estimators = list(dict.fromkeys(e.estimator for e in entries))
    table = _summaries(estimators, metrics, rows)
    specs = mapping(config.get("metrics")) | mapping(config.get("stability"))
    less = {m: less_is_better(m[0], specs.get(m[0].partition(".")[0])) for m in metrics}
    others = [e for e in estimators if e in peers]
    best_peer = {m: _best(others, table, m, less[m]) for m in metrics}
    best = {m: _best(estimators, table, m, less[m]) for m in metrics}
    lines = []
    for e in estimators:
        cells = [f"<td>{escape(e)}{' <span class=tag>peer</span>' * (e in peers)}</td>"]
        for m in metrics:
            summary, worlds = table[e, m]
            peer, delta = best_peer[m], None
            if peer is not None and peer != e:
                delta = difference(worlds, table[peer, m][1])
            cells.append(_summary_cell(summary, best=e == best[m], delta=delta))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    heads = ["estimator"]
    for m in metrics:
        heads.append(f"{m[0]} {'↓' if less[m] else '↑'}" + " (across fits)" * m[1])
    note = "<p class=muted>Median [quartiles] mean over worlds."
    if any(best_peer.values()):
        note += " Δ: paired difference to the best peer on the same worlds."
    return f"{_table(heads, lines)}{note}</p>" if metrics else ""


def _checks_table(entries: list[Entry]) -> str:
    """What the fits report of themselves; a column where an estimator has it not is empty."""
    rows = [row for e in entries for row in checks(e)]
    metrics = metrics_of(rows)
    estimators = list(dict.fromkeys(r.estimator for r in rows))
    table = _summaries(estimators, metrics, rows)
    lines = []
    for e in estimators:
        cells = "".join(_summary_cell(table[e, m][0]) for m in metrics)
        lines.append(f"<tr><td>{escape(e)}</td>{cells}</tr>")
    heads = ["estimator", *(name for name, _ in metrics)]
    summary = "<summary>What the fits report of themselves</summary>"
    return f"<details>{summary}{_table(heads, lines)}</details>" if metrics else ""


def _best(estimators: list[str], table: dict, metric: tuple, less: bool) -> str | None:
    medians = {e: table[e, metric][0].median for e in estimators}
    medians = {e: v for e, v in medians.items() if np.isfinite(v)}
    if not medians:
        return None
    return (min if less else max)(medians, key=medians.get)


def _summary_cell(s: Summary, best: bool = False, delta: Summary | None = None) -> str:
    if not s.defined:
        return _cell(np.nan, "undefined" if s.total else "–")
    text = f"{'<b>' * best}{_short(s.median)}{'</b>' * best}"
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
    """Which versions, commits and devices made how many cells, and the configs."""
    made: Counter = Counter()
    for e in entries:
        if e.record:
            m = {k: v for k, v in mapping(e.record.get("made_by")).items() if k != "date"}
            made[json.dumps(m, sort_keys=True)] += 1
    lines = []
    for text, count in made.most_common():
        m = json.loads(text)
        versions = ", ".join(f"{k} {v}" for k, v in mapping(m.get("versions")).items())
        commit = str(m.get("commit") or "not in a repository")[:12]
        commit += " (edited since)" * bool(m.get("dirty"))
        device = f"{m.get('num_devices')} × {m.get('device')} ({m.get('platform')})"
        cells = (device, str(m.get("machine", "")), commit, versions)
        cells = "".join(f"<td>{escape(c)}</td>" for c in cells)
        lines.append(f"<tr>{_cell(count, str(count))}{cells}</tr>")
    note = (
        ""
        if not other
        else (
            f"<p class=muted>{other} further cells in the folder belong to other versions of "
            "the code or of the suite and are not shown.</p>"
        )
    )
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    heads = ("cells", "device", "machine", "commit", "versions")
    return (
        f"<section><h2>What made it</h2>{_table(heads, lines)}{note}"
        f"<p class=muted>Report written {date}. Long form: results.csv, results.parquet.</p>"
        "</section>"
    )
