"""What becomes of a class as GGUF is a model to all that follows: its memory is known, or llama.cpp would not load it."""

import json
from pathlib import Path

import pytest

from conversion.checkpoints import llama
from conversion.conftest import header_of
from conversion.test_classes import RECORDED, made
from fitplug.api import estimate, imagine_machine, read_machine
from fitplug.conversion.classes import REFUSED, ROWS
from fitplug.conversion.convert import NO_MTP, convert
from fitplug.errors import FitplugError, RefusedError
from fitplug.model.describe import describe

CARD = imagine_machine("RTX 4090")
DRAFTS = frozenset((
    "DFlash2DraftModel", "DFlashDraftModel", "DSparkDraftModel", "DSparkSpeculator", "DeepseekV4DSparkModel",
    "Eagle3DraftModel",
    "Eagle3LlamaForCausalLM", "Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM", "Lfm2DSparkDraftModel",
    "LingDSparkModel", "LlamaForCausalLM+EAGLE3", "LlamaForCausalLMEagle3", "MuseGlimmerAssistantModel", "Qwen3DSparkModel",
))  # fmt: skip
"""Which have not all tensors of their own."""
UNANSWERED = frozenset((
    "ChameleonForCausalLM", "ChameleonForConditionalGeneration", "JinaBertForMaskedLM", "JinaBertModel",
    "MiniCPM3ForCausalLM", "MiniMaxM2ForCausalLM",
))  # fmt: skip
"""Of which there is no answer of llama.cpp's, and none that it refuses them either."""


UNKNOWN = {"Lfm25AudioTokenizer", "PocketTTSModel", "WavTokenizerDec"}
"""Models of speech, whose checkpoints are of several files or have no config.json."""
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "conversion"
ALLOCATED = json.loads((FIXTURES / "allocated.json").read_text())
KINDS = ("model", "context", "compute")
ASKED = read_machine({
    "schema": 1, "host": {"total_bytes": 64 << 30, "available_bytes": 60 << 30}, "devices": [{
        "kind": "gpu", "backend": "cuda", "name": "NVIDIA GeForce RTX 4090", "total_bytes": 24564 << 20,
        "free_bytes": 24000 << 20, "compute_capability": "8.9"}],
})  # fmt: skip


@pytest.mark.parametrize("name", sorted(RECORDED.keys() - UNANSWERED))
def test_its_memory_is_known_where_llama_cpp_loads_it_and_refused_where_not(name):
    """Many a small config.json, as transformers or a hand wrote it, does not agree with what llama.cpp asks of the GGUF."""
    try:
        refused = "" if estimate(describe(made(name)), CARD, n_ctx=512).parts else "nothing to count"
    except RefusedError as error:
        refused = str(error)
    assert bool(refused) == (name not in ALLOCATED), refused
    assert ("is a draft that uses its target's" in refused) <= (name in DRAFTS)


@pytest.mark.parametrize("name", sorted(ALLOCATED))
def test_llama_cpp_allocates_for_the_conversion_what_is_said_of_the_checkpoint(name):
    """Weights, caches and compute buffers, to the byte: of a GGUF that the converter made of it."""
    found = {}
    for part in estimate(describe(made(name)), ASKED, n_ctx=512).parts:
        if part.kind.value in KINDS:
            own = found.setdefault(part.device if part.device.startswith("CUDA0") else "host", [0, 0, 0])
            own[KINDS.index(part.kind.value)] += part.n_bytes
    assert found == ALLOCATED[name]


def test_every_class_that_the_converter_registers_is_known_refused_or_said_to_be_unknown():
    """And what is known was held to the converter."""
    registered = set((FIXTURES / "registered.txt").read_text().split())
    assert ROWS.keys() <= registered
    assert registered - ROWS.keys() - REFUSED.keys() == UNKNOWN
    assert ROWS.keys() <= RECORDED.keys()


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_what_the_converter_makes_nothing_of_is_refused_with_the_reason(kind):
    config, tensors = llama(2)
    with pytest.raises(FitplugError, match=f"{kind}: "):
        convert(header_of(config | {"architectures": [kind]}, tensors))


