"""Runs alone: `Llama(**arguments)` of a JSON file as a program would call it, but no weights are read; prints the bytes.

Everything else is the class's own doing. llama.cpp then counts as it measures, which is why plans over GPUs are compared
where both ways agree.
"""

import json
import os
import pathlib
import sys

import llama_cpp
import llama_cpp.llama_cpp as library

from fitplug_llama_cpp_python.lowlevel import breakdown, load_backends

load_backends()
defaults, load = llama_cpp.llama_model_default_params, library.llama_model_load_from_file


def without_weights():
    params = defaults()
    params.no_alloc = True
    return params


def load_without_reading(path, params):
    params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    return load(path, params)


llama_cpp.llama_model_default_params = without_weights
llama_cpp.llama_model_load_from_file = library.llama_model_load_from_file = load_without_reading
model = llama_cpp.Llama(**json.loads(pathlib.Path(sys.argv[1]).read_text()), verbose=False)
print(json.dumps(breakdown(model._ctx.ctx)), flush=True)
os._exit(0)  # a virtual GPU cannot be taken down
