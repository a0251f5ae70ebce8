"""What each class of llama.cpp's converter has for set_vocab: one function for each that defines it (conversion/*.py)."""

import json
from collections.abc import Callable, Mapping

from fitplug.conversion.config import Config
from fitplug.conversion.vocabulary import spm_kinds as spm
from fitplug.conversion.vocabulary.beside import Beside, UnreadError
from fitplug.conversion.vocabulary.maker import MAX_TOKENS, SPM, Maker
from fitplug.conversion.vocabulary.pairs import Pairs
from fitplug.conversion.vocabulary.special import SpecialVocab, write_template
from fitplug.conversion.vocabulary.tables import owners, tables
from fitplug.conversion.vocabulary.tekken import FILE, tekken

Kind = Callable[[Maker], None]
_END = "<|endoftext|>"
_OCR = ("DeepseekOCRForCausalLM", "DeepseekOCR2ForCausalLM", "UnlimitedOCRForCausalLM")
_OCR_TEMPLATE = "{% for m in messages %}{{m['content']}}{% endfor %}"
_ASR_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_BUILT_IN = "it comes with none, and takes one of llama.cpp's own"
_DFLASH = "it is a draft, and takes its words from the model that it drafts for"


def vocabulary(beside: Beside, config: Config, architecture: str) -> Pairs:
    """The keys of the vocabulary.

    Raises:
        UnreadError: it cannot be known from the files.
    """
    owner = owners().get(config.architecture)
    kind = KINDS.get(owner or "")
    if kind is None:
        raise UnreadError(f"how the vocabulary of {config.architecture[:60]} is made is not known")
    try:
        maker = Maker(beside, config, architecture)
        _before(maker)
        kind(maker)
        _pooling(maker)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, StopIteration, RecursionError):
        raise UnreadError("its tokenizer's files are not what they should be") from None  # any shape of JSON may have come
    return maker.pairs


def _before(maker: Maker) -> None:
    """Templates that a class writes before its vocabulary, and which stand where the tokenizer has none."""
    whole = maker.beside.json_or_empty("config.json").get("architectures") or [""]
    if whole[0] in _OCR:
        write_template(maker.pairs, _OCR_TEMPLATE)
    elif maker.config.architecture.startswith("DeepseekV4"):
        maker.own_template(f"deepseek-ai-DeepSeek-V4{'-Flash-0731' if '0731' in maker.beside.folder else ''}.jinja")


def _pooling(maker: Maker) -> None:
    """_try_set_pooling_type: how sentence-transformers pools, by a list beside the weights."""
    if maker.config.architecture not in tables()["pooled"] or not maker.beside.has("modules.json"):
        return
    modules = json.loads(maker.beside.raw("modules.json"))
    if any(module["type"].endswith("Pooling") for module in modules):
        maker.pairs.number(f"{maker.architecture}.pooling_type", 0)  # whichever it is, it takes four bytes


def _llama(m: Maker) -> None:
    if m.config.get("draft_vocab_size") is not None and m.config.n_layer == 1:
        _draft(m)
    if m.beside.has(FILE) and not m.beside.has("tokenizer.json"):
        tekken(m)
        return
    prefix = m.beside.tokenizer_config.get("add_prefix_space")
    if prefix is not None:
        m.pairs.flag("tokenizer.ggml.add_space_prefix", prefix)
    if m.beside.tokenizer_config.get("tokenizer_class") == "HybridDNATokenizer":
        m.refuse()
    if not m.beside.has(SPM) and m.is_llama_hf():
        m.llama_hf()
    else:
        m.sentencepiece_or_gpt2()
    if m.n_vocab == 32016:  # CodeLlama: its prefix, suffix and middle have no keys any more
        special = SpecialVocab(m.beside, types=("eot",))
        special.set("eot", 32010)
        special.write(m.pairs)
    if m.n_vocab == 49152:
        m.pairs.flag("tokenizer.ggml.add_bos_token", False)


def _bert(m: Maker) -> None:
    tokenizer = m.tokenizer()
    words = m.words(tokenizer)
    _token_types(m)
    texts = [
        text if i in words.control else text[2:] if text.startswith("##") else f"▁{text}" for i, text in enumerate(words.texts)
    ]
    m.write("bert", texts)
    m.pre(tokenizer)
    SpecialVocab(m.beside, n_vocab=len(texts)).write(m.pairs)


def _token_types(m: Maker) -> None:
    m.pairs.number("tokenizer.ggml.token_type_count", m.config.number("type_vocab_size", default=1))


def _roberta(m: Maker) -> None:
    m.gpt2()
    _token_types(m)


