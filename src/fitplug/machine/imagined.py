"""Devices of cards that are not here: what their driver would report."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fitplug.errors import NotFoundError
from fitplug.machine.catalogue import CatalogueCard, parse_gpu_option
from fitplug.machine.order import take_devices
from fitplug.machine.records import Device, Host, Machine
from fitplug.units import GIB, MIB, format_bytes

BACKENDS = {"nvidia": "cuda", "amd": "rocm", "intel": "sycl", "apple": "metal", "huawei": "cann", "moorethreads": "musa",
            "qualcomm": "vulkan"}  # fmt: skip
"""What llama.cpp runs a vendor's cards with. The others' cards it has no backend for."""


class _Share(NamedTuple):
    """Of a unified memory of up to so many GiB, a GPU may use between these parts."""

    up_to_gib: int
    low: float
    high: float


_SHARES: dict[str, tuple[_Share, ...]] = {
    # Metal's recommendedMaxWorkingSetSize: 2/3 and 3/4 until macOS 15, 0.74 and 0.84 were seen on macOS 26
    "apple": (_Share(36, 2 / 3, 0.74), _Share(1 << 20, 3 / 4, 0.84)),
    # GTT is half of the memory; ttm.pages_limit raises it (96 of 128 GiB is the usual advice)
    "amd": (_Share(1 << 20, 1 / 2, 3 / 4),),
    # Linux's MemTotal: 121.69 of 128 GiB on a GB10, 7.1 of 8 on an Orin NX
    "nvidia": (_Share(8, 0.88, 0.95), _Share(1 << 20, 0.95, 0.95)),
    # Mesa gives three quarters of the memory to an integrated GPU's heap, Windows half
    "intel": (_Share(1 << 20, 1 / 2, 3 / 4),),
    "qualcomm": (_Share(1 << 20, 1 / 2, 3 / 4),),
}


def device_from_card(card: CatalogueCard, free_bytes: int | None = None) -> Device:
    """The card as its driver reports it, idle; `free_bytes` where the user knows better.

    Raises:
        NotFoundError: llama.cpp has no backend for it, or its memory is not known.
    """
    backend = BACKENDS.get(card.vendor)
    if backend is None:
        raise NotFoundError(f"{card.name}: llama.cpp has no GPU backend for it; plan for its memory with --machine")
    if card.gib is None:
        sizes = ", ".join(f"{size}GB" for size in card.options_gib) or "'… 32GB'"
        raise NotFoundError(f"{card.name} uses the machine's memory: say how much it has, {sizes}")
    extra: dict[str, Any] = {"catalogue": card.name}
    if card.unified:
        share = next(share for share in _SHARES[card.vendor] if card.gib <= share.up_to_gib)
        total, reserve = card.driver_mib * MIB if card.driver_mib else round(card.gib * GIB * share.low), 0
        extra |= {"memory_bytes": card.gib * GIB, "usable_bytes": [total, max(total, round(card.gib * GIB * share.high))]}
    else:
        total = driver_total(card)
        reserve = driver_reserve(card, total)
        extra |= {"total_basis": "seen" if card.driver_mib else "rule", "assumed_reserve_bytes": reserve}
    if free_bytes is not None and free_bytes > total:
        raise NotFoundError(f"{card.name} has {format_bytes(total)}; {format_bytes(free_bytes)} cannot be free")
    integrated = card.unified and card.vendor != "apple"  # Metal's device is a GPU to llama.cpp, not an integrated one
    return Device(
        kind="igpu" if integrated else "gpu",
        backend=backend,
        name=next(iter(card.driver_names), card.name),
        total_bytes=total,
        free_bytes=total - reserve if free_bytes is None else free_bytes,
        compute_capability=card.capability,
        memory_bandwidth=card.bandwidth and card.bandwidth // card.n_gpus,
        unified=card.unified,
        basis="catalogue",
        extra=extra,
    )


def driver_total(card: CatalogueCard) -> int:
    """What the driver calls the card's total, for one of its GPUs: as seen, else by the rule of its kind.

    The rules are read off the totals that were seen (`driver_mib` in `machine.cards`): Ada and Ampere workstation cards
    lose 1/2048, Blackwell GeForce 0.5 %, GDDR with ECC, which data-centre cards have on, 1/16; AMD's driver keeps 16 MiB;
    SYCL shows 94.4 % of an Arc's memory.
    """
    mib = (card.gib or 0) * 1024 // card.n_gpus
    if card.driver_mib:
        mib = card.driver_mib
    elif card.vendor == "amd":
        mib -= 16
    elif card.vendor == "intel" and card.category != "npu":
        mib = mib * 944 // 1000
    elif card.vendor == "nvidia":
        mib = _nvidia_mib(card, mib)
    return mib * MIB


def _nvidia_mib(card: CatalogueCard, mib: int) -> int:
    hbm = (card.bandwidth or 0) >= 700e9
    if card.category == "datacenter":
        return mib if hbm and card.capability != "8.9" else mib * 15 // 16
    if card.capability == "12.0":
        return mib * 995 // 1000
    if card.capability == "8.9" or (card.capability == "8.6" and card.category == "workstation"):
        return mib - mib // 2048
    return mib


def driver_reserve(card: CatalogueCard, total: int) -> int:
    """What an idle card without a desktop does not give out.

    NVIDIA: 383 MiB of an 8 GB laptop card (llama.cpp PR 20184), about 600 MiB of the largest: 128 MiB and 3 %, at most
    600 MiB. AMD: about 64 MiB. The others report all as free.
    """
    if card.vendor == "nvidia":
        return min(600 * MIB, 128 * MIB + total * 3 // 100)
    return 64 * MIB if card.vendor == "amd" else 0


def imagined_machine(options: Iterable[str], host: Host) -> Machine:
    """The machine that `--gpu` options describe: those cards instead of this machine's, in this machine's host.

    A chip with unified memory brings its own host: the memory that it is sold with.
    """
    devices = [device for option in options for device in parse_gpu_option(option)]
    taken, unused = take_devices(devices)
    notes = list(_remarks(taken))
    for device in taken:
        if device.unified and "memory_bytes" in device.extra:
            size = device.extra["memory_bytes"]
            available = size - min(4 * GIB, size // 4)
            host = Host(total_bytes=size, available_bytes=available, memory_bandwidth=device.memory_bandwidth)
            notes.append(f"{device.name}: {format_bytes(size - available)} of its memory are assumed to be in use")
            break
    return Machine(devices=taken, unused=unused, host=host, notes=tuple(notes))


def _remarks(devices: Sequence[Device]) -> Iterable[str]:
    for device in dict.fromkeys((d.name, tuple(d.extra.get("usable_bytes", ()))) for d in devices if d.unified):
        name, usable = device
        low, high = map(format_bytes, usable)
        yield f"{name}: the system lets a GPU use {low} to {high} of its memory; {low} is planned with"
