"""A plan's settings with nothing left to choose: what every exporter writes in its own words."""

from collections.abc import Sequence
from dataclasses import replace

from fitplug.machine.records import Machine
from fitplug.memory.records import Estimate
from fitplug.settings import Settings


def pin(estimate: Estimate, machine: Machine) -> Settings:
    """The settings that a runner must be told so that it resolves exactly what was estimated.

    "All layers", "the trained context", "flash attention if possible" and "as the memory is free now" become figures. The
    result resolves to itself: pinning what was estimated from it changes nothing.
    """
    settings, resolved = estimate.settings, estimate.resolved
    return replace(
        settings,
        n_ctx=resolved.n_ctx,
        n_batch=resolved.n_batch,
        n_ubatch=resolved.n_ubatch,
        n_seq_max=resolved.n_seq_max,
        n_gpu_layers=resolved.n_gpu_layers,
        type_k=resolved.type_k,
        type_v=resolved.type_v,
        flash_attn="on" if resolved.flash_attn else "off",
        tensor_split=settings.tensor_split or layer_counts(estimate, device_names(settings, machine)),
    )


def device_names(settings: Settings, machine: Machine) -> tuple[str, ...]:
    """The names (ggml's) of the devices that llama.cpp will use, in its order; split mode "none" leaves the main one."""
    if settings.devices is not None:
        return settings.devices
    names = machine.device_names() if machine.devices else ()
    return names[settings.main_gpu : settings.main_gpu + 1] if settings.split_mode == "none" else names


def layer_counts(estimate: Estimate, names: Sequence[str]) -> tuple[float, ...]:
    """Layers of each device, as -ts takes them; empty where there is nothing to split.

    llama.cpp puts layer i on the first device whose share of the sum exceeds i / n (src/llama-model.cpp,
    llama_model_base::load_tensors): whole counts give exactly those counts back, because both sides are the same quotients.
    Left out, the shares would follow the memory that happens to be free when the runner starts.
    """
    if len(names) < 2 or estimate.settings.split_mode != "layer":
        return ()
    counts = tuple(float(sum(1 for device in estimate.layer_devices if device == name)) for name in names)
    return counts if any(counts) else ()
