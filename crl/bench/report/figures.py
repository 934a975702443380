"""Which figures a report shows: cells to the plain numbers that ``figures`` draws."""

import json
from html import escape
from typing import Any

import numpy as np

from crl.bench.rows import Entry, Row, mapping, metrics_of, number, summarize


class Figures:
    """What is drawn of a suite; nothing but a sentence without matplotlib."""

    def __init__(self, estimators: list[str]):
        self.missing, self.draw, self.colors = "", None, {}
        try:
            from crl.bench import figures
        except ModuleNotFoundError:
            self.missing = (
                "No figures: matplotlib is not installed (pip install 'crl[report]')."
            )
            return
        self.draw = figures
        self.colors = {name: figures.color(i) for i, name in enumerate(estimators)}

    def task(self, entries: list[Entry], rows: list[Row], peers: set[str]) -> list[str]:
        """The figures of one task, as HTML."""
        if self.draw is None:
            return []
        colors = {
            e: c for e, c in self.colors.items() if any(x.estimator == e for x in entries)
        }
        strips = {}
        for metric, over_fits in metrics_of(rows):
            name = metric + " (across fits)" * over_fits
            own = [r for r in rows if (r.metric, r.fit is None) == (metric, over_fits)]
            strips[name] = {
                e: list(summarize([r for r in own if r.estimator == e])[1].values())
                for e in colors
            }
        found = []
        if strips:
            svg = self.draw.strips(strips, colors, peers)
            found.append(
                _figure(svg, "One dot a world; the bar is the median; peers are open.")
            )
        first = [e for e in entries if e.record and (e.world, e.fit) == (0, 0)]
        graphs, truth = {}, None
        for e in first:
            claim, true = _matrix(e, "graph", "claim"), _matrix(e, "graph", "truth")
            if claim is not None and true is not None and claim.shape == true.shape:
                graphs[e.estimator], truth = claim, true
        if graphs:
            caption = "World 0. Blue: an edge that is there; red: one too many; open: missed."
            found.append(_figure(self.draw.graphs(truth, graphs), caption))
        heats = {
            ("latents", "|corr|"): "World 0: |correlation| of claimed with true latents.",
            ("dictionary", "|cos|"): "World 0: |cosine| of claimed with true atoms, matched.",
        }
        for (kind, name), caption in heats.items():
            matrices = {e.estimator: _matrix(e, kind, name) for e in first}
            matrices = {e: m for e, m in matrices.items() if m is not None}
            if matrices:
                found.append(_figure(self.draw.heat(matrices), caption))
        traces: dict[str, list] = {}
        for e in entries:
            trace = mapping((e.record or {}).get("trace"))
            trace = {k: list(map(number, v)) for k, v in trace.items() if isinstance(v, list)}
            steps = trace.pop("step", [])
            name = "loss" if "loss" in trace else next(iter(trace), "")
            if len(steps) > 1 and len(trace.get(name, [])) == len(steps):
                traces.setdefault(e.estimator, []).append((steps, trace[name], name))
        if traces:
            caption = "Training, one line a fit."
            found.append(_figure(self.draw.curves(traces, self.colors), caption))
        return found

    def sweeps(self, tasks: dict[str, dict], rows: list[Row]) -> list[str]:
        """Metrics against a number in which at least three tasks differ, all else equal."""
        if self.draw is None:
            return []
        settings = {
            name: dict(_leaves({"dgp": t.get("dgp"), "num_train": t.get("num_train")}))
            for name, t in tasks.items()
        }
        groups: dict[tuple, dict[str, str]] = {}
        for task, own in settings.items():
            for axis, value in own.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    rest = json.dumps(
                        {k: v for k, v in own.items() if k != axis}, sort_keys=True
                    )
                    groups.setdefault((axis, rest), {})[task] = str(value)
        found = []
        for (axis, _), members in groups.items():
            if len(set(members.values())) < 3:
                continue
            shared = [
                {m for m in metrics_of([r for r in rows if r.task == t])} for t in members
            ]
            own = [r for r in rows if r.task in members]
            curves: dict[str, dict] = {}
            for metric in metrics_of(own):
                if all(metric in s for s in shared):
                    for e in self.colors:
                        points = {
                            value: list(
                                summarize(
                                    [
                                        r
                                        for r in own
                                        if (r.task, r.estimator, r.metric, r.fit is None)
                                        == (task, e, *metric)
                                    ]
                                )[1].values()
                            )
                            for task, value in members.items()
                        }
                        if any(points.values()):
                            curves.setdefault(metric[0], {})[e] = points
            if curves:
                name = axis.rpartition(".")[2]
                caption = f"Median and quartiles over worlds against {name}."
                found.append(_figure(self.draw.sweep(name, curves, self.colors), caption))
        return found


def _leaves(value: Any, path: str = ""):
    """(path, leaf) of nested dicts and lists."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _matrix(entry: Entry, kind: str, name: str) -> np.ndarray | None:
    """A picture of a cell, if it holds one that can be drawn."""
    matrices = mapping(mapping(entry.record.get("pictures")).get(kind))
    try:
        matrix = np.array(matrices.get(name), float)
    except (TypeError, ValueError, OverflowError):
        return None
    return matrix if matrix.ndim == 2 and matrix.size and np.isfinite(matrix).all() else None


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
