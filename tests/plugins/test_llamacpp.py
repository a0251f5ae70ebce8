"""fitplug_llamacpp: a plan arrives in llama.cpp's own words with nothing left to choose."""

import json
import pathlib
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import RefusedError
from fitplug.pinned import layer_counts, pin
from fitplug.settings import CACHE_TYPES, ROPE_FLAGS, KvOverride, RopeWord, ScaledAdapter, Settings, TensorOverride
from fitplug_llamacpp.command import FFN_DENSE, FFN_EXPS, FLAGS, flags, render_cli, render_fit_params, render_server, variables
from fitplug_llamacpp.engines import parse_fit_print
from fitplug_llamacpp.files import render_env, render_swap, render_systemd
from plugins_support import estimate, machine, plan, request

OPTIONS = json.loads((pathlib.Path(__file__).parents[2] / "fixtures/runners/llamacpp_flags.json").read_text())
BY_NAME = {name: option for option in OPTIONS for name in option["names"] + option["negative"]}

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-/ ü'\"$%\\", min_size=1, max_size=20)
settings_strategy = st.builds(
    Settings,
    n_ctx=st.integers(1, 1 << 20), n_batch=st.integers(1, 8192), n_ubatch=st.integers(1, 8192), n_seq_max=st.integers(1, 64),
    n_gpu_layers=st.integers(0, 200), type_k=st.sampled_from(CACHE_TYPES), type_v=st.sampled_from(CACHE_TYPES),
    flash_attn=st.sampled_from(("on", "off")), kv_unified=st.booleans(), swa_full=st.booleans(), offload_kqv=st.booleans(),
    op_offload=st.booleans(), split_mode=st.sampled_from(("none", "layer", "row", "tensor")), main_gpu=st.integers(0, 7),
    tensor_split=st.lists(st.one_of(st.integers(0, 99).map(float), st.floats(0.125, 1, width=32)), max_size=4).map(tuple),
    n_cpu_moe=st.integers(-1, 80), n_cpu_ffn=st.integers(0, 9), no_host=st.booleans(), repack=st.booleans(),
    overrides=st.lists(st.builds(TensorOverride, st.sampled_from((r"blk\.1\.ffn_down", "exps$")),
                                 st.sampled_from(("CPU", "CUDA1"))), max_size=3).map(tuple),
    devices=st.none() | st.lists(st.sampled_from(("CUDA0", "Vulkan1")), unique=True).map(tuple),
    mmproj=st.none() | names, model_draft=st.none() | names,
    mmproj_device=st.none() | st.just("CUDA1"), image_min_tokens=st.none() | st.integers(0, 99),
    image_max_tokens=st.none() | st.integers(0, 9999), embedding=st.booleans(),
    pooling=st.none() | st.sampled_from(("none", "mean", "cls", "last", "rank")), kv_unified_per_slot=st.integers(0, 9999),
    spec_type=st.none() | st.sampled_from(("draft-mtp", "draft-simple,ngram-mod", "ngram-cache", "none")),
    ngram_mod_n_max=st.integers(0, 1024), ngram_simple_size_m=st.integers(1, 1024),
    ngram_map_k_size_m=st.integers(1, 1024), ngram_map_k4v_size_m=st.integers(1, 1024),
    draft_max=st.integers(1, 64), draft_type_k=st.sampled_from(CACHE_TYPES), draft_type_v=st.sampled_from(CACHE_TYPES),
    draft_n_gpu_layers=st.integers(-1, 80), draft_devices=st.none() | st.just(()) | st.just(("CUDA1", "CUDA0")),
    draft_n_cpu_moe=st.integers(-1, 9), draft_backend_sampling=st.booleans(),
    draft_overrides=st.lists(st.just(TensorOverride("exps$", "CPU")), max_size=2).map(tuple),
    lora=st.lists(names, max_size=2).map(tuple),
    lora_scaled=st.lists(st.builds(ScaledAdapter, names, st.floats(-9, 9)), max_size=2).map(tuple),
    rope=st.sets(st.sampled_from(ROPE_FLAGS)).map(
        lambda flags: tuple(RopeWord(flag, "4") for flag in ROPE_FLAGS if flag in flags)),
    kv_overrides=st.lists(
        st.builds(KvOverride, st.sampled_from(("llama.context_length", "x")),
                  st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.sampled_from(("a", "b:c"))),
        max_size=3).map(tuple),
    use_mmap=st.booleans(), lazy_mode=st.sampled_from(("on", "auto", "off")),
)  # fmt: skip


