"""The table of architectures: what llama.cpp's model classes do differently, as data.

A row says which memory an architecture gets, how its sliding window and its recurrent layers are laid out, where its
output matrix comes from and which keys its loader insists on. The code knows these kinds and no names. A new one is a
new row; `source` is the file under llama.cpp's src/models/ that it follows (its load_arch_hparams and
load_arch_tensors), the memory column follows llama_model::create_memory and the rope column llama_model_rope_type (both
src/llama-model.cpp).
"""

from typing import Literal, NamedTuple, TypeAlias

Family: TypeAlias = Literal["none", "kv", "recurrent", "hybrid", "hybrid_idx", "dsa", "dsa_iswa", "msa", "dsv4"]
"""llama.cpp's memory class before the window is looked at: with one, kv becomes iswa and hybrid becomes hybrid_iswa."""


class Window(NamedTuple):
    """How the sliding window is read."""

    period: int = 0
    """Default of load_swa_pattern: layer il is windowed if il % period < period - 1; an array in the file wins."""
    dense_first: bool = False
    """The first of each period is the dense one, not the last."""
    key: Literal["optional", "required"] = "optional"
    """Whether attention.sliding_window must be there."""
    when: Literal["window", "always", "not_zero", "n_layer_64", "never"] = "window"
    """Windowed if: n_swa > 0; always; unless the key says 0; only with 64 layers; not at all though the key is read."""
    default: int = 0
    """n_swa where the key is absent."""
    forced: int = 0
    """n_swa whatever the key says, once there is a window."""
    kind: Literal["standard", "chunked", "symmetric"] = "standard"
    layers: Literal["pattern", "array", "all", "attention", "draft"] = "pattern"
    """Which layers: the pattern above; an array that must be there; all, MTP blocks too; those that are not recurrent;
    a drafter's (all with hyper-connections, else an array that must be there)."""


