"""What the documents say works, and what they list is all there is."""

import ast
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import fitplug
from cli_support import write_model
from fitplug import hookspecs
from fitplug.cli.app import program
from fitplug.registry import load

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS = list(program.lazy)


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def parse(words):
    """Parse a command line as it stands, without running it."""
    name, *rest = words
    command = program.get_command(None, name)
    assert command is not None, name
    return command.make_context(name, rest)


def test_the_first_block_is_two_commands():
    lines = re.search(r"^```\w*\n(.*?)^```", README, re.DOTALL | re.MULTILINE)[1].splitlines()

    assert len(lines) == 2
    assert "pip install" in lines[0]
    assert "fitplug auto" in lines[0]
    assert "pytest" in lines[1]


def test_the_first_command_names_what_comes_with_the_project():
    words = shlex.split(blocks("sh")[0].splitlines()[0])

    assert all((ROOT / word).exists() for word in words if word.startswith("fixtures/"))
    parse(words[words.index("fitplug") + 1 :])


@pytest.mark.parametrize("line", [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")])
def test_every_command_line_of_the_readme_can_be_typed(line):
    for words in split_at(shlex.split(line[2:], comments=True), "&&"):
        parse(before(words[1:], ">"))


def split_at(words, mark):
    groups = [[]]
    for word in words:
        if word == mark:
            groups.append([])
        else:
            groups[-1].append(word)
    return groups


def before(words, mark):
    return words[: words.index(mark)] if mark in words else words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_that_can_be_typed(name):
    command = program.get_command(None, name)

    assert command.examples
    for _, line in command.examples:
        parse(before(shlex.split(line), ">"))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "completion"])
def test_every_command_is_in_the_readme(name):
    assert f"| `fitplug {name}" in README


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    write_model("qwen3-30b-a3b", tmp_path / "model.gguf")
    monkeypatch.chdir(tmp_path)
    code = next(block for block in blocks("python") if block.startswith("import fitplug"))
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()

    assert lines[0].startswith("True ")
    assert lines[1].startswith("llama-server ")
    assert any(line.startswith("CUDA0 model ") for line in lines)


def test_the_python_of_the_readme_is_short():
    code = next(block for block in blocks("python") if block.startswith("import fitplug"))

    assert sum(bool(line.strip()) for line in code.splitlines()) <= 10


def test_the_plugin_of_the_readme_works_and_has_twenty_lines(tmp_path):
    code = next(block for block in blocks("python") if "hookimpl" in block)
    module = ModuleType("fitplug_koboldcpp")
    exec(compile(code, "README.md", "exec"), module.__dict__)

    class Point:
        name, module, distribution, version = "koboldcpp", "fitplug_koboldcpp", "", ""

        def load(self):
            return plugin

    plugin = module
    exporter = load([Point()]).exporter("koboldcpp")
    model = fitplug.open_model(str(write_model("llama-3.1-8b", tmp_path / "model.gguf")))
    plan = fitplug.fit(model, fitplug.imagine_machine("RTX 4090"), n_ctx=4096)
    argv = exporter.render(plan, _request()).argv

    assert argv[:5] == ["koboldcpp", "--model", "m.gguf", "--contextsize", "4096"]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 20


def _request():
    from fitplug.extension import ExportRequest

    return ExportRequest(model_reference="m.gguf", model_path="m.gguf")


def test_the_entry_point_of_the_readme_is_of_the_group():
    table = tomllib.loads(blocks("toml")[0])

    assert list(table["project"]["entry-points"]) == [hookspecs.GROUP]


def test_every_hook_is_documented():
    tree = ast.parse(Path(hookspecs.__file__).read_text(encoding="utf-8"))
    hooks = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    documented = set(
        re.findall(r"^\| `(fitplug_\w+)` \|", (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8"), re.MULTILINE)
    )

    assert documented == hooks


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document):
    text = document.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]

    assert [link for link in links if link and not (document.parent / link).exists()] == []


def test_the_architecture_names_rooms_that_exist():
    rooms = re.findall(r"`(\w+)/`", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))

    assert rooms
    assert [room for room in rooms if not (Path(fitplug.__file__).parent / room).is_dir()] == []
