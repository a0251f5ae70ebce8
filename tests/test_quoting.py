"""Quoting: the shell hands a program the words that went in."""

import shlex
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitplug.quoting import env_powershell, env_sh, join_powershell, join_sh, quote_powershell, quote_sh

words = st.lists(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20), min_size=1, max_size=5
)


@given(words)
def test_sh_gives_the_words_back(words: list[str]):
    assert shlex.split(join_sh(words)) == words


@settings(max_examples=25)
@given(words)
def test_a_real_sh_gives_the_words_back(words: list[str]):
    out = subprocess.run(["/bin/sh", "-c", f"printf '%s\\0' {join_sh(words)}"], capture_output=True, check=True).stdout
    assert out.decode().split("\0")[:-1] == words


def read_powershell(line: str) -> list[str]:
    """PowerShell's argument mode for what we write: bare words and single-quoted strings, a quote doubled inside."""
    found, i = [], 2 if line.startswith("& ") else 0
    while i < len(line):
        if line[i] == " ":
            i += 1
        elif line[i] == "'":
            word, i = "", i + 1
            while line[i] not in "'\u2018\u2019\u201a\u201b" or line[i + 1 : i + 2] in tuple("'\u2018\u2019\u201a\u201b"):
                word, i = word + line[i], i + (2 if line[i] in "'\u2018\u2019\u201a\u201b" else 1)
            found, i = [*found, word], i + 1
        else:
            end = line.find(" ", i)
            end = len(line) if end < 0 else end
            assert not set(line[i:end]) & set(",;|&<>(){}@#$`\"' "), line
            found, i = [*found, line[i:end]], end
    return found


@given(words)
def test_powershell_gives_the_words_back(words: list[str]):
    assert read_powershell(join_powershell(words)) == words


def test_plain_words_stay_plain():
    argv = ["llama-server", "-m", "/models/m.gguf", "-ctk", "q8_0", "-c", "8192"]
    assert join_sh(argv) == join_powershell(argv) == " ".join(argv)
    assert quote_powershell(r"C:\models\m.gguf") == r"C:\models\m.gguf"


def test_what_powershell_would_take_apart_is_quoted():
    assert quote_powershell("33,20") == "'33,20'"
    assert quote_powershell("-a.b") == "'-a.b'"
    assert quote_powershell("it\u2019s") == "'it\u2019\u2019s'"
    assert join_powershell(["my program", "x"]) == "& 'my program' x"
    assert quote_sh("") == quote_powershell("") == "''"


def test_environment_assignments():
    assert env_sh([("OLLAMA_KV_CACHE_TYPE", "q8_0"), ("A", "b c")]) == "OLLAMA_KV_CACHE_TYPE=q8_0 A='b c'"
    assert env_powershell([("A", "b'c")]) == "$env:A = 'b''c'"


@pytest.mark.skipif(shutil.which("pwsh") is None, reason="PowerShell is not installed")
@settings(max_examples=10)
@given(words)
def test_a_real_powershell_gives_the_words_back(words: list[str]):
    script = f"& {{ foreach ($a in $args) {{ [Console]::Out.Write($a + [char]0) }} }} {join_powershell(words)}"
    out = subprocess.run(["pwsh", "-NoProfile", "-Command", script], capture_output=True, check=True).stdout
    assert out.decode().split("\0")[:-1] == words
