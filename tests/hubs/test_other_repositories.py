"""Repositories as people fill them: several things in one, files left over, other orders, things that do not agree."""

import json

import pytest

import formats_support
from conversion import checkpoints
from hubs.hub_files import shards

CARD = ("--gpu", "RTX 4060")


@pytest.fixture
def checkpoint(tmp_path):
    """Files of a small model as safetensors: name → path."""

    def make(n_shards=1, n_layer=2):
        config, tensors = checkpoints.llama(n_layer)
        return checkpoints.write(tmp_path / f"st{n_shards}-{n_layer}", config, tensors, n_shards=n_shards)

    return make


def rows(run, reference):
    """What `check` shows of it."""
    ran = run("check", reference, *CARD, "--json")
    assert ran.status == 0, ran.err + ran.out
    return ran.json["files"]


@pytest.mark.parametrize("n_shards", [1, 3])
def test_mistrals_own_form_beside_the_model_is_not_counted_twice(hub, run, checkpoint, scheme, n_shards):
    """Nor fetched."""
    files = checkpoint(n_shards)
    alone = sum(path.stat().st_size for name, path in files.items() if name.endswith(".safetensors"))
    one = next(path for name, path in files.items() if name.endswith(".safetensors"))
    hub.add("team/both", files | {"consolidated.safetensors": one, "adapter_model.safetensors": one})
    found = rows(run, f"{scheme}:team/both")
    assert found[0]["n_bytes"] == alone
    assert any(row["fits"] for row in found)
    assert not any("consolidated" in request.path for request in hub.log)
    assert run("show", f"{scheme}:team/both").status == 0


def test_gguf_and_safetensors_live_in_one_repository(hub, run, gguf, checkpoint, scheme):
    """Beside what other programs need: each is named so that `auto` takes it."""
    files = checkpoint()
    more = {f"onnx/model_{i}.onnx": b"x" * 10 for i in range(3)}
    original = {"original/consolidated.00.pth": b"x", "original/model.safetensors": files["model.safetensors"]}
    hub.add("team/mixed", files | more | original | {"Model-Q4_K_M.gguf": gguf("gemma-3-4b")})
    for row in rows(run, f"{scheme}:team/mixed"):
        if row["fits"]:
            ran = run("auto", row["reference"], *CARD, "--json")
            assert ran.status == 0, (row["reference"], ran.err)
            assert ran.json["model"]["file_type"] == (row["quant"] or "Q4_K_M")


def test_modules_and_diffusers_folders_are_rows_that_say_why_not(hub, run, checkpoint, scheme):
    """Nothing breaks, and the model itself is planned."""
    files = checkpoint()
    weights = files["model.safetensors"]
    folders = {"2_Dense/model.safetensors": weights, "2_Dense/config.json": b'{"in_features": 8}', "modules.json": b"[]",
               "unet/diffusion_pytorch_model.safetensors": weights, "unet/config.json": b'{"_class_name": "UNet"}',
               "vae/diffusion_pytorch_model.fp16.safetensors": weights}  # fmt: skip
    hub.add("team/modules", files | folders)
    found = rows(run, f"{scheme}:team/modules")
    assert any(row["fits"] for row in found)
    assert sum(bool(row["problem"]) for row in found) >= 3


def test_drafts_that_are_alone_are_the_models_of_a_repository(hub, run, gguf, scheme):
    """And a model is no draft for what it is called."""
    hub.add("team/draft", {"Model-0.6B-DRAFT-Q4_0.gguf": gguf("gemma-3-4b")})
    assert rows(run, f"{scheme}:team/draft")[0]["fits"]
    assert run("auto", f"{scheme}:team/draft", *CARD).status == 0
    hub.add("team/eagle", {"Eagle-7B-Q4_K_M.gguf": gguf("gemma-3-4b")})
    assert rows(run, f"{scheme}:team/eagle")[0]["fits"]


