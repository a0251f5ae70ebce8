"""What people write for a card: many spellings are understood, another maker's are not, typos find the nearest."""

from pathlib import Path

import pytest

from fitplug.errors import NotFoundError
from fitplug.machine.catalogue import find, parse_gpu_option
from fitplug.machine.query import parse_query

FILE = Path(__file__).parents[2] / "fixtures/catalogue/spellings.tsv"
ROWS = [line.split("\t") for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(("said", "meant", "gib"), ROWS, ids=[row[0] for row in ROWS])
def test_a_spelling_is_the_card_that_it_means(said, meant, gib):
    card = find(said)
    assert (card.name, str(card.gib or "-")) == (meant, gib)


@pytest.mark.parametrize(
    ("said", "n"),
    [("dual 3090", 2), ("two 3090", 2), ("3090x2", 2), ("quad P40", 4), ("8xH100", 8), ("rtx 3090 x 4", 4), ("2\u00d75090", 2)],
)
def test_several_are_asked_for_in_words_and_signs(said, n):
    assert len(parse_gpu_option(said)) == n


def answer(said):
    with pytest.raises(NotFoundError) as caught:
        find(said)
    return str(caught.value)


@pytest.mark.parametrize(
    ("said", "nearest"),
    [
        ("RX 3090", "GeForce RTX 3090"), ("radeon 4090", "GeForce RTX 4090"), ("arc 3060", "GeForce RTX 3060 12 GB"),
        ("RTX 9070 XT", "Radeon RX 9070 XT"), ("geforce 7900", "Radeon RX 7900"), ("intel 580", "Arc A580"),
    ],
)  # fmt: skip
def test_another_makers_number_is_never_taken_for_the_card(said, nearest):
    assert nearest in answer(said)


@pytest.mark.parametrize(
    ("said", "nearest"),
    [
        ("rtx 3009", "GeForce RTX 3090"), ("rtx 4900", "GeForce RTX 4090"), ("4090ti", "GeForce RTX 4090"),
        ("3090 super", "GeForce RTX 3090"), ("7900xxt", "Radeon RX 7900 XT"), ("m4 ultra", "Apple M3 Ultra"),
        ("atlas 300i duo", "Ascend 310P3 (Atlas 300I)"),
    ],
)  # fmt: skip
def test_a_typo_is_answered_with_the_nearest(said, nearest):
    line = answer(said)
    assert nearest in line
    assert len(line) < 300


@pytest.mark.parametrize(
    ("said", "choices"),
    [
        ("titan", ["TITAN V", "TITAN RTX"]), ("jetson thor", ["Jetson T4000", "Jetson T5000"]),
        ("jetson orin nano", ["4 GB", "8 GB"]), ("v100", ["SXM2 16 GB", "PCIe 32 GB"]),
        ("1060", ["3 GB", "6 GB"]), ("9060 xt", ["8 GB", "16 GB"]), ("m4 max", ["32-core", "40-core"]),
    ],
)  # fmt: skip
def test_what_can_mean_several_is_asked_back(said, choices):
    line = answer(said)
    assert "say which" in line
    assert all(choice in line for choice in choices)


@pytest.mark.parametrize("said", ["orange pi 5", "steam deck", "voodoo 2", "rtx", "laptop", "gaming pc", "8gb", "2x"])
def test_words_that_no_card_has_are_not_dropped_until_something_fits(said):
    answer(said)


def test_a_makers_words_change_nothing():
    plain = find("RTX 4090")
    for words in (
        "ASUS ROG Strix {} OC",
        "{} Founders Edition",
        "MSI {} SUPRIM X 24G",
        "{} 24GB GDDR6X",
        "Gigabyte {} Gaming OC",
    ):
        assert find(words.format("RTX 4090")) == plain


def test_a_size_of_the_machine_is_read_from_a_computers_name():
    assert parse_query("MacBook Pro 16 M1 Max 64GB").gib == 64
    assert parse_query("MacBook Pro 14-inch M3 Pro").gib is None
