"""Which tensors of a projector's file are loaded (clip_model_loader::load_tensors, tools/mtmd/clip.cpp)."""

import re
from collections.abc import Iterable, Mapping
from functools import cache

WB = r"\.(weight|bias)"

EVERY = (
    r"v\.class_embd|@\.(pre_ln|post_ln)" + WB + r"|v\.patch_embd" + WB + r"|v\.patch_embd\.weight\.1|v\.norm_embd" + WB
    + r"|@\.position_embd\.weight"
)  # fmt: skip
"""What each encoder asks for; @ stands for the encoder's own prefix."""
BLOCK = (
    r"@\.blk\.#\.((attn_k|attn_q|attn_v|attn_out|attn_qkv|ln1|ln2|ffn_up|ffn_gate|ffn_down)" + WB
    + r"|(attn_k_norm|attn_q_norm|ls1|ls2|out_scale|attn_post_norm|ffn_post_norm|ffn_gate_inp|ffn_gate_exps|ffn_up_exps"
    + r"|ffn_down_exps|exp_probs_b)\.weight|attn_sinks)|v\.deepstack\.#\.(norm|fc1|fc2)" + WB
)  # fmt: skip
"""And of each of its blocks; # is a block's number."""

NO_BLOCKS = frozenset(("gemma3nv", "qwen3tts_spkenc", "pockettts_gen"))
"""Those whose blocks are something else."""

_MLP = r"mm\.[%s]" + WB
_INPUT_NORM = r"|mm\.input_norm" + WB
_CONV_1D = r"a\.conv1d\.[12]" + WB + r"|"
_CONV_2D = r"a\.conv2d\.[123]" + WB + r"|a\.conv_out\.weight|"
_MVLM = r"mm\.model\.mlp\.[%s]"
_GLM = r"mm\.model\.fc\.weight|mm\.(up|gate|down|post_norm|patch_merger)" + WB
_PIXTRAL = _MLP % "12" + r"|mm\.(input_norm|patch_merger)\.weight"
_DOTS = _MLP % "02" + _INPUT_NORM + r"|mm\.post_norm\.weight"
_SAM = (
    r"v\.sam\.(pos_embd\.weight|patch_embd" + WB + r"|net_[23]\.weight|neck\.[02]\.weight|neck\.[13]" + WB
    + r"|blk\.\d+\.((pre_ln|post_ln|attn\.qkv|attn\.out|mlp\.lin1|mlp\.lin2)" + WB + r"|attn\.pos_[hw]\.weight))"
    + r"|v\.image_newline|v\.view_seperator|mm\.model\.fc" + WB + r"|v\.resample_query_(768|1024)\.weight"
)  # fmt: skip
_STAGE = r"v\.blk\.\d+\.\d+\."
_MOBILENET = (
    r"v\.conv_stem\.(conv" + WB + r"|bn\.weight)|v\.msfa\.(ffn\.pw_(exp|proj)\.(conv|bn)\.weight|norm\.weight)|"
    + _STAGE + r"(conv_exp|bn1|conv_pwl|bn2)\.weight|" + _STAGE + r"(dw_start|dw_mid|pw_exp|pw_proj)\.(conv|bn)\.weight|"
    + _STAGE + r"layer_scale\.gamma|" + _STAGE + r"(attn\.((query|key|value|output)\.proj|(key|value)\.(down_conv|norm))"
    + r"|norm)\.weight|mm\.(input_projection|soft_emb_norm)\.weight"
)  # fmt: skip
_CONV_MODULE = r"(conv_pw1|conv_pw2|conv_dw|conv_norm|norm_conv)" + WB
_CONFORMER = r"a\.conv1d\.[02356]" + WB + r"|a\.pre_encode\.out" + WB
_HALF_FFN = r"(ffn_norm|ffn_norm_1|ffn_up_1|ffn_down_1)" + WB
_QFORMER = r"(self_attn_(q|k|v|out|norm)|cross_attn_(q|k|v|out|norm)|ffn_up|ffn_down|ffn_norm)" + WB
_WAV_BLOCK = r"(ln1|ln2)" + WB + r"|(attn_q|attn_k|attn_v|attn_out|ls1|ls2|ffn_gate|ffn_up|ffn_down)\.weight"
_DAC = r"a\.gen\.wav\.dac\."
_SEANET = r"seanet\.((conv_in|conv_out)" + WB + r"|blk\.[012]\.(res_conv1|res_conv2|scale_conv)" + WB + r")"
_GEN_CODE = (
    r"a\.gen\.code\.(proj_in" + WB + r"|(embd|head|out_embd|output_norm)\.weight)"
    + r"|a\.gen\.wav\.quant\.(first|rest)\.(in_proj|out_proj|codebook)\.weight|a\.gen\.wav\.(pre_conv|tfm\.(in|out)_proj)" + WB
    + r"|a\.gen\.wav\.tfm\.output_norm\.weight|a\.gen\.wav\.tfm\.blk\.[0-7]\.(" + _WAV_BLOCK + r")"
    + r"|a\.gen\.wav\.up\.blk\.[01]\.((conv|dwconv|norm|pw1|pw2)" + WB + r"|gamma)|" + _DAC + r"(entry|post_conv)" + WB
    + r"|" + _DAC + r"(post_snake|blk\.[0-3]\.snake)\.(alpha|beta)|" + _DAC + r"blk\.[0-3]\.conv" + WB
    + r"|" + _DAC + r"blk\.[0-3]\.res\.[012]\.(act[12]\.(alpha|beta)|conv[12]" + WB + r")"
)  # fmt: skip
_GEN_FLOW = (
    r"a\.gen\.flow\.((input_proj|cond_embd|final\.ada|final\.proj)" + WB + r"|time\.[01]\.(freqs|norm|(up|down)" + WB + r")"
    + r"|blk\.\d+\.(norm|up|down|ada)" + WB + r")|a\.gen\.out_eos" + WB + r"|a\.gen\.(input_linear\.weight|emb_mean|emb_std)"
    + r"|a\.gen\.wav\.(quant_out|upsample)\.weight|a\.gen\.wav\." + _SEANET
    + r"|a\.gen\.wav\.tfm\.blk\.#\.(" + _WAV_BLOCK + r")"
)  # fmt: skip

