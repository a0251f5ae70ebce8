"""The network between this machine and the devices behind RPC servers: what crosses it for a token, and how long that takes.

Source: ggml/src/ggml-backend.cpp, ggml_backend_sched_compute_splits, and ggml/src/ggml-rpc/ggml-rpc.cpp: every device's
part begins with its inputs, which go there one after the other; its result is fetched back before the next part begins, also
where that is another server's. So each device costs one way there and back, and carries the hidden state in and out.
"""

from collections.abc import Mapping
from typing import NamedTuple

from fitplug.machine.records import Device
from fitplug.memory.placement import Placement
from fitplug.model.records import Model
from fitplug.units import pad

GIGABIT = 117_000_000
"""Bytes per second of payload that 1 Gbit/s Ethernet carries."""
SUPPOSED = (GIGABIT, 10 * GIGABIT)
"""Where nobody measured: from the Ethernet of most homes to that of a rack."""
LOOPBACK = (500_000_000, 5_000_000_000)
"""Between processes of one machine, where nobody measured."""
ROUND_TRIP = (0.0002, 0.002)
"""Seconds there and back where a machine file does not say: from a switch to a good wireless network."""
MEASURED = 1.3
"""How far a measured network may be off from one minute to the next."""
MESSAGES, INPUTS = 1500, 3500
"""Bytes of a device's commands for one step besides its tensors, and where it has layers those about their inputs (seen: 1.6
and 4.1 to 6.9 KB together)."""
GRAPH = 9000
"""Bytes of the graph of one layer, which a server is sent anew where a step is unlike the last one, as in a prompt; the
steps of generation are alike for 256 tokens."""


class Link(NamedTuple):
    """The way to one device and back, in the worst and the best case."""

    round_trip: tuple[float, float]
    """Seconds: most, least."""
    bandwidth: tuple[float, float]
    """Bytes per second: least, most."""

    def seconds(self, n_bytes: float) -> tuple[float, float]:
        """Most and least for one exchange of so many bytes."""
        slow, fast = (t + n_bytes / b for t, b in zip(self.round_trip, self.bandwidth, strict=True))
        return slow, fast


def link_of(device: Device) -> Link | None:
    """None for a device of this machine."""
    if device.backend != "rpc":
        return None
    delay, measured = _positive(device.extra.get("round_trip_s")), _positive(device.extra.get("link_bandwidth"))
    trip = (delay * MEASURED, delay / MEASURED) if delay else ROUND_TRIP[::-1]
    if measured:
        return Link(trip, (measured / MEASURED, measured * MEASURED))
    return Link(trip, LOOPBACK if device.unified else SUPPOSED)


def _positive(value: object) -> float:
    """A machine file may say anything."""
    return float(value) if type(value) in {int, float} and 0 < value < 1 << 53 else 0.0  # type: ignore[operator,arg-type] # a number then


def crossing(model: Model, placement: Placement, name: str, *, n_tokens: int, depth: int, flash_attn: bool) -> int:
    """Bytes to a device and back when so many tokens are computed at once."""
    layers = [layer for layer, device in zip(model.layers, placement.layer_devices, strict=False) if device == name]
    state = 4 * model.n_embd * n_tokens
    last = placement.layer_devices[-1] == name
    returned = 4 * model.n_vocab if n_tokens == 1 else 0  # of a prompt, what is left after the last of many steps
    masks = len({layer.is_swa for layer in layers if layer.has_kv})
    mask = pad(depth, 256) * n_tokens * (2 if flash_attn else 4)
    commands = MESSAGES + (INPUTS if layers else 0) + (GRAPH * len(layers) if n_tokens > 1 else 0)
    return commands + state + (returned if last else state) + masks * mask


def link_seconds(
    links: Mapping[str, Link], model: Model, placement: Placement, *, n_tokens: int, depth: int, flash_attn: bool
) -> tuple[float, float]:
    """Most and least seconds on the network, for all devices together."""
    slow = fast = 0.0
    for name, link in links.items():
        n_bytes = crossing(model, placement, name, n_tokens=n_tokens, depth=depth, flash_attn=flash_attn)
        most, least = link.seconds(n_bytes)
        slow, fast = slow + most, fast + least
    return slow, fast
