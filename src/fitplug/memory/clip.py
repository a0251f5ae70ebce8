"""A projector's weights and compute buffers: clip_ctx and its warm-up (tools/mtmd/clip.cpp).

Every encoder of the file, for pictures and for sound, has a buffer of weights on the first GPU or on the CPU, and a graph
that is laid out once for a picture, or a piece of sound, of the warm-up's size; larger ones take more. What makes sound has
weights alone: nothing is laid out for it until it speaks.
"""

from collections.abc import Iterable, Sequence

from fitplug.errors import RefusedError
from fitplug.formats.header import Header
from fitplug.machine.backends import CPU_ALIGNMENT, backend, find_devices
from fitplug.machine.records import Machine
from fitplug.memory.clip_graph import ClipGraph
from fitplug.memory.clip_model import AUDIO_FRAMES, LIMITS, MAX_LAYERS, SECTIONS, WARM_UPS, ClipModel
from fitplug.memory.graph.backends import Backend
from fitplug.memory.graph.devices import cpu_backend, device_backends
from fitplug.memory.graph.errors import ShapesAbortError, UnknownGraphError
from fitplug.memory.graph.program import GraphAllocator
from fitplug.memory.graph.scheduler import Scheduler
from fitplug.memory.graph.tensor import Buffer
from fitplug.memory.projectors.held import OWN, held_by
from fitplug.memory.projectors.required import required
from fitplug.memory.projectors.table import PROJECTORS
from fitplug.memory.projectors.width import n_mmproj_embd
from fitplug.memory.records import HOST, Basis, Kind, Part
from fitplug.memory.sizes import row_padding_bytes
from fitplug.settings import Settings
from fitplug.units import pad

F32, F16 = 4, 2
DEFAULT_IMAGE, DEFAULT_PATCH = 336, 14
"""Supposed where a projector's header does not say; those of CLIP's large model."""
OMNI = {"v": "qwen2.5vl_merger", "a": "qwen2a"}
"""What "qwen2.5o" stands for in each encoder."""
SPEAKS = "a.gen.code"
ENCODERS = (("v", "clip.has_vision_encoder"), ("a", "clip.has_audio_encoder"), (SPEAKS, "clip.has_gen_audio_encoder"))
"""Prefix of an encoder's tensors, and the key that says that there is one."""
NAMES = {"v": "projector", "a": "audio projector", SPEAKS: "speech generator"}
REFUSED = frozenset(("gemma3na",))
"""Types that clip_model_loader::load_hparams knows and does not load."""
LONGER = frozenset((
    "gemma4a", "gemma4ua", "granite_speech", "parakeet", "mimo_audio", "dots3note_a", "qwen3tts_spkenc", "pockettts_spkenc",
))  # fmt: skip
"""Those that hear more than the warm-up's piece of sound at once (hparams.audio_chunk_len)."""
TOGETHER = frozenset(("gemma4v", "internvl", "deepseekocr", "deepseekocr2", "granite4_vision"))
"""Those that see several pictures, or several parts of one, at once (clip_graph::support_batch, anyres)."""


def projector_parts(header: Header, machine: Machine, settings: Settings) -> list[Part]:
    """Weights and compute buffers of every encoder in a projector's file.

    Raises:
        RefusedError: llama.cpp does not load it with these settings.
    """
    refuse_sizes(projector_type(header, "v"), settings)
    return [part for prefix in encoders(header) for part in _Encoder(header, prefix, machine, settings).parts()]


def refuse_sizes(kind: str, settings: Settings) -> None:
    """Pictures of which the largest would be smaller than the smallest (clip_model_loader::load_hparams).

    Raises:
        RefusedError: llama.cpp does not load the projector so.
    """
    if kind in LIMITS:
        least, most = settings.image_min_tokens or LIMITS[kind][0], settings.image_max_tokens or LIMITS[kind][1]
        if most < least:
            raise RefusedError(f"the projector takes no picture: at least {least} tokens (--image-min-tokens), at most {most}")


