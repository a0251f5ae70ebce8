"""How large a checkpoint would be as GGUF, in each of the file types that people make."""

from collections.abc import Sequence
from typing import NamedTuple

from fitplug.conversion.convert import customary, quantised
from fitplug.conversion.layout import header_length
from fitplug.errors import FitplugError
from fitplug.formats.header import Header


class Size(NamedTuple):
    """Of one file, which is not there yet."""

    file_type: str
    n_bytes: int
    """What is most likely."""
    low: int
    high: int
    tensor_bytes: int

    @property
    def exact(self) -> bool:
        """Whether it is known to the byte."""
        return self.low == self.high


def size_of(converted: Header) -> Size:
    """Of a converted, perhaps quantised header."""
    length = header_length(converted.metadata, converted.tensors.values())
    data = converted.n_bytes - converted.header_bytes
    name = converted.shards[0].removeprefix("model-").removesuffix(".gguf")
    tensors = sum(tensor.n_bytes for tensor in converted.tensors.values())
    return Size(name, converted.n_bytes, data + length.low, data + length.high, tensors)


def sizes(converted: Header) -> Sequence[Size]:
    """As the converter writes it, then as llama-quantize does; without those that it refuses."""
    found = [size_of(converted)]
    for file_type in customary(converted):
        try:
            made = size_of(quantised(converted, file_type))
        except FitplugError:
            continue
        if made.file_type != found[0].file_type:
            found.append(made)
    return found
