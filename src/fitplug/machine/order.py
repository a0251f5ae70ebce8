"""Which devices llama.cpp takes, and in which order (src/llama.cpp, llama_prepare_model_devices)."""

from collections.abc import Iterable, Sequence

from fitplug.machine.records import Device

_LOADED = ("cann", "cuda", "rocm", "musa", "metal", "sycl", "vulkan", "virtgpu", "opencl")
"""Backends in the order in which ggml loads them: ggml/src/ggml-backend-reg.cpp, ggml_backend_load_all_from_path."""


def take_devices(devices: Iterable[Device]) -> tuple[tuple[Device, ...], tuple[Device, ...]]:
    """Split `devices` into those that llama.cpp uses without `--device`, in its order, and those that it leaves out.

    RPC servers come first. Dedicated GPUs follow in the order in which their backends are loaded, and count once where
    two backends see one card. Integrated GPUs are taken only where there is no dedicated one, and only those of the
    first backend that has some. Accelerators (BLAS and its like) are never devices.
    """
    ordered = sorted(devices, key=_backend_rank)
    rpc = [device for device in ordered if device.backend == "rpc"]
    gpus = _one_per_card([device for device in ordered if device.kind == "gpu" and device.backend != "rpc"])
    integrated = [device for device in ordered if device.kind == "igpu" and device.backend != "rpc"]
    integrated = [device for device in integrated if device.backend == integrated[0].backend]
    taken = (*rpc, *(gpus or integrated))
    return taken, tuple(device for device in ordered if not any(device is other for other in taken))


def _backend_rank(device: Device) -> int:
    return _LOADED.index(device.backend) if device.backend in _LOADED else len(_LOADED)


def _one_per_card(gpus: Sequence[Device]) -> list[Device]:
    owner: dict[str, str] = {}
    kept = []
    for device in gpus:
        backend = owner.setdefault(normal_pci_id(device.pci_id), device.backend) if device.pci_id else device.backend
        if backend == device.backend:  # slices of one card (MIG) share its address and are devices of their own
            kept.append(device)
    return kept


def normal_pci_id(pci_id: str) -> str:
    """NVML's "00000000:01:00.0" and lspci's "01:00.0" as sysfs and llama.cpp write them: "0000:01:00.0"."""
    parts = pci_id.strip().lower().split(":")
    domain = parts[0].lstrip("0") if len(parts) == 3 else ""
    return ":".join((domain.rjust(4, "0"), *parts[-2:]))