def split_csv(text: str) -> list[str]:
    """common/arg.cpp, parse_csv_row: fields in double quotes may hold commas; a doubled quote is one."""
    import csv

    return next(csv.reader([text], doublequote=True, strict=False))


def _read(word: str) -> tuple[str, Any]:
    key, said = word.split("=", 1)
    kind, text = said.split(":", 1)
    kinds: dict[str, Any] = {"int": int, "float": float, "bool": lambda text: text == "true", "str": str}
    return key, kinds[kind](text)


def understand(words: list[str]) -> Settings:
    """What llama.cpp's parser makes of a command line; only the options of its own table are known."""
    given_values: dict[str, Any] = {}
    moved: dict[str, list[TensorOverride]] = {"": [], "-draft": []}
    experts: dict[str, list[TensorOverride]] = {"": [], "-draft": []}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option = BY_NAME[word]
        values = [rest.pop(0) for _ in range(option["values"])]
        name, value = option["names"][-1], values[0] if values else word not in option["negative"]
        whose = "-draft" if name.endswith("-draft") else ""
        if name.startswith("--cpu-moe"):
            experts[whose].append(TensorOverride(FFN_EXPS, "CPU"))
        elif name == "--n-cpu-ffn":
            experts[""] += [TensorOverride(rf"blk\.{i}{FFN_DENSE}", "CPU") for i in range(int(value))]
        elif name == "--reranking":
            given_values |= {"--embeddings": True, "--pooling": "rank"}
        elif name.startswith("--n-cpu-moe"):
            experts[whose] += [TensorOverride(rf"blk\.{i}{FFN_EXPS}", "CPU") for i in range(int(value))]
        elif name.startswith("--override-tensor"):
            moved[whose] += [TensorOverride(*pair.split("=", 1)) for pair in value.split(",")]
        else:
            given_values[name] = value
    number = lambda name, default=0: int(given_values.get(name, default))  # noqa: E731
    split = given_values.get("--tensor-split", "")
    layers = given_values.get("--n-gpu-layers-draft", "all")

    def devices(option: str) -> tuple[str, ...] | None:
        said = given_values.get(option)
        return None if said is None else tuple(said.split(",")) if said != "none" else ()

    return Settings(
        n_ctx=number("--ctx-size"), n_batch=number("--batch-size"), n_ubatch=number("--ubatch-size"),
        n_seq_max=number("--parallel"), n_gpu_layers=number("--n-gpu-layers"), type_k=given_values["--cache-type-k"],
        type_v=given_values["--cache-type-v"], flash_attn=given_values["--flash-attn"],
        kv_unified=given_values.get("--kv-unified", False), swa_full=given_values.get("--swa-full", False),
        offload_kqv=given_values.get("--kv-offload", True), op_offload=given_values.get("--op-offload", True),
        split_mode=given_values.get("--split-mode", "layer"), main_gpu=number("--main-gpu"),
        tensor_split=tuple(float(x) for x in split.split(",")) if split else (),
        overrides=tuple(experts[""] + moved[""]),
        devices=devices("--device"),
        no_host=given_values.get("--no-host", False), repack=given_values.get("--repack", True),
        embedding=given_values.get("--embeddings", False), pooling=given_values.get("--pooling"),
        kv_unified_per_slot=number("--kv-unified-per-slot"), mmproj_device=given_values.get("--mmproj-device"),
        **{f"image_{end}_tokens": int(given_values[f"--image-{end}-tokens"]) for end in ("min", "max")
           if f"--image-{end}-tokens" in given_values},
        ngram_mod_n_max=number("--spec-ngram-mod-n-max", 64), ngram_simple_size_m=number("--spec-ngram-simple-size-m", 48),
        ngram_map_k_size_m=number("--spec-ngram-map-k-size-m", 48),
        ngram_map_k4v_size_m=number("--spec-ngram-map-k4v-size-m", 48),
        mmproj=given_values.get("--mmproj"), mmproj_offload=given_values.get("--mmproj-offload", True),
        model_draft=given_values.get("--model-draft"), spec_type=given_values.get("--spec-type"),
        draft_max=number("--spec-draft-n-max", 3), draft_type_k=given_values.get("--cache-type-k-draft", "f16"),
        draft_type_v=given_values.get("--cache-type-v-draft", "f16"),
        draft_n_gpu_layers=-1 if layers == "all" else int(layers), draft_devices=devices("--device-draft"),
        draft_overrides=tuple(experts["-draft"] + moved["-draft"]),
        draft_backend_sampling=given_values.get("--spec-draft-backend-sampling", True),
        lora=tuple(split_csv(given_values["--lora"])) if "--lora" in given_values else (),
        lora_scaled=tuple(
            ScaledAdapter(name, float(scale))
            for name, scale in (word.split(":") for word in split_csv(given_values.get("--lora-scaled", "")) if word)
        ) if "--lora-scaled" in given_values else (),
        rope=tuple(RopeWord(flag, given_values[flag]) for flag in ROPE_FLAGS if flag in given_values),
        kv_overrides=tuple(
            KvOverride(*_read(word)) for word in given_values.get("--override-kv", "").split(",") if word
        ),
        use_mmap=given_values.get("--load-mode", "auto") != "none", lazy_mode=given_values.get("--lazy-mode", "auto"),
    )  # fmt: skip


