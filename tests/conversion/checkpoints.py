"""Checkpoints as transformers writes them: config.json and every tensor's name and shape, for a few known models."""

import json
import struct


def llama(
    n_layer=32,
    n_embd=4096,
    n_ff=14336,
    n_head=32,
    n_head_kv=8,
    width=128,
    n_vocab=128256,
    *,
    tied=False,
    bias=(),
    qk_norm=False,
    **config,
):
    base = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": n_embd,
        "intermediate_size": n_ff,
        "num_attention_heads": n_head,
        "num_key_value_heads": n_head_kv,
        "num_hidden_layers": n_layer,
        "vocab_size": n_vocab,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131072,
    }
    tensors = {"model.embed_tokens.weight": (n_vocab, n_embd), "model.norm.weight": (n_embd,)}
    if not tied:
        tensors["lm_head.weight"] = (n_vocab, n_embd)
    for i in range(n_layer):
        at = f"model.layers.{i}."
        for part, n in (("q", n_head), ("k", n_head_kv), ("v", n_head_kv)):
            tensors[f"{at}self_attn.{part}_proj.weight"] = (n * width, n_embd)
            if part in bias:
                tensors[f"{at}self_attn.{part}_proj.bias"] = (n * width,)
        tensors[f"{at}self_attn.o_proj.weight"] = (n_embd, n_head * width)
        if qk_norm:
            tensors |= {f"{at}self_attn.{part}_norm.weight": (width,) for part in "qk"}
        tensors |= {f"{at}{name}.weight": (n_embd,) for name in ("input_layernorm", "post_attention_layernorm")}
        tensors |= {f"{at}mlp.{part}_proj.weight": (n_ff, n_embd) for part in ("gate", "up")}
        tensors[f"{at}mlp.down_proj.weight"] = (n_embd, n_ff)
    return base | config, tensors


def _experts(tensors, at, n_expert, n_ff, n_embd, names=("gate_proj", "up_proj", "down_proj")):
    for i in range(n_expert):
        tensors[f"{at}.{i}.{names[0]}.weight"] = tensors[f"{at}.{i}.{names[1]}.weight"] = (n_ff, n_embd)
        tensors[f"{at}.{i}.{names[2]}.weight"] = (n_embd, n_ff)


def _without_mlp(tensors, layers=()):
    """Without the plain ones, but for those layers."""
    kept = tuple(f"model.layers.{i}.mlp." for i in layers)
    return {k: v for k, v in tensors.items() if ".mlp." not in k or k.startswith(kept)}


LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}


def llama_8b():
    return llama(rope_scaling=LLAMA3_ROPE)


def llama_70b():
    return llama(80, 8192, 28672, 64, 8, rope_scaling=LLAMA3_ROPE)


def qwen25_05b():
    return llama(
        24,
        896,
        4864,
        14,
        2,
        64,
        151936,
        tied=True,
        bias="qkv",
        architectures=["Qwen2ForCausalLM"],
        max_position_embeddings=32768,
    )


def qwen3_4b():
    return llama(
        36,
        2560,
        9728,
        32,
        8,
        128,
        151936,
        tied=True,
        qk_norm=True,
        head_dim=128,
        architectures=["Qwen3ForCausalLM"],
        max_position_embeddings=40960,
    )


def qwen3_30b_a3b():
    config, tensors = llama(
        48,
        2048,
        6144,
        32,
        4,
        128,
        151936,
        qk_norm=True,
        head_dim=128,
        architectures=["Qwen3MoeForCausalLM"],
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
        max_position_embeddings=262144,
    )
    tensors = _without_mlp(tensors)
    for i in range(48):
        tensors[f"model.layers.{i}.mlp.gate.weight"] = (128, 2048)
        _experts(tensors, f"model.layers.{i}.mlp.experts", 128, 768, 2048)
    return config, tensors


