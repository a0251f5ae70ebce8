"""Made-up models and machines for the planner, and an estimator without graphs: fast, and exact but for compute buffers."""

from fitplug.extension import Runner
from fitplug.formats.header import Header, Skipped, Tensor
from fitplug.machine.records import Device, Host, Machine
from fitplug.memory.cache import cells
from fitplug.memory.compute_closed import closed_parts
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import Estimate
from fitplug.memory.sizes import alloc_size
from fitplug.model.describe import describe

GIB = 1 << 30
SERVER = Runner(name="llama-server", help="")


class Quick:
    """The estimator with compute buffers by closed forms."""

    def __init__(self, model, machine, runner):
        self.model, self.whole = model, Estimator(model, machine, runner)

    def __call__(self, settings):
        placement, resolved, parts = self.whole.static(settings)
        size = cells(self.model, resolved, kv_unified=settings.kv_unified, swa_full=settings.swa_full)
        placed = self.whole.placed(placement, settings)
        parts = [*parts, *closed_parts(self.model, placement, resolved, settings, placed, size)]
        return Estimate(settings=settings, resolved=resolved, parts=parts, layer_devices=placement.layer_devices)


def make_model(*, n_layer=32, n_embd=4096, n_ff=14336, n_vocab=128256, n_ctx_train=131072, n_expert=0, n_used=2, kind="q4_K",
               arch="llama"):  # fmt: skip
    """A llama, or the like of it; with `n_expert` each layer has so many experts of `n_ff`."""
    n_head, n_head_kv = n_embd // 128, max(1, n_embd // 512)
    kv = n_head_kv * 128
    shapes = {"token_embd.weight": (n_embd, n_vocab), "output_norm.weight": (n_embd,), "output.weight": (n_embd, n_vocab)}
    for il in range(n_layer):
        blk = f"blk.{il}."
        shapes |= {f"{blk}attn_norm.weight": (n_embd,), f"{blk}attn_q.weight": (n_embd, n_embd),
                   f"{blk}attn_k.weight": (n_embd, kv), f"{blk}attn_v.weight": (n_embd, kv),
                   f"{blk}attn_output.weight": (n_embd, n_embd), f"{blk}ffn_norm.weight": (n_embd,)}  # fmt: skip
        if arch == "gemma3":
            shapes |= {f"{blk}attn_q_norm.weight": (128,), f"{blk}attn_k_norm.weight": (128,),
                       f"{blk}post_attention_norm.weight": (n_embd,), f"{blk}post_ffw_norm.weight": (n_embd,)}  # fmt: skip
        many, tail = ((n_expert,), "_exps") if n_expert else ((), "")
        if n_expert:
            shapes[f"{blk}ffn_gate_inp.weight"] = (n_embd, n_expert)
        shapes |= {f"{blk}ffn_gate{tail}.weight": (n_embd, n_ff, *many), f"{blk}ffn_up{tail}.weight": (n_embd, n_ff, *many),
                   f"{blk}ffn_down{tail}.weight": (n_ff, n_embd, *many)}  # fmt: skip
    tensors = {}
    for name, shape in shapes.items():
        type_ = "f32" if len(shape) == 1 or "inp" in name else kind
        tensors[name] = Tensor(name, type_, shape, alloc_size(type_, shape), 0)
    metadata = {"general.architecture": arch, f"{arch}.block_count": n_layer, f"{arch}.context_length": n_ctx_train,
                f"{arch}.embedding_length": n_embd, f"{arch}.attention.head_count": n_head,
                f"{arch}.attention.head_count_kv": n_head_kv, f"{arch}.feed_forward_length": n_ff,
                f"{arch}.rope.dimension_count": 128, f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
                "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": Skipped("str", n_vocab)}  # fmt: skip
    if arch == "gemma3":
        metadata[f"{arch}.attention.sliding_window"] = 1024
    if n_expert:
        metadata |= {f"{arch}.expert_count": n_expert, f"{arch}.expert_used_count": n_used}
    n_bytes = sum(t.n_bytes for t in tensors.values())
    return describe(Header(format="gguf", metadata=metadata, tensors=tensors, n_bytes=n_bytes, version=3))


def card(gib, *, bandwidth=None, name="", backend="cuda"):
    """A card with so much free."""
    n = int(gib * GIB)
    capability = "8.6" if backend == "cuda" else None
    return Device(backend=backend, name=name, total_bytes=n, free_bytes=n, compute_capability=capability,
                  memory_bandwidth=bandwidth)  # fmt: skip


def make_machine(*cards, host_gib=256):
    """A machine of these cards, or of cards with so many GiB free."""
    devices = [each if isinstance(each, Device) else card(each) for each in cards]
    n = int(host_gib * GIB)
    return Machine(devices=devices, host=Host(total_bytes=n, available_bytes=n))
