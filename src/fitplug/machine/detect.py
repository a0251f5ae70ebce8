"""From the registered detectors to a `Machine`: collect (touches the machine), then compose (pure).

The two halves are separate so that what was collected can be recorded (`fitplug devices --raw`) and replayed elsewhere.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fitplug.errors import FitplugError, UnreadableError
from fitplug.extension import Detector
from fitplug.machine.order import normal_pci_id, take_devices
from fitplug.machine.records import Device, Host, Machine

TIMEOUT_S = 2.0
"""A detector that has not answered by then is left behind; its thread ends with the process."""


def detect(detectors: Iterable[Detector], *, timeout_s: float = TIMEOUT_S) -> Machine:
    """Find this machine. A detector that fails or hangs is a note, never the end."""
    detectors = tuple(detectors)
    raw, notes = collect(detectors, timeout_s=timeout_s)
    return compose(detectors, raw, notes=notes)


def collect(detectors: Iterable[Detector], *, timeout_s: float = TIMEOUT_S) -> tuple[dict[str, Any], list[str]]:
    """What each detector found, by its name, and a note for each that could not finish.

    All run at the same time; the fallbacks only where the others had nothing.
    """
    detectors = tuple(detectors)
    raw, notes = _run([detector for detector in detectors if not detector.fallback], timeout_s)
    fallbacks = [detector for detector in detectors if detector.fallback]
    if fallbacks and not compose(detectors, raw).devices:
        more, more_notes = _run(fallbacks, timeout_s)
        raw, notes = raw | more, notes + more_notes
    return raw, notes


def compose(detectors: Iterable[Detector], raw: Mapping[str, Any], *, notes: Sequence[str] = ()) -> Machine:
    """The machine that was collected as `raw`, here or elsewhere."""
    notes = list(notes)
    devices: list[Device] = []
    host: Host | None = None
    for detector in sorted(detectors, key=lambda detector: detector.order):
        findings = raw.get(detector.name)
        if findings is None:
            continue
        try:
            parsed = detector.parse(findings)
            said = detector.notes(findings) if detector.notes else ()
        except Exception as error:  # noqa: BLE001 - whatever a detector does wrong is its note
            notes.append(_failure(detector, error))
            continue
        notes += [f"{detector.name}: {line}" for line in said]
        if isinstance(parsed, Host):
            host = host or parsed
        else:
            devices += _unseen(devices, parsed)
    if host is None:
        from fitplug.machine.load import assumed_host

        host, note = assumed_host(devices)
        notes.append(note)
    taken, unused = take_devices(_with_speed(device) for device in devices)
    host = _without_cards(host, devices)
    return Machine(devices=taken, unused=unused, host=host, notes=tuple(notes))


def _without_cards(host: Host, devices: Iterable[Device]) -> Host:
    """Cards whose memory the system lists as a NUMA node of its own (GH200, GB200) are counted in the host's memory too."""
    nodes = [device for device in devices if device.extra.get("numa_node") is not None and not device.unified]
    if not nodes:
        return host
    total = max(0, host.total_bytes - sum(device.total_bytes for device in nodes))
    available = host.available_bytes - sum(device.free_bytes for device in nodes)
    return replace(host, total_bytes=total, available_bytes=min(total, max(0, available)))


def _with_speed(device: Device) -> Device:
    """A device whose driver does not tell its memory's speed has the catalogue's, where that knows it."""
    if device.memory_bandwidth is not None:
        return device
    from fitplug.machine.catalogue import card_for_device

    card = card_for_device(device)
    if card is None or card.bandwidth is None:
        return device
    extra = {**device.extra, "bandwidth_basis": f"catalogue: {card.name}"}
    bandwidth = card.bandwidth // card.n_gpus
    if "slice_of" in device.extra and card.gib:  # the share of the bus that it has of the memory
        bandwidth = bandwidth * min(device.total_bytes, card.gib << 30) // (card.gib << 30)
    return replace(device, memory_bandwidth=bandwidth, extra=extra)


def machine_from_file(text: str | bytes, detectors: Iterable[Detector]) -> Machine:
    """The machine that a file describes: a machine file, or what `fitplug devices --raw` printed elsewhere.

    Raises:
        UnreadableError: it is neither.
    """
    from fitplug.machine.load import json_from_text, machine_from_json, machine_to_json

    data = json_from_text(text)
    if isinstance(data, Mapping) and "devices" not in data and isinstance(data.get("raw"), Mapping):
        try:
            said = data.get("notes") or ()
            stated = machine_to_json(compose(detectors, data["raw"], notes=said if isinstance(said, list) else ()))
        except Exception as error:  # what a file makes a detector hand in can be anything
            raise UnreadableError(f"not a recording: {type(error).__name__}: {error}".replace("\n", " ")[:200]) from error
        return machine_from_json(stated)  # checked like any other: it came from outside
    return machine_from_json(data)


def _run(detectors: Sequence[Detector], timeout_s: float) -> tuple[dict[str, Any], list[str]]:
    results: dict[str, Any] = {}
    notes: list[str] = []
    answered = threading.Condition()

    def work(detector: Detector) -> None:
        try:
            findings, note = detector.collect(), None
        except Exception as error:  # noqa: BLE001 - whatever a detector does wrong is its note
            findings, note = None, _failure(detector, error)
        with answered:
            results[detector.name] = findings
            notes.extend([note] if note else ())
            answered.notify()

    for detector in detectors:
        threading.Thread(target=work, args=(detector,), daemon=True).start()
    with answered:
        answered.wait_for(lambda: len(results) == len(detectors), timeout_s)
        found, said = dict(results), list(notes)  # a thread left behind may still write
    said += [f"{detector.name}: no answer within {timeout_s:g} s" for detector in detectors if detector.name not in found]
    return {name: findings for name, findings in found.items() if findings is not None}, said


def _failure(detector: Detector, error: Exception) -> str:
    said = str(error) if isinstance(error, FitplugError) else f"failed with {type(error).__name__}: {error}"
    return f"{detector.name}: {said}".replace("\n", " ")


def _unseen(known: Sequence[Device], found: Iterable[Device]) -> list[Device]:
    """Those of `found` that are none of the cards that earlier detectors reported.

    One card has one PCI address. A detector that cannot tell addresses is matched by names, one for one.
    """
    addresses = {normal_pci_id(device.pci_id) for device in known if device.pci_id}
    names = [_plain(device.name) for device in known]
    fresh = []
    for device in found:
        name = _plain(device.name)
        if device.pci_id and normal_pci_id(device.pci_id) in addresses:
            continue
        if not device.pci_id and name in names:
            names.remove(name)
            continue
        fresh.append(device)
    return fresh


def _plain(name: str) -> str:
    """A card's name as two drivers would agree on it."""
    return "".join(c for c in name.lower().replace("(r)", "").replace("(tm)", "") if c.isalnum())
