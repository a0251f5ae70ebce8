"""config.json as conversion/base.py looks at it: the text model's part above the whole, several names for one thing.

The converter reads it through transformers, so what is not there has the default of its class (config_defaults.json, made by
fixtures/quantize/make_defaults.py), and a null counts as there.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from math import isfinite
from typing import Any, Final

from fitplug.errors import FitplugError
from fitplug.formats.header import Header, Scalar, Skipped, Value

_PARTS = ("text_config", "llm_config", "language_config", "lm_config", "thinker_config.text_config", "lfm", "talker_config")
_LAYERS = "transformer_layer_config"
"""Where drafts of speculators say what their layers are; not read through transformers."""
_ROPE = ("rope_parameters", "rope_scaling")
_FULL = ("full_attention.", "")
_MISSING: Final = Skipped("missing", 0)
MAX_LAYERS = 4096
RAW = frozenset({
    "MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM", "Mamba2ForCausalLM", "FalconH1ForCausalLM",
    "FalconForCausalLM", "RWForCausalLM",
})  # fmt: skip
"""Classes that read config.json themselves, without any defaults; Falcon's would take its heads for as many KV heads."""
WHOLE = frozenset({
    "StepVLForConditionalGeneration", "Sarashina2VisionForCausalLM", "Exaone4_5_ForConditionalGeneration",
    "Step3p7ForConditionalGeneration", "KimiK3ForConditionalGeneration",
})  # fmt: skip
"""Classes of models with a text model of another class, which is not what they are converted by (get_model_architecture)."""


