"""`fitplug completion SHELL`, and what completes each word. Only asked for by a shell that waits: nothing slow here."""

from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from fitplug.cli.command import Command
from fitplug.cli.options import json_option
from fitplug.cli.values import Choice
from fitplug.errors import FitplugError, NotFoundError

_SHELLS = ("bash", "zsh", "fish")
_MAX_CARDS = 50


@click.command(
    cls=Command,
    examples=(
        ("bash, for every new shell", "completion bash > ~/.local/share/bash-completion/completions/fitplug"),
        ("zsh, into a folder of fpath", "completion zsh > ~/.zfunc/_fitplug"),
        ("fish", "completion fish > ~/.config/fish/completions/fitplug.fish"),
    ),
)
@click.argument("shell", type=Choice(_SHELLS), metavar="|".join(_SHELLS))
@json_option
def command(*, shell: str, as_json: bool) -> int:
    """Print the script that completes fitplug's words in your shell."""
    from fitplug.cli.app import program

    kind = get_completion_class(shell)
    if kind is None:
        raise NotFoundError(f"no completion for {shell}")
    script = kind(program, {}, "fitplug", "_FITPLUG_COMPLETE").source()
    if as_json:
        from fitplug.render.json import dump

        script = dump({"shell": shell, "script": script})
    print(script)
    return 0


def models(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Schemes of the sources that are installed, or a file of this disk."""
    schemes = [f"{item.record.scheme}:" for item in _registered("sources")]
    found = [CompletionItem(scheme) for scheme in schemes if incomplete and scheme.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def runners(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Programs that run models."""
    return _named("runners", incomplete)


def exporters(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Forms that a plan can be written in."""
    return _named("exporters", incomplete)


def engines(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Engines that can be asked."""
    return _named("engines", incomplete)


def cards(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Cards of the catalogue, by any word of their names: "RTX 4090" of "GeForce RTX 4090"."""
    from fitplug.machine import catalogue

    wanted = incomplete.lower()
    names = [card.name.split() for card in catalogue.cards()]
    ends = [" ".join(words[i:]) for words in names for i in range(len(words))]
    fitting = dict.fromkeys(end for end in ends if end.lower().startswith(wanted))
    return [CompletionItem(end) for end in fitting][:_MAX_CARDS]


def _named(kind: str, incomplete: str) -> list[CompletionItem]:
    records = [item.record for item in _registered(kind)]
    return [CompletionItem(record.name, help=record.help) for record in records if record.name.startswith(incomplete)]


def _registered(kind: str) -> Any:
    from fitplug.registry import load

    try:
        return getattr(load(), kind)
    except FitplugError:
        return ()
