"""fitplug_lmstudio: fields as the official schema wants them, merged into what is there, and taken back."""

import json
import pathlib
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import NotFoundError, RefusedError, UnreadableError
from fitplug.settings import CACHE_TYPES, Settings
from fitplug_lmstudio import fields as lm
from fitplug_lmstudio.export import render_preset, render_rest, render_settings
from fitplug_lmstudio.home import CONFIGS, find_home, models_root, settings_folders
from fitplug_lmstudio.install import install, merge, undo
from fitplug_lmstudio.models import check_identifier, import_command, installed, open_model
from fitplug_lmstudio.virtual import render_model_yaml, to_yaml
from plugins_support import estimate, plan, request

SCHEMA = json.loads((pathlib.Path(__file__).parents[2] / "fixtures/runners/lmstudio_schema.json").read_text())
LAYERS = 32


def problems(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """What a JSON schema has against a value; only words that the fixture uses."""
    known = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const", "minimum", "maximum",
             "exclusiveMinimum", "pattern", "maxLength", "default", "minLength"}  # fmt: skip
    assert set(schema) <= known, set(schema) - known
    if "anyOf" in schema:
        found = [problems(value, each, where) for each in schema["anyOf"]]
        return [] if [] in found else found[0]
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
    wanted = schema.get("type")
    if wanted and (not isinstance(value, types[wanted]) or (isinstance(value, bool) and wanted in ("integer", "number"))):
        return [f"{where}: no {wanted}"]
    wrong = [
        "enum" in schema and value not in schema["enum"],
        "const" in schema and value != schema["const"],
        "minimum" in schema and value < schema["minimum"],
        "maximum" in schema and value > schema["maximum"],
        "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"],
        "maxLength" in schema and len(value) > schema["maxLength"],
    ]
    found = [f"{where}: {value!r}"] if any(wrong) else []
    if isinstance(value, dict):
        found += [f"{where}: lacks {key}" for key in schema.get("required", ()) if key not in value]
        known_keys = schema.get("properties", {})
        for key, item in value.items():
            if key in known_keys:
                found += problems(item, known_keys[key], f"{where}.{key}")
            elif schema.get("additionalProperties") is False:
                found.append(f"{where}: {key} is unknown")
    if isinstance(value, list) and "items" in schema:
        found += [p for i, item in enumerate(value) for p in problems(item, schema["items"], f"{where}[{i}]")]
    return found


def check_fields(fields: list[dict[str, Any]]) -> None:
    assert problems({"fields": fields}, SCHEMA["config"]) == []
    keys = [field["key"] for field in fields]
    assert len(keys) == len(set(keys))
    for field in fields:
        assert field["key"] in SCHEMA["keys"], field["key"]
        assert problems(field["value"], SCHEMA["keys"][field["key"]]["schema"], field["key"]) == []


def settings_of(export: Any) -> dict[str, Any]:
    return json.loads(export.files[0].text)


def values(export: Any) -> dict[str, Any]:
    return {field["key"]: field["value"] for field in settings_of(export)["load"]["fields"]}


def made(settings: Settings, **more: Any) -> Any:
    return plan(settings, n_layer=LAYERS, runner="lmstudio", causal=True, n_params=8_030_261_312, **more)


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path / "user")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "user" / ".lmstudio"
    folder.mkdir(parents=True)
    return folder


# --- fields


@given(
    st.builds(
        Settings,
        n_ctx=st.integers(4096, 1 << 20), n_batch=st.integers(32, 8192), n_ubatch=st.integers(32, 8192),
        n_seq_max=st.integers(1, 1023),
        n_gpu_layers=st.integers(-1, LAYERS + 3), type_k=st.sampled_from(sorted(lm.CACHE_TYPES)),
        type_v=st.sampled_from(sorted(lm.CACHE_TYPES)), flash_attn=st.sampled_from(("on", "off")), kv_unified=st.booleans(),
        offload_kqv=st.booleans(), split_mode=st.sampled_from(("none", "layer", "tensor")),
        n_cpu_moe=st.integers(-1, LAYERS + 3),
        main_gpu=st.integers(0, 1), use_mmap=st.booleans(),
    ),
    st.integers(0, 2), st.booleans(), st.booleans(),
)  # fmt: skip
def test_every_field_is_as_the_official_schema_wants_it(settings: Settings, n_gpus: int, exact: bool, causal: bool):
    one = replace(made(settings, n_gpus=n_gpus), model=made(settings, n_gpus=n_gpus).model)
    one.model.causal = causal
    check_fields([{"key": f.key, "value": f.value} for f in lm.load_fields(one, exact=exact)])


