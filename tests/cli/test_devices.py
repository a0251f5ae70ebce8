"""`fitplug devices` beside its contract: the catalogue, and the memory's speed on request."""

import json


def test_the_catalogue_lists_cards_by_their_words(run):
    cards = json.loads(run("devices", "--catalogue", "3060", "--json").out)["cards"]

    assert cards
    assert all("3060" in card["name"] for card in cards)
    assert {12} <= {size for card in cards for size in card["memory_gib"]}


def test_words_that_no_card_has_are_said(run):
    assert run("devices", "--catalogue", "no", "such", "card").out == "no card has these words\n"


def test_words_without_the_catalogue_are_wrong_usage(run):
    assert run("devices", "3060").status == 2


def test_the_memory_s_speed_is_measured_when_wanted(run, machine_file):
    """Even for a recorded machine, whose file it then completes."""
    host = json.loads(run("devices", "--machine", machine_file(), "--bandwidth", "--json").out)["host"]

    assert host["memory_bandwidth"] > 10**8
    assert host["bandwidth_basis"] == "measured"
