"""How long `fitplug auto` takes beside the bare interpreter.

    python tests/benchmarks/startup.py [--runs N] [--check]

Writes the header of an 8B model with a vocabulary and merges of their real size, and starts every command line as a process
of its own, one after the other and over again, so that a slow moment of the machine hits all of them. Printed are the
fastest and the middle run, above the bare interpreter's.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUDGET_MS = 120
N_MERGES = 280147
"""Llama 3's."""


def fixture_models():
    """fixtures/models/make.py as a module."""
    spec = importlib.util.spec_from_file_location("make_models", ROOT / "fixtures" / "models" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def milliseconds(words, cache):
    """One run of a process that finds compiled modules, as an installed program does."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    done = subprocess.run(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, env=env | {"PYTHONPYCACHEPREFIX": cache}
    )
    taken = (time.perf_counter() - start) * 1000
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(words)}: {done.stderr.decode().strip()}")
    return taken


def main():
    """Measure, and fail where the fastest `auto` is over the budget."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=15)
    options.add_argument("--check", action="store_true", help="exit 1 where auto is over the budget")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model.gguf")
        fixture_models().write("llama-3.1-8b", model, n_merges=N_MERGES)
        run = [sys.executable, "-c", "from fitplug.cli import run; run()"]
        lines = {
            "bare interpreter": [sys.executable, "-c", "pass"],
            "--help": [*run, "--help"],
            "plugins": [*run, "plugins"],
            "devices": [*run, "devices"],
            "show": [*run, "show", model],
            "explain": [*run, "explain", model, "--gpu", "RTX 4090"],
            "auto": [*run, "auto", model],
            "auto --gpu": [*run, "auto", model, "--gpu", "RTX 4090"],
            "auto --json": [*run, "auto", model, "--json"],
        }
        taken = {name: [] for name in lines}
        for _ in range(asked.runs + 1):
            for name, words in lines.items():
                taken[name].append(milliseconds(words, str(Path(folder) / "cache")))
    times = {name: (min(values[1:]), statistics.median(values[1:])) for name, values in taken.items()}  # the first warms up
    bare = times["bare interpreter"]
    print(f"{'':18}{'fastest':>10}{'middle':>10}   ms above the bare interpreter ({bare[0]:.0f}, {bare[1]:.0f} ms)")
    for name, (fastest, middle) in times.items():
        if name != "bare interpreter":
            print(f"{name:18}{fastest - bare[0]:10.0f}{middle - bare[1]:10.0f}")
    over = times["auto"][0] - bare[0] > BUDGET_MS
    if over and asked.check:
        sys.exit(f"auto is over its budget of {BUDGET_MS} ms")


if __name__ == "__main__":
    main()
