"""The weights of the file under a graph that is drawn: by name, with bias and scale, and what a missing one means."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

from fitplug.memory.graph.build import Graph
from fitplug.memory.graph.errors import NullTensorError, UnknownGraphError
from fitplug.memory.graph.params import OUTPUT, Copied, GraphParams, Home, copy_name
from fitplug.memory.graph.quirks import MOST, QUIRKS
from fitplug.memory.graph.scales import passed
from fitplug.memory.graph.tensor import Buffer, Tensor


class Linear(NamedTuple):
    """What the file has under one name: NAME.weight, NAME.bias, NAME.scale; None for what is missing."""

    weight: Tensor | None
    bias: Tensor | None = None
    scale: Tensor | None = None


ABSENT = Linear(None)


def full_name(name: str, il: int = -1, part: str = "weight") -> str:
    """What the file calls a tensor: blk.N.NAME.PART, or NAME.PART outside the layers."""
    return f"{name}.{part}" if il < 0 else f"blk.{il}.{name}.{part}"


class GraphWeights:
    """`llama_model` under its names, as one graph reads it."""

    def __init__(self, params: GraphParams) -> None:
        """Nothing was asked for yet."""
        self.params, self.model = params, params.model
        self.arch = params.model.drawn_as
        self.quirks = QUIRKS.get(self.arch, MOST)
        self.gf = Graph()
        self._tensors: dict[str, Tensor | None] = {}
        self._linears: dict[tuple[str, int], Linear] = {}
        self._lacked = ""
        """The last weight that was asked for and is not there."""
        self._adapters: dict[int, list[tuple[Tensor, Tensor]]] = {}
        """Halves of adapters by the identity of the weight that they change."""
        self._passed_scales = passed(self.arch, mtp=params.mtp)

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of the file with exactly this name, or None."""
        t = self._tensors.get(name)
        if t is None and name not in self._tensors:
            found = self.model.header.tensors.get(name)
            buffer = self.params.weights.get(name)
            t = None if found is None or buffer is None else self.weight_in(found.type, found.shape, buffer, name)
            self._tensors[name] = t
            if t is not None and name in self.params.adapters:
                self._adapt(t, name)
        return t

    def _adapt(self, t: Tensor, name: str) -> None:
        self._adapters[id(t)] = [
            (self.weight_in(a.type, a.shape, buffer), self.weight_in(b.type, b.shape, buffer))
            for a, b, buffer in self.params.adapters[name]
        ]

    @staticmethod
    def weight_in(type_: str, shape: Sequence[int], buffer: Buffer, home: Home | None = None) -> Tensor:
        """A weight of this type and shape that lies in `buffer`, since that is its home."""
        n = len(shape)
        ne = (shape[0] if n else 1, shape[1] if n > 1 else 1, shape[2] if n > 2 else 1, shape[3] if n > 3 else 1)
        t = Tensor("NONE", type_, ne, [])
        t.buffer, t.param = buffer, home
        return t

    def w(self, name: str, il: int = -1) -> Linear:
        """`model.layers[il].NAME` with its bias and scale; without `il` a tensor outside the layers.

        `name` is the one in the file without "blk.N." and ".weight": w("attn_q", il), w("output_norm").
        """
        linear = self._linears.get((name, il))
        if linear is None:
            linear = self._linears[name, il] = self._linear(name, self.params.blocks.linears.get((name, il)))
        if linear.weight is None:
            self._lacked = full_name(name, il)
        return linear

    def _linear(self, name: str, parts: Mapping[str, str] | None) -> Linear:
        if parts is None:
            return ABSENT
        weight, bias = parts.get("weight"), parts.get("bias") if name not in self.quirks.unused_biases else None
        scale = parts.get("scale") if name in self._passed_scales else None
        return Linear(
            None if weight is None else self.tensor(weight),
            None if bias is None else self.tensor(bias),
            None if scale is None else self.tensor(scale),
        )

    def need(self, t: Tensor | None, name: str = "") -> Tensor:
        """A tensor that the architecture cannot do without; `name` is the file's for it.

        Raises:
            RefusedError, UnknownGraphError: the file does not have it.
        """
        if t is None:
            raise self._null(name)
        return t

    def needed(self, name: str, il: int = -1, part: str = "weight") -> Tensor:
        """The weight of `w`, or its bias, where the graph cannot be drawn without it.

        Raises:
            RefusedError, UnknownGraphError: the file lacks it.
        """
        linear = self.w(name, il)
        return self.need(linear.weight if part == "weight" else linear.bias, full_name(name, il, part))

    def needed_tensor(self, name: str) -> Tensor:
        """The tensor of the file with exactly this name, where the graph cannot be drawn without it.

        Raises:
            RefusedError, UnknownGraphError: the file lacks it.
        """
        return self.need(self.tensor(name), name)

    def _null(self, name: str) -> Exception:
        """What it means that the graph reads a tensor that is not there.

        Loaders take as optional (TENSOR_NOT_REQUIRED) what some graphs read without asking: ggml follows a null pointer. The
        graph of another architecture says nothing about this file.
        """
        if not self.model.known:
            return UnknownGraphError(self.arch)
        return NullTensorError(f"llama.cpp crashes on this file: its graph reads {name or self._lacked}, which is missing")

    @cached_property
    def tok_embd(self) -> Tensor | None:
        """model.tok_embd; some take a second output matrix for it where the file has none (src/models/codeshell.cpp)."""
        embd = self.tensor("token_embd.weight")
        if embd is not None or self.model.row.input != "tied" or self.w("output").weight is None:
            return embd
        found = self.model.header.tensors["output.weight"]
        return self.weight_in(found.type, found.shape, self.params.weights[found.name], found.name)

    @cached_property
    def tok_embd_or_lent(self) -> Tensor:
        """The draft's own token embeddings, or the target's (model_other->tok_embd)."""
        return self.tok_embd if self.tok_embd is not None else self.tok_embd_of_target

    @cached_property
    def tok_embd_of_target(self) -> Tensor:
        """model_other->tok_embd."""
        return self._lent("tok_embd")

    def output_or_lent(self, own: Linear) -> Tensor:
        """The draft's own output matrix, or the target's (model_other->output)."""
        return own.weight if own.weight is not None else self._lent("output")

    def _lent(self, name: Literal["tok_embd", "output"]) -> Tensor:
        lent = self.params.lent and getattr(self.params.lent, name)
        if lent is None:
            raise UnknownGraphError(f"{self.arch}: the target's {name} is not here")
        return self.weight_in(lent.type, lent.shape, lent.buffer)

    @cached_property
    def output(self) -> Linear:
        """model.output with its bias and scale; the token embeddings where the file has none of its own.

        They are one tensor if they lie in one buffer type (TENSOR_DUPLICATED in llama_model_loader::create_tensor), and so
        have one copy on a device that reads both.
        """
        own = self.w("output")
        found = self.model.header.tensors.get("token_embd.weight")
        if own.weight is not None or found is None:
            return own
        embd, buffer = self.tok_embd, self.params.output
        if embd is not None and embd.buffer == buffer and not self.model.row.output_first:
            return own._replace(weight=embd)
        copy = self.weight_in(found.type, found.shape, buffer, OUTPUT)
        if found.name in self.params.adapters:
            self._adapt(copy, found.name)
        return own._replace(weight=copy)

    def rope_factors(self, il: int) -> Tensor | None:
        """llama_model::get_rope_factors: frequencies of the file, else the long or short set of longrope.

        Layers share the copy in one buffer type (TENSOR_DUPLICATED).
        """
        name = "rope_freqs.weight"
        if name not in self.model.header.tensors:
            orig = self.model.hparam("n_ctx_orig_yarn") or self.model.n_ctx_train
            name = f"rope_factors_{'long' if self.params.n_ctx_seq > orig else 'short'}.weight"
        found = self.model.header.tensors.get(name)
        if found is None:
            return None
        sections = self.gf.sections
        self.gf.mixes_copies |= not sections or sections[-1].il != il
        buffer = self.params.weights[copy_name(name, self.params.layer_backends[il])]
        key = f"{name} in {buffer.name}"
        t = self._tensors.get(key)
        if t is None:
            t = self._tensors[key] = self.weight_in(found.type, found.shape, buffer, Copied(name))
        return t
