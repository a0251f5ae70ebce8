"""The buffer types of the CPU in which weights lie otherwise than in the file (ggml/src/ggml-cpu: repack.cpp, amx/).

Which of them there are follows from the processor, and from the build: the official ones choose their code by the processor,
and those that somebody builds are for his own. CPU_KLEIDIAI is only in builds that ask for it; its sizes are Arm's library's.
"""

from collections.abc import Mapping
from typing import NamedTuple

from fitplug.formats.header import Tensor
from fitplug.machine.backends import backend
from fitplug.machine.records import Machine
from fitplug.memory.records import HOST
from fitplug.memory.sizes import block

REPACKED, AMX = "CPU_REPACK", "AMX"
PACKED = frozenset((REPACKED, AMX))


class Cpu(NamedTuple):
    """One kind of processor."""

    repacked: Mapping[str, int]
    """Type → the multiple that ne1 must be (ggml_repack_get_optimal_repack_type)."""
    amx: bool = False
    """It has Advanced Matrix Extensions, whose buffers come before the repacked ones."""


_AVX2 = {"q4_0": 8, "q4_K": 8, "iq4_nl": 8, "mxfp4": 8}
_AVX512 = _AVX2 | {"q2_K": 8}
CPUS: Mapping[str, Cpu] = {
    "x86": Cpu(_AVX2),
    "x86-avx512": Cpu(_AVX512),
    "x86-amx": Cpu(_AVX512, amx=True),
    "arm": Cpu({"q4_0": 4, "q4_K": 8, "q5_K": 8, "q6_K": 8, "q8_0": 4, "q1_0": 4, "iq4_nl": 4, "mxfp4": 4}),
    "riscv": Cpu(dict.fromkeys(("q4_0", "q4_K", "q2_K", "iq4_nl", "q8_0"), 16)),
    "s390x": Cpu({"q4_0": 4}),
    "none": Cpu({}),
}
"""By what `Host.extra["cpu"]` says: x86 with AVX2, with AVX-512, with AMX; Arm with dot products (SVE and i8mm change no size
nor which types); RISC-V with vectors of 256 bits; s390x with VXE; and what has none of these."""


class Packing(NamedTuple):
    """How AMX has one type."""

    multiple: int
    """Of ne0."""
    more: int = 0
    """Bytes that each block takes besides (get_row_size, amx/mmq.cpp)."""


_AMX = {
    "q4_0": Packing(32), "q4_1": Packing(32), "q8_0": Packing(32, 4), "q4_K": Packing(256, 4), "q5_K": Packing(256, 4),
    "q6_K": Packing(256), "iq4_xs": Packing(256, 2), "f16": Packing(16),
}  # fmt: skip
_AMX_ROWS = 32
"""What ne1 must be a multiple of: TILE_N * 2."""


def cpu_of(machine: Machine) -> Cpu:
    """What the machine says, else what such devices come with, else x86 with AVX2."""
    said = machine.host.extra.get("cpu")
    if not isinstance(said, str):
        said = next((row.cpu for row in map(backend, machine.devices) if row.cpu), "x86")
    return CPUS.get(said, CPUS["none"])


def cpu_buffer(op: str, tensor: Tensor, row: Cpu) -> str:
    """The first of the CPU's buffer types that takes this weight: AMX and repacked for products, 3-D ones for experts."""
    packing = _AMX.get(tensor.type) if row.amx and op == "MUL_MAT" else None
    shape = (*tensor.shape, 1, 1)
    if packing is not None and shape[0] % packing.multiple == 0 and shape[1] % _AMX_ROWS == 0:
        return AMX
    multiple = row.repacked.get(tensor.type)
    n_dims = max((i for i, n in enumerate(tensor.shape, 1) if n != 1), default=1)
    takes = multiple is not None and (op, n_dims) in (("MUL_MAT", 2), ("MUL_MAT_ID", 3)) and shape[1] % multiple == 0
    return REPACKED if takes else HOST


def cpu_bytes(tensor: Tensor, buffer: str) -> int:
    """What it takes there, before alignment; AMX counts one matrix of several (ggml_backend_amx_get_alloc_size)."""
    if buffer != AMX or tensor.type == "f16":
        return tensor.n_bytes
    elements, n_bytes = block(tensor.type)
    return tensor.shape[1] * (tensor.shape[0] // elements) * (n_bytes + _AMX[tensor.type].more)
