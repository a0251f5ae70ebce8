"""A model as the context of its MTP blocks sees it: the same tensors, another memory (llama_model::create_memory)."""

from dataclasses import replace

from fitplug.model.records import Layer, Model


def in_mtp_context(model: Model) -> Model:
    """The model with the memory of a LLAMA_CONTEXT_TYPE_MTP: an ordinary cache, of its MTP blocks alone.

    Only where a file holds nothing but MTP blocks all of them count as such (there is no trunk to leave out).
    """
    layers = tuple(_layer(layer, model) for layer in model.layers)
    return replace(model, memory="kv" if model.swa_type is None else "iswa", layers=layers)


def _layer(layer: Layer, model: Model) -> Layer:
    drafts = layer.is_nextn or model.n_layer == 0
    return layer._replace(
        has_kv=drafts, is_recurrent=False, n_embd_r=0, n_embd_s=0, n_embd_ple=0, n_embd_indexer=0, compress_ratio=0
    )
