"""What a file that is no model is instead, said in words that help."""

import re

_LEGACY = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}
_SIZE = re.compile(rb"\nsize (\d{1,18})\n")
_HTML = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)

N_BYTES = 512
"""So much of the start is looked at."""


def describe(start: bytes) -> str | None:
    """What bytes that are no model look like, and what to do; None where nothing is known of them."""
    if not start:
        return "is empty: the download did not start; download it again"
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        size = _SIZE.search(start)
        stands_for = f" for {int(size[1])} bytes" if size else ""
        return f"is a Git LFS pointer{stands_for}, not the file itself: run 'git lfs pull', or download it from the hub"
    if _HTML.match(start):
        return "is a web page, not a model: the download link led to a page; download the file itself"
    if start[:4] in _LEGACY:
        return f"is in the old {_LEGACY[start[:4]]} format, which llama.cpp no longer loads: get a GGUF file"
    if start.startswith(b"PK\x03\x04"):
        return "is a zip or PyTorch archive: fitplug reads GGUF and safetensors"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        return "is a Python pickle: fitplug reads GGUF and safetensors"
    if start.startswith(b"\x1f\x8b"):
        return "is compressed with gzip: unpack it first"
    if not start.strip(b"\0"):
        return "begins with zeros: the download is not finished, or the disk was full; download it again"
    if start.lstrip()[:1] == b"{":
        return "is JSON text, perhaps a server's error message: download the file itself"
    return None
