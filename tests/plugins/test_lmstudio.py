"""fitplug_lmstudio: fields as the official schema wants them, for every form that takes them."""

import json
import pathlib
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import RefusedError
from fitplug.settings import CACHE_TYPES, Settings
from fitplug_lmstudio import fields as lm
from fitplug_lmstudio import install as installing
from fitplug_lmstudio.export import render_preset, render_rest, render_settings
from fitplug_lmstudio.install import install, undo
from fitplug_lmstudio.virtual import render_model_yaml, to_yaml
from lmstudio_support import LAYERS, SCHEMA, check_fields, made, problems, values
from plugins_support import estimate, request


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path / "user")
    monkeypatch.setattr(installing, "_journal", lambda: tmp_path / "state")
    folder = tmp_path / "user" / ".lmstudio"
    folder.mkdir(parents=True)
    return folder


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
    commands = render_settings(made(Settings(n_ctx=4096)), request(key="pub/repo/m.gguf")).commands
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