OWN: Mapping[str, str] = {
    "mlp": _MLP % "01234" + r"|v\.image_newline",
    "ldp": _MVLM % "13" + WB + r"|mm\.model\.mb_block\.[12]\.block\.(0\.0\.weight|0\.1" + WB + r"|1\.fc[12]" + WB
    + r"|2\.0\.weight|2\.1" + WB + r")",
    "ldpv2": _MVLM % "02" + WB + r"|mm\.model\.peg\.0" + WB,
    "resampler": r"resampler\.(pos_embed_k|query|(proj|kv)\.weight|attn\.(q|k|v|out)" + WB + r"|ln_(q|kv|post)" + WB + r")",
    "minicpmv4_6": r"v\.vit_merger\.(ln1|attn_q|attn_k|attn_v|attn_out|ds_ln|ds_ffn_up|ds_ffn_down)" + WB
    + r"|mm\.(input_norm|up|down)" + WB,
    "adapter": r"adapter\.(conv|linear\.norm1)" + WB + r"|adapter\.linear\.(linear|dense_h_to_4h|gate|dense_4h_to_h)\.weight"
    + r"|adapter\.(boi|eoi)",
    **dict.fromkeys(("qwen2vl_merger", "qwen2.5vl_merger", "exaone4_5", "qwen3vl_merger", "mimovl", "phi4"), _MLP % "02"),
    "ling3vl": _MLP % "02" + _INPUT_NORM,
    "minimax_m3": _MLP % "12" + r"|mm\.merger\.fc[12]" + WB,
    "muse-glimmer": r"mm\.[012]\.weight",
    "step3vl": _MLP % "01" + r"|mm\.model\.fc\.weight",
    "youtuvl": _MLP % "02" + r"|mm\.input_norm\.weight",
    "yasa2": _MLP % "02" + r"|v\.(patch_ln|backbone_ln)" + WB + r"|v\.vision_pos_embed|v\.stage\.\d+\.down\.(ln|conv)" + WB
    + r"|v\.stage\.\d+\.blk\.\d+\.(dw|ln|pw1|grn|pw2)" + WB,
    **dict.fromkeys(("glm4v", "glm5v"), _GLM),
    "gemma3": r"mm\.(input_projection|soft_emb_norm)\.weight",
    "gemma4v": r"mm\.input_projection\.weight|v\.std_(bias|scale)",
    "gemma4uv": r"mm\.input_projection\.weight|v\.patch_norm\.[123]" + WB,
    "gemma3nv": _MOBILENET,
    "idefics3": r"mm\.model\.fc\.weight",
    **dict.fromkeys(("lfm2", "kimivl", "paddleocr", "kimik25"), _MLP % "12" + _INPUT_NORM),
    "deepseek4v": _MLP % "12" + r"|v\.image_newline|v\.token_embd\.img_(start|end|pad)",
    "pixtral": _PIXTRAL + r"|v\.token_embd\.img_break",
    "lightonocr": _PIXTRAL,
    **dict.fromkeys(("dots_ocr", "dots3note_v"), _DOTS),
    "dots3note_a": _CONV_2D + r"mm\.a\.norm_pre" + WB + r"|mm\.a\.mlp\.[13]" + WB,
    "ultravox": _CONV_1D + r"mm\.a\.(mlp\.[12]|norm_pre|norm_mid)\.weight",
    "meralion": _CONV_1D + r"mm\.a\.(mlp\.[0123]|norm_pre)" + WB,
    "qwen2a": _CONV_1D + r"mm\.a\.fc" + WB,
    "qwen3a": _CONV_2D + r"mm\.a\.mlp\.[12]" + WB,
    "voxtral": _CONV_1D + r"mm\.a\.mlp\.[12]\.weight",
    "musicflamingo": _CONV_1D + r"mm\.a\.mlp\.[12]" + WB,
    "glma": _CONV_1D + r"mm\.a\.(mlp\.[12]|norm_pre)" + WB + r"|v\.(boi|eoi)",
    "mimo_audio": _CONV_1D + r"a\.downsample\.(conv\.weight|norm" + WB + r")|a\.rvq\.codebook\.weight|mm\.a\.code_embd\.weight"
    + r"|mm\.a\.local_blk\.\d+\.(attn_[qkv]" + WB + r"|(attn_out|ffn_gate|ffn_up|ffn_down|ln1|ln2)\.weight)"
    + r"|mm\.a\.local_norm\.weight|mm\.a\.mlp\.[12]\.weight",
    "qwen3tts_spkenc": r"a\.conv1d\.0" + WB + r"|a\.blk\.\d+\.(conv_pw1|conv_pw2|se_conv1|se_conv2|res2\.[0-6])" + WB
    + r"|a\.(conv_out|asp_attn|asp_tdnn)" + WB + r"|mm\.a\.fc" + WB,
    "pockettts_spkenc": r"a\." + _SEANET + r"|a\.(downsample\.conv|speaker_proj)\.weight",
    "qwen3tts_gen": _GEN_CODE,
    "pockettts_gen": _GEN_FLOW,
    "internvl": _MVLM % "013" + WB,
    "nemotron_v2_vl": _MVLM % "013" + r"\.weight",
    "llama4": r"mm\.model\.fc\.weight|" + _MVLM % "12" + r"\.weight",
    "cogvlm": r"mm\.(model\.fc|up|gate|down)\.weight|mm\.post_fc_norm" + WB + r"|v\.(boi|eoi)",
    "hunyuanvl": _MLP % "02" + r"|mm\.model\.fc" + WB + r"|mm\.(pre_norm|post_norm)\.weight|mm\.image_(begin|end)"
    + r"|v\.image_newline|v\.view_seperator",
    "janus_pro": _MLP % "01",
    **dict.fromkeys(("deepseekocr", "deepseekocr2"), _SAM),
    "gemma4a": r"a\.conv1d\.[01](\.norm)?" + WB + r"|a\.(input_projection|pre_encode\.out)" + WB
    + r"|mm\.a\.(soft_emb_norm|input_projection)\.weight|@\.blk\.#\.((ffn_norm|attn_pre_norm|per_dim_scale|per_dim_k_scale"
    + r"|attn_k_rel|ffn_norm_1|ffn_post_norm_1)\.weight|(ffn_up_1|ffn_down_1)" + WB + r"|" + _CONV_MODULE + r")",
    "gemma4ua": r"mm\.a\.input_projection\.weight",
    "lfm2a": _CONFORMER + r"|mm\.a\.mlp\.[013]" + WB + r"|@\.blk\.#\.(pos_bias_[uv]|linear_pos\.weight|" + _HALF_FFN + r"|"
    + _CONV_MODULE + r")",
    "parakeet": _CONFORMER + r"|mm\.a\.(norm_pre|mlp\.[12])\.weight|" + _MVLM % "013" + r"\.weight|@\.blk\.#\.(pos_bias_[uv]"
    + r"|linear_pos\.weight|conv_norm_(mean|var)|" + _HALF_FFN + r"|" + _CONV_MODULE + r")",
    "granite_speech": r"a\.(input_projection|enc_ctc_out|enc_ctc_out_mid|proj_norm|proj_linear)" + WB
    + r"|a\.proj_query|a\.proj_blk\.[01]\." + _QFORMER + r"|@\.blk\.#\.(attn_rel_pos_emb|" + _HALF_FFN
    + r"|conv_dw\.weight|(conv_pw1|conv_pw2|conv_norm|norm_conv)" + WB + r")",
    "granite4_vision": r"v\.image_newline|v\.proj_blk\.\d+\.(img_pos|query|(linear|norm|post_norm)" + WB
    + r"|" + _QFORMER + r")",
}  # fmt: skip
"""By projector type, what it asks for besides."""


@cache
def _pattern(kind: str, prefix: str, n_layer: int) -> re.Pattern[str]:
    asked = "|".join((EVERY, *([] if kind in NO_BLOCKS else [BLOCK]), OWN[kind]))
    return re.compile(asked.replace("@", re.escape(prefix)).replace("#", f"(?:{'|'.join(map(str, range(n_layer)))})"))


def held_by(names: Iterable[str], kind: str, prefix: str, n_layer: int) -> list[str]:
    """Names of the tensors that one encoder of the file loads, its blocks as many as the file says."""
    pattern = _pattern(kind, prefix, n_layer)
    return [name for name in names if pattern.fullmatch(name)]
