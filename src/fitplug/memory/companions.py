"""What runs beside the model: a projector that sees or hears, a draft model for speculative decoding, LoRA adapters.

Reading their files is the caller's business: it hands in headers, and a draft that is already described.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from fitplug.extension import Runner
from fitplug.formats.header import Header
from fitplug.machine.records import Machine
from fitplug.memory.placement import place
from fitplug.memory.records import HOST, Basis, Estimate, Kind, Part, Resolved
from fitplug.memory.weights import Placed
from fitplug.model.records import Model
from fitplug.settings import Settings

LEANING, EH_PROJ = frozenset(("dflash", "eagle3")), "nextn.eh_proj"
"""Drafts that read their target's hidden states, and the tensor by which an MTP head is known."""
DRAFT_CACHE = "f16"
"""-ctkd and -ctvd (common/common.h, common_params_speculative_draft)."""


class Companions(NamedTuple):
    """What was opened beside the model."""

    projector: Header | None = None
    draft: Model | None = None
    adapters: Sequence[Header] = ()

    @property
    def drafts_simply(self) -> bool:
        """The draft is a model of its own, that needs nothing of its target's (common_speculative_types_from_gguf)."""
        return (
            self.draft is not None
            and self.draft.architecture not in LEANING
            and not any(EH_PROJ in name for name in self.draft.tensors)
        )

    def drafting(self, settings: Settings, runner: Runner) -> Settings:
        """The same, with a draft that is used: llama-server would only load it (common_speculative_init)."""
        if not self.drafts_simply or settings.spec_type is not None or "spec_type" in runner.cannot_express:
            return settings
        return replace(settings, spec_type="draft-simple")


NOTHING_BESIDE = Companions()

Estimating = Callable[[Settings], Estimate]
"""An estimator of one model; see `fitplug.memory.estimate.Estimator`."""
MakeEstimating = Callable[[Model, Machine, Runner], Estimating]


class Beside:
    """The companions of one model on one machine; what depends on few settings is worked out once.

    Args:
        companions: what was opened.
        machine: where.
        runner: the program that runs it all.
        estimating: makes the draft's estimator.
    """

    def __init__(
        self,
        companions: Companions,
        machine: Machine,
        runner: Runner,
        estimating: Callable[[Model, Machine, Runner], Estimating],
    ) -> None:
        self.companions, self.machine = companions, machine
        self._asks_for_drafts = "spec_type" not in runner.cannot_express
        self._runner = replace(runner, outputs="sequences")  # common_base_params_to_speculative
        self._estimating = estimating
        self._draft: Estimating | None = None
        self._projected: dict[object, list[Part]] = {}
        self._drafted: dict[object, list[Part]] = {}

    def parts(self, estimate: Estimate, placed: Placed) -> list[Part]:
        """The parts of all that the settings ask for."""
        settings, found = estimate.settings, []
        if settings.lora:
            for adapter in self.companions.adapters:
                found += self._adapter(adapter, placed)
        if settings.mmproj is not None and self.companions.projector is not None:
            found += self._projector(self.companions.projector, settings)
        draft = self.companions.draft
        if settings.model_draft is not None and draft is not None and not draft.row.target_context:
            found += self._drafts(draft, estimate)
        return found

    def notes(self, settings: Settings) -> list[str]:
        """What could not be counted."""
        beside, notes = self.companions, []
        if settings.mmproj is not None and beside.projector is None:
            notes.append(f"the projector {settings.mmproj} is not counted")
        if settings.mmproj is not None and beside.projector is not None:
            from fitplug.memory.clip import warm_up_note

            notes += warm_up_note(beside.projector)
        if settings.model_draft is not None and (beside.draft is None or beside.draft.row.target_context):
            notes.append(f"the draft model {settings.model_draft} is not counted")
        elif settings.model_draft is not None and not beside.drafts_simply:
            notes.append("this draft reads its target's hidden states: what that takes of the target is not counted")
        elif settings.model_draft is not None and settings.spec_type is None and self._asks_for_drafts:
            notes.append("llama-server loads the draft, and uses it only with --spec-type draft-simple")
        if settings.lora:
            counted = "their products in the compute buffer" if beside.adapters else "LoRA adapters"
            notes.append(f"{counted} are not counted")
        return notes

    def _adapter(self, adapter: Header, placed: Placed) -> list[Part]:
        from fitplug.memory.lora import adapter_bytes

        names = placed.placement.names
        return [
            Part(buffer if buffer in names else HOST, Kind.MODEL, n, Basis.EXACT, "adapter", "" if buffer in names else buffer)
            for buffer, n in adapter_bytes(adapter, placed).items()
        ]

    def _projector(self, header: Header, settings: Settings) -> list[Part]:
        key = (settings.mmproj_offload, settings.flash_attn)
        if key not in self._projected:
            from fitplug.memory.clip import projector_parts

            self._projected[key] = projector_parts(header, self.machine, settings)
        return self._projected[key]

    def _drafts(self, draft: Model, target: Estimate) -> list[Part]:
        """A draft model with a context as long as its target's (common_speculative_init_result, common/speculative.cpp)."""
        if self._draft is None:
            self._draft = self._estimating(draft, self.machine, self._runner)
        settings = draft_settings(target.settings, target.resolved)
        if not any(settings.tensor_split):
            settings = replace(settings, tensor_split=self._shares_left(target, settings))
        key = (place(draft, self.machine, settings).layer_devices, replace(settings, tensor_split=()))
        if key not in self._drafted:
            self._drafted[key] = [
                part._replace(source=f"draft's {part.source}")
                for part in self._draft(settings).parts
                if part.kind != Kind.OVERHEAD
            ]
        return self._drafted[key]

    def _shares_left(self, target: Estimate, settings: Settings) -> tuple[float, ...]:
        """It is loaded after the target, and finds the memory that this one leaves."""
        names = self.machine.device_names()
        free = dict(zip(names, (device.free_bytes for device in self.machine.devices), strict=True))
        left = [float(max(0, free[name] - target.n_bytes(name))) for name in _used(names, settings)]
        return tuple(left) if any(left) else ()


def _used(names: Sequence[str], settings: Settings) -> Sequence[str]:
    """The devices that a tensor split counts."""
    if settings.devices is None:
        return names
    return [name for name in settings.devices if name in names]


def draft_settings(settings: Settings, resolved: Resolved) -> Settings:
    """What a draft takes over from its target: all but cache types and placement (common_base_params_to_speculative)."""
    return replace(
        settings, n_ctx=resolved.n_ctx, type_k=DRAFT_CACHE, type_v=DRAFT_CACHE, n_gpu_layers=-1, n_cpu_moe=0, overrides=(),
        mmproj=None, model_draft=None, spec_type=None, lora=(),
    )  # fmt: skip
