"""What runs beside the model: a projector that sees or hears, a draft model for speculative decoding, LoRA adapters.

Reading their files is the caller's business: it hands in headers, and a draft that is already described.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from fitplug.extension import Runner
from fitplug.formats.header import Header
from fitplug.machine.records import Machine
from fitplug.memory.compute_closed import BY_FORMULA
from fitplug.memory.drafts import Drafts, MakeEstimator, detected, told
from fitplug.memory.placement import Placement
from fitplug.memory.records import HOST, Basis, Estimate, Kind, Part
from fitplug.memory.targets import Taps
from fitplug.memory.weights import Placed
from fitplug.model.records import Model
from fitplug.settings import Settings


class Companions(NamedTuple):
    """What was opened beside the model."""

    projector: Header | None = None
    draft: Model | None = None
    adapters: Sequence[Header] = ()
    idle: frozenset[int] = frozenset()
    """Which of the adapters are loaded and not applied, since their scale is 0."""

    @property
    def applied(self) -> Sequence[Header]:
        """The adapters that change the graph."""
        return [adapter for i, adapter in enumerate(self.adapters) if i not in self.idle]

    def detecting(self, settings: Settings, runner: Runner) -> Settings:
        """The same with what llama.cpp finds out about the draft by itself (common/arg.cpp)."""
        if self.draft is None or settings.spec_type is not None or "spec_type" in runner.cannot_express:
            return settings
        return replace(settings, spec_type=detected(self.draft)) if settings.model_draft is not None else settings

    def drafting(self, settings: Settings, runner: Runner) -> Settings:
        """The same, with a draft that is used: llama-server would load some only (see `drafts.told`)."""
        if self.draft is None or settings.model_draft is None or "spec_type" in runner.cannot_express:
            return settings
        return told(settings, self.draft)


NOTHING_BESIDE = Companions()


class Beside:
    """The companions of one model on one machine; what depends on few settings is worked out once.

    Args:
        model: beside which they are.
        companions: what was opened.
        machine: where.
        runner: the program that runs it all.
        make: makes estimators.
    """

    def __init__(self, model: Model, companions: Companions, machine: Machine, runner: Runner, make: MakeEstimator) -> None:
        self.companions, self.machine, self._n_embd = companions, machine, model.n_embd_inp or model.n_embd
        self._drafts = Drafts(model, companions.draft, machine, runner, make)
        self._projected: dict[object, list[Part]] = {}

    def parts(self, estimate: Estimate, placement: Placement, placed: Placed) -> list[Part]:
        """The parts of all that the settings ask for.

        Raises:
            RefusedError: llama.cpp cannot draft so.
        """
        settings, found = estimate.settings, []
        if settings.adapters:
            for adapter in self.companions.adapters:
                found += self._adapter(adapter, placed)
        if settings.mmproj is not None and self.companions.projector is not None:
            found += self._projector(self.companions.projector, settings)
        return found + self._drafts.parts(estimate, placement, placed)

    def taps(self, settings: Settings) -> Taps:
        """What drafting asks of the model's own context."""
        return self._drafts.taps(settings)

    def notes(self, settings: Settings, parts: Sequence[Part]) -> list[str]:
        """What could not be counted, beside these parts of the model itself."""
        beside, notes = self.companions, []
        if settings.mmproj is not None and beside.projector is None:
            notes.append(f"the projector {settings.mmproj} is not counted")
        if settings.mmproj is not None and beside.projector is not None:
            from fitplug.memory.clip import warm_up_note

            notes += warm_up_note(beside.projector, settings.image_max_tokens)
        notes += self._drafts.notes(settings)
        if settings.adapters and not beside.adapters:
            notes.append("LoRA adapters are not counted")
        elif settings.adapters and any(part.source == BY_FORMULA for part in parts):
            notes.append("the adapters' products in the compute buffer are not counted")
        return notes

    def _adapter(self, adapter: Header, placed: Placed) -> list[Part]:
        from fitplug.memory.lora import adapter_bytes

        names = placed.placement.names
        return [
            Part(buffer if buffer in names else HOST, Kind.MODEL, n, Basis.EXACT, "adapter", "" if buffer in names else buffer)
            for buffer, n in adapter_bytes(adapter, placed).items()
        ]

    def _projector(self, header: Header, settings: Settings) -> list[Part]:
        key = (
            settings.mmproj_offload, settings.mmproj_device, settings.devices, settings.flash_attn, settings.image_max_tokens,
        )  # fmt: skip
        if key not in self._projected:
            from fitplug.memory.clip import projector_parts, refuse_for

            refuse_for(header, self._n_embd)
            self._projected[key] = projector_parts(header, self.machine, settings)
        return self._projected[key]
