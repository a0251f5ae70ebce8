"""fitplug's extension points.

A plugin is a module named in the entry-point group ``fitplug``; it implements any of these hooks and yields records of
`fitplug.extension`::

    from fitplug.extension import Exporter
    from fitplug.hookspecs import hookimpl

    @hookimpl
    def fitplug_exporters():
        yield Exporter(name="koboldcpp", help="a koboldcpp command line", render=render)

Hooks register things rather than answer questions: what is installed can be listed, checked and explained. They take no
arguments and are called at every start, so they import nothing heavy. Two records of one kind with the same name are an
error that names both plugins. Records may gain fields with defaults in any version; a hook is removed only after a version
that warns.
"""

from collections.abc import Iterable

import pluggy

from fitplug.extension import Architecture, Detector, Engine, Exporter, HeaderFormat, Remote, Runner, Source

GROUP = "fitplug"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def fitplug_detectors() -> Iterable[Detector]:
    """Detectors of devices and of the host; run by `fitplug devices` and by every plan for this machine."""
    return ()


@hookspec
def fitplug_remotes() -> Iterable[Remote]:
    """Ways to use the devices of other machines, such as `--rpc HOST:PORT`."""
    return ()


@hookspec
def fitplug_sources() -> Iterable[Source]:
    """Places that models are read from, by scheme; hubs among them answer `fitplug check`."""
    return ()


@hookspec
def fitplug_formats() -> Iterable[HeaderFormat]:
    """Model file formats; the first that recognises the files reads them."""
    return ()


@hookspec
def fitplug_architectures() -> Iterable[Architecture]:
    """Architectures that the core's table does not know; they win over it."""
    return ()


@hookspec
def fitplug_runners() -> Iterable[Runner]:
    """Programs that run models: the values of `--runner`."""
    return ()


@hookspec
def fitplug_exporters() -> Iterable[Exporter]:
    """Forms that a plan can be written in: `fitplug export NAME`."""
    return ()


@hookspec
def fitplug_engines() -> Iterable[Engine]:
    """Installed llama.cpp engines that `fitplug verify` can ask."""
    return ()
