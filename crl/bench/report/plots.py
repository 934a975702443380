"""Figures of the report as inline SVG, drawn by matplotlib without a window or global state.

Every function takes plain numbers and names and returns SVG text. Names come from users and
from results folders of strangers: they are drawn as they are, never parsed as formulas.
"""

import io
import itertools
import re
import textwrap

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# Colours that stay apart for colour-blind eyes and in grey.
PALETTE = (
    "#2563eb",
    "#d97706",
    "#059669",
    "#9333ea",
    "#dc2626",
    "#0891b2",
    "#be185d",
    "#65a30d",
)
INK, MUTED, LINE = "#1f2937", "#6b7280", "#d1d5db"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.useoffset": False,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": "#eef0f3",
    "axes.grid": True,
    "axes.axisbelow": True,
    "svg.fonttype": "none",  # text stays text: sharp, small, searchable
    "legend.frameon": False,
}
Values = dict[str, list[float]]  # estimator -> one value per world


def color(index: int) -> str:
    """The colour of the index-th estimator of a suite."""
    return PALETTE[index % len(PALETTE)]


@matplotlib.rc_context(STYLE)
def strips(metrics: dict[str, Values], colors: dict[str, str], hollow: set[str]) -> str:
    """One panel a metric, one row an estimator, one dot a world; the bar is the median.

    hollow: estimators drawn with open dots (peers). Undefined values (NaN) are counted on
    the right, in red.
    """
    names = list(colors)
    figure, axes = _panels(len(metrics), 3.1, 0.62 + 0.3 * len(names), share_y=True)
    for ax, (metric, values) in zip(axes, metrics.items()):
        for row, name in enumerate(names):
            x = np.array(values.get(name, []), float)
            good = x[np.isfinite(x)]
            # Dots of one row are spread in height so that equal values stay countable.
            y = row + 0.22 * _spread(len(good))
            face = "white" if name in hollow else colors[name]
            ax.scatter(
                good, y, s=20, c=face, edgecolors=colors[name], linewidths=1.1, zorder=3
            )
            if len(good):
                ax.vlines(
                    np.median(good), row - 0.36, row + 0.36, colors[name], lw=2, zorder=4
                )
            if len(good) < len(x):
                lost = f"{len(x) - len(good)} undefined"
                at = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "center"}
                ax.annotate(lost, (1.0, row), color="#b91c1c", fontsize=8, **at)
        ax.set_title(metric)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.margins(x=0.08)
        # Differences in the last bits are not to fill a panel.
        low, high = ax.get_xlim()
        room = max(0.0, 2e-3 * max(abs(low), abs(high)) - (high - low)) / 2
        ax.set_xlim(low - room, high + room)
        ax.locator_params(axis="x", nbins=4)
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def sweep(
    axis: str, curves: dict[str, dict[str, dict[float, list[float]]]], colors: dict[str, str]
) -> str:
    """One panel a metric: medians and interquartile bands against a setting.

    curves: metric -> estimator -> {value of the setting: values per world}.
    """
    figure, axes = _panels(len(curves), 3.1, 2.3)
    for ax, (metric, by_name) in zip(axes, curves.items()):
        for name, points in by_name.items():
            at = sorted(points)
            values = [np.array(points[a], float) for a in at]
            keep = [i for i, v in enumerate(values) if np.isfinite(v).any()]
            if not keep:
                continue
            x = [at[i] for i in keep]
            low, mid, high = np.array(
                [np.nanpercentile(values[i], [25, 50, 75]) for i in keep]
            ).T
            ax.plot(x, mid, "o-", ms=4, lw=1.6, color=colors[name], label=name)
            ax.fill_between(x, low, high, color=colors[name], alpha=0.15, lw=0)
        _scale_axis(ax, sorted({a for points in by_name.values() for a in points}))
        ax.set_title(metric)
        ax.set_xlabel(axis)
    axes[0].legend(fontsize=8, labelcolor=INK)
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def curves(traces: dict[str, list[tuple]], colors: dict[str, str]) -> str:
    """Training curves: one panel an estimator, one line a fit: (steps, values, their name)."""
    figure, axes = _panels(len(traces), 2.5, 1.75)
    for ax, (name, lines) in zip(axes, traces.items()):
        for steps, values, quantity in lines:
            ax.plot(steps, values, lw=1, color=colors[name], alpha=max(0.25, 1 / len(lines)))
            ax.set_ylabel(quantity)
        ax.set_title(_wrapped(name, 24))
        ax.set_xlabel("step")
        ax.locator_params(nbins=4)
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def heat(matrices: dict[str, np.ndarray]) -> str:
    """Similarities in [0, 1], one panel an estimator; dark on the diagonal is a match."""
    figure, axes = _panels(len(matrices), 2.15, 2.15)
    for ax, (name, matrix) in zip(axes, matrices.items()):
        image = ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        _matrix_axes(ax, name, matrix.shape)
        ax.set_xlabel("true")
    axes[0].set_ylabel("claimed")
    bar = figure.colorbar(image, ax=list(axes), shrink=0.8, aspect=18, pad=0.05)
    bar.outline.set_visible(False)
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def graphs(truth: np.ndarray, claims: dict[str, np.ndarray]) -> str:
    """The true graph, then each claim: blue an edge, red one too many, open red one missed."""
    figure, axes = _panels(1 + len(claims), 2.0, 2.0)
    truth = truth > 0.5
    for ax, (name, graph) in zip(axes, {"true graph": truth, **claims}.items()):
        graph = graph > 0.5
        ax.imshow(np.zeros(truth.shape), cmap="Greys", vmin=0, vmax=1)
        for i, j in zip(*np.nonzero(graph | truth)):
            extra, missed = graph[i, j] and not truth[i, j], truth[i, j] and not graph[i, j]
            style = {"fc": "#dc2626" if extra else "#2563eb", "ec": "none"}
            if missed:
                style = {"fc": "none", "ec": "#dc2626", "lw": 1.4}
            ax.add_patch(matplotlib.patches.Rectangle((j - 0.4, i - 0.4), 0.8, 0.8, **style))
        _matrix_axes(ax, name, truth.shape)
        ax.set_xlabel("to")
    axes[0].set_ylabel("from")
    return _svg(figure)


