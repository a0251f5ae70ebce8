"""llama.cpp's words mean on this command line what they mean on llama.cpp's own."""

import click
import pytest

from fitplug.cli.command import Command
from fitplug.cli.options import settings_options, target_options, wish_options
from fitplug.settings import ROPE_FLAGS, Settings, TensorOverride
from fitplug.units import GIB, MIB


@click.command(cls=Command)
@settings_options
def settings_command(*, given):
    return given


@click.command(cls=Command)
@target_options(reserve=GIB)
@wish_options
def target_command(*, target, wish):
    return target, wish


def read(*words):
    return settings_command.main(list(words), standalone_mode=False)


def target_of(*words):
    return target_command.main(list(words), standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-c 4096", {"n_ctx": 4096}),
        ("-c 0", {"n_ctx": 0}),
        ("--ctx-size 4096", {"n_ctx": 4096}),
        ("--ctx_size 4096", {"n_ctx": 4096}),
        ("--ctx_size=4096", {"n_ctx": 4096}),
        ("-ngl 12", {"n_gpu_layers": 12}),
        ("-ngl 0", {"n_gpu_layers": 0}),
        ("-ngl all", {"n_gpu_layers": -1}),
        ("-ngl -2", {"n_gpu_layers": -1}),
        ("-ngl auto", {}),
        ("-ngl -1", {}),
        ("--gpu-layers 3", {"n_gpu_layers": 3}),
        ("--n_gpu_layers 3", {"n_gpu_layers": 3}),
        ("-ngl=3", {"n_gpu_layers": 3}),
        ("-b 256 -ub 128", {"n_batch": 256, "n_ubatch": 128}),
        ("-ctk q8_0 -ctv q4_0", {"type_k": "q8_0", "type_v": "q4_0"}),
        ("-fa on", {"flash_attn": "on"}),
        ("-fa 1", {"flash_attn": "on"}),
        ("-fa disabled", {"flash_attn": "off"}),
        ("-fa auto", {"flash_attn": "auto"}),
        ("-fa -1", {"flash_attn": "auto"}),
        ("-np 4", {"n_seq_max": 4}),
        ("-np -1", {"n_seq_max": 4, "kv_unified": True}),
        ("-kvu", {"kv_unified": True}),
        ("-no-kvu", {"kv_unified": False}),
        ("--no-kv-unified", {"kv_unified": False}),
        ("--swa-full", {"swa_full": True}),
        ("-nkvo", {"offload_kqv": False}),
        ("--no-kv-offload", {"offload_kqv": False}),
        ("-kvo", {"offload_kqv": True}),
        ("--no-op-offload", {"op_offload": False}),
        ("-sm row -mg 1", {"split_mode": "row", "main_gpu": 1}),
        ("-sm tensor", {"split_mode": "tensor"}),
        ("-ts 3,1", {"tensor_split": (3.0, 1.0)}),
        ("-ts 3/1/0.5", {"tensor_split": (3.0, 1.0, 0.5)}),
        ("-dev CUDA1,CUDA0", {"devices": ("CUDA1", "CUDA0")}),
        ("-dev none", {"devices": ()}),
        ("-ot a=CPU", {"overrides": (TensorOverride("a", "CPU"),)}),
        ("-ot a=CPU,b=CUDA0 -ot c=CPU", {"overrides": (("a", "CPU"), ("b", "CUDA0"), ("c", "CPU"))}),
        ("-cmoe", {"n_cpu_moe": -1}),
        ("-ncmoe 7", {"n_cpu_moe": 7}),
        ("-ncmoe 7 -cmoe", {"n_cpu_moe": -1}),
        ("-mm p.gguf -md d.gguf", {"mmproj": "p.gguf", "model_draft": "d.gguf"}),
        ("-ncffn 7", {"n_cpu_ffn": 7}),
        ("--no-host -nr", {"no_host": True, "repack": False}),
        ("--no-repack --repack", {"repack": True}),
        (
            "-mmdev CUDA1 --image-min-tokens 8 --image-max-tokens 99",
            {"mmproj_device": "CUDA1", "image_min_tokens": 8, "image_max_tokens": 99},
        ),
        ("-mmdev none", {"mmproj_device": None, "mmproj_offload": False}),
        ("--embedding", {"embedding": True}),
        ("--embeddings --pooling last", {"embedding": True, "pooling": "last"}),
        ("--rerank", {"embedding": True, "pooling": "rank"}),
        ("--reranking -b 99", {"embedding": True, "pooling": "rank", "n_batch": 99}),
        ("--kv-unified-per-slot 3000 -np 2", {"kv_unified_per_slot": 3000, "n_seq_max": 2, "n_ctx": 6000}),
        (
            "--kv-unified-per-slot 3000 -np -1",
            {"kv_unified_per_slot": 3000, "n_seq_max": 4, "kv_unified": True, "n_ctx": 12000},
        ),
        ("--kv-unified-per-slot 3000 -c 0", {"kv_unified_per_slot": 3000, "n_ctx": 0}),
        ("--spec-ngram-mod-n-max 0 --spec-ngram-simple-size-m 1", {"ngram_mod_n_max": 0, "ngram_simple_size_m": 1}),
        (
            "--spec-ngram-map-k-size-m 2 --spec-ngram-map-k4v-size-m 1024",
            {"ngram_map_k_size_m": 2, "ngram_map_k4v_size_m": 1024},
        ),
        ("--lora a,b --lora c", {"lora": ("a", "b", "c")}),
        ("--lora-scaled a:0.5,b:-1 --lora-scaled c:2e-1", {"lora_scaled": (("a", 0.5), ("b", -1.0), ("c", 0.2))}),
        (
            "--override-kv a.b=int:4,c=bool:true --override-kv d=str:e:f,g=float:0.5",
            {"kv_overrides": (("a.b", 4), ("c", True), ("d", "e:f"), ("g", 0.5))},
        ),
        (
            "--yarn-orig-ctx 32768 --rope-scaling yarn --rope-scale 4",
            {"rope": (("--rope-scaling", "yarn"), ("--rope-scale", "4"), ("--yarn-orig-ctx", "32768"))},
        ),
        ("--no-mmap", {"use_mmap": False}),
        ("-lm none", {"use_mmap": False}),
        ("-lm dio", {"load_mode": "dio", "use_mmap": False}),
        ("--load-mode mmap+mlock", {"load_mode": "mmap+mlock", "use_mmap": True}),
        ("-lzm on", {"lazy_mode": "on"}),
        ("-c 1 -c 2", {"n_ctx": 2}),
        ("", {}),
    ],
)
def test_a_word_sets_what_it_sets_in_llama_cpp_and_nothing_else(words, expected):
    given = read(*words.split())

    assert given.settings == Settings(**expected)
    assert given.names == frozenset(expected)


