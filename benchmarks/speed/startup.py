"""What a user waits for before anything happens: ``import crl`` and ``crl --help``."""

import statistics
import subprocess
import sys
import time


def startup(repeats: int) -> str:
    """Median wall seconds of fresh processes, the bare interpreter beside them."""
    commands = {
        "python -c pass": ["-c", "pass"],
        "import crl": ["-c", "import crl"],
        "import jax": ["-c", "import jax"],
        "crl --help": ["-m", "crl.bench.cli", "--help"],
    }
    lines = ["Start of a process"]
    for name, arguments in commands.items():
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
        lines.append(f"  {name:34}{statistics.median(seconds[1:]):8.3f}s wall")
    return "\n".join(lines)
