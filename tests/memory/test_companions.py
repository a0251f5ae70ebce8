"""Projectors and drafts are counted beside the model, or said not to be."""

import truth_support as truth
from fitplug.formats.header import Header, Tensor
from fitplug.memory.companions import Companions
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import HOST, Kind
from fitplug.settings import Settings

LLAMA = truth.model("llama-3.1-8b", "Q4_K_M")
SMALL = truth.model("tiny/llama-dense", "F32")
MACHINE = truth.machine([{"name": "a", "total_mib": 24000, "free_mib": 23000, "compute_capability": "8.9"}])
SERVER = truth.RUNNERS["llama-server"]
VISION = Header(
    format="gguf", n_bytes=0, tensors={"v.blk.0.ffn_up.weight": Tensor("v.blk.0.ffn_up.weight", "f16", (1000, 10), 20000, 0)},
    metadata={"general.architecture": "clip", "clip.has_vision_encoder": True, "clip.vision.image_size": 560,
              "clip.vision.patch_size": 14, "clip.vision.embedding_length": 1000, "clip.vision.feed_forward_length": 4000},
)  # fmt: skip


def _beside(settings, **companions):
    with_it = Estimator(LLAMA, MACHINE, SERVER, Companions(**companions))(settings)
    alone = Estimator(LLAMA, MACHINE, SERVER)(settings)
    return {part for part in with_it.parts if part not in alone.parts}, alone


def test_a_projector_lies_on_the_first_gpu_or_on_the_host():
    """Its tensors are padded like any other's."""
    on_gpu, alone = _beside(Settings(n_ctx=4096, mmproj="p.gguf"), projector=VISION)
    on_host, _ = _beside(Settings(n_ctx=4096, mmproj="p.gguf", mmproj_offload=False), projector=VISION)

    assert {(p.device, p.n_bytes) for p in on_gpu if p.kind == Kind.MODEL} == {("CUDA0", 20096)}
    assert {p.device for p in on_host} == {HOST}
    assert any("p.gguf" in note for note in alone.notes)


def test_a_draft_has_its_targets_context():
    """With a 16-bit cache of its own, whatever the target's cache type."""
    settings = Settings(n_ctx=5000, type_k="q8_0", type_v="q8_0", model_draft="d.gguf")
    beside, _ = _beside(settings, draft=SMALL)
    own = Estimator(SMALL, MACHINE, SERVER)(Settings(n_ctx=5120))

    assert {p.n_bytes for p in beside if p.kind == Kind.CONTEXT} == {own.n_bytes("CUDA0", Kind.CONTEXT)}
    assert all(p.source.startswith("draft's") for p in beside)
