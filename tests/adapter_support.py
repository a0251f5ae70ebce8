"""llama.cpp's answers about models with LoRA adapters (fixtures/adapters), and those adapters."""

import sys
from collections import Counter
from dataclasses import replace

import truth_support as truth
from fitplug.formats.ggml_types import row_size
from fitplug.formats.header import Header, Tensor
from fitplug.memory.companions import Companions
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import HOST

ADAPTERS = truth.Answers("adapters")
sys.path.insert(0, str(ADAPTERS.folder))
import specs  # noqa: E402 - lies beside the fixture

SETS = {name: truth.Answers(name) for name in ("recurrent", "latent")}


def model(row):
    """The model of a row, from the fixture that it is in."""
    if row["set"] == "truth":
        return truth.model(row["model"], row["ftype"])
    if row["set"] == "archs":
        return truth.model(row["model"], "")
    return SETS[row["set"]].model(row["model"])


def adapter(spec, model):
    """An adapter's header without its weights."""
    tensors = {}
    for name, kind, shape in specs.halves(spec, {tensor.name: tensor.shape for tensor in model.tensors.values()}):
        n_bytes = row_size(kind, shape[0])
        for n in shape[1:]:
            n_bytes *= n
        tensors[name] = Tensor(name, kind, tuple(shape), n_bytes, 0)
    return Header(format="gguf", n_bytes=0, metadata=specs.metadata(model.architecture), tensors=tensors, shards=("a.gguf",))


def estimate(row):
    """Ours, of the same settings with the same adapters."""
    described = model(row)
    adapters = tuple(adapter(spec, described) for spec in row["adapters"])
    estimator = Estimator(described, truth.machine(row["devices"]), truth.RUNNERS[row["runner"]], Companions(adapters=adapters))
    return estimator(replace(truth.settings(row["args"]), lora=("a.gguf",) * len(adapters)))


def told(row):
    """What the adapters themselves take, per device."""
    found = Counter()
    for name, n in row["out"]["lora"].items():
        found[name if name.startswith("CUDA") and name != "CUDA_Host" else HOST] += n
    return dict(found)
