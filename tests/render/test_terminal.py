"""What a terminal shows can be read and copied at every width."""

import io
import shlex
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fitplug.render import auto, terminal
from fitplug.render.page import Table
from fitplug.render.text import one_line, shortened

from . import sample

SIZES = st.lists(st.integers(0, 1 << 50), min_size=1, max_size=8)
WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30), min_size=1, max_size=20)


@given(SIZES, st.integers(8, 200))
def test_a_bar_gives_every_cell_and_something_to_everything(sizes, cells):
    counts = terminal.apportion(sizes, cells)

    assert sum(counts) == (cells if sum(sizes) else 0)
    assert all((count > 0) == (size > 0) for count, size in zip(counts, sizes, strict=True))


@given(SIZES, st.integers(8, 200))
def test_a_larger_part_never_gets_fewer_cells(sizes, cells):
    counts = terminal.apportion(sizes, cells)
    ranked = [count for _, count in sorted(zip(sizes, counts, strict=True))]

    assert all(later >= earlier - 1 for earlier, later in pairwise(ranked))


@given(WORDS, st.integers(20, 200))
def test_a_broken_command_is_still_that_command(words, width):
    text = terminal.broken(words, width)

    assert shlex.split(text.replace(" \\\n", " ")) == words


@given(WORDS, st.integers(40, 120))
def test_a_command_is_broken_where_lines_would_be_too_long(words, width):
    lines = terminal.broken(words, width).splitlines()

    assert all(len(line) <= width or len(shlex.split(line.removesuffix(" \\"))) <= 2 for line in lines)


def shown(blocks, **options):
    out = io.StringIO()
    terminal.write(blocks, Console(force_terminal=True, highlight=False, file=out, **options))
    return out.getvalue()


@pytest.mark.parametrize("width", [20, 40, 79, 100, 250])
def test_the_command_survives_every_width(width):
    text = shown(auto.page(sample.plan(), sample.export()), width=width, no_color=True, color_system=None)
    start = text.index("llama-server")
    command = text[start : text.index("\n\n", start)].replace(" \\\n", " ")

    assert shlex.split(command) == list(sample.export().argv)


def test_without_colour_there_is_no_colour_and_parts_still_differ():
    text = shown(auto.page(sample.plan(), sample.export()), width=90, no_color=True, color_system="truecolor")

    assert "\x1b[3" not in text
    assert {"█", "▓", "▒", "░", "·"} <= set(text)


def test_markup_in_a_name_is_shown_as_it_is():
    plan = sample.plan(model=sample.model(name="[bold red]evil[/] :boom: \x1b[2J"))
    text = shown(auto.page(plan, sample.export()), width=100, no_color=True, color_system=None)

    assert "[bold red]evil[/] :boom: \\x1b[2J" in text


def test_a_table_without_room_is_stacked_and_loses_nothing():
    table = Table("", ("name", ">size", "what"), [("a" * 30, "12 GiB", "words " * 10)])
    text = shown([table], width=30, no_color=True, color_system=None)

    assert "12 GiB" in text
    assert text.count("words") == 10


@given(st.text())
def test_one_line_is_one_printable_line(text):
    assert one_line(text).isprintable()


@given(st.text(), st.integers(4, 80))
def test_shortened_text_fits(text, width):
    assert len(shortened(text, width)) <= width
