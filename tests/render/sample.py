"""A plan made by hand: every figure known, so that a page can be held against it."""

from fitplug.extension import Export
from fitplug.formats.header import Header, Tensor
from fitplug.machine.records import Device, Host, Machine
from fitplug.memory.records import HOST, Basis, Estimate, Kind, Part, Resolved
from fitplug.model.describe import describe
from fitplug.planner.records import Alternative, Plan, Range, Request, Speed
from fitplug.settings import Settings
from fitplug.units import GIB, MIB

N_LAYER = 32


def model(name="Llama 3.1 8B Instruct"):
    keys = {"block_count": N_LAYER, "context_length": 131072, "embedding_length": 4096, "feed_forward_length": 14336,
            "attention.head_count": 32, "attention.head_count_kv": 8, "vocab_size": 128256,
            "attention.layer_norm_rms_epsilon": 1e-5}  # fmt: skip
    tensors = [("token_embd.weight", "q4_K", (4096, 128256)), ("output.weight", "q6_K", (4096, 128256)),
               ("output_norm.weight", "f32", (4096,))]  # fmt: skip
    tensors += [(f"blk.{i}.ffn_up.weight", "q4_K", (4096, 14336)) for i in range(N_LAYER)]
    sizes = {"q4_K": 4.5 / 8, "q6_K": 6.5625 / 8, "f32": 4}
    table = {}
    for tensor, kind, shape in tensors:
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        table[tensor] = Tensor(tensor, kind, shape, int(n * sizes[kind]), 0)
    metadata = {"general.architecture": "llama", "general.name": name, "general.file_type": 15, "tokenizer.ggml.model": "gpt2"}
    metadata |= {f"llama.{key}": value for key, value in keys.items()}
    n_bytes = sum(t.n_bytes for t in table.values())
    return describe(Header(format="gguf", metadata=metadata, tensors=table, n_bytes=n_bytes, version=3))


def machine(n_gpus=1, free_gib=23.4, name="NVIDIA GeForce RTX 4090"):
    card = Device(kind="gpu", backend="cuda", name=name, total_bytes=24564 * MIB, free_bytes=int(free_gib * GIB),
                  compute_capability="8.9", memory_bandwidth=1008 * 10**9)  # fmt: skip
    return Machine(devices=(card,) * n_gpus, host=Host(total_bytes=64 * GIB, available_bytes=48 * GIB))


def estimate(n_ctx=32768, n_gpu_layers=33, type_k="f16", **settings):
    cache = n_ctx * 131072 // (2 if type_k == "q8_0" else 1)
    parts = (
        Part("CUDA0", Kind.MODEL, 4403 * MIB, Basis.EXACT, "weights"),
        Part("CUDA0", Kind.CONTEXT, cache, Basis.EXACT, "kv cache"),
        Part("CUDA0", Kind.COMPUTE, 258 * MIB, Basis.EXACT, "graph allocator"),
        Part("CUDA0", Kind.OVERHEAD, 420 * MIB, Basis.MEASURED, "CUDA context"),
        Part(HOST, Kind.MODEL, 282 * MIB, Basis.EXACT, "weights", "CUDA_Host"),
        Part(HOST, Kind.COMPUTE, 24 * MIB, Basis.EXACT, "graph allocator", "CUDA_Host"),
    )
    resolved = Resolved(n_ctx=n_ctx, n_ctx_seq=n_ctx, n_batch=2048, n_ubatch=512, n_seq_max=1, n_stream=1,
                        n_gpu_layers=n_gpu_layers, n_outputs_max=1, type_k=type_k, type_v=type_k, flash_attn=True,
                        v_trans=False)  # fmt: skip
    return Estimate(settings=Settings(n_ctx=n_ctx, n_gpu_layers=n_gpu_layers, type_k=type_k, type_v=type_k, **settings),
                    resolved=resolved, parts=parts, layer_devices=("CUDA0",) * 33)  # fmt: skip


def plan(*, fits=True, **changes):
    cheaper = estimate(131072, type_k="q8_0")
    values = {
        "model": model(),
        "machine": machine(),
        "runner": "llama-server",
        "request": Request(),
        "estimate": estimate(),
        "fits": fits,
        "speed": Speed(generation=Range(98.2, 131.7), prompt=Range(4200.0, 6100.0), basis="memory bandwidth of 1008 GB/s"),
        "reasons": (
            "All 33 layers fit on CUDA0, so nothing is computed on the CPU.",
            "32768 tokens are what was asked for; 131072 would fit with a q8_0 cache.",
        ),
        "alternatives": (
            Alternative(
                title="longer context",
                cost="an 8-bit cache: answers hardly differ",
                estimate=cheaper,
                speed=Speed(generation=Range(80.0, 110.0), prompt=None),
            ),
            Alternative(title="more free memory", cost="half the context", estimate=estimate(16384)),
        ),
        "fixes": ("-c 8192 instead of 131072 would fit",),
    }
    return Plan(**values | changes)


def export():
    words = ["llama-server", "--model", "/models/Llama 3.1 8B.gguf", "--ctx-size", "32768", "--n-gpu-layers", "33",
             "--flash-attn", "on", "--batch-size", "2048", "--ubatch-size", "512", "--cache-type-k", "f16",
             "--cache-type-v", "f16", "--parallel", "1", "--override-tensor", "ffn_(up|down)_exps=CPU"]  # fmt: skip
    return Export(argv=words)
