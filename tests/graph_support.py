"""Backends and weights for graphs of a few nodes."""

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.build import Graph
from fitplug.memory.graph.cuda import CudaBackend
from fitplug.memory.graph.devices import CpuBackend
from fitplug.memory.graph.tensor import Buffer

CPU = CpuBackend()


def cuda(n=1, **traits):
    """So many CUDA devices, then the CPU."""
    return [*(CudaBackend(f"CUDA{i}", i, alone=n < 2, **traits) for i in range(n)), CPU]


def on(backend, *, name="CUDA", host=False, weights=True):
    return Buffer(f"{name}{backend}", (backend,), host, weights)


def weight(type_, *ne, buffer):
    t = ggml.new_tensor(type_, *ne)
    t.buffer = buffer
    return t


def graph(*outputs):
    """Outputs, and what they need."""
    gf = Graph()
    for t in outputs:
        t.is_output = True
        gf.expand(t)
    return gf
