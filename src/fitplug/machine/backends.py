"""What ggml's backends do differently, as data: names, alignment, padding, host buffers, what they can hold.

One row a backend; the rest of fitplug asks the row and never the name. Figures are ggml's own (ggml/src/ggml-*/), from
the buffer types' get_alignment, get_alloc_size and get_max_size and the devices' get_props.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from fitplug.errors import RefusedError
from fitplug.machine.records import Device
from fitplug.units import GIB

CPU_ALIGNMENT = 32
"""TENSOR_ALIGNMENT (ggml/src/ggml-impl.h): plain, pinned and repacked host buffers."""


class WeightRules(NamedTuple):
    """Which weights a backend can compute with, in the trial shapes of llama.cpp's loader (its supports_op)."""

    no_mul_mat: frozenset[str]
    """Types that it cannot multiply with."""
    no_get_rows: frozenset[str]
    """Types that it cannot look rows up in."""
    whole_rows: frozenset[str] = frozenset()
    """Types whose rows it looks up only where they are whole super-blocks of 256."""
    scalars: frozenset[str] | None = frozenset({"f32", "f16"})
    """Types that it adds and multiplies element by element; None: all."""
    scales: frozenset[str] | None = frozenset({"f32"})
    conv_multiple: int = 1
    """SSM_CONV: what the number of channels must be a multiple of."""
    scan_states: frozenset[int] | None = None
    """SSM_SCAN of Mamba 2: state sizes; None: any."""
    scan_first: Literal["no", "narrow", "yes"] = "yes"
    """SSM_SCAN of Mamba 1: not at all; one size of it; any."""
    max_bytes: int | None = None
    """Larger ones it does not compute with."""


_INTEGERS = frozenset({"i8", "i16", "i32", "i64", "f64", "q8_1"})
_CUDA = WeightRules(
    no_mul_mat=_INTEGERS | {"tq1_0", "tq2_0"},
    no_get_rows=(_INTEGERS - {"i32"}) | {"tq1_0", "tq2_0", "q8_K", "nvfp4"},
    whole_rows=frozenset({"iq4_nl", "mxfp4"}),
    scales=frozenset({"f32", "bf16"}),
    conv_multiple=128,
    scan_states=frozenset({96, 128, 256}),
    scan_first="narrow",
)
_VULKAN = WeightRules(
    no_mul_mat=_INTEGERS | {"q8_K"},
    no_get_rows=(_INTEGERS - {"i32"}) | {"q8_K"},
    scan_states=frozenset({128, 256}),
    scan_first="no",
)
_METAL = WeightRules(
    no_mul_mat=_INTEGERS | {"tq1_0", "nvfp4"}, no_get_rows=frozenset({"tq1_0", "nvfp4"}), scalars=frozenset({"f32"})
)
_ANYTHING = WeightRules(no_mul_mat=frozenset(), no_get_rows=frozenset(), scalars=None, scales=None)
"""A backend that says yes to every operation, whatever happens then."""


GraphRules: TypeAlias = Literal["plain", "cuda", "metal", "rpc", "vulkan"]
"""What a backend computes, reorders and adds to a tensor's size: a rule of `memory.graph.devices`."""


class Backend(NamedTuple):
    """One ggml backend."""

    name: str
    """As in a machine file."""
    prefix: str
    """ggml's device names are this and a number."""
    alignment: int
    row_padding: int = 0
    """Quantised tensors whose rows are no multiple of this take the bytes up to it once more (MATRIX_ROW_PADDING)."""
    host_buffer: str | None = None
    """Pinned host memory, which llama.cpp puts CPU weights into."""
    host_alignment: int = CPU_ALIGNMENT
    """Of tensors in such a buffer; the scheduler's CPU computes in one of the first device's."""
    host_extra: int = 0
    """What each such buffer has besides the tensors when it is really allocated."""
    max_buffer_bytes: int | None = None
    """Larger sums of tensors are cut into several buffers."""
    max_tensor_bytes: int | None = None
    """With a larger tensor it does not compute."""
    asynchronous: bool = True
    events: bool = True
    """Both are needed for pipeline parallelism over several devices."""
    split_rows: bool = False
    """Has split buffers: `-sm row`."""
    graph: GraphRules = "plain"
    cores: Literal["nvidia", "amd", "none"] = "nvidia"
    """Of CUDA's source: whose matrix cores decide which kernel attends."""
    reads_host: bool = False
    """Integrated devices read the host's buffers in place."""
    flash_attn: str = "any"
    """Which head sizes its flash attention takes: a rule of `memory.flash_attention`."""
    weights: WeightRules = _CUDA
    driver_limits: bool = False
    """Alignments and longest buffers are the driver's to say: of `machine.drivers` where the device does not."""
    compute_proven: bool = False
    """Its compute buffers have been held to llama.cpp's own answers, to the byte. The others' graphs are laid out by the same
    allocator, but what they reorder, fuse or cannot compute is not simulated, or their driver's limits are only supposed."""
    cpu: str | None = None
    """The processor that such devices come with: a row of `memory.cpu_buffers`."""
    source: str = ""


DRIVER_KEYS = ("alignment", "host_alignment", "max_tensor_bytes")
"""What a device must say of its driver's limits for its figures to be exact."""

