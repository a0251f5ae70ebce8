"""Modelfiles: what is written is what Ollama reads, or it is refused."""

import json
import pathlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fitplug.errors import NotFoundError, RefusedError, UnreadableError
from fitplug_ollama.modelfile import Command, is_kept, parse, quote, write
from fitplug_ollama.names import Name, name_from, parse_name
from fitplug_ollama.parameters import PARAMETERS, check

CASES = json.loads((pathlib.Path(__file__).parents[2] / "fixtures/runners/ollama_modelfiles.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["text"])[:40])
def test_ollamas_own_cases(case: dict[str, Any]):
    if case["commands"] is None:
        with pytest.raises(UnreadableError):
            parse(case["text"])
    else:
        assert parse(case["text"]) == [Command(*pair) for pair in case["commands"]]


@given(st.text(max_size=60))
@example('"')
@example('a"""\nb')
@example("\u00a0")
@example(" x ")
@example("")
def test_a_value_is_read_back_or_refused(value: str):
    try:
        spelling = quote(value)
    except RefusedError:
        assert not all(map(is_kept, value)) or any(line.rstrip().endswith('"""') for line in value.splitlines()) or '"' in value
        return
    assert parse(f"FROM x\nSYSTEM {spelling}")[1] == Command("system", value)


values = st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), include_characters="\n\t"), max_size=40)


@given(st.lists(st.tuples(st.sampled_from(("system", "template", "stop", "license", "adapter")), values), max_size=6))
def test_a_whole_file_reads_back(pairs: list[tuple[str, str]]):
    commands = [Command("model", "/m.gguf"), *(Command(*pair) for pair in pairs)]
    try:
        text = write(commands, ["made for OLLAMA_NUM_PARALLEL=1"])
    except RefusedError:
        return
    assert parse(text) == commands


@pytest.mark.parametrize("value", ["a\u200db", "\u3000", "x\u00a0y", "\ufeff", "\x1b[0m"])
def test_what_the_parser_drops_is_refused(value: str):
    with pytest.raises(RefusedError, match=r"U\+"):
        quote(value)


def test_exactly_one_blank_stands_before_a_parameters_name():
    assert parse("FROM a\nPARAMETER  num_ctx 1")[1] == Command("", "num_ctx 1")


def test_values_are_checked_as_ollama_checks_them():
    check("num_ctx", "4096")
    check("temperature", "0.7")
    check("use_mmap", "F")
    for name, value in (
        ("num_ctx", "4096.0"),
        ("num_ctx", "4_096"),
        ("use_mmap", "yes"),
        ("temperature", "hot"),
        ("mirostat", "1"),
    ):
        with pytest.raises(RefusedError):
            check(name, value)
    assert "num_gpu" in PARAMETERS


def test_names_are_completed():
    assert parse_name("llama3.2") == Name("registry.ollama.ai", "library", "llama3.2", "latest")
    assert parse_name("me/model:q4") == Name("registry.ollama.ai", "me", "model", "q4")
    assert parse_name("hf.co/a/b-GGUF:Q4_K_M") == Name("hf.co", "a", "b-GGUF", "Q4_K_M")
    assert str(parse_name("hf.co/a/b")) == "hf.co/a/b:latest"
    assert str(parse_name("llama3.2")) == "llama3.2:latest"


@given(st.text(max_size=40))
def test_no_name_leads_out_of_the_store(text: str):
    try:
        name = parse_name(text)
    except NotFoundError:
        return
    assert not any(part in (".", "..") or "/" in part or "\\" in part or "\0" in part for part in name)


@pytest.mark.parametrize("text", ["../../etc/passwd", "a/../b", "..", "a:..", "a:b/c", "", "a b", "h/n/m/x"])
def test_names_that_are_none(text: str):
    with pytest.raises(NotFoundError):
        parse_name(text)


@given(st.text(max_size=100))
def test_a_name_is_made_of_anything(text: str):
    parse_name(name_from(text))
