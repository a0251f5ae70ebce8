"""Where each weight lies and what that takes: create_tensor and select_weight_buft (src/llama-model-loader.cpp).

A `WeightTable` is made once for a model and a kind of machine; it answers each placement from sums per layer. Weights lie
in buffer types: a device's own ("CUDA0"), pinned host memory ("CUDA_Host"), repacked ("CPU_REPACK") or plain ("CPU").
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from fitplug.errors import RefusedError
from fitplug.formats.header import Tensor
from fitplug.machine.backends import CPU_ALIGNMENT, Backend, WeightRules
from fitplug.memory.cpu_buffers import Cpu, cpu_buffer, cpu_bytes
from fitplug.memory.overrides import Rule, targets
from fitplug.memory.placement import Placement
from fitplug.memory.records import HOST
from fitplug.memory.sizes import row_padding_bytes
from fitplug.memory.weight_ops import INPUT, OUTPUT, Use, gpu_supports, use
from fitplug.model.records import Model
from fitplug.settings import LazyMode
from fitplug.units import GIB, pad

TOKEN_EMBD, OUTPUT_WEIGHT = "token_embd.weight", "output.weight"
READ_LAZILY = dict.fromkeys(("src/models/gemma4.cpp", "src/models/qwen4exp.cpp"), "per_layer_token_embd.weight")
"""The table that a loader asks for with TENSOR_READ_LAZY."""
LAZY_FROM = 4 * GIB
"""Larger ones are read from the file row by row unless -lzm tells otherwise (llama_model_loader::lazy_read::add)."""


class Traits(NamedTuple):
    """What of a backend decides where weights lie and what they take."""

    alignment: int
    row_padding: int
    rules: WeightRules


def traits(row: Backend) -> Traits:
    """Those of one backend."""
    return Traits(row.alignment, row.row_padding, row.weights)


class Weight(NamedTuple):
    """A tensor that is loaded once into the buffer of one layer."""

    tensor: Tensor
    use: Use
    host: str
    """The host buffer type that has it on the CPU's side."""
    host_bytes: int
    device_bytes: Mapping[Traits, int]
    """Bytes in a device's buffer, for those devices that take it."""
    on_gpu: bool
    """Whether every device takes it."""


class LayerSums(NamedTuple):
    """What the tensors of one layer take, wherever the layer goes."""

    device: Mapping[Traits, int]
    """Bytes on such a device."""
    left: Mapping[Traits, Mapping[str, int]]
    """Host buffer type → bytes that such a device leaves to the host."""
    host: Mapping[str, int]
    """Host buffer type → bytes of the whole layer on the CPU."""