def with_experts_written_out(settings: Settings) -> Settings:
    def patterns(n: int) -> tuple[TensorOverride, ...]:
        written = [FFN_EXPS] if n < 0 else [rf"blk\.{i}{FFN_EXPS}" for i in range(n)]
        return tuple(TensorOverride(pattern, "CPU") for pattern in written)

    dense = tuple(TensorOverride(rf"blk\.{i}{FFN_DENSE}", "CPU") for i in range(settings.n_cpu_ffn))
    return replace(
        settings, n_cpu_moe=0, n_cpu_ffn=0, draft_n_cpu_moe=0,
        overrides=patterns(settings.n_cpu_moe) + dense + settings.overrides,
        draft_overrides=patterns(settings.draft_n_cpu_moe) + settings.draft_overrides,
    )  # fmt: skip


def test_every_flag_and_variable_is_llama_cpps_own():
    for row in FLAGS:
        option = BY_NAME[row.flag]
        assert row.env == option["env"], row.flag
        takes_value = row.value(Settings(n_cpu_moe=-1 if row.flag == "-cmoe" else 3)) != ""
        assert option["values"] == (1 if takes_value and row.env_value is None and row.flag != "--no-op-offload" else 0), (
            row.flag
        )


def test_llama_cli_knows_every_flag_that_it_is_given():
    cli_only = {row.flag for row in FLAGS if row.server_only}
    for row in FLAGS:
        programs = BY_NAME[row.flag]["programs"]
        known = not programs or "CLI" in programs or "COMMON" in programs or row.flag == "-np"
        assert known != (row.flag in cli_only), row.flag


@given(settings_strategy)
def test_the_command_line_says_all_settings(settings: Settings):
    assert understand(list(flags(settings))) == with_experts_written_out(settings)


@given(settings_strategy)
def test_the_variables_say_the_same_in_the_order_that_llama_cpp_reads_them(settings: Settings):
    env, missing = variables(settings)
    words = []
    for option in OPTIONS:  # common_params_parse_ex goes through the options in their order
        if option["env"] in env and "SERVER" in (option["programs"] or ["SERVER"]):
            value = env.pop(option["env"])
            positive = value == "1" or option["values"]
            words += [option["names"][-1] if positive else option["negative"][-1]] + ([value] if option["values"] else [])
    unsaid = [(row, row.value(settings)) for row in FLAGS if row.env is None]
    words += [word for row, value in unsaid if value is not None for word in (row.flag, value) if word]
    if env:  # options for media programs are listed under a name of their own
        words += [x for name, value in env.items() for x in _by_env(name, value)]
    assert understand(words) == with_experts_written_out(settings)
    assert set(missing) == {
        name
        for name, wanted in (
            ("lora", settings.lora),
            ("lora_scaled", settings.lora_scaled),
            ("kv_overrides", settings.kv_overrides),
            ("ngram_mod_n_max", settings.ngram_mod_n_max != 64),
            ("ngram_simple_size_m", settings.ngram_simple_size_m != 48),
            ("ngram_map_k_size_m", settings.ngram_map_k_size_m != 48),
            ("ngram_map_k4v_size_m", settings.ngram_map_k4v_size_m != 48),
            ("op_offload", not settings.op_offload),
            ("draft_devices", settings.draft_devices is not None),
            ("draft_overrides", settings.draft_overrides),
        )
        if wanted
    }


