"""What a model would be as another file: from safetensors to GGUF, from one quant to another. Pure; no weight is read."""
