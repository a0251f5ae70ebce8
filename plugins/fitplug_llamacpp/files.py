"""A plan as a file that starts llama-server: an environment file, a llama-swap entry, a systemd unit.

Each has its own quoting, and each refuses what it cannot hold instead of writing something else.
"""

import json
from pathlib import PurePosixPath, PureWindowsPath

from fitplug.errors import RefusedError
from fitplug.extension import Export, ExportRequest, File
from fitplug.pinned import pin
from fitplug.planner.records import Plan
from fitplug.quoting import quote_sh
from fitplug_llamacpp.command import flags, variables
from fitplug_llamacpp.model import model_words

_MODEL_VARIABLES = {
    "--rpc": "LLAMA_ARG_RPC",
    "-m": "LLAMA_ARG_MODEL",
    "-mu": "LLAMA_ARG_MODEL_URL",
    "-hf": "LLAMA_ARG_HF_REPO",
    "-hff": "LLAMA_ARG_HF_FILE",
}


def render_env(plan: Plan, request: ExportRequest) -> Export:
    """LLAMA_ARG_*, in the form that `docker --env-file` and systemd's EnvironmentFile both read: NAME=value, unquoted."""
    settings = pin(plan.estimate, plan.machine)
    model = model_words(plan, request)
    pairs = dict(zip(model.words[::2], model.words[1::2], strict=False))
    named = {_MODEL_VARIABLES[flag]: value for flag, value in pairs.items() if flag in _MODEL_VARIABLES}
    env, missing = variables(settings)
    env = model.env | named | ({"LLAMA_ARG_MMPROJ_AUTO": "0"} if "--no-mmproj" in model.words else {}) | env
    for name, value in env.items():
        if set(value) & set("\r\n\\\"'") or value != value.strip():
            raise RefusedError(f"an environment file cannot hold {name}={value!r}: use `export llama-server` instead")
    text = "".join(f"{name}={value}\n" for name, value in env.items())
    return Export(
        files=(File(path="llama-server.env", text=text),),
        env=env,
        commands=(("llama-server",),),
        cannot_express=missing,
        notes=model.notes,
    )


def render_swap(plan: Plan, request: ExportRequest) -> Export:
    """An entry under `models:` of llama-swap's config.yaml; the port is its own macro."""
    model = model_words(plan, request)
    words = [*model.words, *flags(pin(plan.estimate, plan.machine))]
    for word in words:
        if "${" in word or set(word) & set("\r\n"):
            raise RefusedError(f"llama-swap would read {word!r} as a macro or as two lines: rename the file")
    # One setting a line: llama-swap splits the command at white space as sh does, and drops lines that start with #.
    lines = [["llama-server", "--port", "${PORT}"]]
    for word in words:
        if word.startswith("-") and not _is_number(word):
            lines.append([word])
        else:
            lines[-1].append(quote_sh(word))
    body = "".join(f"      {' '.join(line)}\n" for line in lines)
    name = request.options.get("name") or model_name(request)
    env = "".join(f"      - {json.dumps(f'{key}={value}')}\n" for key, value in model.env.items())
    text = f"models:\n  {json.dumps(name)}:\n    cmd: |\n{body}" + (f"    env:\n{env}" if env else "")
    return Export(files=(File(path="llama-swap.yaml", text=text),), notes=model.notes)


def render_systemd(plan: Plan, request: ExportRequest) -> Export:
    """A unit file. ExecStart is no shell: it has quotes of its own, and % and $ mean something (systemd.service)."""
    model = model_words(plan, request)
    program = request.options.get("program", "llama-server")
    words = [program, *model.words, *flags(pin(plan.estimate, plan.machine))]
    env = "".join(f"Environment={_systemd_word(f'{key}={value}')}\n" for key, value in model.env.items())
    name = request.options.get("name") or model_name(request)
    text = (
        f"[Unit]\nDescription=llama-server: {_specifiers(name)}\nAfter=network.target\n\n"
        f"[Service]\n{env}ExecStart={' '.join(map(_systemd_word, words))}\nRestart=on-failure\n\n"
        "[Install]\nWantedBy=default.target\n"
    )
    commands = (("systemctl", "--user", "daemon-reload"), ("systemctl", "--user", "start", "llama-server.service"))
    return Export(
        files=(File(path="llama-server.service", text=text),),
        commands=commands,
        notes=(
            *model.notes,
            "The unit belongs in ~/.config/systemd/user; systemd looks for the program in its own path, not in $PATH.",
        ),
    )


def model_name(request: ExportRequest) -> str:
    """The file's name without folders and `.gguf`, in either system's spelling."""
    path = PureWindowsPath(request.model_path) if "\\" in request.model_path else PurePosixPath(request.model_path)
    return path.name.removesuffix(".gguf") or "model"


def _is_number(word: str) -> bool:
    return word.lstrip("-").replace(".", "", 1).isdigit()


def _specifiers(text: str) -> str:
    return " ".join(text.split()).replace("%", "%%")


def _systemd_word(word: str) -> str:
    if set(word) & set("\r\n\0"):
        raise RefusedError(f"a systemd unit cannot hold {word!r}")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = escaped == word and word and not set(word) & set(" \t';#")
    return word if plain else f'"{escaped}"'