def test_quants_with_larger_embeddings_have_names_of_their_own(hub, run, gguf, scheme):
    """Each can be named as its publisher does."""
    labels = ("Q8_0", "Q8_0_L", "Q4_K_M", "Q4_K_L", "UD-Q4_K_XL", "IQ4_NL_XL")
    hub.add("team/labels", {f"Model-{label}.gguf": gguf("gemma-3-4b") for label in labels})
    found = rows(run, f"{scheme}:team/labels")
    assert {row["label"] for row in found} == set(labels)
    for label in labels:
        assert run("show", f"{scheme}:team/labels:{label.lower()}").status == 0


def test_dozens_of_folders_are_dozens_of_rows(hub, run, gguf, scheme):
    """One quant in each."""
    hub.add("team/folders", {f"set-{i:02d}/Model-Q4_K_M.gguf": gguf("gemma-3-4b") for i in range(40)})
    found = rows(run, f"{scheme}:team/folders")
    assert len({row["reference"] for row in found}) == 40
    assert all(row["fits"] for row in found)


@pytest.mark.parametrize("n_tensors", [0, 1])
def test_a_first_shard_without_tensors_is_one_of_the_model(hub, run, gguf, tmp_path, scheme, n_tensors):
    """As gguf-split writes it with --no-tensor-first-split."""
    files = shards(gguf("gemma-3-4b", n_merges=1000), tmp_path, 3, first=n_tensors)
    hub.add("team/split", files)
    row = rows(run, f"{scheme}:team/split")[0]
    assert row["fits"]
    assert run("auto", row["reference"], *CARD).status == 0


def test_the_index_of_numbered_files_is_not_fetched(hub, run, checkpoint, scheme):
    """It says nothing that their names do not, and has sixty megabytes for the largest models; else it is."""
    files = checkpoint(3)
    hub.add("team/numbered", files)
    assert run("show", f"{scheme}:team/numbered").status == 0
    assert not any("index.json" in request.path for request in hub.log)
    hub.add("team/more", files | {"more.safetensors": files["model-00001-of-00003.safetensors"]})
    assert run("show", f"{scheme}:team/more").status == 0
    assert any("index.json" in request.path for request in hub.log)


def test_how_safetensors_are_stored_is_said_once(hub, run, checkpoint, scheme):
    """Above the table, whose rows stay short; and what can only be run by others is not called too large."""
    files = checkpoint()
    config = json.loads(files["config.json"])
    quantised = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    hub.add("team/fp8", files | {"config.json": json.dumps(config | {"quantization_config": quantised}).encode()})
    out = run("check", f"{scheme}:team/fp8", *CARD).out
    assert out.count("FP8 safetensors in blocks of 128 x 128") == 1
    other = json.dumps(config | {"quantization_config": {"quant_method": "awq", "bits": 4}}).encode()
    hub.add("team/awq", files | {"config.json": other})
    ran = run("check", f"{scheme}:team/awq", *CARD)
    assert ran.status == 1
    assert "no plan for any" in ran.out
    assert "none fits" not in ran.out


def test_shards_that_disagree_are_refused_with_the_reason(hub, run, gguf, tmp_path, scheme):
    """One of another split under its name."""
    files = shards(gguf("gemma-3-4b", n_merges=1000), tmp_path, 3)
    (tmp_path / "other").mkdir()
    others = shards(gguf("llama-3.1-8b"), tmp_path / "other", 3)
    last = max(files)
    hub.add("team/split", files | {last: others[last]})
    ran = run("check", f"{scheme}:team/split", *CARD, "--json")
    assert ran.status == 1
    assert ran.json["files"][0]["problem"]


def test_a_repository_without_a_language_model_says_what_it_holds(hub, run, scheme):
    header = formats_support.pair("general.architecture", "str", "flux")
    file = formats_support.gguf([header], [formats_support.info("double_blocks.0.weight", [32], 0, 0)], 128)
    hub.add("team/pictures", {f"pictures-{quant}.gguf": file for quant in ("Q4_0", "F16")})
    ran = run("check", f"{scheme}:team/pictures", *CARD)
    assert ran.status == 1
    assert "no plan for any" in ran.out
    assert "a model that makes pictures" in ran.out
