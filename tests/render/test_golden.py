"""Pages look as they did when somebody last looked at them."""

import importlib.util
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[2] / "fixtures" / "golden"


@pytest.fixture(scope="module")
def forms():
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.forms()


def test_every_golden_page_is_as_it_was(forms):
    assert {path.name: path.read_text(encoding="utf-8") for path in GOLDEN.glob("*.txt")} == forms


@pytest.mark.parametrize("width", [40, 100])
def test_no_line_is_wider_than_the_terminal(forms, width):
    pages = {name: text for name, text in forms.items() if name.endswith(f"-{width}.txt")}
    wide = [line for text in pages.values() for line in text.splitlines() if len(line) > width]

    assert pages
    assert [line for line in wide if "ffn_(up|down)" not in line] == []


def test_a_pipe_gets_plain_ascii(forms):
    assert all(text.isascii() for name, text in forms.items() if "-" not in name)