def _by_env(name: str, value: str) -> list[str]:
    option = next(o for o in OPTIONS if o["env"] == name)
    return [option["names"][-1], value] if option["values"] else [(option["names"] if value == "1" else option["negative"])[-1]]


def test_nothing_is_left_to_the_server():
    argv = list(render_server(plan(Settings()), request()).argv)
    assert argv[:3] == ["llama-server", "-m", "/models/m.gguf"]
    for flag in ("-c", "-ngl", "-b", "-ub", "-np", "-no-kvu", "-ctk", "-ctv", "-fa", "--fit"):
        assert flag in argv
    assert argv[argv.index("-fa") + 1] == "on"
    assert argv[argv.index("-ngl") + 1] == "33"
    assert argv[argv.index("--fit") + 1] == "off"


def hub(reference: str) -> Any:
    return replace(request(), model_reference=reference, model_path=reference)


def test_a_model_on_a_hub_is_downloaded_by_the_server_itself():
    made = render_server(plan(Settings(n_ctx=512)), hub("modelscope:Qwen/Qwen3-8B-GGUF:Q4_K_M"))
    assert made.argv[:6] == ("llama-server", "-hf", "Qwen/Qwen3-8B-GGUF", "-hff", "m.gguf", "--no-mmproj")
    assert made.env == {"MODEL_ENDPOINT": "https://www.modelscope.cn/"}
    late = render_server(plan(Settings(n_ctx=512)), hub("hf:a/b@main:Q8_0"))
    assert late.argv[1:3] == ("-hf", "a/b")
    assert "revision" in late.notes[0]
    assert render_server(plan(Settings()), hub("https://x.org/m.gguf")).argv[1:3] == ("-mu", "https://x.org/m.gguf")
    env = render_env(plan(Settings(n_ctx=512)), hub("modelscope:Qwen/Qwen3-8B-GGUF")).env
    assert env["LLAMA_ARG_HF_REPO"] == "Qwen/Qwen3-8B-GGUF"
    assert env["LLAMA_ARG_MMPROJ_AUTO"] == "0"
    unit = render_systemd(plan(), hub("modelscope:Qwen/Qwen3-8B-GGUF")).files[0].text
    assert "Environment=MODEL_ENDPOINT=https://www.modelscope.cn/\n" in unit
    swap = render_swap(plan(), hub("modelscope:Qwen/Qwen3-8B-GGUF")).files[0].text
    assert swap.endswith('    env:\n      - "MODEL_ENDPOINT=https://www.modelscope.cn/"\n')


def test_every_word_for_a_model_is_llama_cpps_own():
    for word in ("-m", "-mu", "-hf", "-hff", "--no-mmproj"):
        assert word in BY_NAME


def test_two_cards_are_told_their_layers():
    argv = list(render_server(plan(Settings(n_ctx=8192), n_gpus=2), request()).argv)
    shares = argv[argv.index("-ts") + 1].split(",")
    assert sum(map(int, shares)) == 33
    assert argv[argv.index("-sm") + 1] == "layer"


@given(st.lists(st.integers(0, 90), min_size=2, max_size=8).filter(any), st.integers(0, 5))
def test_layer_counts_give_the_same_layers_back(counts: list[int], n_cpu: int):
    """llama.cpp's rule, in its own single precision: src/llama-model.cpp, load_tensors."""
    import numpy as np

    total = sum(counts)
    splits, run = [], np.float32(0)
    for count in counts:
        run += np.float32(count)
        splits.append(run)
    splits = [share / run for share in splits]
    got = [0] * len(counts)
    for i in range(total):
        got[next(k for k, share in enumerate(splits) if share > np.float32(i) / np.float32(total))] += 1
    assert got == counts


