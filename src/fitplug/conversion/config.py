"""config.json as conversion/base.py looks at it: the text model's part above the whole, several names for one thing."""

from fitplug.errors import FitplugError
from fitplug.formats.header import Header, Scalar, Skipped, Value

_PARTS = ("text_config", "llm_config", "language_config", "lm_config", "thinker_config.text_config")
_ROPE = ("rope_parameters", "rope_scaling")


class Config:
    """The flat metadata of a safetensors header, asked by transformers' own names."""

    def __init__(self, header: Header) -> None:
        self._values = header.metadata
        self._parts = [
            f"config.{part}." for part in _PARTS if any(key.startswith(f"config.{part}.") for key in header.metadata)
        ]

    def get(self, *names: str) -> Value | None:
        """The first of the names that is there, in the text model's part first (find_hparam)."""
        for name in names:
            for prefix in (*self._parts, "config."):
                value = self._values.get(prefix + name)
                if value is not None:
                    return value
        return None

    def number(self, *names: str, default: int | None = None) -> int:
        """The same where it must be a whole number.

        Raises:
            FitplugError: it is not there, or something else.
        """
        value = self.get(*names)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1 << 40:
            raise FitplugError(f"config.json gives no usable {names[0]}: what this model would be as GGUF is not known")
        return int(value)

    def real(self, *names: str, default: float) -> float:
        """The same for any number."""
        value = self.get(*names)
        return float(value) if isinstance(value, (int, float)) else default

    def items(self, *names: str) -> tuple[Scalar, ...]:
        """The same for a list; empty where there is none."""
        value = self.get(*names)
        return value if isinstance(value, tuple) and not isinstance(value, Skipped) else ()

    def rope(self, name: str) -> Value | None:
        """Of the rope's parameters; those of full attention where there are two sets."""
        for part in _ROPE:
            value = self.get(f"{part}.full_attention.{name}", f"{part}.{name}")
            if value is not None:
                return value
        return self.get(name) if name in ("rope_theta", "partial_rotary_factor") else None

    @property
    def rope_type(self) -> str:
        """How the rope is scaled: llama3, yarn, linear, …; empty where it is not."""
        value = self.rope("rope_type") or self.rope("type")
        return value.lower() if isinstance(value, str) else ""

    @property
    def architecture(self) -> str:
        """The model's class in transformers."""
        names = self._values.get("config.architectures")
        return str(names[0]) if isinstance(names, tuple) and not isinstance(names, Skipped) and names else ""

    @property
    def head_dim(self) -> int:
        """Width of one head, given or derived."""
        given = self.get("head_dim")
        if isinstance(given, int) and given > 0:
            return given
        return self.number("hidden_size", "n_embd", "dim") // max(1, self.number("num_attention_heads", "n_head", "n_heads"))

    @property
    def quant_method(self) -> str:
        """Of quantization_config, wherever it stands; empty for a model that is not quantised."""
        value = self.get("quantization_config.quant_method")
        return value.lower() if isinstance(value, str) else ""