class Row(NamedTuple):
    """One architecture."""

    name: str
    """Value of general.architecture."""
    source: str = ""
    """File under src/models/, without .cpp, where it is not the name."""
    loadable: bool = True
    """False: llama.cpp knows the name and has no model class for it."""
    needs: tuple[str, ...] = ()
    """Keys without which loading fails."""
    memory: Family = "kv"
    window: Window | None = None
    recurrent: Literal["all", "both", "no_kv_heads", "no_kv_heads_no_ff", "interval"] | None = None
    """Which layers have a state: all; all, beside their attention; those without KV heads (and without feed-forward);
    all but every n-th (attention.recurrent_layers or full_attention_interval)."""
    interval: int = 4
    """Default of full_attention_interval."""
    attention: Literal["others", "trunk", "no_ff", "both"] = "others"
    """Which layers of a hybrid have a cache: those without a state; the same without MTP blocks; the same without
    feed-forward; all."""
    state: Literal["ssm", "wkv", "shortconv", "kda", "linear"] | None = None
    """How wide a state is (llama_hparams::n_embd_r, n_embd_s)."""
    mla: bool = False
    """Reads attention.key_length_mla and .value_length_mla; where both are there only K is cached."""
    ff_exp: Literal["required", "optional"] | None = None
    """Reads expert_feed_forward_length."""
    experts: bool = False
    """Must have experts, unless the dense lead is all there is."""
    needs_mla: bool = False
    """Fails to load without the MLA lengths."""
    output: Literal["optional", "required", "tied", "untied", "none"] = "optional"
    """output.weight: token_embd.weight stands in where it is absent; must be there; never there, always token_embd;
    may be absent and nothing stands in; there is no output matrix."""
    input: Literal["required", "tied", "target"] = "required"
    """token_embd.weight: must be there; output.weight stands in where it is absent; or the target's does."""
    rope: Literal["none", "norm", "neox", "mrope", "imrope", "mrope_or_norm", "mrope_or_neox"] = "norm"
    """"mrope_or_…": M-RoPE where rope.dimension_sections are set."""
    nextn: Literal["always", "unless_mtp"] | None = None
    """MTP blocks are skipped on loading: always, or unless they are asked for; None: they are loaded like any other."""
    nextn_loaded: tuple[str, ...] = ()
    """Tensors of skipped MTP blocks that are loaded all the same, without block number and suffix."""
    mtp: bool = False
    """There is a graph that drafts with the MTP blocks (LLM_GRAPH_TYPE_DECODER_MTP)."""
    rolls_back: bool = False
    """Its recurrent states can be taken back token by token: llm_arch_supports_rs_rollback (src/llama-arch.cpp)."""
    no_tensor_split: bool = False
    """llm_arch_supports_sm_tensor says no."""
    encoder: bool = False
    not_causal: bool = False
    """Never causal, whatever attention.causal says."""
    flash_attn_off: bool = False
    """llama_init_from_model (src/llama-context.cpp) forces flash attention off."""
    loops: bool = False
    """Runs its blocks num_loops times, each time with a cache of its own."""
    router: bool = False
    """One more block with a single head routes adapters."""
    kv_from_start: int | str = 0
    """Only the first so many layers have a cache, or all but the last so many (a key's name)."""
    value_from_lora: bool = False
    """Heads' value length is kv_lora_rank, whatever value_length says."""
    nextn_probe: bool = False
    """MTP blocks count only if their eh_proj tensor is in the file."""
    half_rot: bool = False
    """rope.dimension_count counts twice."""
    rot_is_head: bool = False
    """rope.dimension_count must be the heads' key length."""
    always_lengths: bool = False
    """Reads key_length and value_length even where the first layer has no heads."""
    lone_expert_is_dense: bool = False
    """One expert counts as none."""
    deepstack: Literal["count", "mapping"] | None = None
    """Vision features widen the embeddings input: by n_deepstack_layers, or by the entries of a mapping."""
    indexer: Literal["all", "dense_lead", "glm", "full", "shared", "array"] | None = None
    """Which attention layers have an index cache: all; all after the dense lead; by attention.indexer.types, which are
    GLM's own, all set, none set or an error where the key is absent."""
    cache_of_nextn: bool = False
    """MTP blocks get cache cells in a plain run, too."""
    rope_layers: Literal["trunk", "all", "dense"] = "trunk"
    """Which layers get rope_freqs or rope_factors of their own: blocks without MTP; all; those without a window."""
    output_first: bool = False
    """Creates the output matrix before token_embd, so that the two are never shared."""
    wide_output: bool = False
    """The embeddings output is hyper_connection.count times as wide."""
    target_context: bool = False
    """A draft that lives on the target's cache: none of its own, and no run without the target."""
    features: bool = False
    """n_embd is features_length, embedding_length is the output's."""

    @property
    def path(self) -> str:
        """llama.cpp's file for this architecture."""
        return f"src/models/{self.source or self.name}.cpp"


