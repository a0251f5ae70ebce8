"""fitplug's own registrations, through the same hooks as anybody's."""

from collections.abc import Iterable

from fitplug.hookspecs import hookimpl
from fitplug.extension import HeaderFormat, Source
