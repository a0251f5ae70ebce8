"""The program `fitplug`: its commands, and the one place where errors become a line and an exit status."""

import contextlib
import os
import sys

import click

from fitplug.cli import CLOSED_PIPE
from fitplug.cli.command import LazyGroup
from fitplug.errors import FitplugError
from fitplug.render.text import one_line

ANSWER_NO, USAGE, ERROR, INTERRUPTED = 1, 2, 3, 130

_COMMANDS = {
    "auto": "the best settings for this machine, why, and the command to run",
    "explain": "where every byte of exactly these settings goes",
    "check": "which files of a repository fit, before downloading any",
    "download": "fetch a model from its hub, by the hub's own package",
    "show": "what the header says",
    "devices": "the hardware that was found",
    "export": "the plan as a runner's own configuration",
    "verify": "the prediction beside what the installed llama.cpp says",
    "plugins": "what is installed, what each adds, what failed and why",
    "completion": "the script that completes fitplug's words in your shell",
}


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        print(f"fitplug {version('fitplug')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    lazy={name: (f"fitplug.cli.{name}", line) for name, line in _COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="COMMAND …",
    options_metavar="",
    epilog="fitplug COMMAND --help shows a command's options, with examples.",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version.")
def program() -> None:
    """Which settings of a local language model fit this machine, to the byte."""


def invoke(argv: list[str]) -> int:
    """Run a command line; every way that it can end is an exit status."""
    try:
        status = program.main(args=argv, prog_name="fitplug", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return CLOSED_PIPE
    except Exception as error:  # noqa: BLE001 - the error boundary: whatever happens is one line
        return _fail(error)
    return status if isinstance(status, int) else 0


def _fail(error: Exception) -> int:
    if isinstance(error, FitplugError):
        line = str(error)
    elif isinstance(error, OSError) and error.strerror:
        line = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        line = _bug(error)
    if os.environ.get("FITPLUG_DEBUG"):
        import traceback

        traceback.print_exception(error)
    with contextlib.suppress(OSError):  # standard error may be closed too
        print(f"error: {one_line(line)}", file=sys.stderr)
    return ERROR


def _bug(error: Exception) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" at {os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}" if place else ""  # noqa: PTH119 - no pathlib on the start path
    return (
        f"a mistake in fitplug itself: {type(error).__name__}: {error}{where}; "
        "please report it with what FITPLUG_DEBUG=1 prints"
    )
