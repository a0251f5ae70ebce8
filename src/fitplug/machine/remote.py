"""Devices of other machines, beside this one's own."""

from collections.abc import Sequence
from dataclasses import replace

from fitplug.errors import FitplugError
from fitplug.machine.records import Device, Machine

_MEASURED = ("link_bandwidth", "read_rate", "catalogue")
"""What a recorded device knows of its way and of itself that asking it again does not tell."""


def join(machine: Machine, remote: Sequence[Device], *, notes: Sequence[str] = ()) -> Machine:
    """The machine with these devices in front (src/llama.cpp, llama_prepare_model_devices: RPC servers come first).

    A device that the machine file recorded already is taken as it is now, with the speeds that were measured then.
    """
    known = {_place(device): device for device in machine.devices if device.backend == "rpc"}
    fresh = [_with_speeds(device, known.pop(_place(device), None)) for device in remote]
    others = [device for device in machine.devices if device.backend != "rpc" or _place(device) in known]
    return replace(machine, devices=(*fresh, *others), notes=(*machine.notes, *notes))


def _place(device: Device) -> tuple[object, str]:
    return device.extra.get("endpoint"), device.name


def _with_speeds(device: Device, recorded: Device | None) -> Device:
    if recorded is None:
        return device
    measured = {key: recorded.extra[key] for key in _MEASURED if key in recorded.extra}
    return replace(
        device,
        memory_bandwidth=device.memory_bandwidth or recorded.memory_bandwidth,
        compute_capability=device.compute_capability or recorded.compute_capability,
        extra={**measured, **device.extra},
    )


def known_as(card: str, devices: Sequence[Device]) -> list[Device]:
    """The same devices as cards of the catalogue, which knows their speeds: "3090", or "4090+3060" for several.

    Raises:
        FitplugError: not as many cards as devices; NotFoundError: no such card.
    """
    from fitplug.machine.catalogue import parse_gpu_option

    cards = [each for text in card.split("+") for each in parse_gpu_option(text)]
    if len(cards) == 1:
        cards *= len(devices)
    if len(cards) != len(devices):
        raise FitplugError(f"'{card}' names {len(cards)} cards; the server has {len(devices)} devices: join them with +")
    return [_known_as(named, device) for named, device in zip(cards, devices, strict=True)]


def _known_as(card: Device, device: Device) -> Device:
    if device.extra.get("served_by") == "cpu":
        raise FitplugError(f"{device.name} is a processor, not a {card.name}")
    # HIP and MUSA are CUDA's source: a server that looks like CUDA may be any of them
    told = {"served_by": card.backend, "catalogue": card.extra["catalogue"]}
    return replace(
        device,
        compute_capability=card.compute_capability,
        memory_bandwidth=card.memory_bandwidth,
        extra={**device.extra, **told},
    )
