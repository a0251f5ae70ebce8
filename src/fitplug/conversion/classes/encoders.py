"""Encoders: BERT and its children, and T5 (conversion/bert.py, t5.py)."""

import re
from collections.abc import Iterable, Mapping

from fitplug.conversion.config import Config
from fitplug.conversion.quantize import Shape
from fitplug.conversion.row import Class, Key, Keys, Row, constant, dropped, or_else, renamed, reshaped, turned

_POOLING = {"mean": 1, "cls": 2, "lasttoken": 3}
"""gguf.PoolingType."""
_BIDIRECTIONAL: Mapping[str, Key] = {
    "attention.causal": constant(False), "classifier.pooling_type": lambda c: _POOLING.get(str(c.get("classifier_pooling"))),
    "classifier.output_labels": lambda c: _labels(c) or None,
}  # fmt: skip


def _labels(config: Config) -> tuple[str, ...]:
    """A classifier's; not those that transformers makes up (BertModel.__init__)."""
    found = {name.rpartition(".")[2]: config.get(name) for name in config.children("id2label")}
    if len(found) == 2 and found.get("0") == "LABEL_0":
        return ()
    return tuple(str(value) for _, value in sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _named_head(shape: Shape, config: Config) -> Iterable[Shape]:
    """With labels the classifier is one matrix, else a layer before one."""
    name = re.sub(r"^classifier\.(weight|bias)$", r"classifier.out_proj.\1", shape.name) if _labels(config) else shape.name
    yield shape._replace(name=name)


_BERT_STEPS = (
    renamed(r"^bert\.", ""), renamed(r"\.gamma$", ".weight"), renamed(r"\.beta$", ".bias"),
    dropped(r"^(embeddings\.position_ids|pooler\.dense\.(weight|bias))$|^cls\.(predictions|seq_relationship)"),
    _named_head,
)  # fmt: skip
BERT = Row("bert", _BIDIRECTIONAL, steps=_BERT_STEPS)


def _offset(config: Config) -> int:
    """Positions that RoBERTa keeps for itself."""
    pad = config.get("pad_token_id")
    return 1 + pad if isinstance(pad, int) and pad >= 0 else 0


def _roberta_context(config: Config) -> Keys:
    n = config.get("max_position_embeddings")
    return {"context_length": n - _offset(config)} if isinstance(n, int) else {}


def _cut_positions(shape: Shape, config: Config) -> Iterable[Shape]:
    """The first rows of the position embeddings are left out."""
    if shape.name == "embeddings.position_embeddings.weight":
        shape = shape._replace(shape=(shape.shape[0], max(1, shape.shape[1] - _offset(config))))
    yield shape


_ROBERTA = BERT._replace(derive=(_roberta_context,), steps=(renamed(r"^roberta\.", ""), *_BERT_STEPS, _cut_positions))


def _nomic_context(config: Config) -> Keys:
    n, trained = config.number("n_positions"), config.number("max_trained_positions", default=2048)
    return {"context_length": 2048 if (n, trained) == (8192, 2048) else 512}


def _nomic_class(config: Config) -> Row:
    """A mixture of experts or none (NomicBertModel)."""
    if not config.given("moe_every_n_layers"):
        return BERT._replace(architecture="nomic-bert", derive=(_nomic_context,))
    shape = reshaped(
        r"mlp\.experts\.mlp\.w\d$", lambda n, c: (n[0], c.number("n_inner"), c.number("num_local_experts", "num_experts"))
    )
    return BERT._replace(
        architecture="nomic-bert-moe", derive=(_nomic_context,),
        keys={**_BIDIRECTIONAL, "moe_every_n_layers": "moe_every_n_layers", "expert_used_count": "moe_top_k"},
        steps=(*_BERT_STEPS, dropped(r"mlp\.experts\.bias"), shape, turned(r"mlp\.experts\.mlp\.w2$"),
               renamed(r"(mlp\.experts\.mlp\.w\d)$", r"\1.weight")),
    )  # fmt: skip


_MODERN = BERT._replace(
    architecture="modern-bert",
    keys={
        **_BIDIRECTIONAL, "attention.sliding_window": "local_attention", "rope.scaling.type": constant("none"),
        "attention.sliding_window_pattern": "global_attn_every_n_layers", "vocab_size": "vocab_size",
        "hidden_activation": lambda c: c.given("hidden_activation") or None,
    },
    steps=(renamed(r"^model\.", ""), *_BERT_STEPS),
)  # fmt: skip
_NEO = BERT._replace(
    architecture="neo-bert",
    keys={
        **_BIDIRECTIONAL, "feed_forward_length": lambda c: int(2 * c.number("intermediate_size") / 3),
        "rope.freq_base": constant(10000.0), "rope.scaling.type": constant("none"),
        "attention.layer_norm_rms_epsilon": or_else(1e-6, "norm_eps"), "pooling_type": constant(2),
    },
    steps=(dropped(r"^decoder\."), renamed(r"^model\.", ""), *_BERT_STEPS),
)  # fmt: skip
_EURO = Row("eurobert", {**_BIDIRECTIONAL, "rope.scaling.type": constant("none")}, steps=(renamed(r"^model\.", ""),))
_JINA2 = BERT._replace(architecture="jina-bert-v2")


def _xlm_class(config: Config) -> Row:
    """With adapters it is Jina's third (XLMRobertaModel); the adapters are files of their own."""
    steps = (*_ROBERTA.steps, renamed(r"\.parametrizations\.(.*?)\.original$", r".\1"), dropped(r"\.0\.lora_[AB]$"))
    return _ROBERTA._replace(architecture="jina-bert-v3" if config.items("lora_adaptations") else "bert", steps=steps)


_DISTIL = BERT._replace(
    keys={**_BIDIRECTIONAL, "attention.layer_norm_epsilon": constant(1e-12)},
    steps=(renamed(r"^distilbert\.", ""), dropped("^vocab_"), *_BERT_STEPS),
)
_T5_KEYS: Mapping[str, Key] = {
    "context_length": or_else(512, "n_positions"), "embedding_length": "d_model", "feed_forward_length": "d_ff",
    "attention.head_count": "num_heads", "attention.key_length": "d_kv", "attention.value_length": "d_kv",
    "attention.layer_norm_epsilon": "layer_norm_epsilon", "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
    "attention.relative_buckets_count": "relative_attention_num_buckets",
}  # fmt: skip


def _one_embedding(shape: Shape, _: Config) -> Iterable[Shape]:
    """Embeddings are stored up to three times."""
    if not re.fullmatch(r"(encoder|decoder)\.embed_tokens\.weight", shape.name):
        yield shape


_T5 = Row("t5", {
    **_T5_KEYS, "decoder_block_count": "num_decoder_layers", "decoder_start_token_id": "decoder_start_token_id",
}, steps=(_one_embedding,), common=False)  # fmt: skip

ROWS: Mapping[str, Class] = {
    **dict.fromkeys(("BertModel", "BertForMaskedLM", "CamembertModel", "BertForSequenceClassification"), BERT),
    **dict.fromkeys(("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"), _DISTIL),
    **dict.fromkeys(("RobertaModel", "RobertaForSequenceClassification"), _ROBERTA),
    **dict.fromkeys(("XLMRobertaModel", "XLMRobertaForSequenceClassification"), _xlm_class),
    **dict.fromkeys(("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"), _MODERN),
    **dict.fromkeys(("NeoBERT", "NeoBERTLMHead", "NeoBERTForSequenceClassification"), _NEO),
    **dict.fromkeys(("EuroBertModel", "JinaEmbeddingsV5Model"), _EURO),
    **dict.fromkeys(("JinaBertModel", "JinaBertForMaskedLM"), _JINA2),
    "NomicBertModel": _nomic_class,
    **dict.fromkeys(
        ("T5WithLMHeadModel", "T5ForConditionalGeneration", "MT5ForConditionalGeneration", "UMT5ForConditionalGeneration",
            "UMT5Model"),
        _T5,
    ),
    "T5EncoderModel": Row("t5encoder", _T5_KEYS, steps=(_one_embedding,), common=False),
}  # fmt: skip