class WeightTable:
    """The loaded tensors of a model, ready to be placed on machines that have these backends.

    Args:
        model: its tensors.
        backends: of all devices that placements may use, in llama.cpp's order.
        host_buffer: of the first of them that has one; "CPU" if there is none.
        cpu: the processor.
        load_mtp: whether MTP blocks are loaded, to draft with (llama_model_params::load_mtp).
        lazy_mode: of which tables rows are read when they are asked for.
    """

    def __init__(
        self, model: Model, backends: Sequence[Backend], host_buffer: str, cpu: Cpu, *, load_mtp: bool = False,
        lazy_mode: LazyMode = "auto",
    ) -> None:  # fmt: skip
        self.model, self.load_mtp = model, load_mtp
        self._lazy_mode = lazy_mode
        self.host_buffer, self.cpu = host_buffer, cpu
        self.traits = tuple({traits(row) for row in backends})
        pinned = next((row for row in backends if row.host_buffer), None)
        self.host_rules = pinned.weights if pinned else None
        self.host_alignment = pinned.host_alignment if pinned and host_buffer != HOST else CPU_ALIGNMENT
        self.weights: list[Weight] = []
        self.rope: list[Tensor] = []
        self.unknown: list[str] = []
        for tensor in model.tensors.values():
            self._take(tensor)
        self._plain: dict[int, LayerSums] | None = None

    def _take(self, tensor: Tensor) -> None:
        used = use(tensor, self.model)
        if not used.known:
            self.unknown.append(tensor.name)
        if used.op == "NONE" or self._skipped(used):
            return
        if used.op == "ROPE":
            self.rope.append(tensor)
            return
        self.weights.append(self._weight(tensor, used))

    def _skipped(self, used: Use) -> bool:
        """Tensors of MTP blocks that are not loaded (TENSOR_SKIP)."""
        row, n = self.model.row, self.model.n_layer
        if row.nextn == "unless_mtp" and self.load_mtp:
            return False
        return row.nextn is not None and used.il >= n and used.base not in row.nextn_loaded

    def lazy(self, tensor: Tensor) -> bool:
        """Whether its rows are read from the file when they are asked for; it then lies in plain memory, whatever -ot says."""
        if self._lazy_mode == "off" or READ_LAZILY.get(self.model.row.path) != tensor.name:
            return False
        return self._lazy_mode == "on" or tensor.n_bytes > LAZY_FROM

    def _weight(self, tensor: Tensor, used: Use) -> Weight:
        sizes = {t: device_size(tensor, t) for t in self.traits if gpu_supports(used.op, tensor, self.model, t.rules)}
        host = self.host_buffer_of(tensor, used.op)
        return Weight(tensor, used, host, self.host_size(tensor, host), sizes, len(sizes) == len(self.traits))

    def host_size(self, tensor: Tensor, buffer: str) -> int:
        """Bytes in a host buffer."""
        return pad(cpu_bytes(tensor, buffer), self.host_alignment if buffer == self.host_buffer else CPU_ALIGNMENT)

    def host_buffer_of(self, tensor: Tensor, op: str) -> str:
        """make_cpu_buft_list: pinned memory of the first GPU if that GPU can do the operation, repacked, plain."""
        rules = self.host_rules
        if self.lazy(tensor):
            return HOST
        if self.host_buffer != HOST and rules is not None and gpu_supports(op, tensor, self.model, rules):
            return self.host_buffer
        return cpu_buffer(op, tensor, self.cpu)

    @cached_property
    def by_layer(self) -> Mapping[int, list[Weight]]:
        """The weights of each block, of INPUT and of OUTPUT."""
        found: dict[int, list[Weight]] = {}
        for weight in self.weights:
            found.setdefault(weight.use.il, []).append(weight)
        return found

    @cached_property
    def names(self) -> Sequence[tuple[str, int]]:
        """Every tensor that an override can find, with its block."""
        found = [(w.tensor.name, w.use.il) for w in self.weights if not self.lazy(w.tensor)]
        return found + [(t.name, 0) for t in self.rope]

    @cached_property
    def sums(self) -> Mapping[int, LayerSums]:
        """What each layer takes where no override moves any of it."""
        return {il: self._sum(weights) for il, weights in self.by_layer.items()}

    def _sum(self, weights: Sequence[Weight]) -> LayerSums:
        device = dict.fromkeys(self.traits, 0)
        left: dict[Traits, dict[str, int]] = {t: {} for t in self.traits}
        host: dict[str, int] = {}
        for w in weights:
            host[w.host] = host.get(w.host, 0) + w.host_bytes
            for t in self.traits:
                if t in w.device_bytes:
                    device[t] += w.device_bytes[t]
                else:
                    left[t][w.host] = left[t].get(w.host, 0) + w.host_bytes
        return LayerSums(device, left, host)


def device_size(tensor: Tensor, t: Traits) -> int:
    """Bytes in the buffer of a device with these traits."""
    return pad(tensor.n_bytes + row_padding_bytes(tensor.type, tensor.shape[0], t.row_padding), t.alignment)