def test_a_draft_that_leaves_its_targets_layers_to_the_target_is_refused():
    """llama.cpp's converter reads them from the target's config.json."""
    entry = RECORDED["LlamaForCausalLMEagle3"]
    config = {key: value for key, value in entry["config"].items() if key != "eagle_aux_hidden_state_layer_ids"}
    tensors = {key: (dtype, tuple(shape)) for key, dtype, shape in entry["source"]}
    with pytest.raises(FitplugError, match="which of its target's layers"):
        convert(header_of(config, tensors))


@pytest.mark.parametrize("change", [lambda dtype, name: None if name.endswith("scale") else dtype, lambda *_: "F8_E4M3"])
def test_experts_of_deepseek_v4_are_read_in_mxfp4_only(change):
    """DeepseekV4Model._write_mxfp4_expert_tensor wants a scale for each, and the base model's are FP8."""
    entry = RECORDED["DeepseekV4ForCausalLM"]
    kinds = {name: change(dtype, name) if ".experts." in name else dtype for name, dtype, _ in entry["source"]}
    tensors = {name: (kinds[name], tuple(shape)) for name, _, shape in entry["source"] if kinds[name]}
    with pytest.raises(FitplugError, match="in MXFP4 only"):
        convert(header_of(entry["config"], tensors))


def test_the_width_of_an_eagles_target_is_that_of_its_first_projection():
    """Where config.json leaves it out."""
    entry = RECORDED["LlamaForCausalLMEagle3"]
    config = {key: value for key, value in entry["config"].items() if key != "target_hidden_size"}
    made_ = convert(header_of(config, {key: (dtype, tuple(shape)) for key, dtype, shape in entry["source"]}))
    assert made_.metadata["eagle3.target_hidden_size"] == entry["config"]["target_hidden_size"]


def test_what_is_supposed_of_a_drafts_target_is_said():
    """The converter asks the target itself."""
    assert any("M-RoPE" in note for note in made("DFlashDraftModel").notes)
    assert not any("M-RoPE" in note for note in made("LlamaForCausalLM").notes)


@pytest.mark.parametrize("part", ["text_config", "llm_config", "lm_config", "language_config"])
def test_a_text_model_is_found_in_any_place_that_the_converter_looks_at(part):
    """InternVL, GLM-ASR and DeepSeek-OCR have other names for it (ModelBase.load_hparams), and its class is named there."""
    entry = RECORDED["Qwen2ForCausalLM"]
    tensors = {f"language_model.{name}": (dtype, tuple(shape)) for name, dtype, shape in entry["source"]}
    whole = {"architectures": ["InternVLChatModel"], part: entry["config"] | {"architectures": ["Qwen2ForCausalLM"]}}
    found = convert(
        header_of(whole, tensors | {"mlp1.1.weight": ("BF16", (8, 8)), "vision_model.embeddings.weight": ("BF16", (8, 8))})
    )
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == {
        name: tensor.shape for name, tensor in made("Qwen2ForCausalLM").tensors.items()
    }


@pytest.mark.parametrize("name", ["MiMoV2ForCausalLM", "Qwen3NextForCausalLM", "Glm5NextForConditionalGeneration"])
def test_blocks_for_prediction_that_are_not_there_are_said(name):
    """Finetuned checkpoints lose them; config.json, or the converter by heart, counts them all the same."""
    entry = RECORDED[name]
    assert NO_MTP not in made(name).notes
    n = entry["config"].get("text_config", entry["config"])["num_hidden_layers"]
    own = {
        key: (dtype, tuple(shape)) for key, dtype, shape in entry["source"] if "mtp" not in key and f"layers.{n}." not in key
    }
    config = entry["config"] | {"mtp_num_hidden_layers": 1}
    assert NO_MTP in convert(header_of(config, own)).notes
