"""llama.cpp's own answers (fixtures/truth), and the models, machines and settings that they are about."""

import gzip
import json
import os
from collections import Counter
from functools import cache, cached_property
from pathlib import Path

from fitplug.extension import Runner
from fitplug.formats import gguf
from fitplug.formats.ggml_types import row_size
from fitplug.formats.header import Header, Skipped, Tensor
from fitplug.machine.load import machine_from_json
from fitplug.memory.compute import ComputeEstimator
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import HOST
from fitplug.memory.setup import Setup
from fitplug.model.describe import describe
from fitplug.settings import Settings, TensorOverride

FIXTURES = Path(__file__).parent.parent / "fixtures"
TRUTH = FIXTURES / "truth"
EVERY = int(os.environ.get("FITPLUG_TRUTH_EVERY", "23"))
"""Only every so many rows are tried; FITPLUG_TRUTH_EVERY=1 tries them all."""
RUNNERS = {
    "llama-server": Runner(name="llama-server", help=""),
    "llama-cpp-python": Runner(name="llama-cpp-python", help="", outputs="batch"),
    "llama-fit-params": Runner(name="llama-fit-params", help="", outputs="batch", measuring=True),
}


class HeaderBlob:
    """The front of a file whose rest is a hole."""

    def __init__(self, name, front, n_bytes):
        self.name, self.front, self.n_bytes = name, front, n_bytes

    def read(self, offset, n_bytes):
        end = min(offset + n_bytes, self.n_bytes)
        return self.front[offset:end].ljust(max(0, end - offset), b"\0")


class Answers:
    """One folder of fixtures: models, and what llama.cpp said of them under some settings."""

    def __init__(self, folder):
        self.folder = FIXTURES / folder
        self._known = {}

    def _read(self, name):
        with gzip.open(self.folder / name, "rt") as lines:
            return lines.read()

    @cached_property
    def rows(self):
        return [json.loads(line) for line in self._read("rows.jsonl.gz").splitlines()]

    @property
    def answered(self):
        return [row for row in self.rows if "error" not in row]

    @property
    def refused(self):
        return [row for row in self.rows if "error" in row]

    @cached_property
    def models(self):
        """By name."""
        return {model["name"]: model for model in json.loads(self._read("models.json.gz"))}

    def model(self, name):
        if name not in self._known:
            self._known[name] = describe(header_of(self.models[name]))
        return self._known[name]

    def estimator(self, row, **how):
        return Estimator(self.model(row["model"]), machine(row["devices"]), RUNNERS[row["runner"]], **how)


