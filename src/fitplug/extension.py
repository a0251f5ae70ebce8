"""What plugins hand in. One record a kind; `hookspecs` says when each is asked for.

All are keyword-only and may grow fields with defaults. Callables import what they need when they are called (see `Later`): a
hook itself must be cheap, since every start of fitplug calls it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from fitplug.formats.header import Blob, Header
from fitplug.record import record

if TYPE_CHECKING:
    from fitplug.machine.records import Device, Host
    from fitplug.memory.records import Estimate
    from fitplug.model.records import Model
    from fitplug.planner.records import Plan
    from fitplug.settings import Settings


@record
class Detector:
    """Finds devices. `collect` touches the machine, `parse` is pure: what was collected can be recorded and replayed."""

    name: str
    help: str
    collect: Callable[[], Mapping[str, Any] | None]
    """JSON-able raw findings; None where this detector has nothing to look at."""
    parse: Callable[[Mapping[str, Any]], "Sequence[Device] | Host"]
    order: int = 50
    """Lower is asked first; of two that report one card (same `pci_id`), the first wins."""
    notes: Callable[[Mapping[str, Any]], Sequence[str]] | None = None
    """What is worth saying about the findings, one line each; pure, like `parse`."""
    fallback: bool = False
    """True: asked only where no other detector found a device."""
    bandwidth: Callable[[], int] | None = None
    """Measures the host's memory bandwidth in bytes per second, within a second or so; for whoever finds the host."""


@record
class Remote:
    """A way to ask other machines for their devices: `--NAME ADDRESS`, repeatable."""

    name: str
    help: str
    devices: "Callable[[str], Sequence[Device]]"
    """An address → the devices there; `NetworkError` where nobody answers."""
    measure: "Callable[[str], Sequence[Device]] | None" = None
    """The same, with the way there and the devices measured, within a few seconds; asked only when that is wanted."""
    notes: "Callable[[Sequence[Device]], Sequence[str]] | None" = None
    """What is worth saying about them, one line each."""


class Later:
    """The function at "module:name", as an entry point spells it, imported when it is first called.

    So a plugin registers all that it can do, and a start pays for what is used.

    Args:
        place: where the function is.
        arguments: its first ones.
    """

    __slots__ = ("arguments", "place")

    def __init__(self, place: str, *arguments: Any) -> None:
        self.place, self.arguments = place, arguments

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns for its first arguments and these."""
        return self.function()(*self.arguments, *arguments)

    def function(self) -> Callable[..., Any]:
        """The function itself.

        Raises:
            ImportError, AttributeError: it is not there.
        """
        module, _, name = self.place.partition(":")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]


@record
class Entry:
    """One file of a repository."""

    path: str
    n_bytes: int
    sha256: str | None = None
    git_oid: str | None = None
    """Git's own name for the content, where the hub says that and no sha256, as Hugging Face does of small files."""

    @property
    def content(self) -> str | None:
        """What names the content; None where the hub names it by its length alone."""
        return self.sha256 or self.git_oid


@record
class Listing:
    """A repository's files at one revision."""

    repository: str
    revision: str
    entries: Sequence[Entry]
    notes: Sequence[str] = ()


@record
class Source:
    """A place that models are read from; `scheme` is what stands before the colon in MODEL."""

    scheme: str
    help: str
    open: Callable[[str], Sequence[Blob]]
    """The reference without its scheme → one model's files, in order (a split's shards; config.json beside safetensors)."""
    notes: Callable[[str], Sequence[str]] | None = None
    """The same → what else to know of it: what a runner loads beside these files, say."""
    list: Callable[[str], Listing] | None = None
    """For hubs: OWNER/NAME[@REVISION] → its files. What has this can be given to `fitplug check`."""
    open_file: Callable[[Listing, Entry], Blob] | None = None
    search: Callable[[str, int], Sequence[str]] | None = None
    """Words, most results → repositories."""
    download: Callable[[Listing, Sequence[Entry], str | None], str] | None = None
    """Fetches files (to a folder, or the hub's own cache) and returns the first one's path."""
    download_folder: Callable[[], str] | None = None
    """Where `download` puts files when it is given no folder."""
    pages: Sequence[str] = ()
    """What the addresses of repositories' pages begin with: they will do as MODEL and REPO, as people copy them."""


