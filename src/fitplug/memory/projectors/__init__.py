"""The graphs of the projectors, one function each, line by line after tools/mtmd/models/*.cpp."""
