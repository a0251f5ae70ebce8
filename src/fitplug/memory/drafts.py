"""Drafts for speculative decoding: a model of its own, one that leans on its target, or the target's own MTP blocks.

A server loads the target, then makes one more context (common_speculative_init_result, common/speculative.cpp): of the
draft's file if there is one, else of the target's model. What the target pays for being drafted for is in `memory.context`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from fitplug.errors import RefusedError
from fitplug.extension import Runner
from fitplug.machine.records import Machine
from fitplug.memory.context import n_drafted
from fitplug.memory.draft_kinds import BLOCKS, kind_of
from fitplug.memory.placement import Placement, place
from fitplug.memory.records import Estimate, Kind, Part, Resolved
from fitplug.memory.targets import ALONE, GROWN, HANDED_OVER, NO_TAPS, SCRATCH, Role, Taps, Target, borrows
from fitplug.memory.weights import Placed
from fitplug.model.records import Model
from fitplug.settings import DRAFT_MTP, SPEC_TYPES, Settings

EH_PROJ = "blk.{}.nextn.eh_proj.weight"
PICKED = frozenset((DRAFT_MTP, "draft-eagle3", *BLOCKS))
"""Drafts whose tokens the device can pick: those that call llama_set_sampler (common/speculative.cpp)."""
TAPPED = frozenset((
    "llama", "llama-embed", "qwen3", "qwen3moe", "qwen3next", "qwen35", "qwen35moe", "qwen4exp", "gpt-oss", "gemma4",
    "deepseek4", "minimax-01", "minimax-m2", "bailingmoe3", "nemotron_h", "nemotron_h_moe", "mimo2", "lfm2", "lfm2moe",
    "hunyuan_vl", "hunyuan-dense", "muse-glimmer", "nanbeige",
))  # fmt: skip
"""Architectures whose graphs hand out the inputs of their layers (t_layer_inp in src/models/*.cpp); others abort."""
TAPPED_LAST = frozenset(("deepseek4", "nemotron_h", "nemotron_h_moe", "mimo2"))
"""The same of what comes after the last layer."""


class Estimating(Protocol):
    """An estimator of one model; see `fitplug.memory.estimate.Estimator`."""

    def __call__(self, settings: Settings, role: Role = ALONE) -> Estimate:
        """Where every byte goes."""


class MakeEstimator(Protocol):
    """Makes one."""

    def __call__(self, model: Model, machine: Machine, runner: Runner, *, mtp: bool = False) -> Estimating:
        """An estimator of the model, or of the context of its MTP blocks."""


def has_mtp_head(model: Model) -> bool:
    """Whether the last block can draft; by this llama.cpp knows such a file (common_speculative_types_from_gguf)."""
    return EH_PROJ.format(model.n_layer_all - 1) in model.tensors


def told(settings: Settings, draft: Model) -> Settings:
    """The same with the --spec-type that uses this draft.

    llama.cpp finds out by itself what block drafts and MTP heads are (common/arg.cpp); other drafts it would load for nothing.
    """
    if settings.spec_type is not None:
        return settings
    return replace(settings, spec_type=detected(draft) or kind_of(draft.architecture).spec_type)


def detected(draft: Model) -> str | None:
    """common_speculative_types_from_gguf (common/speculative.cpp)."""
    for tensor, spec_type in kind_of(draft.architecture).detected:
        if not tensor or tensor in draft.tensors:
            return spec_type
    return DRAFT_MTP if has_mtp_head(draft) else None


class Drafts:
    """What drafts for one model on one machine; what depends on few settings is worked out once.

    Args:
        model: the target.
        draft: the draft that settings may name, as far as it was opened.
        machine: where.
        runner: the program that runs both.
        make: makes estimators.
    """

    def __init__(self, model: Model, draft: Model | None, machine: Machine, runner: Runner, make: MakeEstimator) -> None:
        self.model, self.draft, self.machine = model, draft, machine
        self._asks_for_drafts = "spec_type" not in runner.cannot_express
        self._runner = replace(runner, outputs="sequences")  # common_base_params_to_speculative
        self._make = make
        self._estimators: dict[tuple[bool, bool], Estimating] = {}
        self._known: dict[object, list[Part]] = {}

    def taps(self, settings: Settings) -> Taps:
        """What drafting asks of the target's context.

        Raises:
            RefusedError: its graph does not hand out what the draft reads.
        """
        kinds, draft = set(settings.spec_types()), self.draft if settings.model_draft is not None else None
        nextn = DRAFT_MTP in kinds
        inputs: set[int] = set()
        if draft is not None and kinds & kind_of(draft.architecture).reads:
            inputs = target_layers(draft)
            if kind_of(draft.architecture).last_by_nextn and self.model.n_layer in inputs:
                inputs, nextn = inputs - {self.model.n_layer}, True
            self._refuse_inputs(inputs)
        if not nextn and not inputs:
            return NO_TAPS
        return Taps(nextn="all" if nextn else "none", inputs=frozenset(inputs), rows=1 + n_drafted(settings))

    def _refuse_inputs(self, inputs: set[int]) -> None:
        name, n = self.model.architecture, self.model.n_layer
        if name not in TAPPED or (n in inputs and name not in TAPPED_LAST):
            raise RefusedError(f"llama.cpp cannot read the states of {name} that this draft needs")
        if max(inputs, default=0) > n:
            raise RefusedError(f"the draft reads layer {max(inputs)} of its target, which has {n}")

    def _own_taps(self, settings: Settings) -> Taps:
        """The same of the draft's context."""
        draft, kinds = self.draft if settings.model_draft is not None else None, set(settings.spec_types())
        kind = kind_of(draft.architecture if draft is not None else "")
        if kind.reads:
            kinds &= kind.reads
        if not kinds & PICKED:
            return NO_TAPS
        selects = draft is not None and "selector_hidden.weight" in draft.tensors
        picks = settings.draft_backend_sampling and settings.split_mode != "tensor" and not selects
        blocks = any(SPEC_TYPES[each].whole_blocks for each in kinds)
        rows = 1 + settings.draft_max if blocks else 1
        return Taps(
            nextn="all" if selects else "outputs", rows=rows, sampled=rows if picks else 0, fed=bool(kind.reads),
            encodes=kind.encodes,
        )  # fmt: skip

    def parts(self, estimate: Estimate, placement: Placement, placed: Placed) -> list[Part]:
        """The draft's bytes beside those of its target.

        Raises:
            RefusedError: llama.cpp cannot draft so.
        """
        asked = estimate.settings
        if asked.model_draft is not None:
            return [] if self.draft is None else self._own(self.draft, estimate, placement, placed)
        return self._mtp(estimate) if asked.drafts_by_mtp else []

    def notes(self, settings: Settings) -> list[str]:
        """What is not counted, and a draft that is loaded for nothing."""
        if settings.model_draft is None:
            return []
        if self.draft is None:
            return [f"the draft model {settings.model_draft} is not counted"]
        if settings.spec_type is None and self._asks_for_drafts and detected(self.draft) is None:
            spec_type = kind_of(self.draft.architecture).spec_type
            return [f"llama-server loads the draft, and uses it only with --spec-type {spec_type}"]
        return []

    def _mtp(self, target: Estimate) -> list[Part]:
        """A second context on the target's own model; it shares weights and placement."""
        refuse_mtp(self.model)
        settings = replace(
            draft_context(target.settings, target.resolved), n_gpu_layers=target.settings.n_gpu_layers,
            n_cpu_moe=target.settings.n_cpu_moe, overrides=target.settings.overrides,
        )  # fmt: skip
        role = Role(taps=self._own_taps(target.settings))
        parts = self._estimator(self.model, own=False, mtp=True)(settings, role).parts
        return [part._replace(source=f"MTP {part.source}") for part in parts if part.kind != Kind.MODEL and is_own(part)]

    def _own(self, draft: Model, target: Estimate, placement: Placement, placed: Placed) -> list[Part]:
        """A model of its own; it is loaded after the target, and finds the memory that this one leaves."""
        asked = target.settings
        mtp = asked.drafts_by_mtp and not draft.row.target_context  # whose one graph is drawn whatever the context's type
        if mtp:
            refuse_mtp(draft)
        settings = draft_settings(asked, target.resolved)
        if not any(settings.tensor_split):
            settings = replace(settings, tensor_split=self._shares_left(target, settings))
        lends = (target.layer_devices, asked) if borrows(draft) else None
        key = (place(draft, self.machine, settings).layer_devices, replace(settings, tensor_split=()), lends)
        if key not in self._known:
            lender = Target(model=self.model, placement=placement, placed=placed, resolved=target.resolved, settings=asked)
            role = Role(lender if borrows(draft) else None, self._own_taps(asked))
            found = self._estimator(draft, own=True, mtp=mtp)(settings, role)
            self._known[key] = [part._replace(source=f"draft's {part.source}") for part in found.parts if is_own(part)]
        return self._known[key]

    def _estimator(self, model: Model, *, own: bool, mtp: bool) -> Estimating:
        found = self._estimators.get((own, mtp))
        if found is None:
            found = self._estimators[own, mtp] = self._make(model, self.machine, self._runner, mtp=mtp)
        return found

    def _shares_left(self, target: Estimate, settings: Settings) -> tuple[float, ...]:
        names = self.machine.device_names()
        free = dict(zip(names, (device.free_bytes for device in self.machine.devices), strict=True))
        left = [float(max(0, free[name] - target.n_bytes(name))) for name in _used(names, settings)]
        return tuple(left) if any(left) else ()


def is_own(part: Part) -> bool:
    """Whether it comes with the draft: the driver's context and the runner's needs are the target's already."""
    return part.kind != Kind.OVERHEAD or part.source in (GROWN, HANDED_OVER, SCRATCH)


def target_layers(draft: Model) -> set[int]:
    """The layers of the target whose inputs the draft reads ({arch}.target_layers)."""
    found = draft.get("target_layers")
    return {int(il) for il in found} if isinstance(found, tuple) else set()


def _used(names: Sequence[str], settings: Settings) -> Sequence[str]:
    """The devices that a tensor split counts."""
    if settings.devices is None:
        return names
    return [name for name in settings.devices if name in names]


def refuse_mtp(model: Model) -> None:
    """What llama.cpp aborts or throws for: graph_mtp's assertions (src/models/*.cpp).

    Raises:
        RefusedError: this model cannot draft by MTP.
    """
    name = model.architecture
    if model.row.target_context:
        return
    if not model.row.mtp:
        raise RefusedError(f"--spec-type {DRAFT_MTP}: llama.cpp has no MTP graph for {name}")
    if not model.n_layer_nextn or EH_PROJ.format(model.n_layer) not in model.tensors:
        raise RefusedError(f"--spec-type {DRAFT_MTP}: this file has no MTP blocks; name the file that has them with -md")
    if model.get("attention.temperature_scale") and model.row.path.endswith("deepseek2.cpp"):
        raise RefusedError(f"--spec-type {DRAFT_MTP}: llama.cpp cannot scale attention by temperature in {name}'s MTP graph")


def draft_context(settings: Settings, resolved: Resolved) -> Settings:
    """What every draft's context takes over of its target's: all but the cache's types (common_base_params_to_speculative)."""
    return replace(
        settings, n_ctx=resolved.n_ctx, type_k=settings.draft_type_k, type_v=settings.draft_type_v,
        mmproj=None, model_draft=None, spec_type=None, lora=(), lora_scaled=(), embedding=False, pooling=None,
    )  # fmt: skip


def draft_settings(settings: Settings, resolved: Resolved) -> Settings:
    """The same for a draft that is a model of its own, which has a placement of its own."""
    found = replace(
        draft_context(settings, resolved), n_gpu_layers=settings.draft_n_gpu_layers, n_cpu_moe=settings.draft_n_cpu_moe,
        n_cpu_ffn=0, overrides=settings.draft_overrides,
    )  # fmt: skip
    if settings.draft_devices is not None:
        found = replace(found, devices=settings.draft_devices)
        if len(settings.draft_devices) == 1:
            found = replace(found, split_mode="layer")
    blocks = [kind for kind in settings.spec_types() if SPEC_TYPES[kind].whole_blocks]
    return replace(found, spec_type=blocks[0]) if blocks else found