def encoders(header: Header) -> list[str]:
    """The prefixes of those that the file has; clip_init passes over the sound of Gemma 3n.

    Raises:
        RefusedError: llama.cpp does not load this file as a projector.
    """
    found = [prefix for prefix, key in ENCODERS if header.metadata.get(key) is True]
    if "v" in found and "a" in found and projector_type(header, "v") == "gemma3nv":
        found.remove("a")
    if not {"v", "a"} & {*found}:
        raise RefusedError("the projector's file has nothing that sees or hears: llama.cpp does not load it")
    refused = next((kind for prefix in found if (kind := projector_type(header, prefix)) in REFUSED), None)
    if refused is not None:
        raise RefusedError(f"llama.cpp does not load projectors of the type '{refused}'")
    return found


def projector_type(header: Header, prefix: str) -> str:
    """clip.projector_type, or that of one encoder."""
    kind = header.metadata.get("clip.projector_type") or header.metadata.get(f"{SECTIONS[prefix]}projector_type")
    return OMNI.get(prefix, "") if kind == "qwen2.5o" else kind if isinstance(kind, str) else ""


def refuse_for(header: Header, n_embd: int) -> None:
    """What clip and mtmd_context refuse: metadata that lacks something, embeddings of another width than the model's.

    Raises:
        RefusedError: llama-server does not start with this projector and this model.
    """
    if header.metadata.get("clip.use_gelu") is True and header.metadata.get("clip.use_silu") is True:
        raise RefusedError("the projector says that it uses both GELU and SiLU: llama.cpp does not load it")
    for prefix in encoders(header):
        kind = projector_type(header, prefix)
        lost = next((key for key in required(kind, prefix) if SECTIONS[prefix] + key not in header.metadata), None)
        if lost is not None and kind in OWN:
            raise RefusedError(f"the projector's file does not tell {SECTIONS[prefix]}{lost}: llama.cpp does not load it")
        layers = header.metadata.get(f"{SECTIONS[prefix]}block_count")
        n_layer = layers if type(layers) is int and 0 <= layers <= MAX_LAYERS else 0
        width = n_mmproj_embd(header, kind, n_layer)
        if width is not None and width != n_embd:
            raise RefusedError(f"the projector makes embeddings of {width} numbers, the model takes {n_embd}: another model's?")


def projector_device(machine: Machine, settings: Settings) -> str:
    """The one that is named, or the first of -dev (common_params_parse_ex, common/arg.cpp).

    Else it is the first GPU that the backends register, an integrated one only without another (clip_ctx's constructor).
    """
    named = settings.devices if settings.mmproj_device is None else (settings.mmproj_device,)
    if not settings.mmproj_offload or not machine.devices or named == ():
        return HOST
    names = machine.device_names()
    if named is not None:
        return names[find_devices(names, named)[0]]
    ranks = [(d.backend == "rpc", d.kind == "igpu", i) for i, d in enumerate(machine.devices)]
    return names[min(ranks)[2]]


def warm_up_note(header: Header, max_tokens: int | None = None) -> list[str]:
    """For which pictures and sounds the compute buffer is counted, where larger ones are possible."""
    notes = []
    for prefix in encoders(header):
        kind = projector_type(header, prefix)
        warm_up, tried = WARM_UPS.get(kind), "which llama.cpp tries at the start"
        if warm_up is not None and warm_up.side:
            side = warm_up.side_for(max_tokens)
            size = f"{max_tokens} tokens" if side is None else f"{side} x {side} tokens"
            larger = "" if side is None else "; larger ones take more"
            notes.append(f"the projector is counted for a picture of {size}, {tried}{larger}")
        if kind in TOGETHER:
            notes.append("the projector is counted for one picture of one part; several at once take more")
        if kind in LONGER:
            notes.append(f"the projector is counted for {AUDIO_FRAMES} frames of sound, {tried}; longer pieces take more")
        if prefix == SPEAKS:
            notes.append("the speech generator is counted without its graphs, which llama.cpp lays out when it first speaks")
    return notes