@given(st.integers(1, 200), st.data())
def test_the_ratio_gives_exactly_the_planned_layers(n_layer: int, data: st.DataObject):
    """The engine rounds ratio * (blocks + 1), as JavaScript does."""
    wanted = data.draw(st.integers(0, n_layer + 5))
    ratio = json.loads(json.dumps(lm.offload_ratio(wanted, n_layer)))
    assert int(ratio * (n_layer + 1) + 0.5) == min(wanted, n_layer + 1)
    assert int(ratio * n_layer + 0.5) in (wanted, wanted - 1, n_layer)  # an older engine: never more


@given(st.integers(1, 200), st.data())
def test_the_ratio_of_experts_gives_exactly_the_planned_blocks(n_layer: int, data: st.DataObject):
    wanted = data.draw(st.integers(-1, n_layer + 5))
    ratio = lm.expert_ratio(wanted, n_layer)
    assert int(ratio * n_layer + 0.5) == (n_layer if wanted < 0 else min(wanted, n_layer))


def test_a_dense_plan_on_one_card():
    found = values(render_settings(made(Settings(n_ctx=16384, type_k="q8_0")), request(key="a/b/m.gguf")))
    assert found["llm.load.contextLength"] == 16384
    assert found["llm.load.llama.autoFit"] is False
    assert found["llm.load.llama.acceleration.offloadRatio"] == 1
    assert found["llm.load.llama.kCacheQuantizationType"] == {"checked": True, "value": "q8_0"}
    assert found["llm.load.llama.vCacheQuantizationType"] == {"checked": False, "value": "f16"}
    assert found["load.gpuStrictVramCap"] is False
    assert "load.gpuSplitConfig" not in found


def test_experts_partly_on_the_cpu():
    found = values(render_settings(made(Settings(n_ctx=4096, n_cpu_moe=8)), request(key="a/b/m.gguf")))
    assert found["llm.load.numCpuExpertLayersRatio"] == 0.25


def test_a_plan_that_does_not_fit_keeps_the_cap():
    found = values(render_settings(replace(made(Settings(n_ctx=4096)), fits=False), request(key="a/b/m.gguf")))
    assert found["load.gpuStrictVramCap"] is True


def test_two_cards_get_their_layers():
    found = values(render_settings(made(Settings(n_ctx=4096), n_gpus=2), request(key="a/b/m.gguf")))
    split = found["load.gpuSplitConfig"]
    assert split["strategy"] == "custom"
    assert sum(split["customRatio"]) == LAYERS + 1
    one = values(
        render_settings(made(Settings(n_ctx=4096, split_mode="none", main_gpu=1), n_gpus=2), request(key="a/b/m.gguf"))
    )
    assert one["load.gpuSplitConfig"] == {"strategy": "priorityOrder", "disabledGpus": [0], "priority": [1], "customRatio": []}


def test_parallel_sessions_share_or_have_their_own():
    apart = values(render_settings(made(Settings(n_ctx=8192, n_seq_max=4)), request(key="a/b/m.gguf")))
    assert (apart["llm.load.contextLength"], apart["llm.load.numParallelSessions"]) == (2048, 4)
    shared = values(render_settings(made(Settings(n_ctx=8192, n_seq_max=4, kv_unified=True)), request(key="a/b/m.gguf")))
    assert shared["llm.load.contextLength"] == 8192


def test_what_has_no_value_there_is_refused():
    assert set(CACHE_TYPES) - lm.CACHE_TYPES == {"bf16"}
    with pytest.raises(RefusedError, match="bf16"):
        render_settings(made(Settings(n_ctx=512, type_k="bf16")), request(key="a/b/m.gguf"))
    with pytest.raises(RefusedError, match="row"):
        render_settings(made(Settings(n_ctx=512, split_mode="row")), request(key="a/b/m.gguf"))


def test_what_has_no_place_is_said():
    assert render_settings(made(Settings(n_ctx=512, swa_full=True)), request(key="a/b/m.gguf")).cannot_express == ("swa_full",)


# --- where it goes


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


# --- writing


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


# --- the other forms


def test_a_preset_is_one(home: pathlib.Path):
    export = render_preset(made(Settings(n_ctx=4096)), request(name="My Plan!"))
    found = json.loads(export.files[0].text)
    assert export.files[0].path == "config-presets/my-plan.preset.json"
    assert found["identifier"] == "@local:my-plan"
    check_fields(found["load"]["fields"])
    install(export)
    assert json.loads((home / "config-presets" / "my-plan.preset.json").read_text()) == found
    undo()
    assert not (home / "config-presets" / "my-plan.preset.json").exists()