@record
class HeaderFormat:
    """A model file format."""

    name: str
    recognises: Callable[[Sequence[Blob]], bool]
    read: Callable[[Sequence[Blob]], Header]


@record
class Architecture:
    """An architecture that the core's own table does not know."""

    names: Sequence[str]
    """Values of general.architecture."""
    describe: Callable[[Header], "Model"]


@record
class Runner:
    """A program that will run the model: what it changes in the arithmetic."""

    name: str
    help: str
    outputs: Literal["sequences", "batch"] = "sequences"
    """How many logits rows it reserves: one a sequence (llama-server), or as many as the batch has tokens."""
    measuring: bool = False
    """True: llama.cpp's no-alloc measuring path (llama-fit-params), which differs from a real run in known places."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """`Settings` fields that this runner sets differently from llama.cpp's command line when a plan leaves them out."""
    cannot_express: Sequence[str] = ()
    """`Settings` fields that it has no place for: the planner leaves them at their defaults."""
    overhead: "Callable[[Estimate, Device], int] | None" = None
    """Bytes that it needs on a GPU besides llama.cpp's own."""
    prompt_cache_mib: int = 0
    """Host memory that it fills with old prompts unless `cache_ram_mib` tells otherwise."""
    ctx_checkpoints: int = 0
    """Copies of windowed caches and recurrent states that a slot keeps in host memory unless it is told otherwise."""
    exporter: str = "llama-server"
    """Which exporter writes a plan for it."""


@record
class File:
    """A file that an export wants written."""

    path: str
    text: str


@record
class Export:
    """A plan in a runner's own words. Writing and running is the command line's business."""

    argv: Sequence[str] = ()
    files: Sequence[File] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[Sequence[str]] = ()
    cannot_express: Sequence[str] = ()
    notes: Sequence[str] = ()
    expected: Mapping[str, Any] = field(default_factory=dict)
    """What the runner should report once it has loaded the plan, in its own words: for `install` to check."""


@record
class ExportRequest:
    """What an exporter may want to know besides the plan."""

    model_reference: str
    """MODEL as the user wrote it."""
    model_path: str
    """A path or name that the runner can open; the reference itself where the model is not on this disk."""
    options: Mapping[str, str] = field(default_factory=dict)


@record
class Exporter:
    """Writes a plan as one runner's configuration: `fitplug export NAME MODEL`."""

    name: str
    help: str
    render: "Callable[[Plan, ExportRequest], Export]"
    runner: str = "llama-server"
    """The runner whose arithmetic the plan is computed with."""
    install: Callable[[Export], Sequence[str]] | None = None
    """Puts the export where the runner reads it; returns what was done, one line each."""
    undo: Callable[[], Sequence[str]] | None = None


@record
class Engine:
    """An installed llama.cpp that can be asked what it would allocate: `fitplug verify`."""

    name: str
    help: str
    available: Callable[[], str | None]
    """Its version, or None where it is not installed."""
    measure: "Callable[[str, Settings], Mapping[str, Mapping[str, int]]]"
    """Model path, settings → buffer type → kind → bytes, as that engine itself reports them."""
    runner: str = "llama-server"
    """The runner whose arithmetic its answer follows: no-alloc measuring is not a real run."""
    precision: int = 1
    """How far, in bytes, a reported figure may lie from the truth because of how it is printed."""
    ghosts: bool = True
    """It reads no weights, so a file whose tensors are a hole will do."""
    devices: "Callable[[], Sequence[Device] | None] | None" = None
    """Its own list of GPUs, within a few seconds; None where it is not installed or does not answer."""
    devices_precision: int = 1
    """The same for that list's figures."""
