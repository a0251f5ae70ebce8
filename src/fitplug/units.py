"""Bytes and tokens for people. Everywhere else they are plain ints."""

import re

from fitplug.errors import FitplugError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = {
    "": 1, "b": 1, "k": KIB, "kib": KIB, "kb": 1000, "m": MIB, "mib": MIB, "mb": 1000**2,
    "g": GIB, "gib": GIB, "gb": 1000**3, "t": 1 << 40, "tib": 1 << 40, "tb": 1000**4,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]{0,3})\s*", re.ASCII)


def pad(n: int, to: int) -> int:
    """Round `n` up to a multiple of `to`, as ggml's GGML_PAD does."""
    return -(-n // to) * to


def parse_size(text: str, *, default_unit: str = "") -> int:
    """Bytes of "1GiB", "512M", "1.5 GB"; a bare number is in `default_unit`. "M" and "G" are binary, "MB" and "GB" are not."""
    match = _SIZE.fullmatch(text.lower())
    if match is None or match[2] not in _UNITS:
        raise FitplugError(f"'{text}' is not a size: write it as 512MiB, 1.5GiB or a number of bytes")
    return round(float(match[1]) * _UNITS[match[2] or default_unit.lower()])


def format_bytes(n_bytes: int) -> str:
    """Three significant digits and a binary unit: "116 MiB", "4.58 GiB"."""
    sign, n = ("-" if n_bytes < 0 else ""), abs(n_bytes)
    for unit, size in (("TiB", 1 << 40), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if n >= size * 0.9995:
            value = n / size
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{sign}{value:.{digits}f} {unit}"
    return f"{sign}{n} B"


def format_tokens(n: int) -> str:
    """A context length as people write it: 8192 → "8k", 40960 → "40k", 5000 → "5000"."""
    return f"{n // 1024}k" if n >= 1024 and n % 1024 == 0 else str(n)
