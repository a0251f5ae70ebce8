"""Draw docs/auto.svg: what `fitplug auto` shows in a terminal, for the README.

python docs/picture.py
"""

import importlib.util
import tempfile
from pathlib import Path

from rich.console import Console

from fitplug import export, fit, imagine_machine, load_registry, open_model
from fitplug.render import terminal
from fitplug.render.auto import page

HERE = Path(__file__).parent
WORDS = ("fitplug auto qwen3-30b-a3b.gguf --gpu 'RTX 4060 Ti 16GB'", "RTX 4060 Ti 16GB")
WIDTH = 100


def main() -> None:
    """Plan, and draw the page that a terminal of that width shows."""
    spec = importlib.util.spec_from_file_location("make_models", HERE.parent / "fixtures" / "models" / "make.py")
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    line, card = WORDS
    registry = load_registry()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "qwen3-30b-a3b.gguf"
        models.write("qwen3-30b-a3b", path)
        plan = fit(open_model(str(path), registry=registry), imagine_machine(card), registry=registry)
        command = export(plan, "llama-server", path.name, registry=registry)
    with Path("/dev/null").open("w") as nowhere:
        console = Console(
            width=WIDTH, record=True, force_terminal=True, color_system="truecolor", highlight=False, file=nowhere
        )
        console.print(f"[bold green]$[/] {line}")
        terminal.write(page(plan, command), console)
    console.save_svg(str(HERE / "auto.svg"), title="fitplug auto")


if __name__ == "__main__":
    main()