def _jina2(m: Maker) -> None:
    kind = m.beside.json("tokenizer_config.json")["tokenizer_class"]
    if kind == "BertTokenizer":
        _bert(m)
    elif kind == "RobertaTokenizer":
        m.gpt2()
        if m.beside.json("tokenizer.json").get("pre_tokenizer", {}).get("type") == "Whitespace":
            m.pairs |= {"tokenizer.ggml.model": "whitespace", "tokenizer.ggml.pre": "whitespace"}
        m.pairs.number("tokenizer.ggml.token_type_count", 2)
    else:
        m.refuse()


def _flagged(kind: Kind, **flags: bool) -> Kind:
    """A kind with flags of its own before it (add_add_…_token)."""

    def make(m: Maker) -> None:
        for name, value in flags.items():
            m.pairs.flag(f"tokenizer.ggml.{name}", value)
        kind(m)

    return make


def _named(own_code: bool, **special: str) -> Kind:
    """_set_vocab_gpt2 with special tokens found by their words."""
    return lambda m: m.gpt2(tokenizer=m.tokenizer(own_code=own_code), special=special)


def _raw_words(*, bos: bool) -> Kind:
    """A get_vocab_base of the class's own, which leaves added tokens as they are."""

    def make(m: Maker) -> None:
        tokenizer = m.tokenizer(own_code=True)
        m.gpt2(m.words(tokenizer, decode=False), tokenizer)
        if bos:
            m.pairs.flag("tokenizer.ggml.add_bos_token", True)

    return make


def _chatglm(m: Maker) -> None:
    if "THUDM/chatglm3-6b" in str(m.config.get("_name_or_path") or ""):
        m.refuse()
    _named(True, eos=_END, eot="<|user|>", unk=_END)(m)


def _mamba(m: Maker) -> None:
    m.pad_vocabulary(m.config.number("pad_vocab_size_multiple", default=8))
    _either(m, "tokenizer.json", m.gpt2, SPM, m.sentencepiece)


def _mamba2(m: Maker) -> None:
    m.pad_vocabulary(m.config.number("pad_vocab_size_multiple", default=16))
    _either(m, SPM, m.sentencepiece, "tokenizer.json", m.gpt2)


def _granite_hybrid(m: Maker) -> None:
    recurrent = m.architecture == "granitehybrid"
    m.pad_vocabulary(8 if recurrent else 1)
    _either(m, SPM, m.sentencepiece, "tokenizer.json", m.gpt2)


def _either(m: Maker, name: str, kind: Callable[[], None], other: str, other_kind: Callable[[], None]) -> None:
    if m.beside.has(name):
        kind()
    elif m.beside.has(other):
        other_kind()
    else:
        raise UnreadError(_BUILT_IN)


def _openelm(m: Maker) -> None:
    if not m.beside.has(SPM):
        raise UnreadError(_BUILT_IN)
    m.sentencepiece()


def _nemotron_h(m: Maker) -> None:
    m.pad_vocabulary(8)
    m.gpt2(tokenizer=m.tokenizer(own_code=True))


def _gemma3(m: Maker) -> None:
    if m.beside.has(SPM):
        spm.spaceless(m)
    else:
        m.gpt2()


def _gemma4(m: Maker) -> None:
    words = m.llama_hf_words()
    m.write("gemma4", words, scores=True)
    SpecialVocab(m.beside, load_merges=True).write(m.pairs)
    m.pairs.flag("tokenizer.ggml.add_space_prefix", False)
    m.pairs.flag("tokenizer.ggml.add_bos_token", True)
    suppressed = m.beside.json_or_empty("generation_config.json").get("suppress_tokens")
    if suppressed and m.config.architecture == "Gemma4UnifiedForConditionalGeneration":
        m.pairs.numbers("tokenizer.ggml.suppress_tokens", len(suppressed))


def _refact(m: Maker) -> None:
    m.gpt2()
    SpecialVocab(m.beside, types=("eot",)).write(m.pairs)  # prefix, suffix and middle have no keys any more


def _hunyuan(m: Maker) -> None:
    if not m.beside.has("tokenizer.json"):
        m.refuse()
    pad = m.config.get("pad_token_id")
    without_pad = isinstance(pad, int) and pad < 0
    m.gpt2(
        types=("bos", "eos", "unk", "sep", "cls", "mask") if without_pad else ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    )
    end = m.config.get("eod_token_id")
    if isinstance(end, int):
        m.pairs.number("tokenizer.ggml.eos_token_id", end)
    ends = m.beside.json_or_empty("generation_config.json").get("eos_token_id")
    if isinstance(ends, list) and len(ends) >= 2:
        m.pairs.number("tokenizer.ggml.eot_token_id", ends[0])


