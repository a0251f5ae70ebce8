"""Whatever llama.cpp's arguments say, the answer is a status and an object or a line, never a mistake of fitplug."""

import contextlib
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fitplug.cli import main

from .conftest import gpu

NUMBERS = st.integers(-3, 40000).map(str)
SMALL = st.integers(-2, 40).map(str)
TYPES = st.sampled_from(["f32", "f16", "bf16", "q8_0", "q4_0", "iq4_nl", "q5_1"])
SHARES = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(lambda shares: ",".join(map(str, shares)))
VALUES = {
    "-c": NUMBERS,
    "-ngl": SMALL | st.sampled_from(["all", "auto"]),
    "-b": NUMBERS,
    "-ub": NUMBERS,
    "-ctk": TYPES,
    "-ctv": TYPES,
    "-fa": st.sampled_from(["on", "off", "auto"]),
    "-np": st.integers(-1, 300).map(str),
    "-sm": st.sampled_from(["none", "layer", "row"]),
    "-ts": SHARES,
    "-mg": SMALL,
    "-ot": st.sampled_from(["ffn=CPU", ".*=CUDA0", "[=CPU", "blk\\.[0-9]\\.=CUDA7", "(=CPU", "a=NOWHERE"]),
    "-ncmoe": SMALL,
    "-dev": st.sampled_from(["none", "CUDA0", "CUDA1,CUDA0", "CUDA9", "CUDA0,CUDA0"]),
}
FLAGS = ["-kvu", "-no-kvu", "--swa-full", "-nkvo", "-cmoe", "--no-op-offload"]
ARGUMENTS = st.lists(
    st.one_of(
        st.sampled_from(sorted(VALUES)).flatmap(lambda name: VALUES[name].map(lambda value: (name, value))),
        st.sampled_from(FLAGS).map(lambda name: (name,)),
    ),
    max_size=6,
    unique_by=lambda words: words[0],
)


def answer(words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    return status, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("command", ["explain", "auto"])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-30b-a3b", "gemma-3-4b"])
def test_any_settings_are_answered(models, machine_file, command, name):
    machine = machine_file(gpu(), gpu(8))

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(ARGUMENTS)
    def check(arguments):
        words = [word for argument in arguments for word in argument]
        status, out, err = answer([command, str(models[name]), "--machine", str(machine), "--json", *words])

        assert "a mistake in fitplug" not in err
        if status in (0, 1):
            assert json.loads(out)["fits"] is (status == 0)
            assert err == ""
        else:
            assert status in (2, 3)
            assert out == ""
            assert status == 2 or err.count("\n") == 1

    check()
