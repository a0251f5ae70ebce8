"""From a header to a model in llama.cpp's own terms, layer by layer."""