@pytest.mark.parametrize("name", sorted(Settings.__dataclass_fields__))
def test_every_setting_can_be_given(name):
    options = {param.name for param in settings_command.params}

    assert name in options | {"rope"}
    assert {flag.removeprefix("--").replace("-", "_") for flag in ROPE_FLAGS} <= options


@pytest.mark.parametrize(
    "words",
    [
        "-ngl -c",
        "-c -ngl 3",
        "-fa -c 3",
        "-c 99999999999",
        "-c 1e3",
        "-c ٣",
        "-ts ,",
        "-ts nan",
        "-ts -1",
        "--rope-scale four",
        "--rope-scaling longrope",
        "--override-kv a=4",
        "--override-kv a=int:b",
        "--override-kv a=bool:1",
        "--override-kv =int:1",
        "--lora-scaled a",
        "--lora-scaled a:b:1",
        "--lora-scaled a:inf",
        "--pooling max",
        "-lm fast",
        "-ncffn -1",
        "--spec-ngram-mod-n-max 1025",
        "--spec-ngram-simple-size-m 0",
    ],
)
def test_what_llama_cpp_cannot_read_is_wrong_usage(words):
    with pytest.raises(click.UsageError):
        read(*words.split())


def test_a_value_may_look_like_an_option():
    assert read("-ot", "--x=CPU").settings.overrides == (("--x", "CPU"),)


def test_gpus_add_up_and_sizes_are_bytes():
    target, wish = target_of(
        "--gpu", "RTX 4090", "--gpu", "RTX 3090=20", "--reserve", "512MiB", "--users", "3", "--goal", "speed"
    )

    assert target.gpus == ("RTX 4090", "RTX 3090=20")
    assert target.reserve_bytes == 512 * MIB
    assert (wish.users, wish.goal, wish.min_ctx) == (3, "speed", None)


def test_what_is_left_out_is_as_the_contract_says():
    target, wish = target_of()

    assert target == (None, (), "llama-server", GIB, (), False)
    assert wish == (None, "balanced", None)