class _Encoder:
    """One encoder on one machine."""

    def __init__(self, header: Header, prefix: str, machine: Machine, settings: Settings) -> None:
        self.header, self.prefix, self.settings = header, prefix, settings
        self.kind = projector_type(header, prefix)
        self.device = projector_device(machine, settings)
        on_gpu = self.device != HOST
        chosen = [machine.devices[machine.device_names().index(self.device)]] if on_gpu else []
        self.traits = backend(chosen[0]) if on_gpu else None
        self.backends: list[Backend] = [*device_backends(chosen, [self.device] if on_gpu else []), cpu_backend([])]
        self.exact = self.traits is None or self.traits.compute_proven
        self.what = NAMES[prefix]

    def parts(self) -> list[Part]:
        basis = Basis.EXACT if self.kind in OWN else Basis.MODELLED
        found = [Part(self.device, Kind.MODEL, self._weights(), basis, f"{self.what}'s weights")]
        if self.prefix == SPEAKS:
            return found
        try:
            sizes = self._reserve()
        except (UnknownGraphError, ShapesAbortError, ArithmeticError):
            source = f"{self.what}'s compute, by formula"
            return [*found, Part(self.device, Kind.COMPUTE, formula(self.header), Basis.MODELLED, source)]
        basis = Basis.EXACT if self.exact else Basis.MODELLED
        names = [self.device, HOST] if self.device != HOST else [HOST]
        return found + [
            Part(name, Kind.COMPUTE, n, basis, f"{self.what}'s graph allocator")
            for name, n in zip(names, sizes, strict=True)
            if n
        ]

    def _weights(self) -> int:
        alignment, padding = (self.traits.alignment, self.traits.row_padding) if self.traits else (CPU_ALIGNMENT, 0)
        n_layer = self.header.metadata.get(f"{SECTIONS[self.prefix]}block_count")
        n_layer = n_layer if type(n_layer) is int and 0 <= n_layer <= MAX_LAYERS else MAX_LAYERS
        tensors = [self.header.tensors[name] for name in held(self.header.tensors, self.kind, self.prefix, n_layer)]
        return sum(
            pad(t.n_bytes + row_padding_bytes(t.type, t.shape[0] if t.shape else 1, padding), alignment) for t in tensors
        )

    def _reserve(self) -> Sequence[int]:
        """Bytes per backend: with flash attention, and without it as well where the device does not take it (warmup)."""
        if self.kind not in PROJECTORS:
            raise UnknownGraphError(self.kind)
        if self.settings.flash_attn == "off":
            return self._lay_out(flash_attn=False)[0]
        sizes, runs = self._lay_out(flash_attn=True)
        if runs or self.settings.flash_attn == "on":
            return sizes
        return [max(pair) for pair in zip(sizes, self._lay_out(flash_attn=False)[0], strict=True)]

    def _lay_out(self, *, flash_attn: bool) -> tuple[list[int], bool]:
        buffer = Buffer(self.device, (0,), is_host=self.device == HOST, is_weights=True)
        model = ClipModel(self.header, self.kind, self.prefix, buffer, self.settings.image_max_tokens)
        g = ClipGraph(model, flash_attn=flash_attn)
        g.gf.expand(PROJECTORS[self.kind](g))
        runs = all(self.backends[0].supports_op(node) for node in g.gf.nodes if node.op == "FLASH_ATTN_EXT")
        return GraphAllocator(self.backends).reserve(Scheduler(self.backends).schedule(g.gf)), runs


def held(names: Iterable[str], kind: str, prefix: str, n_layer: int) -> list[str]:
    """Names of the tensors that are loaded; of a type that nobody knows all that seem to be the encoder's."""
    if kind in OWN:
        return held_by(names, kind, prefix, n_layer)
    return [name for name in names if name.startswith(("a.", "mm.a.")) == (prefix == "a")]


def formula(header: Header) -> int:
    """One transformer block over all patches, and the patches' pixels."""

    def number(key: str, default: int) -> int:
        for prefix in ("clip.vision.", "clip.audio."):
            value = header.metadata.get(prefix + key)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20:
                return value
        return default

    patch, image = number("patch_size", DEFAULT_PATCH), number("image_size", DEFAULT_IMAGE)
    n_embd, n_ff = number("embedding_length", 1024), number("feed_forward_length", 4096)
    n_patches = max(1, image // patch) ** 2
    return n_patches * (F32 * (2 * n_embd + max(3 * n_embd, 2 * n_ff)) + (F32 + F16) * 3 * patch * patch)