def _laguna(m: Maker) -> None:
    m.gpt2()
    if m.beside.has("chat_template.jinja"):
        m.pairs.text("tokenizer.chat_template", m.beside.text("chat_template.jinja"))
    bos = m.config.get("bos_token_id")
    others = [one for one in m.config.items("eos_token_id") if one != bos]
    if others:
        m.pairs.number("tokenizer.ggml.eot_token_id", others[0])  # type: ignore[arg-type]  # checked there


def _minimax(m: Maker) -> None:
    m.gpt2()
    if m.beside.has("chat_template.jinja"):
        m.pairs.text("tokenizer.chat_template", m.beside.text("chat_template.jinja"))
    else:
        m.own_template("MiniMax-M1.jinja")


def _kimi_k3(m: Maker) -> None:
    m.gpt2()
    eos = m.config.get("eos_token_id")
    if isinstance(eos, int):
        m.pairs.number("tokenizer.ggml.eos_token_id", eos)
    if SpecialVocab(m.beside).template is None:
        m.own_template("Kimi-K3.jinja")


def _muse(m: Maker) -> None:
    tokenizer = m.tokenizer()
    m.gpt2(tokenizer=tokenizer)
    number = tokenizer.number("<|eot|>")
    unknown = tokenizer.token("unk_token")
    number = tokenizer.number(unknown) if number is None and unknown else number
    if number is not None:
        m.pairs.number("tokenizer.ggml.eot_token_id", number)


def _qwen3(m: Maker) -> None:
    if "InternS1" in str(m.config.get("architectures")):
        m.refuse()
    m.sentencepiece_or_gpt2()


def _qwen3_moe(m: Maker) -> None:
    if "InternS1" in str(m.config.get("architectures")):
        m.refuse()
    m.gpt2()


def _turns(base: Kind) -> Kind:
    """Qwen's models that hear: the end of a turn is the end of the text."""

    def make(m: Maker) -> None:
        base(m)
        for number, entry in m.decoder_tokens():
            if entry.get("content") == "<|im_end|>":
                m.pairs.number("tokenizer.ggml.bos_token_id", number)
                m.pairs.number("tokenizer.ggml.eos_token_id", number)
                break

    return make


def _qwen3_asr(m: Maker) -> None:
    _qwen3(m)
    write_template(m.pairs, _ASR_TEMPLATE)


def _qwen3_tts(m: Maker) -> None:
    """Words of text, then one for each code of sound, called by what config.json says of it, and no template."""
    talker = m.beside.json("config.json")["talker_config"]
    if talker["vocab_size"] > MAX_TOKENS:
        raise UnreadError("config.json has more codes than any")
    names = [f"<|codec_{i}|>" for i in range(talker["vocab_size"])]
    for prefix, value in ((key.removesuffix("_id"), value) for key, value in talker.items() if key.endswith("_id")):
        if isinstance(value, int):
            names[value] = f"<|{prefix}|>"
        elif isinstance(value, dict):
            for part, number in value.items():
                names[number] = f"<|{prefix}_{part}|>"
    m.n_vocab = talker["text_vocab_size"]
    if m.beside.has(SPM):
        words = [*m.create_sentencepiece(), *(name.encode() for name in names)]
        m.write("llama", words, scores=True, pre="default")
        SpecialVocab(m.beside, n_vocab=len(words)).write(m.pairs)
        return
    tokenizer = m.tokenizer()
    text = m.words(tokenizer)
    m.gpt2(text._replace(texts=[*text.texts, *names]), tokenizer)
    m.pairs.pop("tokenizer.chat_template", None)


def _grok(m: Maker) -> None:
    if not m.beside.has(SPM) and not (m.beside.has("tokenizer.json") and m.beside.has("chat_template.jinja")):
        m.refuse()
    m.sentencepiece_or_gpt2()


def _deci(m: Maker) -> None:
    if m.n_vocab in (None, 128256):
        m.gpt2()
    else:
        m.llama_hf()


def _jamba(m: Maker) -> None:
    if m.beside.has(SPM):
        m.sentencepiece()
    else:
        m.llama_hf()
        m.pairs.flag("tokenizer.ggml.add_space_prefix", False)


def _stablelm(m: Maker) -> None:
    if not m.beside.has("tokenizer.json"):
        m.refuse()
    m.gpt2()


def _draft(_: Maker) -> None:
    raise UnreadError(_DFLASH)