def _scale_axis(ax, numbers: list[float]) -> None:
    """Logarithmic for numbers that span decades, ticks where there are points."""
    positive = [number for number in numbers if number > 0]
    if numbers[0] >= 0 and positive and positive[-1] >= 10 * positive[0]:
        # With a zero, such as a penalty that is off, linear up to the first number.
        scale = {"linthresh": positive[0]} if numbers[0] == 0 else {}
        ax.set_xscale("symlog" if scale else "log", **scale)
    ticks = numbers[:: -(-len(numbers) // 6)]
    ax.set_xticks(ticks, [f"{number:g}" for number in ticks])
    ax.minorticks_off()


def _wrapped(name: str, width: int) -> str:
    """A long name on several lines, broken before the values of a sweep."""
    lines = name.replace("[", "\n[").split("\n")
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width) or [""])


def _matrix_axes(ax, title: str, shape: tuple[int, int]) -> None:
    ax.set_title(_wrapped(title, 22))
    ax.grid(visible=False)
    ticks = [range(0, n, max(1, n // 4)) for n in shape]
    ax.set_yticks(ticks[0])
    ax.set_xticks(ticks[1])
    for spine in ax.spines.values():
        spine.set_visible(True)


def _panels(num: int, width: float, height: float, share_y: bool = False):
    """A figure of ``num`` panels, at most four in a row; sizes in inches a panel."""
    columns = min(num, 4)
    rows = -(-num // columns)
    figure = Figure((width * columns, height * rows + 0.25), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.09)  # the page's font is taller than the one here
    axes = figure.subplots(rows, columns, sharey=share_y, squeeze=False).ravel()
    for ax in axes[num:]:
        ax.remove()
    return figure, axes[:num]


def _spread(num: int) -> np.ndarray:
    """Heights in [-1, 1], the same each time."""
    return (np.arange(num) * 0.618034 % 1) * 2 - 1 if num > 1 else np.zeros(num)


# Makes the ids of one page's figures differ from each other; a salt that two figures share
# would let one refer to the other's paths.
_salts = itertools.count()


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"figure {next(_salts)}"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace("'DejaVu Sans'", "system-ui, sans-serif")
    # The page decides how wide a figure is shown.
    return re.sub(r'<svg ([^>]*?)width="([\d.]+)pt" height="[\d.]+pt"', _width, svg, count=1)


def _width(match: re.Match) -> str:
    pixels = float(match[2]) * 4 / 3
    return f'<svg {match[1]}style="width:{pixels:.0f}px;max-width:100%;height:auto"'
