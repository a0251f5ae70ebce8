"""What a model would be as another file: from safetensors to GGUF, from one quant to another. Pure; no weight is read."""

CONVERTED = (
    "worked out from safetensors, which llama.cpp does not read: convert_hf_to_gguf.py and llama-quantize make this of them"
)
"""The note on a header that no file has yet."""