RMS, LN = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
SHARED, GATING, DENSE_LEAD = "expert_shared_count", "expert_gating_func", "leading_dense_block_count"
LOGIT_SCALE, SECTIONS, SSM_GROUPS = "logit_scale", "rope.dimension_sections", "ssm.group_count"
SSM = ("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank")
INDEXER = ("attention.indexer.head_count", "attention.indexer.key_length", "attention.indexer.top_k")
MLA = ("attention.key_length_mla", "attention.value_length_mla")
NEXTN_ENDS = ("nextn.embed_tokens", "nextn.shared_head_head", "nextn.shared_head_norm")
FFN = ("ffn_gate", "ffn_up", "ffn_down", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_gate_up_exps", "ffn_down_exps",
       "exp_probs_b", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")  # fmt: skip

# A row is read across, so the formatter keeps out.
# fmt: off
ROWS = (
    Row("clip", loadable=False, output="none", rope="none"),
    Row("llama", needs=(RMS,), rope="norm", rot_is_head=True),
    Row("llama4", needs=(RMS, "interleave_moe_layer_step"), window=Window(4, when="not_zero", forced=8192,
        kind="chunked"), ff_exp="required", rope="norm"),
    Row("deci", needs=(RMS,), rope="norm", rot_is_head=True),
    Row("falcon", needs=(LN,), rope="neox", rot_is_head=True),
    Row("grok", needs=(RMS,), ff_exp="optional", rope="neox", no_tensor_split=True, flash_attn_off=True, experts=True),
    Row("gpt2", needs=(LN,), rope="none"),
    Row("gptj", loadable=False, output="none", rope="none"),
    Row("gptneox", needs=(LN, "use_parallel_residual"), output="required", rope="neox"),
    Row("mpt", needs=(LN,), rope="none", no_tensor_split=True),
    Row("baichuan", needs=(RMS,), output="required", rope="norm"),
    Row("starcoder", needs=(LN,), rope="norm"),
    Row("refact", needs=(RMS,), rope="none"),
    Row("bert", needs=(LN,), memory="none", output="none", rope="neox"),
    Row("modern-bert", needs=(LN,), memory="none", window=Window(3, dense_first=True, kind="symmetric"), output="none",
        rope="neox"),
    Row("nomic-bert", needs=(LN,), memory="none", output="none", rope="neox"),
    Row("nomic-bert-moe", needs=(LN,), memory="none", output="none", rope="neox"),
    Row("neo-bert", needs=(RMS,), memory="none", output="none", rope="norm"),
    Row("jina-bert-v2", needs=(LN,), memory="none", output="none", rope="none"),
    Row("jina-bert-v3", needs=(LN,), memory="none", output="none", rope="neox"),
    Row("eurobert", needs=(RMS,), memory="none", output="none", rope="neox"),
    Row("bloom", needs=(LN,), rope="none"),
    Row("stablelm", needs=(LN,), output="required", rope="neox"),
    Row("qwen", needs=(RMS,), output="required", rope="neox"),
    Row("qwen2", needs=(RMS,), rope="neox"),
    Row("qwen2moe", needs=(RMS,), ff_exp="optional", output="required", rope="neox", experts=True),
    Row("qwen2vl", needs=(SECTIONS,), rope="mrope"),
    Row("qwen3", needs=(RMS,), rope="neox"),
    Row("qwen3moe", needs=(RMS,), ff_exp="optional", rope="neox", experts=True),
    Row("qwen3next", needs=(RMS, *SSM, SSM_GROUPS), memory="hybrid", recurrent="interval", attention="trunk",
        state="ssm", ff_exp="optional", rope="neox", nextn="unless_mtp", mtp=True, experts=True),
    Row("qwen3vl", needs=(SECTIONS, RMS), rope="imrope", deepstack="count"),
    Row("qwen3vlmoe", needs=(SECTIONS, RMS), ff_exp="optional", rope="imrope", deepstack="count", experts=True),
    Row("qwen35", needs=(RMS, SECTIONS, *SSM, SSM_GROUPS), memory="hybrid", recurrent="interval", attention="trunk",
        state="ssm", rope="imrope", nextn="unless_mtp", mtp=True, rolls_back=True),
    Row("qwen35moe", needs=(RMS, SECTIONS, *SSM, SSM_GROUPS), memory="hybrid", recurrent="interval", attention="trunk",
        state="ssm", ff_exp="optional", rope="imrope", nextn="unless_mtp", mtp=True, rolls_back=True,
        experts=True),
    Row("qwen4exp", needs=(RMS, SECTIONS, *SSM, SSM_GROUPS, "hyper_connection.count", "hyper_connection.low_rank",
        *INDEXER), memory="hybrid_idx", recurrent="interval", attention="trunk", state="ssm", ff_exp="optional",
        rolls_back=True, rope="imrope", no_tensor_split=True, indexer="all", wide_output=True, experts=True),
    Row("phi2", needs=(LN,), output="required", rope="neox"),
    Row("phi3", needs=(RMS,), window=Window(1, when="never"), rope="neox"),
    Row("phimoe", needs=(RMS,), output="required", rope="neox", experts=True),
    Row("plamo", needs=(RMS,), output="required", rope="neox"),
    Row("plamo2", needs=(RMS, *SSM, SSM_GROUPS), memory="hybrid", recurrent="no_kv_heads", state="ssm", rope="neox",
        no_tensor_split=True, always_lengths=True),
    Row("plamo3", needs=(RMS,), window=Window(8), rope="neox"),
    Row("codeshell", needs=(LN,), output="required", rope="neox", input="tied"),
    Row("orion", needs=(LN,), output="required", rope="neox"),
    Row("internlm2", needs=(RMS,), output="required", rope="norm"),
    Row("minicpm", needs=(RMS,), rope="norm"),
    Row("minicpm3", needs=(RMS, "attention.q_lora_rank", "attention.kv_lora_rank"), rope="neox", no_tensor_split=True),
    Row("gemma", needs=(RMS,), output="tied", rope="neox"),
    Row("gemma2", needs=(RMS,), window=Window(2, when="always", default=4096), output="tied", rope="neox"),
    Row("gemma3", needs=(RMS,), window=Window(6), rope="neox"),
    Row("gemma3n", needs=(RMS,), window=Window(5, key="required", when="always"), rope="neox", no_tensor_split=True,
        kv_from_start=20, output_first=True),
    Row("gemma4", needs=(RMS, "embedding_length_per_layer_input", "attention.key_length_swa",
        "attention.value_length_swa"), window=Window(layers="array", key="required", when="always"), ff_exp="optional",
        rope="neox", kv_from_start="attention.shared_kv_layers", rope_layers="dense", output_first=True),
    Row("gemma4-assistant", needs=(RMS, "attention.key_length_swa", "attention.value_length_swa"),
        window=Window(layers="array", key="required", when="always"), output="tied", rope="neox",
        rope_layers="dense", target_context=True),
    Row("gemma-embedding", needs=(RMS,), memory="none", window=Window(6, key="required", when="always",
        kind="symmetric"), rope="neox", not_causal=True),
    Row("starcoder2", needs=(LN,), rope="neox"),
    Row("mamba", needs=(*SSM, RMS), memory="recurrent", recurrent="all", state="ssm", rope="none",
        no_tensor_split=True),
    Row("mamba2", needs=(*SSM, SSM_GROUPS, RMS), memory="recurrent", recurrent="all", state="ssm", rope="none",
        no_tensor_split=True),
    Row("maple", needs=(RMS, "swiglu_clamp_exp"), window=Window(layers="array", key="required", when="always"),
        ff_exp="required", output="required", rope="neox", experts=True),
    Row("jamba", needs=(*SSM, RMS), memory="hybrid", recurrent="no_kv_heads", state="ssm", rope="none",
        no_tensor_split=True),
    Row("falcon-h1", needs=(RMS, *SSM, SSM_GROUPS), memory="hybrid", recurrent="both", attention="both", state="ssm",
        rope="neox", no_tensor_split=True),
    Row("xverse", needs=(RMS,), output="required", rope="norm"),
    Row("command-r", needs=(LN,), output="tied", rope="norm"),
    Row("cohere2", needs=(LOGIT_SCALE, LN), window=Window(4, key="required", when="always"), output="tied",
        rope="norm"),
    Row("cohere2moe", needs=(LOGIT_SCALE, DENSE_LEAD), window=Window(4, key="required", when="always",
        dense_first=True), ff_exp="required", rope="norm", nextn="unless_mtp", mtp=True, nextn_loaded=NEXTN_ENDS,
        experts=True),
    Row("dbrx", needs=(LN, "attention.clamp_kqv"), output="required", rope="neox", experts=True),
    Row("olmo", needs=(LN,), rope="norm"),
    Row("olmo2", needs=(RMS,), window=Window(4), output="required", rope="neox", no_tensor_split=True),
    Row("olmoe", needs=(RMS,), output="required", rope="neox", no_tensor_split=True, experts=True),
    Row("muse-glimmer", needs=(RMS, LOGIT_SCALE), window=Window(4, key="required", when="always"), output="required",
        rope="norm"),
    Row("openelm", needs=(RMS,), output="tied", rope="neox"),
    Row("arctic", needs=(RMS,), rope="norm", experts=True),
    Row("deepseek", needs=(RMS, SHARED), ff_exp="required", rope="norm", experts=True),
    Row("deepseek2", needs=(RMS, "attention.kv_lora_rank", SHARED), mla=True, ff_exp="required", rope="norm",
        nextn="unless_mtp", mtp=True, no_tensor_split=True, experts=True),
    Row("deepseek2-ocr", source="deepseek2ocr", needs=(RMS, SHARED), ff_exp="required", rope="norm", experts=True),
    Row("deepseek32", needs=(RMS, SHARED, "attention.q_lora_rank", "attention.kv_lora_rank", *INDEXER, GATING),
        memory="dsa", mla=True, ff_exp="required", rope="norm", nextn="unless_mtp", mtp=True,
        no_tensor_split=True, indexer="all", nextn_loaded=("exp_probs_b",), experts=True, needs_mla=True),
    Row("deepseek4", needs=(RMS, "attention.q_lora_rank", SHARED, "expert_weights_scale", "expert_weights_norm",
        "swiglu_clamp_exp", *INDEXER, "attention.output_group_count", "attention.output_lora_rank",
        "attention.compress_rope_freq_base", "hyper_connection.count", "hyper_connection.sinkhorn_iterations",
        "hyper_connection.epsilon", "hash_layer_count", "attention.compress_ratios", GATING), memory="dsv4",
        window=Window(layers="all", key="required", when="always"), ff_exp="required", output="required", rope="norm",
        nextn="unless_mtp", mtp=True, rolls_back=True, nextn_probe=True, wide_output=True, indexer="all"),
    Row("chatglm", needs=(RMS,), rope="norm"),
    Row("glm4", needs=(RMS,), rope="mrope_or_norm", nextn="always"),
    Row("glm4moe", source="glm4-moe", needs=(RMS, SHARED), ff_exp="required", rope="mrope_or_neox", nextn="unless_mtp",
        mtp=True, experts=True),
    Row("glm-dsa", needs=(RMS, SHARED, "attention.q_lora_rank", "attention.kv_lora_rank", *INDEXER), memory="dsa",
        mla=True, ff_exp="required", rope="norm", nextn="unless_mtp", mtp=True, no_tensor_split=True,
        indexer="glm", nextn_loaded=("exp_probs_b",), experts=True, needs_mla=True),
    Row("bitnet", needs=(RMS,), output="none", rope="neox", no_tensor_split=True),
    Row("t5", needs=(RMS, "attention.relative_buckets_count"), rope="none", no_tensor_split=True, encoder=True),
    Row("t5encoder", needs=(RMS, "attention.relative_buckets_count"), rope="none", encoder=True),
    Row("jais", needs=(LN,), output="required", rope="none"),
    Row("jais2", needs=(LN,), rope="neox"),
    Row("nemotron", needs=(LN,), output="required", rope="neox"),
    Row("nemotron_h", source="nemotron-h", needs=(*SSM, SSM_GROUPS, LN), memory="hybrid", recurrent="no_kv_heads_no_ff",
        attention="no_ff", state="ssm", ff_exp="optional", rope="none", nextn="unless_mtp", rolls_back=True,
        no_tensor_split=True),
    Row("nemotron_h_moe", source="nemotron-h", needs=(*SSM, SSM_GROUPS, LN), memory="hybrid",
        recurrent="no_kv_heads_no_ff", attention="no_ff", state="ssm", ff_exp="optional", rope="none",
        nextn="unless_mtp", mtp=True, rolls_back=True, no_tensor_split=True),
    Row("exaone", needs=(RMS,), rope="neox"),
    Row("exaone4", needs=(RMS,), window=Window(4, when="n_layer_64", default=4096), rope="neox", nextn="always"),
    Row("exaone-moe", needs=(RMS, GATING), window=Window(4, key="required", when="always", default=128),
        ff_exp="required", output="required", rope="neox", nextn="always", experts=True),
    Row("rwkv6", needs=("wkv.head_size", "time_mix_extra_dim", "time_decay_extra_dim"), memory="recurrent",
        recurrent="all", state="wkv", output="required", rope="none"),
    Row("rwkv6qwen2", needs=("wkv.head_size", "time_mix_extra_dim", "time_decay_extra_dim"), memory="recurrent",
        recurrent="all", state="wkv", output="required", rope="none"),
    Row("rwkv7", needs=("wkv.head_size", "attention.decay_lora_rank", "attention.iclr_lora_rank",
        "attention.value_residual_mix_lora_rank"), memory="recurrent", recurrent="all", state="wkv", output="required",
        rope="none"),
    Row("arwkv7", needs=("wkv.head_size", "attention.decay_lora_rank", "attention.iclr_lora_rank",
        "attention.value_residual_mix_lora_rank"), memory="recurrent", recurrent="all", state="wkv", output="required",
        rope="none"),
    Row("granite", needs=(RMS, LOGIT_SCALE), rope="norm", deepstack="mapping"),
    Row("granitemoe", source="granite-moe", needs=(RMS, LOGIT_SCALE), rope="norm"),
    Row("granitehybrid", source="granite-hybrid", needs=(RMS, *SSM, SSM_GROUPS), memory="hybrid",
        recurrent="no_kv_heads", state="ssm", rope="norm", no_tensor_split=True),
    Row("graniteswitch", source="granite-switch", needs=(RMS, LOGIT_SCALE, "adapters.count", "adapters.lora_rank",
        "adapters.token_ids_activate", "adapters.token_ids_substitute"), rope="norm", router=True),
    Row("granite_swa", source="granite-swa", needs=(RMS, LOGIT_SCALE), window=Window(layers="array", key="required",
        when="always"), rope="norm", deepstack="mapping"),
    Row("chameleon", needs=(RMS,), rope="norm"),
    Row("wavtokenizer-dec", needs=(LN, "attention.group_norm_epsilon", "attention.group_norm_groups"), memory="none",
        output="required", rope="none", features=True),
    Row("plm", needs=(RMS, "attention.kv_lora_rank"), output="tied", rope="norm"),
    Row("bailingmoe", needs=(RMS, SHARED), ff_exp="required", output="required", rope="norm", experts=True),
    Row("bailingmoe2", needs=(RMS, SHARED, GATING), ff_exp="required", output="required", rope="neox", nextn="always",
        experts=True),
    Row("bailingmoe3", needs=(RMS, *MLA, "attention.kv_lora_rank", "ssm.conv_kernel", "kda.head_dim",
        "kda.gate_lower_bound", SHARED, DENSE_LEAD, GATING), memory="hybrid", recurrent="no_kv_heads", state="kda",
        mla=True, ff_exp="required", rope="mrope_or_norm", nextn="unless_mtp", mtp=True, rolls_back=True,
        no_tensor_split=True),
    Row("dots1", needs=(RMS, SHARED), ff_exp="required", output="required", rope="neox", experts=True),
    Row("dots3note", needs=(RMS, SHARED, DENSE_LEAD, GATING, "attention.q_lora_rank", "attention.kv_lora_rank", *MLA,
        "attention.kv_lora_rank_swa", "attention.key_length_mla_swa", "attention.value_length_mla_swa",
        "rope.freq_base_swa", *INDEXER, "attention.indexer.types"), memory="dsa_iswa", window=Window(layers="array",
        key="required", when="always"), mla=True, ff_exp="required", rope="norm", nextn="always", no_tensor_split=True,
        indexer="array", experts=True, needs_mla=True),
    Row("arcee", needs=(RMS,), rope="norm"),
    Row("afmoe", needs=(RMS, SHARED), window=Window(4), ff_exp="required", rope="neox"),
    Row("laguna", needs=(RMS, DENSE_LEAD), window=Window(4, dense_first=True), ff_exp="required", rope="neox"),
    Row("ernie4_5", source="ernie4-5", needs=(RMS,), rope="norm"),
    Row("ernie4_5-moe", source="ernie4-5", needs=(RMS, "interleave_moe_layer_step"), ff_exp="required", rope="norm"),
    Row("hunyuan-moe", needs=(RMS,), ff_exp="required", rope="neox"),
    Row("hunyuan-dense", source="hunyuan-vl", needs=(RMS,), rope="neox", lone_expert_is_dense=True),
    Row("hunyuan_vl", source="hunyuan-vl", needs=(RMS,), rope="mrope_or_neox", lone_expert_is_dense=True),
    Row("hy_v3", source="hy-v3", needs=(RMS,), ff_exp="required", rope="neox", nextn="unless_mtp", mtp=True,
        nextn_loaded=(*FFN, *NEXTN_ENDS)),
    Row("hy_v4", source="hy-v4", needs=(RMS, "attention.q_lora_rank", "attention.kv_lora_rank", *MLA, SHARED,
        "hyper_connection.count", "hyper_connection.epsilon", "hyper_connection.magnitude"), memory="dsa", mla=True,
        ff_exp="required", output="required", rope="norm", no_tensor_split=True, indexer="shared", cache_of_nextn=True,
        experts=True),
    Row("smollm3", needs=(RMS,), rope="norm"),
    Row("gpt-oss", source="openai-moe", needs=(RMS,), window=Window(2, key="required", when="always"),
        ff_exp="required", output="required", rope="neox"),
    Row("lfm2", needs=("shortconv.l_cache", RMS), memory="hybrid", window=Window(layers="attention"),
        recurrent="no_kv_heads", rolls_back=True, state="shortconv", rope="neox"),
    Row("lfm2moe", needs=("shortconv.l_cache", RMS, GATING), memory="hybrid", recurrent="no_kv_heads", rolls_back=True,
        state="shortconv", ff_exp="required", rope="neox"),
    Row("dream", needs=(RMS,), memory="none", rope="neox", not_causal=True),
    Row("smallthinker", needs=(RMS,), window=Window(4, dense_first=True, forced=4096), ff_exp="optional", rope="neox",
        experts=True),
    Row("llada", needs=(RMS,), memory="none", rope="norm", not_causal=True),
    Row("llada-moe", needs=(RMS,), memory="none", ff_exp="optional", output="required", rope="neox", not_causal=True,
        experts=True),
    Row("seed_oss", source="seed-oss", needs=(RMS,), rope="neox"),
    Row("grovemoe", needs=("expert_group_scale", "experts_per_group", RMS), ff_exp="required", rope="neox",
        experts=True),
    Row("apertus", needs=(RMS, "xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps"), output="required",
        rope="neox"),
    Row("minimax-01", needs=(RMS, "residual_scale"), memory="hybrid", recurrent="interval", attention="trunk",
        state="linear", rope="neox", no_tensor_split=True, interval=8, experts=True),
    Row("hrm_text", source="hrm-text", needs=(RMS, "hrm.layers_per_stack", "hrm.h_cycles", "hrm.l_cycles"),
        rope="neox"),
    Row("minimax-m2", needs=(RMS,), ff_exp="required", output="required", rope="neox", no_tensor_split=True),
    Row("minimax-m3", needs=(RMS, SHARED, GATING, *INDEXER, "attention.indexer.block_size",
        "attention.indexer.local_blocks"), memory="msa", ff_exp="required", output="required", rope="neox",
        no_tensor_split=True, indexer="dense_lead"),
    Row("cogvlm", needs=(RMS,), rope="neox"),
    Row("rnd1", needs=(RMS,), memory="none", ff_exp="optional", rope="neox", not_causal=True, experts=True),
    Row("pangu-embedded", source="pangu-embed", needs=(RMS,), rope="neox"),
    Row("mistral3", needs=(RMS,), rope="norm"),
    Row("eagle3", needs=(RMS, "target_hidden_size"), rope="norm", output="untied", encoder=True,
        input="target"),
    Row("dflash", needs=(RMS,), window=Window(layers="draft"), rope="mrope", encoder=True, input="target",
        ff_exp="optional"),
    Row("mistral4", source="deepseek2", needs=(RMS, "attention.kv_lora_rank", SHARED), mla=True, ff_exp="required",
        rope="norm", nextn="unless_mtp", mtp=True, no_tensor_split=True, experts=True),
    Row("paddleocr", source="ernie4-5", needs=(RMS,), rope="mrope"),
    Row("mimo2", needs=(RMS,), window=Window(layers="array", key="required", when="always"), ff_exp="required",
        output="required", rope="neox", nextn="unless_mtp", mtp=True),
    Row("step35", needs=(RMS,), window=Window(layers="array", key="required", when="always"), ff_exp="required",
        output="required", rope="neox", nextn="unless_mtp", mtp=True, half_rot=True, nextn_loaded=("attn_q_norm",
        "attn_k_norm", "attn_gate", *FFN, *NEXTN_ENDS), rope_layers="all"),
    Row("spark2_5", source="spark2-5", needs=(RMS,), window=Window(layers="array", key="required", when="always"),
        rope="neox"),
    Row("llama-embed", source="llama", needs=(RMS,), rope="norm", rot_is_head=True),
    Row("maincoder", needs=(RMS,), rope="norm"),
    Row("kimi-linear", needs=(RMS, *MLA, "attention.kv_lora_rank", "ssm.conv_kernel", "kda.head_dim", SHARED, GATING),
        memory="hybrid", recurrent="no_kv_heads", state="kda", mla=True, ff_exp="required", output="required",
        rope="none", no_tensor_split=True),
    Row("kimi-k3", needs=(RMS, *MLA, "attention.kv_lora_rank", "ssm.conv_kernel", "kda.head_dim", SHARED, GATING,
        "attn_res.block_size", "activation.situ_beta", "activation.situ_linear_beta"), memory="hybrid",
        recurrent="no_kv_heads", rolls_back=True, state="kda", mla=True, ff_exp="required", output="required", rope="none",
        no_tensor_split=True, value_from_lora=True),
    Row("glm5-next", needs=(RMS, *MLA, "attention.q_lora_rank", "attention.kv_lora_rank", "ssm.conv_kernel",
        "kda.head_dim", SHARED, *INDEXER, "attention.indexer.kpool", "hyper_connection.count",
        "hyper_connection.sinkhorn_iterations", "hyper_connection.epsilon"), memory="hybrid_idx",
        recurrent="no_kv_heads", attention="trunk", state="kda", mla=True, ff_exp="required", output="required",
        rope="none", nextn="unless_mtp", rolls_back=True, no_tensor_split=True, value_from_lora=True,
        indexer="full"),
    Row("talkie", needs=(RMS, LOGIT_SCALE), output="required", rope="neox"),
    Row("mellum", needs=(RMS,), window=Window(4), ff_exp="required", output="required", rope="neox", experts=True),
    Row("nanbeige", needs=(RMS,), rope="norm", loops=True),
    Row("qwen3tts", source="qwen3vl", needs=(SECTIONS, RMS), rope="imrope", no_tensor_split=True, deepstack="count"),
    Row("pockettts", needs=(LN,), output="tied", rope="norm"),
)
# fmt: on

TABLE = {row.name: row for row in ROWS}
"""By name."""

UNKNOWN = Row("")
"""What is supposed of an architecture that nobody knows: attention with a plain cache in every layer."""
