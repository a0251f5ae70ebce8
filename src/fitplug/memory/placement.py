"""Which layer goes to which device: llama_model_base::load_tensors (src/llama-model.cpp).

`place` answers a `Placement` for one set of settings. What the graph builders need besides is on it: the devices in
llama.cpp's order, each layer's device (the output layer's last), where each layer's cache lies, and whether the scheduler
may run several devices in a pipeline. Where a single tensor lies is `memory.weights`' business.
"""

import struct
from bisect import bisect_right
from collections.abc import Sequence

from fitplug.errors import RefusedError
from fitplug.machine.backends import Backend, backend, find_devices
from fitplug.machine.records import Device, Machine
from fitplug.memory.records import HOST
from fitplug.model.records import Model
from fitplug.record import record
from fitplug.settings import Settings

MAX_DEVICES = 16
"""llama_max_devices (src/llama.cpp)."""


@record
class Placement:
    """Where the layers of a model are."""

    devices: Sequence[Device]
    """Those that llama.cpp uses, in its order."""
    names: Sequence[str]
    """Their names."""
    backends: Sequence[Backend]
    layer_devices: Sequence[str]
    """Of each block (MTP blocks included) the device's name or HOST; the output layer's last."""
    cache_devices: Sequence[str]
    """Of each block, where its cache or state lies."""
    host_buffer: str
    """Buffer type that host weights and the CPU's compute buffer get: the first device's pinned memory, or "CPU"."""
    n_gpu_layers: int
    pipeline: bool
    """Pipeline parallelism: everything that crosses into a device exists four times (llama_context's constructor)."""

    @property
    def output_device(self) -> str:
        """Device of the output layer."""
        return self.layer_devices[-1]

    def index(self, name: str) -> int:
        """The device's number among `names`; len(names) for the host."""
        return self.names.index(name) if name in self.names else len(self.names)


def place(model: Model, machine: Machine, settings: Settings) -> Placement:
    """Put the layers on the machine's devices.

    Raises:
        RefusedError: llama.cpp refuses these settings.
    """
    names, devices = _devices(machine, settings)
    backends = tuple(backend(device) for device in devices)
    _check_split(settings, names, backends)
    n = model.n_layer_all
    ngl = settings.n_gpu_layers if settings.n_gpu_layers >= 0 else n + 1
    layers = _layer_devices(n, ngl, names, _shares(devices, machine, settings))
    host_buffer = next((row.host_buffer for row in backends if row.host_buffer), HOST)
    return Placement(
        devices=devices, names=names, backends=backends, layer_devices=layers, host_buffer=host_buffer, n_gpu_layers=ngl,
        cache_devices=layers[:-1] if settings.offload_kqv else (HOST,) * n,
        pipeline=_pipeline(n, ngl, backends, settings),
    )  # fmt: skip


def _devices(machine: Machine, settings: Settings) -> tuple[tuple[str, ...], tuple[Device, ...]]:
    """llama_prepare_model_devices (src/llama.cpp)."""
    names = machine.device_names()
    numbers = range(len(names)) if settings.devices is None else find_devices(names, settings.devices)
    chosen = list(numbers)
    if settings.split_mode == "none" and chosen:
        if settings.main_gpu >= len(chosen):
            raise RefusedError(f"-mg {settings.main_gpu}: there are only {len(chosen)} devices, counted from 0")
        chosen = [chosen[settings.main_gpu]] if settings.main_gpu >= 0 else []
    return tuple(names[i] for i in chosen), tuple(machine.devices[i] for i in chosen)


def _check_split(settings: Settings, names: Sequence[str], backends: Sequence[Backend]) -> None:
    if settings.split_mode == "row":
        for name, row in zip(names, backends, strict=True):
            if not row.split_rows:
                raise RefusedError(f"-sm row: llama.cpp's {row.name} backend has no split buffers ({name}); use -sm layer")
    if settings.split_mode == "tensor" and not names:
        raise RefusedError("-sm tensor needs at least one device")


def _shares(devices: Sequence[Device], machine: Machine, settings: Settings) -> list[float]:
    """What each device is to get: the given split, or its free memory."""
    given = list(settings.tensor_split[: len(devices)])
    given += [0.0] * (len(devices) - len(given))
    if len(settings.tensor_split) > MAX_DEVICES:
        raise RefusedError(f"-ts: {len(settings.tensor_split)} values, at most {MAX_DEVICES} devices are possible")
    if any(given):
        return given
    host = machine.host.available_bytes
    return [float(d.free_bytes if d.free_bytes or d.total_bytes else host) for d in devices]


def _layer_devices(n: int, ngl: int, names: Sequence[str], shares: Sequence[float]) -> tuple[str, ...]:
    """get_layer_buft_list: the last `ngl` layers, in float arithmetic as llama.cpp does it."""
    start, act = max(n + 1 - ngl, 0), min(ngl, n + 1) if names else 0
    splits = _split_points(shares) if act else []

    def device(il: int) -> str:
        if il < start or il - start >= act:
            return HOST
        return names[bisect_right(splits, _f32((il - start) / act))]

    return tuple(device(il) for il in range(n + 1))


def _split_points(shares: Sequence[float]) -> list[float]:
    total, sums = 0.0, []
    for share in shares:
        total = _f32(total + _f32(share))
        sums.append(total)
    if not total > 0:
        raise RefusedError("no device has free memory to put layers into")
    return [_f32(value / total) for value in sums]


def _f32(value: float) -> float:
    """Round to a 32-bit float."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return float("inf")


def _pipeline(n: int, ngl: int, backends: Sequence[Backend], settings: Settings) -> bool:
    return (
        len(backends) > 1
        and ngl > n
        and settings.split_mode == "layer"
        and settings.offload_kqv
        and not settings.moves
        and all(row.asynchronous and row.events for row in backends)
    )
