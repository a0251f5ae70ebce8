"""LM Studio's files: found, merged, kept, and given back."""

import json
import pathlib
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import NotFoundError, RefusedError, UnreadableError
from fitplug.settings import Settings
from fitplug_lmstudio import install as installing
from fitplug_lmstudio.export import render_settings
from fitplug_lmstudio.home import CONFIGS, find_home, models_root, settings_folders
from fitplug_lmstudio.install import install, merge, undo
from fitplug_lmstudio.models import check_identifier, import_command, installed, open_model
from lmstudio_support import check_fields, made, settings_of
from plugins_support import request


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path / "user")
    monkeypatch.setattr(installing, "_journal", lambda: tmp_path / "state")
    folder = tmp_path / "user" / ".lmstudio"
    folder.mkdir(parents=True)
    return folder


def test_the_home_is_found_as_lm_studios_own_command_finds_it(home: pathlib.Path, tmp_path: pathlib.Path):
    assert find_home() == home
    old = home.parent / ".cache" / "lm-studio"
    old.mkdir(parents=True)
    assert find_home() == old
    (home.parent / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'else'}\n")
    assert find_home() == tmp_path / "else"
    assert sorted(path.name for path in home.parent.iterdir()) == [".cache", ".lmstudio", ".lmstudio-home-pointer"]


def test_both_generations_are_written_for(home: pathlib.Path):
    assert settings_folders(home) == [home / ".internal"]
    (home / "apps" / "bionic").mkdir(parents=True)
    assert settings_folders(home) == [home / ".internal", home / "apps" / "bionic" / ".internal"]


def put_model(home: pathlib.Path, name: str = "pub/repo/m.gguf") -> pathlib.Path:
    path = home / "models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    return path


def test_a_model_in_the_folder_is_known_by_its_path(home: pathlib.Path):
    path = put_model(home)
    export = render_settings(made(Settings(n_ctx=512)), request(str(path)))
    assert export.files[0].path == f"{CONFIGS}/pub/repo/m.gguf.json"
    assert export.commands[0][:3] == ("lms", "load", "pub/repo/m.gguf")
    (blob,) = open_model("pub/repo/m.gguf")
    assert blob.read(0, 4) == b"GGUF"
    assert installed(models_root(home)) == ["pub/repo/m.gguf"]


def test_another_models_folder_is_respected(home: pathlib.Path, tmp_path: pathlib.Path):
    (home / "settings.json").write_text(json.dumps({"downloadsFolder": str(tmp_path / "big")}))
    assert models_root(home) == tmp_path / "big"


def test_a_file_elsewhere_is_imported_first():
    export = render_settings(made(Settings(n_ctx=512)), request("/data/My Model.Q4_K_M.gguf"))
    assert export.commands[0][:3] == ("lms", "import", "/data/My Model.Q4_K_M.gguf")
    assert "--symbolic-link" in export.commands[0]
    assert export.files[0].path == f"{CONFIGS}/local/My-Model.Q4_K_M/My Model.Q4_K_M.gguf.json"
    with pytest.raises(RefusedError):
        import_command("/data/model.safetensors")


def test_a_split_has_the_name_that_the_index_gives_it(home: pathlib.Path):
    path = put_model(home, "pub/repo/m-00001-of-00002.gguf")
    (home / ".internal").mkdir()
    index = {"models": [{"indexedModelIdentifier": "pub/repo"}, 5, {"indexedModelIdentifier": 7}]}
    (home / ".internal" / "model-index-cache.json").write_text(json.dumps(index))
    export = render_settings(made(Settings(n_ctx=512)), request(str(path)))
    assert export.files[0].path == f"{CONFIGS}/pub/repo.json"


def test_other_names_of_the_file_are_said(home: pathlib.Path):
    put_model(home)
    (home / ".internal").mkdir()
    entry = {"indexedModelIdentifier": "qwen/qwen3", "virtual": {"concreteModelIndexedModelIdentifier": "pub/repo/m.gguf"}}
    (home / ".internal" / "model-index-cache.json").write_text(json.dumps({"models": [entry]}))
    export = render_settings(made(Settings(n_ctx=512)), replace(request(), model_reference="lmstudio:pub/repo/m.gguf"))
    assert any("qwen/qwen3" in note for note in export.notes)


@pytest.mark.parametrize("name", ["../x/y", "a/../../b", "/etc/passwd", "a//b", "a/b\\c", "a", "", "a/b\0", "a/./b", "C:/x"])
def test_no_identifier_leads_out_of_the_folder(name: str):
    with pytest.raises(NotFoundError):
        check_identifier(name)
    with pytest.raises(NotFoundError):
        open_model(name)


def test_a_missing_model_says_what_is_there(home: pathlib.Path):
    put_model(home)
    with pytest.raises(NotFoundError, match=re.escape("pub/repo/m.gguf")):
        open_model("pub/repo/other.gguf")


