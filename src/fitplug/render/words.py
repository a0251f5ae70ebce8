"""Settings, models and devices in the words that people read, the same on every page."""

from fitplug.conversion import CONVERTED
from fitplug.machine.records import Machine
from fitplug.memory.records import HOST, Estimate, Kind
from fitplug.model.records import Model
from fitplug.render.numbers import DeviceRow, device_rows, n_layers_on_gpu
from fitplug.render.page import Bar, Bars, Pairs, Share, Table, Title
from fitplug.render.text import one_line, shortened
from fitplug.units import format_bytes, format_tokens

KIND_NAMES = {Kind.MODEL: "weights", Kind.CONTEXT: "context", Kind.COMPUTE: "compute", Kind.OVERHEAD: "overhead"}


def title(model: Model) -> Title:
    """Name, architecture, type, size."""
    details = (model.architecture, model.file_type, format_params(model.n_params), format_bytes(model.n_bytes))
    return Title(shortened(model.name or model.architecture, 70), [one_line(detail) for detail in details if detail])


def format_params(n: int) -> str:
    """8030261312 → "8.03 B parameters"."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= size * 0.9995:
            value = n / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit} parameters"
    return f"{n} parameters"


def file_notes(model: Model) -> list[str]:
    """How large the file would be, of a model that is no file yet."""
    if CONVERTED not in model.header.notes:
        return []
    from fitplug.conversion.sizes import size_of

    size = size_of(model.header)
    known = f"{size.n_bytes:,} bytes" if size.exact else f"about {size.n_bytes:,} bytes, {size.low:,} to {size.high:,}"
    return [f"as a file of the type {size.file_type} it would have {known}"]


def bars(estimate: Estimate, machine: Machine) -> Bars:
    """Each device's memory by part; the host only where something is on it."""
    shown = [_bar(row) for row in device_rows(estimate, machine) if row.n_bytes() or row.device != HOST]
    return Bars(shown, memory_table(estimate, machine))


def _bar(row: DeviceRow) -> Bar:
    shares = [Share(KIND_NAMES[kind], row.n_bytes(kind)) for kind in Kind]
    left = row.left_bytes
    if row.total_bytes > row.free_bytes:
        shares.insert(0, Share("in use", row.total_bytes - row.free_bytes))
    shares.append(Share("free", left) if left >= 0 else Share("missing", -left))
    result = f"{format_bytes(left)} left" if left >= 0 else f"{format_bytes(-left)} too much"
    return Bar(row.device, shortened(row.name, 40) or ("host memory" if row.device == HOST else ""), shares, result)


def memory_table(estimate: Estimate, machine: Machine) -> Table:
    """The same in figures."""
    rows = device_rows(estimate, machine)
    kinds = [kind for kind in Kind if kind != Kind.OVERHEAD or any(row.n_bytes(kind) for row in rows)]
    columns = ("device", *(f">{KIND_NAMES[kind]}" for kind in kinds), ">together", ">free", ">left")
    return Table("memory", columns, [
        (row.device, *(format_bytes(row.n_bytes(kind)) for kind in kinds), format_bytes(row.n_bytes()),
         format_bytes(row.free_bytes), format_bytes(row.left_bytes))
        for row in rows
    ])  # fmt: skip


def settings_pairs(estimate: Estimate, machine: Machine, model: Model) -> Pairs:
    """The settings that decide memory, those that are as always left out."""
    asked, resolved = estimate.settings, estimate.resolved
    on_gpu = n_layers_on_gpu(estimate, machine, model)
    pairs = [("context", f"{format_tokens(resolved.n_ctx)} tokens" + _trained(resolved.n_ctx, model))]
    if resolved.n_seq_max > 1:
        pairs.append(("sequences", f"{resolved.n_seq_max}, each with {format_tokens(resolved.n_ctx_seq)}"))
    if machine.devices:
        pairs.append(("layers on GPU", f"{on_gpu} of {model.n_layer_all + 1}"))
    if asked.n_cpu_moe:
        pairs.append(("experts on CPU", "of all layers" if asked.n_cpu_moe < 0 else f"of {asked.n_cpu_moe} layers"))
    if asked.n_cpu_ffn:
        pairs.append(("feed-forward on CPU", f"of {asked.n_cpu_ffn} layers"))
    if resolved.pooling is not None:
        pairs.append(("embeddings", {"none": "of each token", "rank": "scores"}.get(resolved.pooling, resolved.pooling)))
    if asked.overrides:
        pairs.append(("overrides", one_line(", ".join(f"{o.pattern}={o.buffer}" for o in asked.overrides))))
    cache = resolved.type_k if resolved.type_k == resolved.type_v else f"{resolved.type_k} / {resolved.type_v}"
    pairs.append(("cache", cache + ("" if asked.offload_kqv else ", in host memory")))
    pairs.append(("flash attention", "on" if resolved.flash_attn else "off"))
    pairs.append(("batch", f"{resolved.n_batch} / {resolved.n_ubatch}"))
    return Pairs("settings", pairs)


def _trained(n_ctx: int, model: Model) -> str:
    if n_ctx > model.n_ctx_train > 0:
        return f", more than the trained {format_tokens(model.n_ctx_train)}"
    return ", as trained" if n_ctx == model.n_ctx_train else f" of {format_tokens(model.n_ctx_train)} trained"


def certainty(estimate: Estimate) -> str:
    """How sure the figures are, in one sentence."""
    said = {
        "exact": "The figures are exact: llama.cpp's own rules, to the byte",
        "measured": "The figures are measured",
        "modelled": "Some figures are modelled: near what llama.cpp allocates, not proven to the byte",
        "assumed": "Some figures rest on assumptions: see the notes",
    }[str(estimate.basis())]
    kinds = sorted({str(part.basis) for part in estimate.parts if part.kind == Kind.OVERHEAD and part.n_bytes})
    return said + (f". Overhead, which it does not count, is {' or '.join(kinds)}." if kinds else ".")
