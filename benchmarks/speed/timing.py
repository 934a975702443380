"""Side by side timings: contestants take turns, so that other load hits all of them alike."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Timing(NamedTuple):
    """Seconds. The first call holds compilation; the medians are over the later ones."""

    first_wall: float
    first_cpu: float
    wall: float
    cpu: float  # of the process, all threads


def take_turns(
    contestants: dict[str, Callable[[], object]], repeats: int, patience: float = 30.0
) -> dict[str, Timing]:
    """Time each contestant ``repeats`` times after one first call; each must block.

    Who has used up ``patience`` seconds sits out; the first call counts where it is all.
    """
    first = {name: _once(run) for name, run in contestants.items()}
    turns = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            if first[name][0] + sum(t[0] for t in turns[name]) < patience:
                turns[name].append(_once(run))
    medians = {
        name: [statistics.median(t) for t in zip(*(turns[name] or [first[name]]))]
        for name in contestants
    }
    return {name: Timing(*first[name], *medians[name]) for name in contestants}


def _once(run: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def table(title: str, ours: str, timings: dict[str, Timing], notes: dict[str, str]) -> str:
    """First call, medians, and the ratio of each to ``ours`` in wall and CPU time."""
    base = timings[ours]
    columns = ("first wall", "first cpu", "wall", "cpu", "wall x", "cpu x")
    lines = [title, " " * 27 + "".join(f"{c:>11}" for c in columns)]
    for name, t in timings.items():
        ratios = f"{t.wall / base.wall:11.2f}{t.cpu / base.cpu:11.2f}"
        first = f"{t.first_wall:10.2f}s{t.first_cpu:10.2f}s"
        later = f"{t.wall * 1e3:9.1f}ms{t.cpu * 1e3:9.1f}ms"
        lines.append(f"  {name:25}{first}{later}{ratios}  {notes.get(name, '')}")
    return "\n".join(lines)
