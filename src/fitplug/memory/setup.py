"""What compute buffers are asked for: settings, and what was found out about them before a graph is drawn."""

from collections.abc import Hashable
from typing import NamedTuple

from fitplug.memory.placement import Placement
from fitplug.memory.records import Resolved
from fitplug.memory.targets import ALONE, NO_TAPS, Role
from fitplug.memory.weights import Placed
from fitplug.settings import Settings


class Setup(NamedTuple):
    """One set of settings, and what follows from them."""

    placement: Placement
    placed: Placed
    resolved: Resolved
    settings: Settings
    role: Role = ALONE

    @property
    def untapped(self) -> "Setup":
        """The same before drafting asks for anything."""
        return self._replace(role=self.role._replace(taps=NO_TAPS))

    @property
    def loaded(self) -> Hashable:
        """What decides where each weight lies."""
        return self.placement.names, self.placement.layer_devices, self.settings.moving, self.settings.loading

    @property
    def lent_cells(self) -> Hashable:
        """The target's cache, where there is one."""
        return self.role.target and self.role.target.cells

    @property
    def tried(self) -> Hashable:
        """What llama_context::resolve_fused_ops depends on: settings equal in this are tried once."""
        settings, resolved = self.settings, self.resolved
        return (
            self.loaded, settings.offload_kqv, settings.op_offload, resolved.n_seq_max, resolved.n_stream, resolved.type_k,
            resolved.type_v, resolved.flash_attn, self.lent_cells,
        )  # fmt: skip
