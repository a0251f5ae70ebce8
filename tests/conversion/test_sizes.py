"""What is said of a checkpoint's size as GGUF, on pages and for scripts."""

import base64
import json
import os

import pytest

from conversion import checkpoints
from conversion.test_vocabularies import CLASSES, RECORDED
from conversion.test_vocabularies import known as _known
from fitplug.cli import main

NAME = "LlamaForCausalLM"
LENGTH = RECORDED["lengths"][NAME]["llama3"]
known = _known


@pytest.fixture
def folder(tmp_path):
    """A checkpoint with its tokenizer, as it lies on a disk, without weights."""
    place = tmp_path / RECORDED["folder"]
    place.mkdir()
    head, length = checkpoints.header_bytes({key: (kind, tuple(shape)) for key, kind, shape in CLASSES[NAME]["source"]}, "BF16")
    with (place / "model.safetensors").open("wb") as file:
        file.write(head)
        file.truncate(length)
    (place / "config.json").write_text(json.dumps(CLASSES[NAME]["config"]))
    for name, text in RECORDED["sets"]["llama3"].items():
        (place / name).write_bytes(base64.b64decode(text) if name.endswith(".model") else text.encode())
    return place


def said(capsys, *words):
    assert main(list(map(str, words))) == 0
    return capsys.readouterr().out


def test_show_lists_the_files_that_would_be_made_to_the_byte(folder, capsys):
    rows = json.loads(said(capsys, "show", folder, "--json"))["as_gguf"]
    assert (rows[0]["file_type"], rows[0]["n_bytes"], rows[0]["exact"]) == ("BF16", LENGTH, True)
    assert {row["file_type"] for row in rows if not row["exact"]} == {"IQ4_XS", "IQ3_XXS"}  # with an importance matrix's names
    assert f"{LENGTH:,}" in said(capsys, "show", folder)


def test_one_file_is_of_its_folder(folder, capsys):
    assert json.loads(said(capsys, "show", folder / "model.safetensors", "--json"))["as_gguf"][0]["n_bytes"] == LENGTH


def test_auto_and_explain_say_what_the_file_would_have(folder, capsys):
    for command in ("auto", "explain"):
        page = said(capsys, command, folder, "--gpu", "RTX 4090")
        assert f"as a file of the type BF16 it would have {LENGTH:,} bytes" in " ".join(page.split())


def test_without_a_tokenizer_a_range_is_said(folder, capsys):
    (folder / "tokenizer.json").unlink()
    page = " ".join(said(capsys, "show", folder).split())
    assert "how long its vocabulary is remains unknown: there is no tokenizer.json" in page
    assert "nearly all of it vocabulary" in page


def test_no_model_is_refused_for_the_sake_of_a_file_beside_it(folder, capsys):
    """A folder or a pipe in the place of a file, a file that may not be read."""
    (folder / "merges.txt").mkdir()
    (folder / "modules.json").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "tekken.json")
    assert json.loads(said(capsys, "show", folder, "--json"))["as_gguf"][0]["n_bytes"] == LENGTH
    (folder / "additional_chat_templates").write_text("")
    assert json.loads(said(capsys, "show", folder, "--json"))["as_gguf"][0]["n_bytes"] == LENGTH
