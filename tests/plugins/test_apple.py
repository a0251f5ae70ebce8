from fitplug.units import GIB, MIB
from fitplug_apple import notes, parse


def raw(chip="Apple M4 Max", gib=128, limit=0, recommended=None):
    metal = recommended and {"recommendedMaxWorkingSetSize": recommended, "currentAllocatedSize": 7}
    return {"chip": chip, "macos": "26.0", "sysctl": {"hw.memsize": gib * GIB, "iogpu.wired_limit_mb": limit}, "metal": metal}


def test_metals_word_is_the_total():
    (device,) = parse(raw(recommended=round(107.52 * GIB)))
    assert (device.kind, device.backend, device.unified) == ("gpu", "metal", True)
    assert device.total_bytes == round(107.52 * GIB)
    assert device.free_bytes == device.total_bytes - 7


def test_without_metal_a_limit_that_was_set_counts():
    (device,) = parse(raw(limit=114688))
    assert device.total_bytes == 114688 * MIB
    assert "iogpu.wired_limit_mb" in notes(raw(limit=114688))[0]


def test_without_either_the_cautious_share_is_taken_and_said():
    assert parse(raw())[0].total_bytes == 96 * GIB
    assert parse(raw("Apple M2", 24))[0].total_bytes == 16 * GIB
    assert "did not answer" in notes(raw())[0]


def test_two_sizes_of_one_chip_are_told_apart_by_their_memory():
    assert parse(raw("Apple M4 Max", 36))[0].memory_bandwidth == 410_000_000_000
    assert parse(raw("Apple M4 Max", 128))[0].memory_bandwidth == 546_000_000_000
    assert parse(raw("Apple M9", 128))[0].memory_bandwidth is None


def test_a_limit_beyond_the_memory_is_the_memory():
    assert parse(raw(gib=16, limit=99999))[0].total_bytes == 16 * GIB


def test_no_memory_is_no_device():
    assert parse({"chip": "", "sysctl": {}, "metal": None}) == []
    assert notes({"chip": "", "sysctl": {}, "metal": None}) == []
