"""Which GPUs Ollama itself will let its llama-server see (llm/llama_server.go, PredictServerVRAM, selectLlamaServerPlacement).

Ollama no longer splits layers, but it decides with a rough formula of its own whether one GPU is enough. A plan over several
GPUs only comes true if that decision is the same, or is overruled by OLLAMA_SCHED_SPREAD.
"""

from collections.abc import Sequence

from fitplug.formats.header import Value
from fitplug.machine.records import Device, Machine
from fitplug.memory.records import Estimate
from fitplug.model.records import Model


def predicted_vram(model: Model, n_ctx_total: int) -> int:
    """The formula: the file and an f16 cache of equal heads; no windows, no cache types, no compute buffers."""
    n_head = max(_numbers(model.get("attention.head_count")) or [0])
    n_head_kv = min(_numbers(model.get("attention.head_count_kv")) or [n_head]) or 1
    width = _numbers(model.get("embedding_length")) or [0]
    head = width[0] // n_head if n_head else 0
    total = min(n_ctx_total, model.n_ctx_train) if model.n_ctx_train else n_ctx_total
    return model.header.n_bytes + 2 * model.n_layer_all * n_head_kv * head * total * 2


def _numbers(value: Value | None) -> list[int]:
    if isinstance(value, tuple):
        return [int(n) for n in value if isinstance(n, int)]
    return [value] if isinstance(value, int) else []


def chosen(devices: Sequence[Device], predicted: int, host_available: int, *, spread: bool = False) -> tuple[int, ...]:
    """Indices of the GPUs that will be visible. One that has 80 % of its free memory left for the model wins alone.

    Dedicated GPUs come before integrated ones, then the one with most free memory; several must be of one library.
    """
    if len(devices) <= 1:
        return tuple(range(len(devices)))
    free = [min(d.free_bytes, host_available) if d.kind == "igpu" and host_available else d.free_bytes for d in devices]
    enough = [i for i in range(len(devices)) if not spread and predicted and predicted <= free[i] * 80 // 100]
    if enough:
        return (max(enough, key=lambda i: (devices[i].kind != "igpu", free[i], -i)),)
    libraries: dict[str, list[int]] = {}
    for i, device in enumerate(devices):
        libraries.setdefault(device.backend, []).append(i)
    return tuple(max(libraries.values(), key=lambda group: _rank(devices, list(group), host_available)))


def _rank(devices: Sequence[Device], group: Sequence[int], host_available: int) -> tuple[bool, int, int]:
    shared = sum(devices[i].free_bytes for i in group if devices[i].kind == "igpu")
    own = sum(devices[i].free_bytes for i in group if devices[i].kind != "igpu")
    shared = host_available if 0 < host_available < shared else shared
    return any(devices[i].kind != "igpu" for i in group), own + shared, -group[0]


def uses(estimate: Estimate, machine: Machine) -> frozenset[str]:
    """Names of the GPUs that the plan puts anything on."""
    names = set(machine.device_names()) if machine.devices else set()
    return frozenset(part.device for part in estimate.parts if part.device in names and part.n_bytes) or frozenset(
        device for device in estimate.layer_devices if device in names
    )