def export_of(context: int = 4096, **options: str) -> Any:
    return render_settings(made(Settings(n_ctx=context)), request(**({"key": "pub/repo/m.gguf"} | options)))


def stored(home: pathlib.Path) -> pathlib.Path:
    return home / ".internal" / CONFIGS / "pub/repo/m.gguf.json"


THEIRS = {
    "preset": "@local:mine",
    "operation": {"fields": [{"key": "llm.prediction.temperature", "value": 0.3}]},
    "load": {
        "fields": [
            {"key": "llm.load.contextLength", "value": 9999},
            {"key": "llm.load.seed", "value": {"checked": True, "value": 7}},
        ]
    },
    "unknown": [1, 2],
}


def put_theirs(home: pathlib.Path, content: Any = None) -> None:
    stored(home).parent.mkdir(parents=True)
    stored(home).write_text(json.dumps(THEIRS if content is None else content))


def test_a_new_file_is_whole(home: pathlib.Path):
    (done,) = install(export_of())
    assert done.startswith("wrote ")
    found = json.loads(stored(home).read_text())
    check_fields(found["load"]["fields"])
    assert found["preset"] == ""
    assert found["operation"] == {"fields": []}
    assert undo() == [f"removed {stored(home)}"]
    assert not stored(home).exists()


def test_what_is_there_is_merged_and_given_back(home: pathlib.Path):
    put_theirs(home)
    install(export_of())
    found = json.loads(stored(home).read_text())
    assert {k: found[k] for k in ("preset", "operation", "unknown")} == {
        k: THEIRS[k] for k in ("preset", "operation", "unknown")
    }
    fields = {field["key"]: field["value"] for field in found["load"]["fields"]}
    assert fields["llm.load.contextLength"] == 4096
    assert fields["llm.load.seed"] == {"checked": True, "value": 7}
    undo()
    back = json.loads(stored(home).read_text())
    by_key = lambda content: sorted(content["load"]["fields"], key=lambda field: field["key"])  # noqa: E731
    assert by_key(back) == by_key(THEIRS)
    assert {k: back[k] for k in ("preset", "operation", "unknown")} == {
        k: THEIRS[k] for k in ("preset", "operation", "unknown")
    }
    with pytest.raises(NotFoundError):
        undo()


def test_later_changes_survive_taking_back(home: pathlib.Path):
    put_theirs(home)
    install(export_of())
    found = json.loads(stored(home).read_text())
    for field in found["load"]["fields"]:
        if field["key"] == "llm.load.contextLength":
            field["value"] = 12345
    stored(home).write_text(json.dumps(found))
    undo()
    back = {field["key"]: field["value"] for field in json.loads(stored(home).read_text())["load"]["fields"]}
    assert back == {"llm.load.contextLength": 12345, "llm.load.seed": {"checked": True, "value": 7}}


def test_two_installations_are_taken_back_one_by_one(home: pathlib.Path):
    install(export_of(4096))
    install(export_of(8192))
    undo()
    fields = {field["key"]: field["value"] for field in json.loads(stored(home).read_text())["load"]["fields"]}
    assert fields["llm.load.contextLength"] == 4096
    undo()
    assert not stored(home).exists()


@pytest.mark.parametrize(
    "content", ["no json", "[]", {"load": {"fields": 5}}, {"load": {"fields": [1]}}, {"load": {"fields": [{"value": 1}]}}]
)
def test_a_file_that_is_not_understood_is_left_alone(home: pathlib.Path, content: Any):
    put_theirs(home, content if not isinstance(content, str) else {})
    if isinstance(content, str):
        stored(home).write_text(content)
    before = stored(home).read_bytes()
    with pytest.raises(UnreadableError, match="nothing was written"):
        install(export_of())
    assert stored(home).read_bytes() == before
    assert [path.name for path in stored(home).parent.iterdir()] == ["m.gguf.json"]


def test_without_lm_studio_nothing_is_made(home: pathlib.Path):
    home.rmdir()
    with pytest.raises(NotFoundError, match="not installed"):
        install(export_of())
    assert not home.exists()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
)
own_keys = st.sampled_from(["llm.load.contextLength", "llm.load.seed", "llm.load.llama.autoFit", "x.y"])


@given(st.lists(st.fixed_dictionaries({"key": own_keys, "value": json_values}), max_size=6))
def test_merging_keeps_every_key_that_is_not_ours(theirs: list[dict[str, Any]]):
    wanted = settings_of(export_of())
    merged, _ = merge({"load": {"fields": theirs}}, wanted)
    ours = {field["key"] for field in wanted["load"]["fields"]}
    fields = merged["load"]["fields"]
    assert [f for f in fields if f["key"] not in ours] == [f for f in theirs if f["key"] not in ours]
    assert [f for f in fields if f["key"] in ours] == wanted["load"]["fields"]
