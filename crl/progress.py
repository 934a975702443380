"""What a long run tells, and what it does when it is told to stop."""

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

log = logging.getLogger("crl")

BAR_DELAY = 1  # s before a progress bar shows: what is short needs none
LINE_EVERY = 10  # s between two log lines, and before the first


@contextlib.contextmanager
def progress(
    total: int,
    *,
    label: str = "",
    unit: str = "step",
    initial: int = 0,
    bar: bool | None = None,
) -> Iterator[Callable]:
    """A function report(done, facts, label): a bar on a terminal, now and then a log line
    elsewhere.

    facts: short texts. bar: whether to draw one; None: on a terminal.
    """
    drawn, told = None, time.monotonic()
    if total > initial and (sys.stderr.isatty() if bar is None else bar):
        drawn = tqdm(
            desc=label, total=total, initial=initial, unit=unit, delay=BAR_DELAY, leave=False
        )

    def report(done: int, facts: Sequence[str] = (), label: str = label) -> None:
        nonlocal told
        if drawn is not None:
            drawn.set_description(label, refresh=False)
            drawn.set_postfix_str(", ".join(facts), refresh=False)
            drawn.update(done - drawn.n)
        elif time.monotonic() - told >= LINE_EVERY:
            told = time.monotonic()
            place = f"{label} {unit} {done}/{total}".strip()
            log.info("%s", ", ".join([place, *facts]))

    try:
        yield report
    finally:
        if drawn is not None:
            drawn.close()


@contextlib.contextmanager
def on_signals(names: Sequence[str], act: Callable[[int], None]) -> Iterator[None]:
    """While inside, the signals of these names call ``act`` with their number.

    Only the main thread may set handlers; elsewhere signals keep their meaning.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {n: signal.signal(n, lambda number, _: act(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