def mixtral():
    config, tensors = llama(
        32,
        4096,
        14336,
        32,
        8,
        128,
        32000,
        architectures=["MixtralForCausalLM"],
        num_local_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=32768,
    )
    tensors = _without_mlp(tensors)
    for i in range(32):
        tensors[f"model.layers.{i}.block_sparse_moe.gate.weight"] = (8, 4096)
        _experts(tensors, f"model.layers.{i}.block_sparse_moe.experts", 8, 14336, 4096, ("w1", "w3", "w2"))
    return config, tensors


def gemma_3_4b():
    config, tensors = llama(34, 2560, 10240, 8, 4, 256, 262144, tied=True, qk_norm=True)
    for i in range(34):
        tensors |= {f"model.layers.{i}.{n}_feedforward_layernorm.weight": (2560,) for n in ("pre", "post")}
    text = {k: v for k, v in config.items() if k != "architectures"} | {
        "head_dim": 256,
        "sliding_window": 1024,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    tensors = {f"language_model.{k}": v for k, v in tensors.items()}
    tensors["vision_tower.vision_model.embeddings.patch_embedding.weight"] = (1152, 3, 14, 14)
    tensors["multi_modal_projector.mm_input_projection_weight"] = (1152, 2560)
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": text,
        "vision_config": {"hidden_size": 1152},
    }, tensors


def deepseek(n_layer, n_embd, n_ff, n_head, n_vocab, n_expert, n_ff_exp, n_shared, n_dense, q_lora_rank=None):
    config, tensors = llama(
        n_layer,
        n_embd,
        n_ff,
        n_head,
        n_head,
        128,
        n_vocab,
        architectures=["DeepseekV2ForCausalLM"],
        n_routed_experts=n_expert,
        num_experts_per_tok=6,
        moe_intermediate_size=n_ff_exp,
        n_shared_experts=n_shared,
        first_k_dense_replace=n_dense,
        kv_lora_rank=512,
        q_lora_rank=q_lora_rank,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
        max_position_embeddings=163840,
    )
    tensors = _without_mlp(tensors, range(n_dense))
    for i in range(n_layer):
        at = f"model.layers.{i}."
        for part in "qkv":
            del tensors[f"{at}self_attn.{part}_proj.weight"]
        if q_lora_rank is None:
            tensors[f"{at}self_attn.q_proj.weight"] = (n_head * 192, n_embd)
        else:
            tensors |= {
                f"{at}self_attn.q_a_proj.weight": (q_lora_rank, n_embd),
                f"{at}self_attn.q_a_layernorm.weight": (q_lora_rank,),
                f"{at}self_attn.q_b_proj.weight": (n_head * 192, q_lora_rank),
            }
        tensors[f"{at}self_attn.kv_a_proj_with_mqa.weight"] = (576, n_embd)
        tensors[f"{at}self_attn.kv_a_layernorm.weight"] = (512,)
        tensors[f"{at}self_attn.kv_b_proj.weight"] = (n_head * 256, 512)
        if i >= n_dense:
            tensors[f"{at}mlp.gate.weight"] = (n_expert, n_embd)
            _experts(tensors, f"{at}mlp.experts", n_expert, n_ff_exp, n_embd)
            shared = n_shared * n_ff_exp
            tensors |= {f"{at}mlp.shared_experts.{p}_proj.weight": (shared, n_embd) for p in ("gate", "up")}
            tensors[f"{at}mlp.shared_experts.down_proj.weight"] = (n_embd, shared)
    return config, tensors


def deepseek_v2_lite():
    return deepseek(27, 2048, 10944, 16, 102400, 64, 1408, 2, 1)


