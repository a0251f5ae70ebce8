"""A shell that asks what could come next is told."""

import subprocess

import pytest
from click.shell_completion import BashComplete

from fitplug.cli.app import program


def complete(*words):
    *before, incomplete = words
    shell = BashComplete(program, {}, "fitplug", "_FITPLUG_COMPLETE")
    return [item.value for item in shell.get_completions(before, incomplete)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["e"], ["explain", "export"]),
        (["auto", "--ctx"], ["--ctx-size", "--ctx-checkpoints"]),
        (["auto", "--goal", "s"], ["speed"]),
        (["explain", "m.gguf", "-ctk", "q4"], ["q4_0", "q4_1"]),
        (["explain", "-fa", ""], ["on", "off", "auto"]),
        (["explain", "mod"], ["modelscope:"]),
        (["explain", "ol"], ["ollama:"]),
        (["export", "olla"], ["ollama"]),
        (["auto", "--runner", "llama-se"], ["llama-server"]),
        (["verify", "m.gguf", "--engine", "llama-fit"], ["llama-fit-params"]),
        (["auto", "--gpu", "rtx 4090"], ["RTX 4090", "RTX 4090 D", "RTX 4090 Mobile"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_every_kind_of_word_is_completed(words, expected):
    assert complete(*words) == expected


def test_a_path_is_left_to_the_shell():
    shell = BashComplete(program, {}, "fitplug", "_FITPLUG_COMPLETE")

    assert [(item.value, item.type) for item in shell.get_completions(["auto"], "./mo")] == [("./mo", "file")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(run, shell):
    ran = run("completion", shell)

    assert ran.status == 0
    assert "_FITPLUG_COMPLETE" in ran.out


def test_bash_accepts_the_script(run):
    script = run("completion", "bash").out

    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_another_shell_is_wrong_usage(run):
    assert run("completion", "csh").status == 2
