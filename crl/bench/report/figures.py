"""Which figures a report shows: cells to the plain numbers that ``plots`` draws."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from crl.bench.report.rows import Column, Entry, Row, column_of, columns_of, values_by_world
from crl.bench.run.suite import TaskConfig

# Points along a setting, and for each the values of the worlds.
Curve = dict[float, list[float]]


class Figures:
    """What is drawn of a suite; nothing but a sentence without matplotlib."""

    def __init__(self, estimators: list[str]):
        self.missing, self.plots, self.colors = "", None, {}
        try:
            from crl.bench.report import plots
        except ModuleNotFoundError:
            self.missing = (
                "No figures: matplotlib is not installed (pip install 'crl[report]')."
            )
            return
        self.plots = plots
        # The values of a sweep are one estimator and have one colour.
        bases = list(dict.fromkeys(map(_base, estimators)))
        colors = {base: plots.color(i) for i, base in enumerate(bases)}
        self.colors = {name: colors[_base(name)] for name in [*bases, *estimators]}

    def task(
        self, config: TaskConfig, entries: list[Entry], rows: list[Row], peers: set[str]
    ) -> list[str]:
        """The figures of one task, as HTML."""
        if self.plots is None:
            return []
        return [
            *self._strips(entries, rows, peers),
            *self._sweeps(config, rows),
            *self._pictures(entries),
            *self._training_curves(entries),
        ]

    def _strips(self, entries: list[Entry], rows: list[Row], peers: set[str]) -> Iterator[str]:
        names = {e.estimator for e in entries}
        colors = {name: color for name, color in self.colors.items() if name in names}
        strips = {
            column.title(): {
                name: list(_values(rows, name, column).values()) for name in colors
            }
            for column in columns_of(rows)
        }
        if strips:
            svg = self.plots.strips(strips, colors, peers)
            yield _figure(svg, "One dot a world; the bar is the median; peers are open.")

    def _sweeps(self, config: TaskConfig, rows: list[Row]) -> Iterator[str]:
        """Metrics against an option, for estimators of which the suite sweeps it."""
        swept: dict[str, dict[str, dict[float, str]]] = {}  # option -> base -> value -> name
        for name, spec in config.estimators.items():
            options = _options(spec)
            for option, value in options.items():
                others = {k: v for k, v in options.items() if k != option}
                label = ", ".join(f"{k}={v!r}" for k, v in others.items())
                base = f"{_base(name)}[{label}]" if label else _base(name)
                swept.setdefault(option, {}).setdefault(base, {})[value] = name
        for option, by_base in swept.items():
            curves: dict[str, dict[str, Curve]] = {}
            for column in columns_of(rows):
                for base, names in by_base.items():
                    points = {
                        value: list(_values(rows, name, column).values())
                        for value, name in names.items()
                    }
                    if len(points) > 1 and any(points.values()):
                        curves.setdefault(column.title(), {})[base] = points
            if curves:
                yield self._against(option, curves)

    def _against(self, setting: str, curves: dict[str, dict[str, Curve]]) -> str:
        bases = {base for by_base in curves.values() for base in by_base}
        colors = self.colors | {base: self.colors[_base(base)] for base in bases}
        caption = f"Median and quartiles over worlds against {setting}."
        return _figure(self.plots.sweep(setting, curves, colors), caption)

    def _pictures(self, entries: list[Entry]) -> Iterator[str]:
        first = [e for e in entries if e.record and (e.world, e.fit) == (0, 0)]
        graphs, truth = {}, None
        for e in first:
            claim, true = _matrix(e, "graph", "claim"), _matrix(e, "graph", "truth")
            if claim is not None and true is not None and claim.shape == true.shape:
                graphs[e.estimator], truth = claim, true
        if graphs:
            caption = "World 0. Blue: an edge that is there; red: one too many; open: missed."
            yield _figure(self.plots.graphs(truth, graphs), caption)
        heats = {
            ("latents", "|corr|"): "World 0: |correlation| of claimed with true latents.",
            ("dictionary", "|cos|"): "World 0: |cosine| of claimed with true atoms, matched.",
        }
        for (kind, name), caption in heats.items():
            matrices = {e.estimator: _matrix(e, kind, name) for e in first}
            matrices = {e: m for e, m in matrices.items() if m is not None}
            if matrices:
                yield _figure(self.plots.heat(matrices), caption)

    def _training_curves(self, entries: list[Entry]) -> Iterator[str]:
        traces: dict[str, list] = {}
        for e in entries:
            trace = dict(e.record.result.trace) if e.record else {}
            steps = trace.pop("step", [])
            name = "loss" if "loss" in trace else next(iter(trace), "")
            if len(steps) > 1 and len(trace.get(name, [])) == len(steps):
                line = np.array(steps, float), np.array(trace[name], float), name
                traces.setdefault(e.estimator, []).append(line)
        if traces:
            svg = self.plots.curves(traces, self.colors)
            yield _figure(svg, "Training, one line a fit.")

    def against_settings(self, tasks: dict[str, TaskConfig], rows: list[Row]) -> list[str]:
        """Metrics against a number in which at least three tasks differ, all else equal."""
        if self.plots is None:
            return []
        found = []
        for axis, members in _series(tasks):
            own = [r for r in rows if r.task in members]
            columns = columns_of(own)
            for task in members:
                have = set(columns_of([r for r in own if r.task == task]))
                columns = [c for c in columns if c in have]
            curves: dict[str, dict[str, Curve]] = {}
            for column in columns:
                for name in dict.fromkeys(r.estimator for r in own):
                    points = {
                        value: list(
                            _values([r for r in own if r.task == t], name, column).values()
                        )
                        for t, value in members.items()
                    }
                    if any(points.values()):
                        curves.setdefault(column.title(), {})[name] = points
            if curves:
                found.append(self._against(axis.rpartition(".")[2], curves))
        return found


def _base(name: str) -> str:
    """What an estimator is called without the values of its sweep."""
    return name.partition("[")[0]


def _values(rows: list[Row], estimator: str, column: Column) -> dict[int, float]:
    return values_by_world(
        [r for r in rows if r.estimator == estimator and column_of(r) == column]
    )


def _options(spec: dict) -> dict[str, float]:
    """The swept options of an estimator, whoever wrote it: numbers at their paths."""
    leaves, swept = dict(_leaves(spec)), spec.get("swept", [])
    paths = (
        [path for path in swept if isinstance(path, str)] if isinstance(swept, list) else []
    )
    return {path: value for path in paths if (value := _number(leaves.get(path))) is not None}


def _series(tasks: dict[str, TaskConfig]) -> Iterator[tuple[str, dict[str, float]]]:
    """(setting, {task: its value}) of tasks that are alike but for it."""
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for name, task in tasks.items():
        leaves = dict(_leaves({"dgp": task.dgp, "num_train": task.num_train}))
        for axis, value in leaves.items():
            if (value := _number(value)) is not None:
                rest = {k: v for k, v in leaves.items() if k != axis}
                group = axis, json.dumps(rest, sort_keys=True)
                groups.setdefault(group, {})[name] = value
    for (axis, _), members in groups.items():
        if len(set(members.values())) >= 3:
            yield axis, members


def _number(value: Any) -> float | None:
    """A finite float, or None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        return None
    return float(value)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of nested dicts and lists."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _matrix(entry: Entry, kind: str, name: str) -> np.ndarray | None:
    """A picture of a cell, if it holds one that can be drawn."""
    rows = entry.record.result.pictures.get(kind, {}).get(name, [])
    if not rows or len({len(row) for row in rows}) != 1 or not rows[0]:
        return None
    return np.array(rows)


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
