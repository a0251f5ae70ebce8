"""How long one estimate takes: user CPU milliseconds, the first and later ones.

    python tests/benchmarks/estimates.py [--model WORD] [--kind WORD] [--runs N] [--slowest N]

Every model of the truth (fixtures/truth, latent, recurrent; the latter two deepened to about 60 layers) is estimated on
kinds of settings: all on one card, a part of the layers, the experts on the CPU, two and eight cards, caches of 8 bits. "First"
is an estimator's first answer, "context" a later one that differs in the context alone, "plan" a later one that differs in what
lies where too; under "cache types" and "micro-batches" it differs in those, which it was not asked about before.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import recurrent_support as recurrent
import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.estimate import Estimator
from fitplug.model.describe import describe
from fitplug.settings import Settings

BUDGET_MS = 15
DEPTH = 60
CARD = {"name": "H200", "total_mib": 143771, "free_mib": 141000, "compute_capability": "9.0"}
CONTEXTS = (8192, 16384, 32768, 65536)


def kinds(n_layer):
    """Name → (cards, settings of plans that are asked about one after the other)."""
    half = n_layer // 2
    return {
        "full": (1, [{}]),
        "partial": (1, [{"n_gpu_layers": half + i} for i in range(3)]),
        "experts": (1, [{"n_cpu_moe": half + i} for i in range(3)]),
        "2 cards": (2, [{"tensor_split": (20.0 + i, 20.0)} for i in range(3)]),
        "2 cards, experts": (2, [{"n_cpu_moe": half + i} for i in range(3)]),
        "2 cards, partial": (2, [{"n_gpu_layers": half + i} for i in range(3)]),
        "8 cards": (8, [{"tensor_split": (8.0 + i, *(8.0,) * 7)} for i in range(3)]),
        "8 cards, experts": (8, [{"n_cpu_moe": half + i} for i in range(3)]),
        "q8_0 cache": (1, [{"n_gpu_layers": half + i, "type_k": "q8_0", "type_v": "q8_0"} for i in range(3)]),
        "cache types": (1, [{"n_gpu_layers": half, "type_k": t, "type_v": t} for t in ("f16", "q8_0", "q4_0")]),
        "micro-batches": (1, [{"n_gpu_layers": half, "n_ubatch": n} for n in (512, 1024, 2048)]),
    }


def models():
    """Name → model."""
    names = dict.fromkeys((row["model"], row["ftype"]) for row in truth.rows("memory"))
    found = {f"{name} {ftype}": truth.model(name, ftype) for name, ftype in names}
    for folder in ("recurrent", "latent"):
        for name, model in truth.Answers(folder).models.items():
            n = describe(truth.header_of(model)).n_layer
            times = max(1, round(DEPTH / n))
            found[f"{folder}/{name}"] = describe(truth.header_of(recurrent.deepened(model, times)))
    return found


def milliseconds(call, runs=1):
    """User CPU time of the fastest run."""
    best = float("inf")
    for _ in range(runs):
        start = time.process_time()
        call()
        best = min(best, (time.process_time() - start) * 1000)
    return best


def measure(model, n_cards, plans, runs):
    """(first, context, plan): milliseconds."""
    machine = truth.machine([CARD] * n_cards, host_bytes=2 << 40)
    context, plan = [], []
    first = float("inf")
    for _ in range(runs):
        estimator = Estimator(model, machine, truth.RUNNERS["llama-server"])
        first = min(first, milliseconds(lambda: estimator(Settings(n_ctx=4096, **plans[0]))))  # noqa: B023
        context.append([milliseconds(lambda: estimator(Settings(n_ctx=c, **plans[0]))) for c in CONTEXTS])  # noqa: B023
        plan.append([milliseconds(lambda: estimator(Settings(n_ctx=12288 + 256 * i, **p))) for i, p in enumerate(plans[1:])])  # noqa: B023
    best = [statistics.mean(min(column) for column in zip(*rows, strict=True)) if rows[0] else 0.0 for rows in (context, plan)]
    return first, *best


def main():
    """Print the table, and how many are over the budget."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="")
    options.add_argument("--kind", default="")
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--slowest", type=int, default=0, help="print only so many")
    asked = options.parse_args()
    rows, refused = [], []
    for name, model in models().items():
        if asked.model not in name:
            continue
        for kind, (n_cards, plans) in kinds(model.n_layer).items():
            if asked.kind not in kind or ("experts" in kind and not model.n_expert):
                continue
            try:
                rows.append((name, model.n_layer, kind, *measure(model, n_cards, plans, asked.runs)))
            except RefusedError as error:
                refused.append(f"{name}, {kind}: {error}")
    if asked.slowest:
        rows = sorted(rows, key=lambda row: -max(row[4:]))[: asked.slowest]
    print(f"{'model':44}{'layers':>7}  {'kind':18}{'first':>8}{'context':>9}{'plan':>8}   user CPU ms")
    for name, n_layer, kind, *taken in rows:
        print(f"{name:44}{n_layer:7}  {kind:18}{taken[0]:8.1f}{taken[1]:9.1f}{taken[2]:8.1f}")
    for line in dict.fromkeys(refused):
        print(f"refused: {line}")
    for column, label in ((4, "context"), (5, "plan")):
        over = sum(row[column] > BUDGET_MS for row in rows)
        median = statistics.median(row[column] for row in rows)
        print(f"{label}: {over} of {len(rows)} over {BUDGET_MS} ms, median {median:.1f}")


if __name__ == "__main__":
    main()
