"""However a command line ends, it ends with an exit status and at most one line."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fitplug.cli import app, main
from fitplug.errors import NotFoundError

posix = pytest.mark.skipif(os.name == "nt", reason="written in the words of a POSIX shell")
FITPLUG = [sys.executable, "-c", "from fitplug.cli import run; run()"]


@pytest.fixture
def failing(monkeypatch):
    """A command `boom` that raises what it is told to."""

    def install(error):
        @click.command
        def boom():
            raise error

        monkeypatch.setattr(app.program, "get_command", lambda ctx, name: boom)

    return install


def test_an_error_is_one_line_on_standard_error_and_three(run, failing):
    failing(NotFoundError("no such thing\nat all \x1b[31m\u202e"))
    ran = run("boom")

    assert (ran.status, ran.out) == (3, "")
    assert ran.err == "error: no such thing at all \\x1b[31m\\x202e\n"


def test_an_error_of_the_system_is_one_line_too(run, failing):
    failing(PermissionError(13, "Permission denied", "/root/secret.gguf"))

    assert run("boom").err == "error: /root/secret.gguf: Permission denied\n"


def test_a_bug_is_one_line_that_says_how_to_report_it(run, failing, monkeypatch):
    monkeypatch.delenv("FITPLUG_DEBUG", raising=False)
    failing(ZeroDivisionError("division by zero"))
    ran = run("boom")

    assert ran.status == 3
    assert ran.err.count("\n") == 1
    assert "ZeroDivisionError: division by zero at test_boundary.py:" in ran.err
    assert "FITPLUG_DEBUG=1" in ran.err


def test_with_fitplug_debug_the_traceback_is_shown_as_well(run, failing, monkeypatch):
    monkeypatch.setenv("FITPLUG_DEBUG", "1")
    failing(NotFoundError("gone"))

    assert "Traceback" in run("boom").err


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141)])
def test_interrupts_and_closed_pipes_are_quiet(run, failing, error, status):
    failing(error)
    ran = run("boom")

    assert (ran.status, ran.out, ran.err.strip()) == (status, "", "")


@pytest.mark.parametrize(
    "line",
    ["explain", "nonsense", "explain m.gguf --nonsense", "explain m.gguf -c", "explain m.gguf -c many", "explain m.gguf -cx 5",
     "explain m.gguf -fa maybe", "explain m.gguf -ts 3,x", "explain m.gguf -ot nobuffer", "explain m.gguf -ctk q9_9",
     "auto m.gguf --goal fame", "explain m.gguf --reserve much", "explain m.gguf -np 0", "explain a.gguf b.gguf"],
)  # fmt: skip
def test_wrong_usage_is_two_and_says_so(run, line):
    ran = run(*line.split())

    assert (ran.status, ran.out) == (2, "")
    assert "Error: " in ran.err
    assert "Traceback" not in ran.err


def test_a_mistyped_option_names_the_one_that_was_meant(run):
    assert "--ctx-size" in run("explain", "m.gguf", "--ctx-sice", "5").err


def test_main_returns_and_never_exits():
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0


def test_no_arguments_show_the_help(run):
    ran = run()

    assert ran.status == 2
    assert "Commands:" in ran.out + ran.err


@posix
def test_a_pipe_that_closes_early_leaves_no_word(models):
    tail = subprocess.run(
        f"{sys.executable} -c 'from fitplug.cli import run; run()' show {models['qwen3-30b-a3b']} --all | head -1",
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert tail.stderr == ""
    assert tail.stdout.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to offer")
def test_a_full_disk_is_one_line(llama):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*FITPLUG, "show", llama], stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 3
    assert done.stderr == "error: No space left on device\n"


def test_an_output_that_knows_no_unicode_still_gets_its_page(llama):
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*FITPLUG, "auto", llama, "--gpu", "RTX 4090"], capture_output=True, text=True, env=env, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "fits" in done.stdout


@posix
def test_standard_output_that_is_closed_is_no_traceback(llama):
    done = subprocess.run(
        f"{sys.executable} -c 'from fitplug.cli import run; run()' show {llama} >&-",
        shell=True, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip

    assert "Traceback" not in done.stderr