def gpt_oss(n_layer, n_expert):
    config, tensors = llama(
        n_layer,
        2880,
        2880,
        64,
        8,
        64,
        201088,
        bias="qkv",
        head_dim=64,
        architectures=["GptOssForCausalLM"],
        num_local_experts=n_expert,
        num_experts_per_tok=4,
        sliding_window=128,
        quantization_config={"quant_method": "mxfp4"},
    )
    tensors = _without_mlp(tensors)
    for i in range(n_layer):
        at = f"model.layers.{i}."
        tensors |= {
            f"{at}self_attn.o_proj.bias": (2880,),
            f"{at}self_attn.sinks": (64,),
            f"{at}mlp.router.weight": (n_expert, 2880),
            f"{at}mlp.router.bias": (n_expert,),
            f"{at}mlp.experts.gate_up_proj_blocks": (n_expert, 5760, 90, 16),
            f"{at}mlp.experts.gate_up_proj_scales": (n_expert, 5760, 90),
            f"{at}mlp.experts.gate_up_proj_bias": (n_expert, 5760),
            f"{at}mlp.experts.down_proj_blocks": (n_expert, 2880, 90, 16),
            f"{at}mlp.experts.down_proj_scales": (n_expert, 2880, 90),
            f"{at}mlp.experts.down_proj_bias": (n_expert, 2880),
        }
    return config, tensors


def olmo_2_13b():
    config, tensors = llama(
        40, 5120, 13824, 40, 40, 128, 100352, architectures=["Olmo2ForCausalLM"], max_position_embeddings=4096
    )
    for i in range(40):
        at = f"model.layers.{i}."
        del tensors[f"{at}input_layernorm.weight"]
        tensors |= {
            f"{at}post_feedforward_layernorm.weight": (5120,),
            f"{at}self_attn.q_norm.weight": (5120,),
            f"{at}self_attn.k_norm.weight": (5120,),
        }
    return config, tensors


SIZES = {
    "BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "F8_E8M0": 1, "U8": 1, "I8": 1, "BOOL": 1, "I16": 2,
    "I32": 4, "U32": 4, "I64": 8,
}  # fmt: skip


def dtype_of(name, dtype):
    """What mixed checkpoints have: packed bytes."""
    return "U8" if name.endswith(("_blocks", "_scales")) else dtype


def header_bytes(tensors, dtype="BF16"):
    """A safetensors header, and the length of the whole file; a tensor is a shape, or its own dtype and a shape."""
    entries, at = {}, 0
    for name, item in tensors.items():
        kind, shape = item if item and isinstance(item[0], str) else (dtype_of(name, dtype), item)
        size = SIZES[kind]
        for n in shape:
            size *= n
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text, 8 + len(text) + at


