"""`fitplug show MODEL`: what the header says."""

import click

from fitplug.cli.command import Command, Option
from fitplug.cli.options import json_option, model_argument
from fitplug.cli.progress import progressing
from fitplug.cli.steps import load_registry


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
    from fitplug.opening import open_model
    from fitplug.render.page import write
    from fitplug.render.show import header_json, page, understood

    registry = load_registry()
    with progressing(f"reading {reference}"):
        header = open_model(reference, registry)
        model = understood(header, [item.record for item in registry.architectures])
    if as_json:
        from fitplug.render.json import dump

        print(dump(header_json(header, model, everything=everything)))
    else:
        write(page(header, model, everything=everything))
    return 0
