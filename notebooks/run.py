"""Runs the notebooks: python notebooks/run.py [NAME ...]; all of them by default.

They are jupytext percent files, so that Jupyter opens them and plain Python runs them. Their
figures go to results/notebooks. FAST=1 in the environment takes the small sweeps. The exit
code is the number of notebooks that failed.
"""

import pathlib
import runpy
import sys
import time
import traceback

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = pathlib.Path(__file__).parent
FIGURES = HERE.parent / "results" / "notebooks"


def main(names: list[str]) -> int:
    names = names or sorted(p.stem for p in HERE.glob("*.py") if p.stem != "run")
    failed = []
    for name in names:
        begin = time.perf_counter()
        try:
            runpy.run_path(str(HERE / f"{name}.py"))
        except Exception:
            traceback.print_exc()
            failed.append(name)
        print(f"{name}: {time.perf_counter() - begin:.0f} s")
        FIGURES.mkdir(parents=True, exist_ok=True)
        for number in plt.get_fignums():
            plt.figure(number).savefig(FIGURES / f"{name}_{number}.png", dpi=150)
        plt.close("all")
    print(f"failed: {', '.join(failed)}" if failed else f"all {len(names)} hold")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