def write(folder, config, tensors, *, dtype="BF16", n_shards=1):
    """Write a repository's files, weights as holes; returns path in the repository → file."""
    folder.mkdir(parents=True, exist_ok=True)
    names, files = list(tensors), {}
    per = -(-len(names) // n_shards)
    weight_map = {}
    for i in range(n_shards):
        name = "model.safetensors" if n_shards == 1 else f"model-{i + 1:05d}-of-{n_shards:05d}.safetensors"
        mine = {n: tensors[n] for n in names[i * per : (i + 1) * per]}
        head, length = header_bytes(mine, dtype)
        with (folder / name).open("wb") as file:
            file.write(head)
            file.truncate(length)
        files[name] = folder / name
        weight_map |= dict.fromkeys(mine, name)
    files["config.json"] = json.dumps(config).encode()
    if n_shards > 1:
        files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    for name, data in files.items():
        if isinstance(data, bytes):
            (folder / name).write_bytes(data)
    return files


def qwen3_06b():
    """Its embeddings are tied, and stored twice all the same."""
    return llama(28, 1024, 3072, 16, 8, 128, 151936, qk_norm=True, head_dim=128, architectures=["Qwen3ForCausalLM"])


def qwen3_14b():
    return llama(40, 5120, 17408, 40, 8, 128, 151936, qk_norm=True, head_dim=128, architectures=["Qwen3ForCausalLM"])


def gpt_oss_120b():
    return gpt_oss(36, 128)


def gpt_oss_20b():
    return gpt_oss(24, 32)


def deepseek_v31():
    """In FP8, as it is published."""
    config, tensors = deepseek(61, 7168, 18432, 128, 129280, 256, 2048, 1, 3, q_lora_rank=1536)
    return config | {"architectures": ["DeepseekV3ForCausalLM"], "num_nextn_predict_layers": 1}, tensors


def glm_46v():
    config, tensors = llama(
        46,
        4096,
        10944,
        96,
        8,
        128,
        151552,
        bias="qkv",
        head_dim=128,
        architectures=["Glm4MoeForCausalLM"],
        n_routed_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=1408,
        n_shared_experts=1,
        first_k_dense_replace=1,
        num_nextn_predict_layers=0,
    )
    tensors = _without_mlp(tensors, [0])
    for i in range(1, 46):
        at = f"model.layers.{i}.mlp."
        tensors |= {f"{at}gate.weight": (128, 4096), f"{at}gate.e_score_correction_bias": (128,)}
        _experts(tensors, f"{at}experts", 128, 1408, 4096)
        tensors |= {f"{at}shared_experts.{p}_proj.weight": (1408, 4096) for p in ("gate", "up")}
        tensors[f"{at}shared_experts.down_proj.weight"] = (4096, 1408)
    return config, tensors


MODELS = {
    "llama-3.1-8b": llama_8b,
    "llama-3.3-70b": llama_70b,
    "qwen2.5-0.5b": qwen25_05b,
    "qwen3-4b": qwen3_4b,
    "qwen3-30b-a3b": qwen3_30b_a3b,
    "mixtral-8x7b": mixtral,
    "gemma-3-4b": gemma_3_4b,
    "deepseek-v2-lite": deepseek_v2_lite,
    "gpt-oss-20b": gpt_oss_20b,
    "olmo-2-13b": olmo_2_13b,
}
SNAPSHOTS = {
    "gemma-3-4b-it": gemma_3_4b,
    "meta-llama-3.1-70b-instruct": llama_70b,
    "qwen3-0.6b": qwen3_06b,
    "qwen3-14b": qwen3_14b,
    "gpt-oss-120b": gpt_oss_120b,
    "deepseek-v3.1": deepseek_v31,
    "glm-4.6v": glm_46v,
}
"""llama.cpp's tests/snapshots that this module can build the model of."""


def _linear_attention(at, n_embd, keys, values, *, fused):
    """A gated delta net, as Qwen3-Next (fused) and Qwen3.5 store it."""
    n_key, n_value = keys * 128, values * 128
    apart = {"in_proj_qkv": 2 * n_key + n_value, "in_proj_z": n_value, "in_proj_a": values, "in_proj_b": values}
    rows = {"in_proj_qkvz": 2 * n_key + 2 * n_value, "in_proj_ba": 2 * values} if fused else apart
    return {f"{at}{name}.weight": (n, n_embd) for name, n in rows.items()} | {
        f"{at}conv1d.weight": (2 * n_key + n_value, 1, 4),
        f"{at}dt_bias": (values,),
        f"{at}A_log": (values,),
        f"{at}norm.weight": (128,),
        f"{at}out_proj.weight": (n_embd, n_value),
    }


def qwen_hybrid(kind, n_layer, n_embd, n_head, n_head_kv, n_vocab, values, n_ff=0, n_expert=0, n_ff_exp=0):
    """Qwen3-Next and Qwen3.5: three layers of linear attention, then one of full attention with a gate."""
    fused = kind == "Qwen3NextForCausalLM"
    config, tensors = llama(n_layer, n_embd, n_ff or 5120, n_head, n_head_kv, 256, n_vocab, qk_norm=True, head_dim=256)
    config |= {
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16,
        "linear_num_value_heads": values, "full_attention_interval": 4, "partial_rotary_factor": 0.25,
    }  # fmt: skip
    if n_expert:
        config |= {"num_experts": n_expert, "num_experts_per_tok": 10, "moe_intermediate_size": n_ff_exp,
                   "shared_expert_intermediate_size": n_ff_exp}  # fmt: skip
        tensors = _without_mlp(tensors)
    for i in range(n_layer):
        at = f"model.layers.{i}."
        if i % 4 != 3:
            tensors = {k: v for k, v in tensors.items() if not k.startswith(f"{at}self_attn.")}
            tensors |= _linear_attention(f"{at}linear_attn.", n_embd, 16, values, fused=fused)
        else:
            tensors[f"{at}self_attn.q_proj.weight"] = (2 * n_head * 256, n_embd)
        if n_expert:
            tensors |= _qwen_experts(f"{at}mlp.", n_embd, n_expert, n_ff_exp, fused=fused)
    if fused:
        return config | {"architectures": [kind]}, tensors
    tensors = {k.replace("model.", "model.language_model.", 1): v for k, v in tensors.items()}
    del config["architectures"]
    return {"architectures": [kind], "text_config": config}, tensors | {"model.visual.pos_embed.weight": (2304, 1152)}


def _qwen_experts(at, n_embd, n_expert, n_ff, *, fused):
    tensors = {f"{at}gate.weight": (n_expert, n_embd), f"{at}shared_expert_gate.weight": (1, n_embd)}
    tensors |= {f"{at}shared_expert.{part}_proj.weight": (n_ff, n_embd) for part in ("gate", "up")}
    tensors[f"{at}shared_expert.down_proj.weight"] = (n_embd, n_ff)
    if fused:
        _experts(tensors, f"{at}experts", n_expert, n_ff, n_embd)
        return tensors
    return tensors | {
        f"{at}experts.gate_up_proj": (n_expert, 2 * n_ff, n_embd),
        f"{at}experts.down_proj": (n_expert, n_embd, n_ff),
    }


def qwen3_coder_next():
    return qwen_hybrid("Qwen3NextForCausalLM", 48, 2048, 16, 2, 151936, 32, n_expert=512, n_ff_exp=512)


def qwen35_397b():
    return qwen_hybrid("Qwen3_5MoeForConditionalGeneration", 60, 4096, 32, 2, 248320, 64, n_expert=512, n_ff_exp=1024)


def qwen36_27b():
    return qwen_hybrid("Qwen3_5ForConditionalGeneration", 64, 5120, 24, 4, 248320, 48, n_ff=17408)


def nemotron_3_nano():
    """Mixers of Mamba 2, a few of attention, and mixtures of experts, each a layer of its own."""
    pattern = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
    n_embd, inner, n_expert = 2688, 4096, 128
    tensors = {
        "backbone.embeddings.weight": (131072, n_embd),
        "backbone.norm_f.weight": (n_embd,),
        "lm_head.weight": (131072, n_embd),
    }
    for i, kind in enumerate(pattern):
        at = f"backbone.layers.{i}."
        tensors[f"{at}norm.weight"] = (n_embd,)
        if kind == "M":
            tensors |= {
                f"{at}mixer.in_proj.weight": (2 * inner + 2 * 8 * 128 + 64, n_embd),
                f"{at}mixer.conv1d.weight": (inner + 2 * 8 * 128, 1, 4),
                f"{at}mixer.conv1d.bias": (inner + 2 * 8 * 128,),
                f"{at}mixer.norm.weight": (inner,),
                f"{at}mixer.out_proj.weight": (n_embd, inner),
            } | {f"{at}mixer.{name}": (64,) for name in ("A_log", "D", "dt_bias")}
        elif kind == "*":
            tensors |= {f"{at}mixer.{part}_proj.weight": (n * 128, n_embd) for part, n in (("q", 32), ("k", 2), ("v", 2))}
            tensors[f"{at}mixer.o_proj.weight"] = (n_embd, 32 * 128)
        else:
            tensors |= {f"{at}mixer.gate.weight": (n_expert, n_embd), f"{at}mixer.gate.e_score_correction_bias": (n_expert,)}
            for part, n_ff in [(f"experts.{j}", 1856) for j in range(n_expert)] + [("shared_experts", 3712)]:
                tensors |= {
                    f"{at}mixer.{part}.up_proj.weight": (n_ff, n_embd),
                    f"{at}mixer.{part}.down_proj.weight": (n_embd, n_ff),
                }
    return {
        "architectures": ["NemotronHForCausalLM"], "hidden_size": n_embd, "num_hidden_layers": 52, "num_attention_heads": 32,
        "num_key_value_heads": 2, "head_dim": 128, "intermediate_size": 1856, "vocab_size": 131072, "norm_eps": 1e-5,
        "hybrid_override_pattern": pattern, "mamba_num_heads": 64, "mamba_head_dim": 64, "n_groups": 8, "ssm_state_size": 128,
        "conv_kernel": 4, "expand": 2, "n_routed_experts": n_expert, "num_experts_per_tok": 6, "moe_intermediate_size": 1856,
        "moe_shared_expert_intermediate_size": 3712, "n_shared_experts": 1, "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "n_group": 1, "topk_group": 1, "max_position_embeddings": 262144,
    }, tensors  # fmt: skip


def step_35_flash():
    """Windowed layers have more heads than the others."""
    n_layer, n_embd, n_expert, n_ff = 45, 4096, 288, 1280
    config, tensors = llama(
        n_layer, n_embd, 11264, 64, 8, 128, 128896, qk_norm=True, head_dim=128, architectures=["Step3p5ForCausalLM"]
    )
    types = ["sliding_attention" if i % 4 else "full_attention" for i in range(n_layer)]
    config |= {
        "num_attention_groups": 8, "attention_other_setting": {"num_attention_heads": 96, "num_attention_groups": 8},
        "layer_types": types, "sliding_window": 512, "moe_num_experts": n_expert, "moe_top_k": 8, "moe_intermediate_size": n_ff,
        "share_expert_dim": n_ff, "moe_layers_enum": ",".join(map(str, range(3, n_layer))),
        "partial_rotary_factors": [1.0 if kind == "sliding_attention" else 0.5 for kind in types],
    }  # fmt: skip
    del config["num_key_value_heads"]
    tensors = _without_mlp(tensors, range(3))
    for i, kind in enumerate(types):
        at, n_head = f"model.layers.{i}.", 96 if kind == "sliding_attention" else 64
        tensors |= {
            f"{at}self_attn.q_proj.weight": (n_head * 128, n_embd), f"{at}self_attn.o_proj.weight": (n_embd, n_head * 128),
            f"{at}self_attn.g_proj.weight": (n_head, n_embd),
        }  # fmt: skip
        if i >= 3:
            tensors |= {f"{at}moe.{part}_proj.weight": (n_expert, n_ff, n_embd) for part in ("gate", "up")}
            tensors |= {f"{at}share_expert.{part}_proj.weight": (n_ff, n_embd) for part in ("gate", "up")}
            tensors |= {
                f"{at}moe.down_proj.weight": (n_expert, n_embd, n_ff), f"{at}share_expert.down_proj.weight": (n_embd, n_ff),
                f"{at}moe.gate.weight": (n_expert, n_embd), f"{at}moe.router_bias": (n_expert,),
            }  # fmt: skip
    return config, tensors


SNAPSHOTS |= {
    "nvidia-nemotron-3-nano-30b-a3b": nemotron_3_nano,
    "qwen3-coder-next": qwen3_coder_next,
    "qwen3.5-397b-a17b": qwen35_397b,
    "qwen3.6-27b": qwen36_27b,
    "step-3.5-flash": step_35_flash,
}
