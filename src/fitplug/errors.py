"""The few errors that fitplug raises, drawn as a tree.

FitplugError                 one line for the user, exit status 3
├── UnreadableError          a file or an answer that is not what it claims to be
├── NotFoundError            no such file, repository, revision, quant or device
├── AccessError              a private or gated thing, or a bad token
├── NetworkError             a hub that does not answer, or answers nonsense
├── RefusedError             settings that llama.cpp (or the runner) itself refuses
└── PluginError              a plugin that clashes with another one or breaks its promise
"""


class FitplugError(Exception):
    """Anything that a user, a file or a server can cause; `str()` is the whole line that is shown."""


class UnreadableError(FitplugError):
    """A header, a machine file or an answer that cannot be what it claims to be."""


class NotFoundError(FitplugError):
    """No such file, repository, revision, quant, device or plugin."""


class AccessError(FitplugError):
    """A private or gated repository, or a token that is not accepted."""


class NetworkError(FitplugError):
    """A hub that does not answer in time, or answers what it should not."""


class RefusedError(FitplugError):
    """Settings that llama.cpp, or the runner, refuses to start with."""


class PluginError(FitplugError):
    """Two plugins claim one name, or a plugin hands in what it must not."""