class Config:
    """The flat metadata of a safetensors header, asked by transformers' own names."""

    def __init__(self, header: Header) -> None:
        self._values = {**header.metadata, **_modelopt(header.metadata)}
        self.tensors = header.tensors
        self.n_blocks = 0
        """Layers with those for multi-token prediction, once they are counted."""
        there = (part for part in (*_PARTS, _LAYERS) if any(key.startswith(f"config.{part}.") for key in header.metadata))
        part = self._part = next(there, "")
        raw = self.architecture in RAW or part == _LAYERS
        self._scopes = [
            (prefix, {} if raw else _defaults().get(str(header.metadata.get(f"{prefix}model_type")), {}))
            for prefix in ((f"config.{part}.", "config.") if part else ("config.",))
        ]

    def get(self, *names: str) -> Value | None:
        """The first of the names that is there, in the text model's part first (find_hparam); None where that is null.

        Raises:
            FitplugError: it is a number that nothing can be counted by.
        """
        for name in names:
            value = self._find(name)
            if value is not _MISSING:
                return None if isinstance(value, Skipped) and value.item_type == "null" else _sane(value, name)
        return None

    def given(self, *names: str) -> Value | None:
        """The first of the names that is there and not null (hparams.get(…) or hparams.get(…))."""
        return next((value for name in names if (value := self.get(name)) is not None), None)

    def has(self, name: str) -> bool:
        """Whether it is there, be it null."""
        return self._find(name) is not _MISSING

    def children(self, name: str) -> tuple[str, ...]:
        """What lies under a name, as whole names: one for each entry of an object."""
        for prefix, _ in self._scopes:
            start = f"{prefix}{name}."
            found = dict.fromkeys(key[len(start) :].partition(".")[0] for key in self._values if key.startswith(start))
            if found:
                return tuple(f"{name}.{key}" for key in found)
        return ()

    def leaves(self, name: str, leaf: str) -> tuple[Value, ...]:
        """The values of all that is called `leaf` below a name, however deep."""
        start, end = tuple(f"{prefix}{name}." for prefix, _ in self._scopes), f".{leaf}"
        return tuple(value for key, value in self._values.items() if key.startswith(start) and key.endswith(end))

    def number(self, *names: str, default: int | None = None) -> int:
        """The same where it must be a whole number.

        Raises:
            FitplugError: it is not there, or something else.
        """
        value = self.given(*names)
        if value is None and default is not None:
            return default
        return _whole(value, names[0])

    def numbers(self, *names: str) -> tuple[int, ...]:
        """The same for a list; empty where there is none."""
        return tuple(_whole(value, names[0]) for value in self.items(*names))

    def real(self, *names: str, default: float) -> float:
        """The same for any number."""
        value = self.given(*names)
        if not isinstance(value, (int, float)):
            return default
        return _real(value, names[0])

    def reals(self, *names: str) -> tuple[float, ...]:
        """The same for a list of any numbers."""
        return tuple(_real(value, names[0]) for value in self.items(*names) if isinstance(value, (int, float)))

    def items(self, *names: str) -> tuple[Scalar, ...]:
        """The same for a list; empty where there is none."""
        value = self.given(*names)
        return value if isinstance(value, tuple) and not isinstance(value, Skipped) else ()

    def rope(self, *names: str) -> Value | None:
        """Of the rope's parameters, wherever config.json has them; those of full attention where there are two sets."""
        places = (*(f"{part}.{full}{name}" for name in names for part in _ROPE for full in _FULL), *names)
        said = (self._values.get(prefix + place) for prefix, _ in self._scopes for place in places)
        found = next((value for value in said if value is not None and not isinstance(value, Skipped)), None)
        return self.given(*places) if found is None else _sane(found, names[0])

    @property
    def rope_type(self) -> str:
        """How the rope is scaled: llama3, yarn, linear, …; empty where it is not."""
        value = self.given(*(f"{part}.{full}{name}" for name in ("rope_type", "type") for part in _ROPE for full in _FULL))
        return value.lower() if isinstance(value, str) and value != "default" else ""

    @property
    def architecture(self) -> str:
        """The model's class in transformers; of several, that of the text model (get_model_architecture)."""
        text = self._class(f"{self._part}.") if self._part != _LAYERS else ""
        return text if text and self.whole not in WHOLE else self.whole

    @property
    def whole(self) -> str:
        """The class that config.json names first."""
        return self._class("")

    def _class(self, part: str) -> str:
        names = self._values.get(f"config.{part}architectures")
        return str(names[0]) if isinstance(names, tuple) and names and not isinstance(names, Skipped) else ""

    @property
    def n_layer(self) -> int:
        """Without blocks for multi-token prediction."""
        listed = len(self.items("layers_block_type"))
        return self.number(
            "n_layers",
            "num_hidden_layers",
            "n_layer",
            "num_layers",
            "num_transformer_layers",
            default=listed or None,
        )

    @property
    def head_dim(self) -> int:
        """Width of one head, given or derived."""
        given = self.get("head_dim")
        if isinstance(given, int) and given > 0:
            return given
        return self.number("hidden_size", "n_embd", "dim") // max(1, self.number("num_attention_heads", "n_head", "n_heads"))

    @property
    def quant_method(self) -> str:
        """Of quantization_config, wherever it stands, or MLX's own key; empty for a model that is not quantised."""
        value = self.get("quantization_config.quant_method")
        if isinstance(value, str):
            return value.lower()
        return "mlx" if self.given("quantization.bits") is not None else ""

    def _find(self, name: str) -> Value:
        for prefix, defaults in self._scopes:
            value = self._values.get(prefix + name)
            if value is not None:
                return value
            if name in defaults:
                return self._default(defaults[name])
        return _MISSING

    def _default(self, value: Any) -> Value:
        """A default, or what it is derived from."""
        if value is None:
            return Skipped("null", 0)
        if isinstance(value, list):
            return tuple(value[i % len(value)] for i in range(min(self.n_layer, MAX_LAYERS)))
        if isinstance(value, str) and value.startswith("="):
            first, _, second = value[1:].partition("/")
            return self.number(first) // max(1, self.number(second)) if second else self.number(first)
        return value  # type: ignore[no-any-return]  # a scalar, as the file has them


def _sane(value: Value, name: str) -> Value:
    """No number that int() and float() refuse, or that no GGUF holds."""
    if isinstance(value, (int, float)) and not abs(value) < 1 << 64:
        raise _unusable(name)
    return value


def _real(value: float, name: str) -> float:
    if not isfinite(value):
        raise _unusable(name)
    return float(value)


def _whole(value: Value | None, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1 << 40:
        raise _unusable(name)
    return int(value)


def _unusable(name: str) -> FitplugError:
    return FitplugError(f"config.json gives no usable {name}: what this model would be as GGUF is not known")


def _modelopt(metadata: Mapping[str, Value]) -> Mapping[str, Value]:
    """What hf_quant_config.json says in the place of quantization_config (ModelBase.prepare_tensors)."""
    ours, theirs = "config.quantization_config.", "hf_quant_config.quantization."
    layers = any(key.startswith(f"{ours}quantized_layers.") for key in metadata)
    if not any(key.startswith("hf_quant_config.") for key in metadata) or (metadata.get(f"{ours}quant_algo") and layers):
        return {}
    producer = metadata.get("hf_quant_config.producer.name")
    method = {} if f"{ours}quant_method" in metadata else {f"{ours}quant_method": str(producer or "").lower()}
    return method | {f"{ours}{key[len(theirs) :]}": value for key, value in metadata.items() if key.startswith(theirs)}


@cache
def _defaults() -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = json.loads((files(__package__) / "config_defaults.json").read_text("utf-8"))
    return found
