"""Plans built by hand: an exporter's test needs no arithmetic."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from fitplug.extension import ExportRequest
from fitplug.machine.records import Device, Host, Machine
from fitplug.memory.records import Estimate, Resolved
from fitplug.planner.records import Plan, Request
from fitplug.settings import Settings

GIB = 1 << 30


def machine(n_gpus: int = 1) -> Machine:
    devices = tuple(Device(backend="cuda", name=f"card {i}", total_bytes=24 * GIB, free_bytes=23 * GIB) for i in range(n_gpus))
    return Machine(devices=devices, host=Host(total_bytes=64 * GIB, available_bytes=48 * GIB))


def estimate(settings: Settings, *, n_layer: int = 32, devices: tuple[str, ...] = ("CUDA0",)) -> Estimate:
    n_gpu = n_layer + 1 if settings.n_gpu_layers < 0 else min(settings.n_gpu_layers, n_layer + 1)
    n_gpu = n_gpu if devices else 0
    on_gpu = [devices[i * len(devices) // n_gpu] for i in range(n_gpu)]
    n_ctx = settings.n_ctx or 131072
    resolved = Resolved(
        n_ctx=n_ctx, n_ctx_seq=n_ctx // settings.n_seq_max, n_batch=min(settings.n_batch, n_ctx),
        n_ubatch=min(settings.n_ubatch, settings.n_batch), n_seq_max=settings.n_seq_max,
        n_stream=1 if settings.kv_unified else settings.n_seq_max,
        n_gpu_layers=n_layer + 1 if settings.n_gpu_layers < 0 else settings.n_gpu_layers,
        n_outputs_max=settings.n_seq_max, type_k=settings.type_k, type_v=settings.type_v,
        flash_attn=settings.flash_attn != "off", v_trans=settings.flash_attn == "off",
    )  # fmt: skip
    layer_devices = (*["CPU"] * (n_layer + 1 - n_gpu), *on_gpu)
    return Estimate(settings=settings, resolved=resolved, parts=(), layer_devices=layer_devices)


def model(n_layer: int = 32, n_expert: int = 0, **other: Any) -> Any:
    """Only what exporters look at."""
    header = SimpleNamespace(format="gguf", metadata={}, shards=("m.gguf",), n_bytes=5 * GIB, tensors={})
    fields = {"architecture": "llama", "name": "Llama", "n_layer_all": n_layer, "n_layer": n_layer, "n_layer_nextn": 0}
    fields |= {"n_expert": n_expert, "n_ctx_train": 131072, "n_swa": 0, "header": header}
    return SimpleNamespace(**fields | other)


def plan(settings: Settings | None = None, *, n_gpus: int = 1, n_layer: int = 32, runner: str = "llama-server",
         **model_fields: Any) -> Plan:  # fmt: skip
    chosen = settings or Settings(n_ctx=8192)
    names = tuple(f"CUDA{i}" for i in range(n_gpus))
    return Plan(
        model=model(n_layer, **model_fields), machine=machine(n_gpus), runner=runner, request=Request(),
        estimate=estimate(chosen, n_layer=n_layer, devices=names), fits=True,
    )  # fmt: skip


def request(path: str = "/models/m.gguf", **options: str) -> ExportRequest:
    return ExportRequest(model_reference=path, model_path=path, options=options)


def with_settings(base: Settings, **fields: Any) -> Settings:
    return replace(base, **fields)
