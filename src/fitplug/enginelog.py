"""llama.cpp's log lines about buffers, as bytes."""

import re
from collections.abc import Iterable

_BUFFER = re.compile(r":\s+(\S+) +(DSV4 \S+ state|KV|RS|model|compute) buffer size\s*=\s*(\d+\.\d+) MiB")
"""`load_tensors: CUDA0 model buffer size = 4403.49 MiB` and its like (src/llama-model.cpp, llama-kv-cache.cpp,
llama-kv-cache-dsv4.cpp, llama-memory-recurrent.cpp, llama-context.cpp)."""
PRECISION = 5244
"""Printed figures have two decimals of a MiB: this far they may lie from the truth, in bytes."""


def parse_buffer_sizes(lines: Iterable[str]) -> dict[str, dict[str, int]]:
    """Buffer type → kind → bytes, as far as they are printed (two decimals of a MiB).

    Compute buffers are printed again when a graph is reserved anew: the last counts. Caches and weights add up, since a
    model with two caches prints a line for each. Output buffers are in no breakdown of llama.cpp and are left out.
    """
    found: dict[str, dict[str, int]] = {}
    for line in lines:
        match = _BUFFER.search(line)
        if match is None:
            continue
        kind = match[2] if match[2] in {"model", "compute"} else "context"
        row = found.setdefault(match[1], {})
        n_bytes = round(float(match[3]) * (1 << 20))
        row[kind] = n_bytes if kind == "compute" else row.get(kind, 0) + n_bytes
    return found
