"""What a file's mix of tensor types is called."""

from fitplug.formats.ggml_types import file_type_name
from fitplug.formats.header import Header


def file_type(header: Header) -> str:
    """The name that general.file_type stands for; where the file does not say, the type that most of its tensors have.

    llama_model_loader's constructor (src/llama-model-loader.cpp) guesses the same way.
    """
    stated = header.metadata.get("general.file_type")
    if isinstance(stated, int) and not isinstance(stated, bool):
        return file_type_name(stated)
    counts: dict[str, int] = {}
    for tensor in header.tensors.values():
        counts[tensor.type] = counts.get(tensor.type, 0) + 1
    return max(counts, key=counts.__getitem__).upper() if counts else "unknown"