def test_pinning_twice_changes_nothing():
    first = plan(Settings(n_gpu_layers=20), n_gpus=2)
    pinned = pin(first.estimate, first.machine)
    again = replace(first.estimate, settings=pinned)
    assert pin(again, first.machine) == pinned
    assert layer_counts(estimate(Settings()), ("CUDA0",)) == ()
    assert machine(2).device_names() == ("CUDA0", "CUDA1")


def test_a_pattern_that_the_command_line_would_split_is_refused():
    settings = Settings(n_ctx=512, overrides=(TensorOverride("blk.{1,2}.ffn", "CPU"),))
    with pytest.raises(RefusedError, match="commas"):
        render_server(plan(settings), request())


def test_the_programs_without_unified_caches_say_so():
    unified = plan(Settings(n_ctx=512, kv_unified=True))
    assert "-kvu" in render_server(unified, request()).argv
    assert render_cli(unified, request()).cannot_express == ("kv_unified",)
    assert not {"-kvu", "-no-kvu"} & set(render_cli(unified, request()).argv)
    assert list(render_fit_params(unified, request()).argv[-2:]) == ["-fitp", "on"]


def test_the_environment_file_holds_plain_lines():
    made = render_env(plan(Settings(n_ctx=4096, type_k="q8_0", op_offload=False)), request("/models/my model.gguf"))
    lines = dict(line.split("=", 1) for line in made.files[0].text.splitlines())
    assert lines == dict(made.env)
    assert lines["LLAMA_ARG_CACHE_TYPE_K"] == "q8_0"
    assert lines["LLAMA_ARG_MODEL"] == "/models/my model.gguf"
    assert made.cannot_express == ("op_offload",)
    with pytest.raises(RefusedError):
        render_env(plan(), request('/models/"a".gguf'))


@given(st.text("abc /'\"$#%\\\u00fc{}", min_size=1, max_size=12))
def test_llama_swap_splits_its_command_into_the_same_words(name: str):
    asked = request(f"/m/{name}.gguf")
    if "${" in name:
        with pytest.raises(RefusedError):
            render_swap(plan(), asked)
        return
    lines = render_swap(plan(), asked).files[0].text.splitlines()
    assert lines[0] == "models:"
    assert lines[2] == "    cmd: |"
    body = [line.removeprefix("      ") for line in lines[3:]]
    assert not any(line.startswith("#") for line in body)  # llama-swap drops such lines
    assert all(line.startswith("      ") for line in lines[3:])
    words = shlex.split("\n".join(body))
    assert words[:3] == ["llama-server", "--port", "${PORT}"]
    assert words[3:] == list(render_server(plan(), asked).argv[1:])


def read_systemd_words(line: str) -> list[str]:
    """systemd.service, "Command lines": quotes, C escapes, %% and $$."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    return [re.sub(r"\\(.)", r"\1", quoted or plain).replace("%%", "%").replace("$$", "$") for quoted, plain in words]


@given(st.text("abc /'\"$#%\\\u00fc;", min_size=1, max_size=12))
def test_systemd_reads_the_same_words(name: str):
    asked = request(f"/m/{name}.gguf")
    unit = render_systemd(plan(), asked).files[0].text
    start = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    assert read_systemd_words(start.removeprefix("ExecStart=")) == list(render_server(plan(), asked).argv)


def test_the_lines_of_llama_fit_params_are_read():
    text = "0.00.007 I main: printing estimated memory\nCUDA0 850 224 129 \nHost 1911 416 24 \n"
    assert parse_fit_print(text) == {
        "CUDA0": {"model": 850 << 20, "context": 224 << 20, "compute": 129 << 20},
        "Host": {"model": 1911 << 20, "context": 416 << 20, "compute": 24 << 20},
    }


def test_a_projector_elsewhere_is_named_by_its_url_and_other_companions_must_be_here():
    made = render_server(
        plan(Settings(n_ctx=512, mmproj="https://x.org/p.gguf", model_draft="https://x.org/d.gguf")), request()
    )
    assert made.argv[made.argv.index("-mmu") + 1] == "https://x.org/p.gguf"
    assert "-mm" not in made.argv
    assert [note for note in made.notes if "x.org" in note] == [
        "llama.cpp opens drafts and adapters on this disk only: download https://x.org/d.gguf and name that file."
    ]
    assert "-mmu" in BY_NAME
