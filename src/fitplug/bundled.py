"""fitplug's own registrations, through the same hooks as anybody's."""

from collections.abc import Iterable

from fitplug.extension import HeaderFormat
from fitplug.hookspecs import hookimpl


@hookimpl
def fitplug_formats() -> Iterable[HeaderFormat]:
    """GGUF and safetensors."""
    return ()
