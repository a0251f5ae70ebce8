"""What config.json says may be anything: the answer is a plan or one line, and comes soon."""

import copy
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.conftest import header_of
from conversion.test_classes import RECORDED
from fitplug import fit, imagine_machine
from fitplug.conversion.convert import convert, quantised
from fitplug.errors import FitplugError
from fitplug.model.describe import describe

NONSENSE = [
    None, True, -1, 0, 1, 3, 1 << 31, 1 << 63, 10**30, 1.5, float("inf"), float("nan"), "", "x", "../../x", [], [0],
    [1, 2, 3], [[1]], ["full_attention"] * 3, [None] * 3, {}, {"rope_theta": "x"},
]  # fmt: skip


def places(value, path=()):
    """Where something stands in config.json."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:8]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(config, path, value):
    """The same with something else there; None where nothing is there any more."""
    inner = config = copy.deepcopy(config)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


def plan(config, source):
    """As `check` would make it."""
    header = header_of(config, {name: (dtype, tuple(shape)) for name, dtype, shape in source})
    return fit(describe(quantised(convert(header), "Q4_K_M")), imagine_machine("RTX 3060 12GB"))


@settings(max_examples=150)
@given(st.data())
def test_one_nonsensical_value_is_answered(data):
    entry = RECORDED[data.draw(st.sampled_from(sorted(RECORDED)), label="class")]
    path = data.draw(st.sampled_from([path for path in places(entry["config"]) if path[0] != "architectures"]), label="path")
    config = changed(entry["config"], path, data.draw(st.sampled_from(NONSENSE), label="value"))
    with suppress(FitplugError):
        plan(config, entry["source"])


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("InternLM3ForCausalLM", ("num_attention_heads",), float("inf")),
        ("GraniteSWAForCausalLM", ("num_key_value_heads",), float("nan")),
        ("MiMoV2FlashForCausalLM", ("partial_rotary_factor",), float("nan")),
        ("MiMoV2FlashForCausalLM", ("partial_rotary_factor",), float("-inf")),
        ("KimiLinearForCausalLM", ("linear_attn_config", "full_attn_layers", 0), "x"),
    ],
)
def test_what_cannot_be_is_said(name, path, value):
    with pytest.raises(FitplugError):
        plan(changed(RECORDED[name]["config"], path, value), RECORDED[name]["source"])


def test_a_tensor_of_other_dimensions_is_named():
    entry = RECORDED["DbrxForCausalLM"]
    flat = [
        (name, dtype, [] if name.endswith("blocks.1.ffn.experts.mlp.w1") else shape) for name, dtype, shape in entry["source"]
    ]
    with pytest.raises(FitplugError, match=r"blocks\.1\.ffn\.experts\.mlp\.w1 has other dimensions"):
        plan(entry["config"], flat)


def test_a_width_that_no_tensor_has_is_refused():
    entry = RECORDED["PanguEmbeddedForCausalLM"]
    with pytest.raises(FitplugError, match=r"token_embd\.weight has the shape"):
        plan(changed(entry["config"], ("hidden_size",), 1 << 31), entry["source"])