@cache
def rows(name):
    """All rows of one set: "memory" or "archs"."""
    with gzip.open(TRUTH / f"{name}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def sample(name, every=EVERY):
    """Every so many rows of a set, the same ones each time."""
    return rows(name)[::every]


def label(row):
    return f"{row['model']}-{row['ftype']}-{row['runner']}-{len(row['devices'])}gpu {' '.join(row['args'])}"


@cache
def _real_models():
    with gzip.open(TRUTH / "models.json.gz", "rt") as file:
        return {(m["name"], m["ftype"]): m for m in json.load(file)}


@cache
def _sizes():
    return json.loads((TRUTH / "archs" / "sizes.json").read_text())


def architectures():
    """The small models, by their file's name."""
    return sorted(path.name.removesuffix(".gguf.gz") for path in (TRUTH / "archs").glob("*.gguf.gz"))


@cache
def header(name, ftype):
    """The header of a row's model."""
    if name.startswith("tiny/"):
        front = gzip.decompress((TRUTH / "archs" / f"{name[5:]}.gguf.gz").read_bytes())
        return gguf.read([HeaderBlob(f"{name[5:]}.gguf", front, _sizes()[name[5:]]["file_bytes"])])
    return header_of(_real_models()[name, ftype])


def header_of(model):
    """A header made of metadata and a list of tensors (name, type, shape)."""
    metadata = {key: tuple(v) if isinstance(v, list) else v for key, v in model["metadata"].items()}
    metadata["tokenizer.ggml.tokens"] = Skipped("str", model["n_vocab"])
    metadata.setdefault("tokenizer.ggml.model", "gpt2")
    tensors, offset = {}, 0
    for name, type_, shape in model["tensors"]:
        n_bytes = row_size(type_, shape[0])
        for n in shape[1:]:
            n_bytes *= n
        tensors[name] = Tensor(name, type_, tuple(shape), n_bytes, offset)
        offset += -(-n_bytes // 32) * 32
    return Header(format="gguf", metadata=metadata, tensors=tensors, n_bytes=offset)


@cache
def model(name, ftype):
    return describe(header(name, ftype))


def machine(devices, host_bytes=48 << 30):
    """A machine with these devices; what a row says besides of one, a machine file may say too."""
    gpus = [
        {"kind": "gpu", "backend": "cuda", "total_bytes": d["total_mib"] << 20, "free_bytes": d["free_mib"] << 20,
         **{key: value for key, value in d.items() if not key.endswith("_mib")}}
        for d in devices
    ]  # fmt: skip
    return machine_from_json({"devices": gpus, "host": {"total_bytes": host_bytes, "available_bytes": host_bytes}})


_WITH_VALUE = {
    "-c": ("n_ctx", int), "-ngl": ("n_gpu_layers", int), "-b": ("n_batch", int), "-ub": ("n_ubatch", int),
    "-np": ("n_seq_max", int), "-ctk": ("type_k", str), "-ctv": ("type_v", str), "-fa": ("flash_attn", str),
    "--n-cpu-moe": ("n_cpu_moe", int), "-ncmoe": ("n_cpu_moe", int), "-sm": ("split_mode", str), "-mg": ("main_gpu", int),
    "-dev": ("devices", lambda text: () if text == "none" else tuple(text.split(","))),
    "-ts": ("tensor_split", lambda text: tuple(map(float, text.split(",")))),
    "-ot": ("overrides", lambda text: tuple(TensorOverride(*rule.rsplit("=", 1)) for rule in text.split(","))),
    "--spec-type": ("spec_type", str), "--spec-draft-n-max": ("draft_max", int), "-ngld": ("draft_n_gpu_layers", int),
    "-ctkd": ("draft_type_k", str), "-ctvd": ("draft_type_v", str),
    "-md": ("model_draft", str), "-devd": ("draft_devices", lambda text: tuple(text.split(","))),
}  # fmt: skip
_ALONE = {
    "-kvu": ("kv_unified", True), "--swa-full": ("swa_full", True), "-nkvo": ("offload_kqv", False),
    "--cpu-moe": ("n_cpu_moe", -1), "-cmoe": ("n_cpu_moe", -1), "--no-op-offload": ("op_offload", False),
}  # fmt: skip


def settings(args):
    """`Settings` of llama.cpp arguments."""
    given, words = {}, iter(args)
    for word in words:
        if word in _ALONE:
            name, given_value = _ALONE[word]
            given[name] = given_value
        else:
            name, read = _WITH_VALUE[word]
            given[name] = read(next(words))
    return Settings(**given)


def estimator(row):
    return Estimator(model(row["model"], row["ftype"]), machine(row["devices"]), RUNNERS[row["runner"]])


def setup(estimator, settings):
    """What an estimator asks of its `ComputeEstimator`."""
    placement, resolved, _ = estimator.static(settings)
    return Setup(placement, estimator.placed(placement, settings), resolved, settings)


def short_and_full(estimator, settings):
    """Compute buffers with layers left out, and of every layer of every graph."""
    asked = setup(estimator, settings)
    return [
        ComputeEstimator(estimator.model, estimator.machine, estimator.runner, shorten=shorten).sizes(asked)
        for shorten in (True, False)
    ]


def estimate(row):
    return estimator(row)(settings(row["args"]))


def told(row, kind):
    """llama.cpp's bytes of one kind per device; all host buffers are one."""
    found = Counter()
    for name, held in row["out"]["buffers"].items():
        found[name if name[-1].isdigit() else HOST] += held[kind]
    return {device: n for device, n in found.items() if n}


def predicted(estimate, kind):
    """Ours, in the same form."""
    found = Counter()
    for part in estimate.parts:
        if part.kind == kind:
            found[part.device] += part.n_bytes
    return {device: n for device, n in found.items() if n}
