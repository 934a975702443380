"""python -m benchmarks.speed [JOB ...]: crl and its peers, in turns, in one process.

Medians of wall and CPU seconds, compile time apart, and the ratio of each contestant to crl:
above 1, crl is faster. The load of the machine is printed, since it decides what wall
seconds are worth.
"""

import argparse
import os

JOBS = {
    "startup": lambda: _module("startup").startup(repeats=5),
    "fastica10": lambda: _module("fastica").single(n=100_000, d=10, repeats=7),
    "fastica50": lambda: _module("fastica").single(n=100_000, d=50, repeats=5),
    "sweep": lambda: _module("fastica").sweep(num=64, n=10_000, d=10, repeats=5),
    "lingam10": lambda: _module("discovery").lingam(n=1000, d=10, repeats=7),
    "lingam30": lambda: _module("discovery").lingam(n=10_000, d=30, repeats=3),
    "dagma10": lambda: _module("discovery").central_path(n=1000, d=10, repeats=7),
    "dagma_sweep": lambda: _module("discovery").central_path(1000, 10, repeats=2, num=50),
    "icp10": lambda: _module("discovery").invariance(n=500, d=10, repeats=5),
}


def _module(name: str):
    import importlib

    return importlib.import_module(f"benchmarks.speed.{name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)}")
    jobs = parser.parse_args().jobs or list(JOBS)
    unknown = set(jobs) - set(JOBS)
    if unknown:
        parser.error(f"unknown jobs {sorted(unknown)}; there are {', '.join(JOBS)}")

    import jax

    jax.config.update("jax_enable_compilation_cache", False)  # compile times are to be real
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {os.cpu_count()} cores")
    for job in jobs:
        print(f"load {os.getloadavg()[0]:.1f}")
        print(JOBS[job](), flush=True)


if __name__ == "__main__":
    main()
