"""In a real terminal."""

import os
import re
import subprocess
import sys

import pytest

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")


def in_terminal(*words, **env):
    """What a program writes to a terminal of 40 columns."""
    leader, follower = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-c", "from fitplug.cli import run; run()", *map(str, words)],
        stdout=follower, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        env=clean | {"TERM": "xterm-256color", "COLUMNS": "40"} | env,
    )  # fmt: skip
    os.close(follower)
    text = b""
    while True:
        try:
            more = os.read(leader, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not more:
            break
        text += more
    os.close(leader)
    process.wait()
    return text.decode()


def test_a_terminal_gets_bars_in_colour(llama):
    text = in_terminal("auto", llama, "--gpu", "RTX 4090")

    assert "\x1b[34m█" in text
    assert "✓" in text


def test_no_color_is_honoured(llama):
    text = in_terminal("auto", llama, "--gpu", "RTX 4090", NO_COLOR="1")

    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", text)
    assert "▓" in text


def test_a_dumb_terminal_gets_plain_text(llama):
    assert "\x1b" not in in_terminal("auto", llama, "--gpu", "RTX 4090", TERM="dumb")


def test_json_in_a_terminal_is_json_without_colour(llama):
    text = in_terminal("explain", llama, "-c", "512", "--json")

    assert text.startswith('{"schema": 1')
    assert "\x1b" not in text


def test_a_narrow_terminal_is_enough(llama):
    text = re.sub(r"\x1b\[[0-9;]*m", "", in_terminal("explain", llama, "--gpu", "RTX 4090", "-c", "4096"))

    assert max(len(line) for line in text.replace("\r", "").splitlines()) <= 40


def test_one_row_of_a_table_stands_out(capsys):
    """In colour where there is colour, and by its own mark where there is none."""
    from rich.console import Console

    from fitplug.render.page import Table
    from fitplug.render.terminal import write

    console = Console(force_terminal=True, width=80, color_system="standard")
    write([Table("", ("a", ">b"), [("one", "1"), ("→ two", "2")], chosen=1)], console)
    first, second = capsys.readouterr().out.splitlines()[-2:]
    narrow = Console(force_terminal=True, width=30, color_system="standard")
    write([Table("", ("a", "b" * 20, "c"), [("one", "1", "1"), ("→ two", "2" * 20, "2")], chosen=1)], narrow)
    assert "\x1b[1;32m→ two" in capsys.readouterr().out
    assert "\x1b[1;32m→ two" in second
    assert "32m" not in first