BACKENDS = {
    row.name: row
    for row in (
        Backend(
            "cuda",
            "CUDA",
            128,
            512,
            "CUDA_Host",
            graph="cuda",
            reads_host=True,
            flash_attn="cuda",
            compute_proven=True,
            source="ggml/src/ggml-cuda/ggml-cuda.cu",
        ),
        Backend(
            "rocm",
            "ROCm",
            128,
            512,
            "ROCm_Host",
            graph="cuda",
            cores="amd",
            flash_attn="cuda",
            source="ggml/src/ggml-cuda/ggml-cuda.cu",
        ),
        Backend(
            "musa",
            "MUSA",
            128,
            512,
            "MUSA_Host",
            graph="cuda",
            cores="none",
            flash_attn="cuda",
            source="ggml/src/ggml-cuda/ggml-cuda.cu",
        ),
        Backend("metal", "MTL", 32, graph="metal", weights=_METAL, cpu="arm", source="ggml/src/ggml-metal/ggml-metal.cpp"),
        Backend(
            "vulkan",
            "Vulkan",
            64,
            0,
            "Vulkan_Host",
            host_extra=32,
            max_buffer_bytes=GIB,
            graph="vulkan",
            weights=_VULKAN,
            driver_limits=True,
            compute_proven=True,
            source="ggml/src/ggml-vulkan/ggml-vulkan.cpp",
        ),
        Backend("sycl", "SYCL", 128, 512, "SYCL_Host", split_rows=True, source="ggml/src/ggml-sycl/ggml-sycl.cpp"),
        # A server answers with its own backend's figures; those of CUDA are supposed. It is never asked what it can compute
        # (ggml_backend_rpc_device_supports_op: always true).
        Backend("rpc", "RPC", 128, 512, graph="rpc", weights=_ANYTHING, source="ggml/src/ggml-rpc/ggml-rpc.cpp"),
        Backend("opencl", "GPUOpenCL", 128, asynchronous=False, events=False, source="ggml/src/ggml-opencl/ggml-opencl.cpp"),
        Backend("cann", "CANN", 128, 0, "CANN_Host", asynchronous=False, source="ggml/src/ggml-cann/ggml-cann.cpp"),
    )
}
"""By name."""


SERVED = frozenset({"cpu", "cuda"})
"""Backends behind an RPC server with which its devices' compute buffers have been held to llama.cpp's own answers."""


def backend(device: Device) -> Backend:
    """The device's row; a backend that nobody knows is supposed to be like Vulkan without its limit."""
    known = BACKENDS.get(device.backend)
    row = known or Backend(device.backend, device.backend.upper(), 128)
    told = device.extra
    if row.driver_limits:
        row = _with_driver(row, device)
    max_tensor_bytes = _within(told.get("max_tensor_bytes"), 1 << 20, 1 << 62) or row.max_tensor_bytes
    return row._replace(
        alignment=_within(told.get("alignment"), 1, 1 << 16) or row.alignment,
        row_padding=row.row_padding if "row_padding" not in told else _within(told["row_padding"], 0, 1 << 12) or 0,
        host_alignment=_within(told.get("host_alignment"), 1, 1 << 16) or row.host_alignment,
        max_buffer_bytes=_within(told.get("max_buffer_bytes"), 1 << 20, 1 << 62) or row.max_buffer_bytes,
        max_tensor_bytes=max_tensor_bytes,
        weights=row.weights._replace(max_bytes=max_tensor_bytes),
        compute_proven=row.compute_proven or (row.name == "rpc" and str(told.get("served_by")) in SERVED),
    )


def _with_driver(row: Backend, device: Device) -> Backend:
    """The row with what the device's driver usually states; proven only where the device says it itself."""
    from fitplug.machine.drivers import limits

    found = limits(device)
    return row._replace(
        alignment=found.alignment,
        host_alignment=found.host_alignment,
        max_tensor_bytes=found.max_tensor_bytes,
        compute_proven=row.compute_proven and all(key in device.extra for key in DRIVER_KEYS),
    )


def _within(value: object, least: int, most: int) -> int | None:
    """A whole number that a device says of itself (an RPC server does), if it is one that can be."""
    return value if type(value) is int and least <= value <= most else None


def backend_named(device_name: str) -> str:
    """The backend whose devices have such names: "CUDA0" is "cuda"; of a stranger the letters are its name."""
    prefix = device_name.rstrip("0123456789")
    return next((row.name for row in BACKENDS.values() if row.prefix == prefix), prefix.lower())


def ggml_device_names(devices: Sequence[Device]) -> tuple[str, ...]:
    """CUDA0, CUDA1, Vulkan0, …: numbered per backend in the order given."""
    seen: dict[str, int] = {}
    names = []
    for device in devices:
        number = seen.get(device.backend, 0)
        seen[device.backend] = number + 1
        names.append(f"{backend(device).prefix}{number}")
    return tuple(names)


def find_devices(names: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the devices that `-dev` lists, in its order; "none" alone means no device.

    Raises:
        RefusedError: llama.cpp does not know one of them.
    """
    if tuple(wanted) == ("none",):
        return ()
    found = []
    for name in wanted:
        if name not in names:
            raise RefusedError(f"there is no device '{name}'; there is: {', '.join(names) or 'none'}")
        found.append(names.index(name))
    return tuple(found)
