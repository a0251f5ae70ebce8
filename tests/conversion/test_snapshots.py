"""From config.json and the names of the tensors to llama-quantize's types: held to llama.cpp's own snapshots."""

import gzip
import json
import re
from functools import cache
from pathlib import Path

import pytest

from conversion import checkpoints
from conversion.conftest import header
from fitplug.conversion.convert import convert, quantised

SNAPSHOTS = json.loads(
    gzip.decompress((Path(__file__).resolve().parents[2] / "fixtures/quantize/snapshots.json.gz").read_bytes())
)
FILE_TYPES = sorted({ftype for snapshot in SNAPSHOTS.values() for ftype in snapshot})


def expected(section):
    """Tensor → type, for those that differ from the default."""
    found = {}
    for kind, names in section.items():
        for name in names if kind != "default" else ():
            layers = re.fullmatch(r"blk\.([\d,-]+)\.(.+)", name)
            if layers is None:
                found[name] = kind
                continue
            for part in layers[1].split(","):
                first, _, last = part.partition("-")
                found |= {f"blk.{i}.{layers[2]}": kind for i in range(int(first), int(last or first) + 1)}
    return found


@cache
def converted(name):
    """Experts that are quantised already count as if they were not, as in the snapshots."""
    made = convert(header(name))
    for key, tensor in made.tensors.items():
        if tensor.type == "mxfp4":
            made.tensors[key] = tensor._replace(type="bf16")
    return made


@pytest.mark.parametrize("ftype", FILE_TYPES)
@pytest.mark.parametrize("name", sorted(checkpoints.SNAPSHOTS))
def test_types_are_those_of_llama_quantize(name, ftype):
    """Every tensor of every file type that the snapshot has."""
    section = SNAPSHOTS[name].get(ftype)
    if section is None:
        pytest.skip("not in this snapshot")
    source = converted(name)
    made = quantised(source, ftype, imatrix=False)
    default = section["default"]
    changed = {key: t.type for key, t in made.tensors.items() if t.type != default and t.type != source.tensors[key].type}
    kept = {key for key, t in made.tensors.items() if t.type == source.tensors[key].type}
    wanted = {key: kind for key, kind in expected(section).items() if key not in kept or kind == made.tensors[key].type}
    assert changed == {key: kind for key, kind in wanted.items() if key not in kept}
    assert wanted.keys() == expected(section).keys()
