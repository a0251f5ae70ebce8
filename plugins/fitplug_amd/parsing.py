"""From sysfs to devices. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fitplug.machine.catalogue import card_for_device
from fitplug.machine.order import normal_pci_id
from fitplug.machine.records import Device
from fitplug.units import GIB, format_bytes
from fitplug_amd.processes import Process, processes_of
from fitplug_amd.visible import visible

_APU = frozenset(
    ("gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037", "gfx1103", "gfx1150",
     "gfx1151", "gfx1152", "gfx1153")
)  # fmt: skip
"""Targets of chips with processor and GPU in one (LLVM's AMDGPU usage guide, table of processors: "APU")."""


class Gpu(NamedTuple):
    """One GPU, from the graphics driver's folder and the compute driver's node."""

    pci_id: str
    name: str
    uuid: str
    vram_total: int
    vram_used: int
    gtt_total: int
    gtt_used: int
    target: str | None
    """"gfx1100"; None where the compute driver does not know it."""
    hip_total: int | None
    """The compute driver's memory bank, which is what HIP reports as total."""
    integrated: bool
    whole: bool
    """Its VRAM is the machine's memory, all of it: processor and GPU are one node of the compute driver (MI300A)."""
    link: tuple[str | None, str | None]
    processes: tuple[Process, ...]


def parse(raw: Mapping[str, Any]) -> list[Device]:
    """What HIP shows where the compute driver is, in its order; else what Vulkan can use."""
    gpus = read_gpus(raw)
    hip = [gpu for gpu in gpus if gpu.target]
    if not hip:
        return [_vulkan(gpu) for gpu in gpus]
    return [_hip(gpu) for gpu in visible(hip, raw.get("env") or {})]


def notes(raw: Mapping[str, Any]) -> list[str]:
    """Hidden cards, and what an APU's memory depends on."""
    gpus = read_gpus(raw)
    hip = [gpu for gpu in gpus if gpu.target]
    shown = visible(hip, raw.get("env") or {})
    hidden = [gpu.pci_id for gpu in hip if gpu not in shown]
    lines = [f"HIP_VISIBLE_DEVICES or its like hides {', '.join(hidden)}"] if hidden else []
    if gpus and not hip:
        lines.append("no ROCm (/dev/kfd): planned for llama.cpp's Vulkan backend")
    for gpu in shown:
        if all(gpu.integrated and not gpu.whole for gpu in shown) and (gpu.hip_total or gpu.gtt_total) <= gpu.gtt_total:
            size = format_bytes(gpu.gtt_total)
            lines.append(f"{gpu.name} may use {size} of the memory; the kernel parameter ttm.pages_limit sets it")
    return lines


def read_gpus(raw: Mapping[str, Any]) -> list[Gpu]:
    """All GPUs that amdgpu drives, in the order of their addresses."""
    files: Mapping[str, str] = raw["files"]
    nodes = _compute_nodes(files)
    folders = [path.removesuffix("/uevent") for path in files if path.endswith("/device/uevent")]
    gpus = [_gpu(folder, files, nodes, raw.get("names") or []) for folder in folders]
    return sorted((gpu for gpu in gpus if gpu.vram_total or gpu.gtt_total), key=lambda gpu: gpu.pci_id)


def _gpu(folder: str, files: Mapping[str, str], nodes: Mapping[str, "_Node"], names: list[str]) -> Gpu:
    said = dict(line.partition("=")[::2] for line in files[f"{folder}/uevent"].splitlines())
    pci_id = normal_pci_id(said.get("PCI_SLOT_NAME", ""))
    node = nodes.get(pci_id)
    vram, gtt = _int(files.get(f"{folder}/mem_info_vram_total")), _int(files.get(f"{folder}/mem_info_gtt_total"))
    target = node.target if node else None
    name = _name(folder, files, names, target)
    return Gpu(
        pci_id=pci_id,
        name=name,
        uuid=f"GPU-{files.get(f'{folder}/unique_id', '')}",
        vram_total=vram,
        vram_used=_int(files.get(f"{folder}/mem_info_vram_used")),
        gtt_total=gtt,
        gtt_used=_int(files.get(f"{folder}/mem_info_gtt_used")),
        target=target,
        hip_total=node.bank_bytes if node else None,
        integrated=bool(node and node.has_processor)
        or (target in _APU if target else _looks_integrated(folder, files, vram, name)),
        whole=bool(node and node.has_processor),
        processes=processes_of(node.gpu_id, files) if node else (),
        link=(files.get(f"{folder}/max_link_speed"), files.get(f"{folder}/max_link_width")),
    )


def _looks_integrated(folder: str, files: Mapping[str, str], vram: int, name: str) -> bool:
    """Without the compute driver: as the catalogue knows the name, else no memory vendor or board, and a small carve-out."""
    card = card_for_device(Device(backend="vulkan", name=name, total_bytes=vram, free_bytes=0))
    if card:
        return card.unified
    own = files.get(f"{folder}/mem_info_vram_vendor", "unknown") != "unknown" or f"{folder}/board_info" in files
    return not own and vram <= 4 * GIB


def _hip(gpu: Gpu) -> Device:
    """As hipMemGetInfo reports it (ggml/src/ggml-cuda/ggml-cuda.cu, built for HIP).

    A card's memory is its VRAM. An APU's is the larger of its carve-out and the shared memory (GTT); kernels before 6.10
    know only the carve-out, so the compute driver's own figure decides where there is one.
    """
    pools = {gpu.vram_total: gpu.vram_used, gpu.gtt_total: gpu.gtt_used} if gpu.integrated else {gpu.vram_total: gpu.vram_used}
    total = max(pools)
    if gpu.integrated and gpu.hip_total:
        total = min(pools, key=lambda size: abs(size - (gpu.hip_total or 0)))
    shared = gpu.whole or (gpu.integrated and total == gpu.gtt_total)
    return _device(gpu, "rocm", total, total - pools[total], unified=shared)


def _vulkan(gpu: Gpu) -> Device:
    """As Vulkan's heaps show it: an integrated GPU's are all summed (ggml_backend_vk_get_device_memory)."""
    total, used = gpu.vram_total, gpu.vram_used
    if gpu.integrated:
        total, used = total + gpu.gtt_total, used + gpu.gtt_used
    return _device(gpu, "vulkan", total, total - used, unified=gpu.integrated)


def _device(gpu: Gpu, backend: str, total: int, free: int, *, unified: bool) -> Device:
    extra = {
        "vram_bytes": gpu.vram_total,
        "gtt_bytes": gpu.gtt_total,
        "link_speed": gpu.link[0],
        "link_width": gpu.link[1],
        "processes": [{"kind": "compute", **process._asdict()} for process in gpu.processes],
    }
    return Device(
        kind="igpu" if gpu.integrated else "gpu",
        backend=backend,
        name=gpu.name,
        total_bytes=total,
        free_bytes=max(0, min(free, total)),
        compute_capability=gpu.target,
        unified=unified,
        pci_id=gpu.pci_id,
        extra={key: value for key, value in extra.items() if value},
    )


class _Node(NamedTuple):
    target: str
    bank_bytes: int | None
    gpu_id: str
    has_processor: bool


def _compute_nodes(files: Mapping[str, str]) -> dict[str, _Node]:
    """Address → node of the compute driver's topology; processors are nodes without a target."""
    nodes = {}
    for path, text in files.items():
        if "/kfd/topology/nodes/" not in path or "/mem_banks/" in path:
            continue
        fields = _fields(text)
        version = _int(fields.get("gfx_target_version"))
        if not version:
            continue
        place, domain = _int(fields.get("location_id")), _int(fields.get("domain"))
        pci_id = f"{domain:04x}:{place >> 8 & 255:02x}:{place >> 3 & 31:02x}.{place & 7}"
        target = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
        banks = [
            _fields(text) for other, text in files.items() if other.startswith(f"{path.removesuffix('properties')}mem_banks/")
        ]
        sizes = [_int(bank.get("size_in_bytes")) for bank in banks]
        gpu_id = files.get(f"{path.removesuffix('properties')}gpu_id", "")
        nodes[pci_id] = _Node(target, max(sizes, default=None), gpu_id, _int(fields.get("cpu_cores_count")) > 0)
    return nodes


def _fields(text: str) -> dict[str, str]:
    return dict(line.partition(" ")[::2] for line in text.splitlines())


def _name(folder: str, files: Mapping[str, str], names: list[str], target: str | None) -> str:
    """The board's name, libdrm's name for this device and revision, or the target."""
    if name := files.get(f"{folder}/product_name"):
        return name
    wanted = [files.get(f"{folder}/{key}", "").removeprefix("0x").lower() for key in ("device", "revision")]
    for line in names:
        device, revision, name = (*(part.strip() for part in line.split(",", 2)), "", "", "")[:3]
        if [device.lower(), revision.lower()] == wanted:
            return name
    return f"AMD {target or 'GPU'}{f' [1002:{wanted[0]}]' if wanted[0] else ''}"


def _int(text: str | None) -> int:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0
