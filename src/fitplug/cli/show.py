"""`fitplug show MODEL`: what the header says."""

import click

from fitplug.cli.command import Command, Option
from fitplug.cli.options import json_option, model_argument
from fitplug.cli.steps import load_registry, read_header


@click.command(
    cls=Command,
    examples=(
        ("what a file is", "show model.gguf"),
        ("without downloading it", "show modelscope:Qwen/Qwen3-8B-GGUF:Q4_K_M"),
        ("every key and every tensor", "show model.gguf --all"),
    ),
)
@model_argument
@click.option("everything", "--all", cls=Option, is_flag=True, help="every key and every tensor")
@json_option
def command(*, reference: str, everything: bool, as_json: bool) -> int:
    """Show what the header says: architecture, tensors by type, bits per weight, tokenizer, template."""
    from fitplug.render.show import header_json, show

    registry = load_registry()
    header = read_header(reference, registry)
    architectures = [item.record for item in registry.architectures]
    if as_json:
        from fitplug.render.json import dump

        print(dump(header_json(header, architectures, everything=everything)))
    else:
        show(header, architectures, everything=everything)
    return 0
