"""llama.cpp's words mean on this command line what they mean on llama.cpp's own."""

import click
import pytest

from fitplug.cli.command import Command
from fitplug.cli.options import settings_options, target_options, wish_options
from fitplug.settings import Settings, TensorOverride
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
        ("--lora a,b --lora c", {"lora": ("a", "b", "c")}),
        ("--no-mmap", {"use_mmap": False}),
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

    assert name in options


@pytest.mark.parametrize(
    "words", ["-ngl -c", "-c -ngl 3", "-fa -c 3", "-c 99999999999", "-c 1e3", "-c ٣", "-ts ,", "-ts nan", "-ts -1"]
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