def test_model_yaml_is_as_its_schema_wants_it():
    export = render_model_yaml(made(Settings(n_ctx=32768)), request(key="pub/Some_Repo-GGUF/m.gguf"))
    text, manifest = export.files[0].text, json.loads(export.files[1].text)
    found = from_yaml(text)
    assert problems(found, SCHEMA["model"]) == []
    assert found["model"] == "local/some-repo-gguf-32k"
    assert manifest["dependencies"][0]["modelKeys"] == ["pub/Some_Repo-GGUF/m.gguf"]
    check_fields(found["config"]["load"]["fields"])
    with pytest.raises(RefusedError):
        render_model_yaml(made(Settings(n_ctx=512)), request(key="a/b/m.gguf", name="No Good"))
    with pytest.raises(RefusedError, match="import"):
        render_model_yaml(made(Settings(n_ctx=512)), request("/elsewhere/m.gguf"))


def from_yaml(text: str) -> Any:
    """The subset that is written: two blanks a level, JSON scalars."""
    lines = [(len(line) - len(line.lstrip(" ")), line.strip()) for line in text.splitlines()]

    def block(i: int, depth: int) -> tuple[Any, int]:
        found: Any = [] if lines[i][1].startswith("-") else {}
        while i < len(lines) and lines[i][0] == depth:
            key, _, rest = ("-", "", lines[i][1][1:]) if isinstance(found, list) else lines[i][1].partition(":")
            value, i = (scalar(rest.strip()), i + 1) if rest.strip() else block(i + 1, lines[i + 1][0])
            if isinstance(found, list):
                found.append(value)
            else:
                found[key] = value
        return found, i

    return block(0, 0)[0]


def scalar(text: str) -> Any:
    """JSON, with YAML's longer escape."""
    if not text.startswith('"'):
        return json.loads(text)
    return json.loads(
        re.sub(r"\\(U[0-9A-F]{8}|.)", lambda m: json.dumps(chr(int(m[1][1:], 16)))[1:-1] if len(m[1]) > 1 else m[0], text)
    )


plain_keys = st.text("abcXYZ._", min_size=1, max_size=5)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_keys, inner, max_size=3))


@given(st.dictionaries(plain_keys, trees, min_size=1, max_size=4))
def test_yaml_holds_what_went_in(tree: dict[str, Any]):
    assert from_yaml(to_yaml(tree)) == tree


@given(st.dictionaries(plain_keys, trees, min_size=1, max_size=4))
def test_a_real_yaml_reader_agrees(tree: dict[str, Any]):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    if all(-(1 << 60) < n < 1 << 60 for n in numbers(tree)):  # PyYAML reads 1e+22 as text
        assert yaml.safe_load(to_yaml(tree)) == tree


def numbers(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [n for value in tree.values() for n in numbers(value)]
    if isinstance(tree, list):
        return [n for value in tree for n in numbers(value)]
    return [tree if abs(tree) >= 1e-4 or tree == 0 else 1 << 61] if isinstance(tree, (int, float)) else []


def test_a_request_has_the_servers_own_keys():
    export = render_rest(made(Settings(n_ctx=4096, type_k="q8_0")), request(key="a/b/m.gguf"))
    assert json.loads(export.files[0].text) == {
        "model": "a/b/m.gguf", "context_length": 4096, "eval_batch_size": 2048, "flash_attention": True,
        "offload_kv_cache_to_gpu": True, "parallel": 1, "echo_load_config": True,
    }  # fmt: skip
    assert "type_k" in export.cannot_express
    assert export.commands[0][-1] == "@load.json"


def test_lms_load_says_what_it_can():
    commands = export_of().commands
    assert commands[-1] == (
        "lms",
        "load",
        "pub/repo/m.gguf",
        "--gpu",
        "max",
        "--context-length",
        "4096",
        "--parallel",
        "1",
        "-y",
    )
    part = render_settings(made(Settings(n_ctx=512, n_gpu_layers=11)), request(key="a/b/m.gguf"))
    assert float(part.commands[-1][4]) == 11 / 33
    assert any("one layer less" in note for note in part.notes)


def test_the_plan_by_hand_is_what_it_says():
    assert estimate(Settings(n_gpu_layers=11), n_layer=LAYERS).layer_devices.count("CUDA0") == 11
