"""From safetensors to types and sizes: held to what llama-quantize --dry-run said of the same models."""

import importlib.util
import json
from pathlib import Path

import pytest

from conversion.conftest import header
from fitplug.conversion.convert import convert, quantised
from fitplug.errors import FitplugError

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "quantize"
RECORDED = json.loads((FOLDER / "dry_runs.json").read_text())


def digest(types):
    """As the script beside the fixture has it."""
    spec = importlib.util.spec_from_file_location("record", FOLDER / "record.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.digest(types)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_every_tensor_has_the_type_and_the_whole_the_size(name):
    """Of every file type that was recorded."""
    made = convert(header(name))
    for ftype, (types, mebibytes) in RECORDED[name].items():
        quant = quantised(made, ftype, imatrix=False)
        assert digest({k: t.type.lower() for k, t in quant.tensors.items()}) == types, ftype
        assert round(sum(t.n_bytes for t in quant.tensors.values()) / (1 << 20), 2) == mebibytes, ftype


def test_experts_in_mxfp4_stay_what_they_are(checkpoint):
    """llama-quantize refuses to quantise them again."""
    with pytest.raises(FitplugError, match="MXFP4_MOE"):
        quantised(convert(checkpoint("gpt-oss-20b")), "Q4_K_M")
