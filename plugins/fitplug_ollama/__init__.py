"""Ollama: Modelfiles from plans, and the models in its store."""

from collections.abc import Iterable

from fitplug.extension import Architecture, Exporter, Later, Runner, Source
from fitplug.hookspecs import hookimpl
from fitplug.settings import DRAFT_SETTINGS, OWN_SETTINGS

CANNOT_EXPRESS = (
    "n_cpu_moe", "overrides", "tensor_split", "offload_kqv", "op_offload", "swa_full", "kv_unified",
    "mmproj_offload", "lora_scaled", "kv_overrides", "embedding", "pooling", *OWN_SETTINGS, *DRAFT_SETTINGS,
)  # fmt: skip
"""No PARAMETER says these. Most can be said for all models at once by LLAMA_ARG_* in the server's environment, which its
llama-server inherits (llm/llama_server.go); that is no place for one model's plan."""

OLDER = (
    "deepseekocr", "gemma3", "gemma3n", "gemma4", "glm4moelite", "glmocr", "gptoss", "laguna", "lfm2", "llama4", "mistral3",
    "nemotron_h_moe", "nemotron_h_omni", "olmo3", "qwen25vl", "qwen35", "qwen35moe", "qwen3next", "qwen3vl", "qwen3vlmoe",
)  # fmt: skip
"""Architectures of which its library has files in an older form (older.py)."""


@hookimpl
def fitplug_runners() -> Iterable[Runner]:
    """Since 0.30 every GGUF runs in a llama-server child: the arithmetic is llama.cpp's, one output a sequence.

    `num_batch` sets both batches, so that they start out equal.
    """
    yield Runner(
        name="ollama",
        help="Ollama 0.30 or later",
        defaults={"n_batch": 512, "n_ubatch": 512},
        cannot_express=CANNOT_EXPRESS,
        exporter="ollama",
    )


@hookimpl
def fitplug_exporters() -> Iterable[Exporter]:
    """A Modelfile."""
    yield Exporter(
        name="ollama",
        help="an Ollama Modelfile, and the environment it needs",
        render=Later("fitplug_ollama.export:render"),
        runner="ollama",
        install=Later("fitplug_ollama.install:install"),
    )


@hookimpl
def fitplug_sources() -> Iterable[Source]:
    """Models that Ollama has already."""
    yield Source(
        scheme="ollama",
        help="a model in Ollama's store: ollama:NAME[:TAG]",
        open=Later("fitplug_ollama.store:open_model"),
        notes=Later("fitplug_ollama.store:loaded_beside"),
    )


@hookimpl
def fitplug_architectures() -> Iterable[Architecture]:
    """Those that Ollama's own converters wrote in another form than llama.cpp's."""
    yield Architecture(names=OLDER, describe=Later("fitplug_ollama.older:understand"))
