"""Where every byte goes: weights, caches and states, compute buffers, and what llama.cpp does not count."""
