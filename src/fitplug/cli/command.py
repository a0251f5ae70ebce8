"""click, with llama.cpp's way of writing options, options in sections, and examples under every help."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click


class Option(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Command(click.Command):
    """A command whose words are options of llama.cpp."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        """What one might want, and the words after `fitplug` that do it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read each word as llama.cpp does before click splits any."""
        options = {
            name: param
            for param in self.get_params(ctx)
            if isinstance(param, click.Option)
            for name in (*param.opts, *param.secondary_opts)
        }
        return super().parse_args(ctx, _normal(args, options, ctx))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options under their headings, in the order of the first of each."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=_FIRST_COLUMN)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, never wrapped: they are there to be copied."""
        if self.examples:
            with formatter.section("Examples"):
                for what, words in self.examples:
                    formatter.write(f"  # {what}\n  fitplug {words}\n")
        super().format_epilog(ctx, formatter)


_FIRST_COLUMN = 30


class LazyGroup(click.Group):
    """Commands that are imported when they are called: a start pays for one of them."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy
        """Name → module with a `command`, and the line that the list of commands shows."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        """In the order in which they are told about."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click calls it so
        """Import it."""
        if cmd_name not in self.lazy:
            return None
        command = import_module(self.lazy[cmd_name][0]).command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click calls it so
        """Their lines, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.lazy.items()])


def _normal(args: Sequence[str], options: Mapping[str, click.Option], ctx: click.Context) -> list[str]:
    """Underscores in long names become dashes, and a word with one dash is one option, never several letters.

    llama.cpp compares whole words (common/arg.cpp, common_params_parse_ex); click would read -cx as -c x.
    """
    done: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*done, word, *rest]
        if not word.startswith("-") or word == "-":
            done.append(word)
            continue
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = name.replace("_", "-")
        option = options.get(name)
        if option is None:
            raise click.NoSuchOption(name, possibilities=_near(name, options), ctx=ctx)
        done.append(name + equals + value)
        if not option.is_flag and not option.count and not equals and rest:
            done.append(rest.pop(0))
    return done


def _near(name: str, options: Mapping[str, click.Option]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name, options)