class Placed:
    """The weights of a table under one placement and one list of overrides.

    Raises:
        RefusedError: an override sends a weight to a device that is not used; llama.cpp stops at that.
    """

    def __init__(self, table: WeightTable, placement: Placement, rules: list[Rule]) -> None:
        self.table, self.placement, self.model = table, placement, table.model
        self.moved = targets(table.names, rules) if rules else {}
        for target in set(self.moved.values()) - {HOST, *placement.names}:
            raise RefusedError(f"-ot sends weights to {target}, a device that these settings do not use")
        self._moved_layers = _blocks_of(table, self.moved)
        self._traits = {name: traits(row) for name, row in zip(placement.names, placement.backends, strict=True)}

    def n_bytes(self) -> dict[str, int]:
        """Bytes of each buffer type that holds some."""
        total: dict[str, int] = {}
        for il, sums in self.table.sums.items():
            if il in self._moved_layers:
                self._add_each(total, self.table.by_layer[il])
                continue
            device = self.device(il)
            if device == HOST:
                _add(total, sums.host)
            else:
                own = self._traits[device]
                total[device] = total.get(device, 0) + sums.device[own]
                _add(total, sums.left[own])
        for name, buffer in self.duplicates():
            tensor = self.model.tensors[name]
            total[buffer] = total.get(buffer, 0) + self._size(tensor, buffer)
        return {buffer: n for buffer, n in total.items() if n}

    def _add_each(self, total: dict[str, int], weights: Sequence[Weight]) -> None:
        for weight in weights:
            buffer = self.buffer(weight)
            own = self._traits.get(buffer)
            n_bytes = weight.host_bytes if own is None else weight.device_bytes.get(own) or device_size(weight.tensor, own)
            total[buffer] = total.get(buffer, 0) + n_bytes

    def _size(self, tensor: Tensor, buffer: str) -> int:
        own = self._traits.get(buffer)
        return self.table.host_size(tensor, buffer) if own is None else device_size(tensor, own)

    def device(self, il: int) -> str:
        """The device of a block, of the INPUT or of the OUTPUT layer."""
        if il == INPUT:
            return HOST
        return self.placement.layer_devices[-1 if il == OUTPUT or il >= self.model.n_layer_all else il]

    def buffer(self, weight: Weight) -> str:
        """The buffer type of one weight."""
        return self._choose(weight.tensor, weight.use.op, self.device(weight.use.il), weight)

    def _choose(self, tensor: Tensor, op: str, device: str, weight: Weight | None = None) -> str:
        target = self.moved.get(tensor.name)
        if target is not None and target != HOST:
            return target
        own = self._traits.get(device)
        if target is None and own is not None:
            fits = own in weight.device_bytes if weight else gpu_supports(op, tensor, self.model, own.rules)
            if fits:
                return device
        return weight.host if weight else self.table.host_buffer_of(tensor, op)

    @cached_property
    def output_buffer(self) -> str | None:
        """Where the matrix lies that the last hidden state is multiplied with; None where there is none."""
        tensors = self.model.tensors
        name = TOKEN_EMBD if self.model.tied_output else OUTPUT_WEIGHT
        if not self.model.has_output or name not in tensors:
            return None
        return self._choose(tensors[name], "MUL_MAT", self.placement.output_device)

    def duplicates(self) -> list[tuple[str, str]]:
        """Tensors that lie in a buffer type besides their own place: tied matrices and rope factors."""
        found = [(tensor.name, buffer) for tensor in self.table.rope for buffer in sorted(set(self.rope_buffers(tensor)))]
        tensors, row = self.model.tensors, self.model.row
        if self.model.tied_output and self.output_buffer is not None:
            own = self._choose(tensors[TOKEN_EMBD], "GET_ROWS", HOST)
            if row.output_first or own != self.output_buffer:
                found.append((TOKEN_EMBD, self.output_buffer))
        if row.input == "tied" and TOKEN_EMBD not in tensors and self.output_buffer is not None:
            found.append((OUTPUT_WEIGHT, self.output_buffer))
        return found

    def rope_buffers(self, tensor: Tensor) -> list[str]:
        """The buffer type of each layer's copy of a rope factor tensor."""
        n, layers = self.model.n_layer, self.model.layers
        if self.model.hparam("n_layer_phys"):
            layers = layers[: self.model.hparam("n_layer_phys")]
        rule = self.model.row.rope_layers
        if rule != "all":
            layers = [layer for layer in layers if (layer.il < n if rule == "trunk" else not layer.is_swa)]
        return [self.rope_buffer(tensor, self.device(layer.il)) for layer in layers]

    def rope_buffer(self, tensor: Tensor, device: str) -> str:
        """The buffer type of the copy that a layer on `device` has."""
        return self._choose(tensor, "ROPE", device)

    def tensors(self) -> dict[str, str]:
        """Buffer type of every tensor that is loaded, by name; of copies, the tensor's own."""
        found: dict[str, str] = {}
        for il, weights in self.table.by_layer.items():
            device = self.device(il)
            own = self._traits.get(device)
            if il in self._moved_layers:
                found |= {weight.tensor.name: self.buffer(weight) for weight in weights}
            else:
                found |= {weight.tensor.name: device if own in weight.device_bytes else weight.host for weight in weights}
        for tensor in self.table.rope:
            buffers = self.rope_buffers(tensor)
            if buffers:
                found[tensor.name] = buffers[0]
        return found


def _blocks_of(table: WeightTable, moved: Mapping[str, str]) -> set[int]:
    return {il for name, il in table.names if name in moved} if moved else set()


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for buffer, n in more.items():
        total[buffer] = total.get(buffer, 0) + n