_GLM = _named(False, bos="[gMASK]", eot="<|user|>", unk=_END, eom="<|observation|>")
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(
        ("TextModel", "BailingMoeModel", "BailingMoeV2Model", "BailingMoeV3Model", "ChameleonModel", "DeepseekV32Model",
         "DeepseekV2Model", "Exaone4Model", "FalconH1Model", "GptOssModel", "HYV3Model", "HrmTextModel", "JaisModel",
         "KimiLinearModel", "Llama4Model", "MPTModel", "PLMModel"), Maker.gpt2,
    ),
    **dict.fromkeys(
        ("BaichuanModel", "BitnetModel", "MiniCPMModel", "MiniCPM3Model", "OrionModel", "PlamoModel"), Maker.sentencepiece
    ),
    **dict.fromkeys(
        ("Qwen2Model", "Qwen2VLModel", "DeepseekModel", "RWKV6Qwen2Model", "ARwkv7Model"), Maker.sentencepiece_or_gpt2
    ),
    **dict.fromkeys(("Glm4MoeModel", "Glm4MoeLiteModel", "Glm5NextModel", "GlmMoeDsaModel"), _GLM),
    **dict.fromkeys(("DFlashModel", "DeepseekV4DSparkModel", "Gemma4DSparkModel", "MuseGlimmerAssistantModel"), _draft),
    **dict.fromkeys(("HunYuanMoEModel", "QwenModel", "PocketTTSModel"), Maker.refuse),
    **dict.fromkeys(("T5Model", "T5EncoderModel"), spm.t5),
    **dict.fromkeys(("LFM25AudioTokenizer", "WavTokenizerDecModel"), Maker.none),
    **dict.fromkeys(("Ernie4_5Model", "PanguEmbeddedModel"), spm.with_prefix),
    **dict.fromkeys(("Rwkv6Model", "Rwkv7Model"), spm.rwkv),
    "LlamaModel": _llama, "Mistral3Model": lambda m: m.gpt2() if m.config.get("model_type") == "mistral4" else _llama(m),
    "ArcticModel": spm.arctic, "BertModel": _bert, "ChatGLMModel": _chatglm, "DeciModel": _deci,
    "Dots3NoteModel": _named(False, eot="<|endofassistant|>"), "DreamModel": lambda m: (
        m.sentencepiece() if m.beside.has(SPM) else _raw_words(bos=False)(m)),
    "EuroBertModel": _flagged(Maker.gpt2, add_bos_token=False), "Gemma2Model": spm.spaceless, "Gemma3Model": _gemma3,
    "Gemma3NModel": _gemma3, "Gemma4Model": _gemma4, "GemmaModel": spm.gemma,
    "Glm4Model": _named(True, eos=_END, eot="<|user|>", unk=_END, bos=_END),
    "GraniteHybridModel": _granite_hybrid, "GrokModel": _grok, "HunYuanModel": _hunyuan, "InternLM2Model": spm.internlm2,
    "InternLM3Model": spm.internlm3, "JambaModel": _jamba, "JinaBertV2Model": _jina2, "KimiK3Model": _kimi_k3,
    "LLaDAModel": _raw_words(bos=True), "LagunaModel": _laguna, "Mamba2Model": _mamba2,
    "MambaModel": _mamba, "MiniMaxText01Model": _minimax,
    "ModernBertModel": _flagged(Maker.gpt2, add_bos_token=True, add_eos_token=True, add_sep_token=True),
    "MuseGlimmerModel": _muse, "NemotronHModel": _nemotron_h, "NemotronModel": spm.nemotron, "NomicBertModel": lambda m: (
        spm.xlm_roberta(m) if m.beside.json("tokenizer.json")["model"]["type"] == "Unigram" else _bert(m)),
    "OpenELMModel": _openelm, "Phi3MiniModel": spm.phi3, "Plamo2Model": spm.plamo2, "Plamo3Model": spm.plamo3,
    "Qwen3ASRTextModel": _turns(_qwen3_asr), "Qwen3Model": _qwen3, "Qwen3MoeModel": _qwen3_moe,
    "Qwen3TTSTalkerModel": _qwen3_tts, "Qwen3OmniMoeTextModel": _turns(_qwen3_moe), "RefactModel": _refact,
    "RobertaModel": _roberta,
    "SolarOpenModel": _named(False, eos=_END, eot=_END, unk="<unk>", bos="<|startoftext|>"), "StableLMModel": _stablelm,
    "XLMRobertaModel": spm.xlm_roberta, "XverseModel": spm.xverse,
}  # fmt: skip
"""By the class of the converter that defines set_vocab."""
